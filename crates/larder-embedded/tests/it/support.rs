//! Folders, entries, and child processes: the test binary itself, run again with a role.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{Clock, Guard, Key, NewEntry, Store, Ttl, Written};
use larder_embedded::{EmbeddedStore, Options};

/// How long what must come true is waited for, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const ROLE: &str = "LARDER_TEST_ROLE";
const FOLDER: &str = "LARDER_TEST_FOLDER";

/// A store's folder in a folder that goes with the test.
pub(crate) struct Place {
    _parent: tempfile::TempDir,
    pub(crate) folder: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("store");
        Self {
            _parent: parent,
            folder,
        }
    }

    pub(crate) fn open(&self, options: Options) -> EmbeddedStore {
        EmbeddedStore::open(&self.folder, options).unwrap()
    }
}

/// Patient ones: the machine may be loaded, and no test but those of the deadline is about it.
pub(crate) fn options() -> Options {
    Options {
        max_bytes: 64 << 20,
        deadline: PATIENCE,
        ..Options::default()
    }
}

pub(crate) fn key(endpoint: &str) -> Key {
    Key::new("svc", endpoint).unwrap()
}

pub(crate) fn entry(key: &Key, bytes: impl Into<Bytes>, seconds: u64) -> NewEntry {
    NewEntry {
        key: key.clone(),
        bytes: bytes.into(),
        ttl: Ttl::new(Duration::from_secs(seconds)).unwrap(),
        guard: Guard::Always,
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Sets an entry for an hour, outside a runtime.
pub(crate) fn set(store: &EmbeddedStore, key: &Key, bytes: impl Into<Bytes>) {
    let written = runtime().block_on(async { store.set(entry(key, bytes, 3_600)).await });
    assert_eq!(written.unwrap(), Written::Stored, "{key}");
}

pub(crate) fn get(store: &EmbeddedStore, key: &Key) -> Option<Bytes> {
    let found = runtime().block_on(async { store.get(key, Ttl::MAX).await });
    found.unwrap().map(|stored| stored.bytes)
}

pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A clock that a test sets.
#[derive(Clone, Default)]
pub(crate) struct HandClock(Arc<AtomicU64>);

impl HandClock {
    pub(crate) fn at(seconds: u64) -> Self {
        let clock = Self::default();
        clock.advance(seconds);
        clock
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// What a child process is to do: a test that is empty unless it is given a role.
pub(crate) fn role(name: &str) -> Option<PathBuf> {
    (std::env::var(ROLE).as_deref() == Ok(name)).then(|| std::env::var_os(FOLDER).unwrap().into())
}

/// A command that runs one test of this binary in a role.
pub(crate) fn in_role(test: &str, role: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    dress(&mut command, test, role, folder);
    command
}

/// The same behind another program, such as `unshare`.
pub(crate) fn in_role_behind(program: &[&str], test: &str, role: &str, folder: &Path) -> Command {
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .arg(std::env::current_exe().unwrap());
    dress(&mut command, test, role, folder);
    command
}

fn dress(command: &mut Command, test: &str, role: &str, folder: &Path) {
    command
        .args([
            "--exact",
            test,
            "--nocapture",
            "--test-threads=1",
            "--quiet",
        ])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
}

/// A child process, that dies with the test.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Process {
    pub(crate) fn start(test: &str, role: &str, folder: &Path) -> Self {
        Self::spawn(in_role(test, role, folder))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some((_, words)) = line.split_once("says ") else {
                    continue;
                };
                if sender.send(words.to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { child, stdin, said }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the child says next with [`say`]; `None` at its end.
    pub(crate) fn hear(&mut self) -> Option<String> {
        match self.said.recv_timeout(PATIENCE) {
            Ok(words) => Some(words),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the child process says nothing"),
        }
    }

    /// Whether there is something to hear already.
    pub(crate) fn has_said_more(&mut self) -> bool {
        self.said.try_recv().is_ok()
    }

    pub(crate) fn expect(&mut self, words: &str) {
        assert_eq!(self.hear().as_deref(), Some(words));
    }

    /// A line for [`listen`].
    pub(crate) fn tell(&mut self, words: &str) {
        writeln!(self.stdin, "{words}").unwrap();
        self.stdin.flush().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a child: a line for [`Process::hear`].
pub(crate) fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "says {words}").unwrap();
    out.flush().unwrap();
}

/// In a child: waits for a line of [`Process::tell`]; ends the process when the test is gone.
pub(crate) fn listen() -> String {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
        std::process::exit(0);
    }
    line.trim_end().to_owned()
}
