//! Real Redis or Valkey servers for a test, on free ports, gone with the test: one, one with Sentinels, or a Cluster.

// A test that has no server is to fail.
#![allow(clippy::expect_used, clippy::panic)]

mod cluster;
mod sentinel;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use cluster::{Mover, RedisCluster};
pub use sentinel::RedisSentinels;

use crate::certificates::{Authority, Signed};
use crate::host::Host;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running `redis-server` or `valkey-server`.
pub struct RedisServer {
    host: Host,
    program: PathBuf,
    child: Child,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts one without any setting of its own.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these arguments besides.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder for Redis"), arguments)
    }

    /// Starts one on a host, with these arguments besides.
    #[must_use]
    pub fn start_on(host: &Host, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Redis");
        Self::start_program("redis-server".into(), (folder, host), arguments)
    }

    /// Starts one in a folder that holds what its arguments name (certificates, access lists).
    #[must_use]
    pub fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        Self::start_program("redis-server".into(), (folder, &Host::here()), arguments)
    }

    /// Starts a Valkey with these arguments besides.
    #[must_use]
    pub fn start_valkey(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for Valkey");
        Self::start_program(valkey_server(), (folder, &Host::here()), arguments)
    }

    /// Starts one that also speaks TLS, with these arguments besides; and its URL for that.
    #[must_use]
    pub fn start_tls(authority: &Authority, own: &Signed, arguments: &[&str]) -> (Self, String) {
        let [port, certificate, key, ca] = [
            free_port().to_string(),
            own.certificate.display().to_string(),
            own.key.display().to_string(),
            authority.certificate().display().to_string(),
        ];
        let tls = [
            ["--tls-port", &port],
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &ca],
        ];
        let arguments = [tls.as_flattened(), arguments].concat();
        let url = format!("rediss://127.0.0.1:{port}");
        (Self::start_with(&arguments), url)
    }

    fn start_program(
        program: PathBuf,
        (folder, host): (TempDir, &Host),
        arguments: &[&str],
    ) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let mut server = Self {
            host: host.clone(),
            program,
            port: free_port(),
            child: Command::new("true").spawn().expect("a child"),
            folder,
            arguments: arguments.collect(),
        };
        server.restart();
        server
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}:{}", self.host.address(), self.port)
    }

    /// Where it runs.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its socket file.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Starts it again on the same port, empty.
    pub fn restart(&mut self) {
        let _ = self.child.wait();
        let protected = if self.host.is_near() { "yes" } else { "no" };
        self.child = self
            .host
            .command(&self.program)
            .args(["--port", &self.port.to_string()])
            .args(["--bind", self.host.address(), "--protected-mode", protected])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--unixsocket", "redis.sock"])
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server is installed (scripts/test does)");
        let begin = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            assert!(begin.elapsed() < PATIENCE, "the server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it runs");
        let _ = std::fs::remove_file(self.socket());
    }

    /// Stops it in its tracks (`SIGSTOP`): connections stay, nothing is answered.
    pub fn pause(&self) {
        signal(&self.child, "-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal(&self.child, "-CONT");
    }

    /// Whether it is a replica that has all of its master's data.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        let replication = self.cli(&["INFO", "replication"]);
        replication.contains("master_link_status:up")
    }

    /// What `redis-cli` answers, without its line end.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = self
            .cli_command()
            .args(arguments)
            .output()
            .expect("redis-cli is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim_end_matches('\n').to_owned()
    }

    fn cli_command(&self) -> Command {
        let mut command = Command::new("redis-cli");
        match self.host.is_near() {
            true => command.args(["-p", &self.port.to_string()]),
            false => command.arg("-s").arg(self.socket()),
        };
        if let Some(password) = self.argument("--requirepass") {
            command.env("REDISCLI_AUTH", password);
        }
        command
    }

    /// What stands behind this argument.
    fn argument(&self, name: &str) -> Option<&str> {
        let given = self.arguments.iter().position(|argument| argument == name);
        self.arguments.get(given? + 1).map(String::as_str)
    }

    /// Begins to note every command that the server gets.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        let mut child = self
            .cli_command()
            .arg("MONITOR")
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli is installed");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let first = lines.next().expect("it answers").expect("it answers");
        assert_eq!(first, "OK");
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Monitor {
            child,
            lines: receiver,
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(process: &Child, signal: &str) {
    let pid = process.id().to_string();
    let status = Command::new("kill").args([signal, &pid]).status();
    assert!(status.expect("kill is there").success());
}

/// The commands that a server got.
pub struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

impl Monitor {
    /// All commands from the last look up to the first with this word in it (in any case).
    #[must_use]
    pub fn until(&self, word: &str) -> String {
        let begin = Instant::now();
        let mut seen = String::new();
        loop {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("{word} was not seen in: {seen}"));
            seen.push_str(&line);
            seen.push('\n');
            if line.to_lowercase().contains(&word.to_lowercase()) {
                return seen;
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where Valkey's server is: on the `PATH`, or where `scripts/test` puts it.
fn valkey_server() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/valkey"));
    let places = folders.iter().map(|folder| folder.join("valkey-server"));
    let found = places.into_iter().find(|place| place.is_file());
    found.expect("the tests need Valkey: run scripts/test, which puts it into target/valkey, or put valkey-server on the PATH")
}

/// Asks again and again until it is so.
///
/// # Panics
/// When that takes too long.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A port that nobody listens on, and that this process hands out once.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // Tests of several processes begin in different places.
    let next =
        NEXT.get_or_init(|| AtomicU32::new(RandomState::new().build_hasher().finish() as u32));
    loop {
        // Below those that outgoing connections get: none of them takes it before the server does.
        let port = 10_000 + next.fetch_add(1, Ordering::Relaxed) % 22_000;
        let port = u16::try_from(port).expect("it is below 32,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
