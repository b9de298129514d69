//! Real PostgreSQL servers for a test, on free ports of loopback, gone with the test.

// A test that has no server is to fail.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs::Permissions;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

use crate::certificates::Signed;
use crate::redis::free_port;

const PATIENCE: Duration = Duration::from_secs(60);
/// What it logs in as. Everybody on loopback may, without a password.
const USER: &str = "larder";
/// What the server must not write at each step: its data goes with the test.
const FAST: [&str; 4] = [
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "max_connections=200",
];

/// A running PostgreSQL.
pub struct PostgresServer {
    child: Child,
    port: u16,
    folder: TempDir,
    databases: AtomicU32,
    settings: Vec<String>,
}

impl PostgresServer {
    /// Starts one without any setting of its own.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that the tests of this process share, each with a [`PostgresServer::database`] of its own; it goes with the last.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    /// Starts one with these settings besides (`name=value`).
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for PostgreSQL");
        Self::start_in(folder, settings)
    }

    /// Starts one that also speaks TLS.
    #[must_use]
    pub fn start_tls(own: &Signed) -> Self {
        let folder = tempfile::tempdir().expect("a folder for PostgreSQL");
        let [certificate, key] =
            [(&own.certificate, "crt"), (&own.key, "key")].map(|(from, to)| {
                let to = folder.path().join(to);
                std::fs::copy(from, &to).expect("a certificate can be copied");
                // It takes a key only if nobody else can read it.
                std::fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("it is ours");
                give(&to);
                to.display().to_string()
            });
        Self::start_in(
            folder,
            &[
                "ssl=on",
                &format!("ssl_cert_file={certificate}"),
                &format!("ssl_key_file={key}"),
            ],
        )
    }

    fn start_in(folder: TempDir, settings: &[&str]) -> Self {
        give(folder.path());
        let made = as_its_user(&program("initdb"))
            .args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"])
            .args(["--locale", "C.UTF-8", "--no-sync", "--pgdata"])
            .arg(folder.path().join("data"))
            .output()
            .expect("initdb runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut server = Self {
            child: Command::new("true").spawn().expect("a child"),
            port: free_port(),
            folder,
            databases: AtomicU32::new(0),
            settings: settings.iter().map(|one| (*one).to_owned()).collect(),
        };
        server.restart();
        server
    }

    /// Starts it again on the same port, with its data.
    pub fn restart(&mut self) {
        let _ = self.child.wait();
        let begin = Instant::now();
        loop {
            self.spawn();
            while !self.answers() && self.lives() {
                assert!(
                    begin.elapsed() < PATIENCE,
                    "PostgreSQL does not start: {}",
                    self.log()
                );
                std::thread::sleep(Duration::from_millis(20));
            }
            if self.lives() {
                return;
            }
            // One that was killed has processes that end a moment later, and are in its way until then.
            assert!(
                begin.elapsed() < PATIENCE,
                "PostgreSQL does not start: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn spawn(&mut self) {
        let data = self.folder.path().join("data");
        let log = std::fs::File::create(self.folder.path().join("log")).expect("a log");
        let settings = FAST.iter().copied().map(str::to_owned);
        let settings = settings.chain(self.settings.iter().cloned());
        self.child = as_its_user(&program("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"])
            .arg(self.folder.path())
            .args(settings.flat_map(|one| ["-c".to_owned(), one]))
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres runs");
    }

    fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn answers(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            && self.try_sql("postgres", "SELECT 1").is_ok()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The URL of a database of its own.
    #[must_use]
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port)
    }

    /// What `psql` answers to a statement: rows, with `|` between columns.
    ///
    /// # Panics
    /// If it is not done. Where is a database's name, or its URL.
    pub fn sql(&self, place: &str, statement: &str) -> String {
        self.try_sql(place, statement)
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// The same, or why it was not done.
    ///
    /// # Errors
    /// What the server says.
    pub fn try_sql(&self, place: &str, statement: &str) -> Result<String, String> {
        let name = place.rsplit('/').next().unwrap_or(place);
        let url = format!("postgres://{USER}@127.0.0.1:{}/{name}", self.port);
        let done = Command::new(program("psql"))
            .args([
                "--no-psqlrc",
                "-qtA",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statement,
            ])
            .arg(url)
            .env("PGCONNECT_TIMEOUT", "5")
            .env("PGOPTIONS", "-c search_path=larder,public")
            .output()
            .expect("psql runs");
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned());
        }
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }

    /// `kill -9`, as a machine that fails.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it runs");
    }

    /// Ends it in order, as an administrator does: its clients are told.
    pub fn stop(&mut self) {
        self.signal_itself(Signal::INT);
        self.child.wait().expect("it runs");
    }

    /// Stops all of its processes in their tracks (`SIGSTOP`): connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal_itself(Signal::STOP);
        for process in self.processes() {
            signal(process, Signal::STOP);
        }
    }

    /// Lets it go on.
    pub fn resume(&self) {
        for process in self.processes() {
            signal(process, Signal::CONT);
        }
        self.signal_itself(Signal::CONT);
    }

    fn signal_itself(&self, sent: Signal) {
        signal(Pid::from_child(&self.child), sent);
    }

    /// Those that serve connections, and others of its own.
    fn processes(&self) -> Vec<Pid> {
        let parent = self.child.id().to_string();
        let found = Command::new("pgrep").args(["-P", &parent]).output();
        let found = found.expect("pgrep is installed (scripts/test does)");
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        let numbers = text.lines().filter_map(|line| line.parse().ok());
        numbers.filter_map(Pid::from_raw).collect()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Those that are stopped do not end.
        self.resume();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One that ended meanwhile needs no signal.
fn signal(process: Pid, sent: Signal) {
    let _ = kill_process(process, sent);
}

/// It refuses to run as root.
fn as_its_user(program: &Path) -> Command {
    if !getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "nobody", "--clear-groups", "--"])
        .arg(program);
    command
}

fn give(folder: &Path) {
    if getuid().is_root() {
        chown(folder, Some(nobody()), None).expect("root may give a folder away");
    }
}

fn nobody() -> u32 {
    let said = Command::new("id").args(["-u", "nobody"]).output();
    let said = said.expect("id runs").stdout;
    let number = String::from_utf8_lossy(&said).trim().parse();
    number.expect("there is a user nobody")
}

/// Where a program of PostgreSQL is: Debian has the server's outside of the `PATH`.
fn program(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|found| found.flatten().map(|one| one.path()).collect())
        .unwrap_or_default();
    versions.sort_by_key(|path| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse::<u32>().ok())
    });
    let places = versions
        .iter()
        .rev()
        .map(|path| path.join("bin").join(name));
    let found = places.into_iter().find(|place| place.is_file());
    found.unwrap_or_else(|| name.into())
}
