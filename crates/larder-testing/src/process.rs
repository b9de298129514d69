//! Child processes of a test: its own binary, run again with a role.

// A test whose child does not start is to fail.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// How long what must come true is waited for, on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(30);
const ROLE: &str = "LARDER_TEST_ROLE";
const FOLDER: &str = "LARDER_TEST_FOLDER";

/// What a child process is to do: a test that is empty unless it is given a role. Its folder, if it has this one.
#[must_use]
pub fn role(name: &str) -> Option<PathBuf> {
    (std::env::var(ROLE).as_deref() == Ok(name)).then(|| std::env::var_os(FOLDER).unwrap().into())
}

/// A command that runs one test of this binary in a role.
#[must_use]
pub fn in_role(test: &str, role: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    dress(&mut command, test, role, folder);
    command
}

/// The same behind another program, such as `unshare`.
#[must_use]
pub fn in_role_behind(program: &[&str], test: &str, role: &str, folder: &Path) -> Command {
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
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Process {
    /// Starts one that runs a test in a role.
    #[must_use]
    pub fn start(test: &str, role: &str, folder: &Path) -> Self {
        Self::spawn(in_role(test, role, folder))
    }

    /// Starts one of [`in_role`].
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
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

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the child says next with [`say`]; `None` at its end.
    pub fn hear(&mut self) -> Option<String> {
        match self.said.recv_timeout(PATIENCE) {
            Ok(words) => Some(words),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the child process says nothing"),
        }
    }

    /// Whether there is something to hear already.
    pub fn has_said_more(&mut self) -> bool {
        self.said.try_recv().is_ok()
    }

    /// Hears these words next.
    pub fn expect(&mut self, words: &str) {
        assert_eq!(self.hear().as_deref(), Some(words));
    }

    /// A line for [`listen`].
    pub fn tell(&mut self, words: &str) {
        writeln!(self.stdin, "{words}").unwrap();
        self.stdin.flush().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Stops it in its tracks (`SIGSTOP`), and waits until each of its threads stands.
    pub fn stop(&self) {
        use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
        self.signal(Signal::STOP);
        let pid = rustix::process::Pid::from_child(&self.child);
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
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
pub fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "says {words}").unwrap();
    out.flush().unwrap();
}

/// In a child: waits for a line of [`Process::tell`]; ends the process when the test is gone.
pub fn listen() -> String {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
        std::process::exit(0);
    }
    line.trim_end().to_owned()
}
