//! What the store could not confirm survives the process, is adopted by another, and by nobody twice.

mod adopted;
mod applied;
mod full_disk;
mod hostile;
mod killed;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use larder_core::{Invalidation, Kept, Key, Outbox, OutboxLimits, Pattern, Service};

/// The store of these tests, unless another is said.
const STORE: &str = "127.0.0.1:6379/0";
/// Set for a process that a test starts: what it is to do, and in which folder.
const ROLE: &str = "LARDER_TEST_OUTBOX_ROLE";
const FOLDER: &str = "LARDER_TEST_OUTBOX_FOLDER";

/// A folder for journals, in one of this user's alone.
struct Place {
    _parent: tempfile::TempDir,
    folder: PathBuf,
}

impl Place {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state/journal");
        Self {
            _parent: parent,
            folder,
        }
    }

    fn open(&self) -> Outbox {
        open(&self.folder)
    }

    /// The names of what lies in it.
    fn names(&self) -> Vec<String> {
        names(&self.folder)
    }

    /// The only journal.
    fn journal(&self) -> PathBuf {
        let names = self.names();
        assert_eq!(names.len(), 1, "{names:?}");
        self.folder.join(&names[0])
    }

    /// The journal of a process that ended with these keys pending.
    fn leave(&self, paths: &[&str]) -> PathBuf {
        let outbox = self.open();
        assert_eq!(outbox.add(keys(paths)), Kept::Pending);
        drop(outbox);
        self.journal()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn open(folder: &Path) -> Outbox {
    open_as(folder, STORE)
}

fn open_as(folder: &Path, store_identity: &str) -> Outbox {
    let service = Service::new("svc").unwrap();
    Outbox::open(folder, store_identity, service, OutboxLimits::default())
}

fn keys(paths: &[&str]) -> Invalidation {
    Invalidation::Keys(paths.iter().map(|path| crate::key(path)).collect())
}

fn pattern(text: &str) -> Invalidation {
    Invalidation::Pattern(Pattern::parse(text).unwrap())
}

fn hides(outbox: &Outbox, path: &str) -> bool {
    outbox.hides(&Key::new("svc", path).unwrap())
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// This test binary as another process; killed, by SIGKILL, when it is dropped.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str, folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "outbox::killed::the_other_process",
                "--nocapture",
            ])
            .env(ROLE, role)
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    /// What it says next; `None` when it has ended.
    fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test harness says things, too.
            if let Some((_, said)) = line.trim_end().split_once("said: ") {
                return Some(said.to_owned());
            }
        }
    }

    fn expect(&mut self, said: &str) {
        assert_eq!(self.hear().as_deref(), Some(said));
    }

    fn go_on(&mut self) {
        self.input.write_all(b"go on\n").unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says something to the test that started this process.
fn say(text: &str) {
    println!("said: {text}");
    std::io::stdout().flush().unwrap();
}

/// Waits for the test that started this process, for ever if it says nothing.
fn wait() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}
