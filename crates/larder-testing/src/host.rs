//! Where a test's processes run: here, or behind what gives them a network, a disk or clocks of their own.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::TempDir;

/// Where a process runs.
#[derive(Debug, Clone)]
pub struct Host {
    address: String,
    /// What stands before its program.
    behind: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Host {
    /// This machine, as this process sees it.
    #[must_use]
    pub fn here() -> Self {
        Self {
            address: "127.0.0.1".to_owned(),
            behind: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// The same behind a program that runs what it is given, such as `unshare`.
    #[must_use]
    pub fn behind(mut self, words: &[&str]) -> Self {
        self.behind
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub(crate) fn at(mut self, address: String) -> Self {
        self.address = address;
        self
    }

    /// By which address others reach it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether this process reaches it by its address.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.address == "127.0.0.1"
    }

    /// A command that runs a program there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.behind.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Namespaces that end with this process, however that ends: a child holds them until its input does.
pub(crate) struct Namespace {
    child: Child,
    input: Option<ChildStdin>,
    /// `net` or `mnt`.
    kind: &'static str,
}

impl Namespace {
    /// Makes one: of the network, or of what is mounted. Says why it can't.
    pub(crate) fn make(kind: &'static str) -> Result<Self, String> {
        let flag = flag(kind);
        let mut child = Command::new("unshare")
            .args([flag, "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare can't be run: {error}"))?;
        let mut held = Self {
            input: child.stdin.take(),
            kind,
            child,
        };
        match held.echo() {
            true => Ok(held),
            false => Err(format!("this user may not make a namespace ({flag})")),
        }
    }

    /// Whether it is there: what is written comes back.
    fn echo(&mut self) -> bool {
        let (Some(input), Some(output)) = (&mut self.input, self.child.stdout.take()) else {
            return false;
        };
        let mut line = String::new();
        writeln!(input, "here").is_ok()
            && BufReader::new(output).read_line(&mut line).is_ok()
            && line == "here\n"
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where programs of this namespace run.
    pub(crate) fn host(&self) -> Host {
        let path = format!("{}=/proc/{}/ns/{}", flag(self.kind), self.pid(), self.kind);
        Host::here().behind(&["nsenter", &path])
    }

    /// Runs a program there to its end, with this for its input.
    pub(crate) fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{program} can't be run: {error}");
        let mut child = self
            .host()
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may have ended already, and says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(failed)?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("{program}: {}", said.trim()))
            }
        }
    }
}

/// What `unshare` and `nsenter` call it.
fn flag(kind: &str) -> &'static str {
    match kind {
        "net" => "--net",
        _ => "--mount",
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A small disk: processes of its host see it at a path, and it is gone with it.
pub struct Disk {
    held: Namespace,
    path: PathBuf,
}

impl Disk {
    /// Mounts one of so many bytes over a folder, for its host alone.
    ///
    /// # Errors
    /// Why there can be none: root is needed.
    pub fn mount(path: PathBuf, bytes: u64) -> Result<Self, String> {
        let held = Namespace::make("mnt")?;
        let options = format!("size={bytes},mode=0700");
        let place = path.display().to_string();
        let words = ["-t", "tmpfs", "-o", &options, "larder-test", &place];
        held.run("mount", &words, "")?;
        Ok(Self { held, path })
    }

    /// Where processes see it.
    #[must_use]
    pub fn host(&self) -> Host {
        self.held.host()
    }

    fn ballast(&self) -> PathBuf {
        let root = format!("/proc/{}/root{}", self.held.pid(), self.path.display());
        PathBuf::from(root).join("ballast")
    }

    /// Fills it to its end.
    ///
    /// # Errors
    /// Where it can't be written for another reason than that it is full.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut ballast = std::fs::File::create(self.ballast())?;
        loop {
            match ballast.write_all(&[0; 4_096]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes back what filled it.
    ///
    /// # Errors
    /// Where that can't be removed.
    pub fn clear(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.ballast())
    }
}

/// A wall clock that a test sets, for programs that are told to go by it (libfaketime): their other clocks stay as they are.
pub struct WallClock {
    folder: TempDir,
    library: String,
}

impl WallClock {
    /// One that is right.
    ///
    /// # Errors
    /// Why there can be none: libfaketime is missing.
    pub fn new() -> Result<Self, String> {
        let missing = "libfaketime is missing (Debian: faketime)";
        let library = library().ok_or(missing)?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let clock = Self { folder, library };
        clock
            .set("+0")
            .map_err(|error| format!("a wall clock can't be set: {error}"))?;
        Ok(clock)
    }

    /// Sets it, in the words of `faketime`: `+3600` is an hour ahead, `+0 x2` runs twice as fast.
    ///
    /// # Errors
    /// Where the file that says so can't be written.
    pub fn set(&self, words: &str) -> std::io::Result<()> {
        let (path, new) = (self.path(), self.folder.path().join("new"));
        std::fs::write(&new, format!("{words}\n"))?;
        // In one step: it is read at any time.
        std::fs::rename(new, path)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// A host whose processes go by this clock.
    #[must_use]
    pub fn of(&self, mut host: Host) -> Host {
        // The C library behind it: else jemalloc asks for the time before libfaketime knows how.
        let preload = format!("{}:libc.so.6", self.library);
        host.environment.extend([
            ("LD_PRELOAD", preload),
            ("FAKETIME_TIMESTAMP_FILE", self.path().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DISABLE_SHM", "1".to_owned()),
        ]);
        host
    }
}

/// Where Debian puts it.
fn library() -> Option<String> {
    let architectures = std::fs::read_dir("/usr/lib").ok()?;
    let paths = architectures.flatten().map(|architecture| {
        architecture
            .path()
            .join("faketime")
            .join("libfaketime.so.1")
    });
    let mut found = paths.filter(|path| path.is_file());
    Some(found.next()?.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::RedisServer;

    #[test]
    fn a_server_goes_by_the_wall_clock_that_is_set() {
        let clock = match WallClock::new() {
            Ok(clock) => clock,
            Err(why) => return eprintln!("not tested here: {why}"),
        };
        let server = RedisServer::start_on(&clock.of(Host::here()), &[]);
        let ttl = |words: &str| -> i64 {
            clock.set(words).unwrap();
            server.cli(&["TTL", "a"]).parse().unwrap()
        };
        server.cli(&["SET", "a", "1", "EX", "10000"]);
        assert!((9_900..=10_000).contains(&ttl("+0")));
        assert!((6_300..=6_400).contains(&ttl("+3600")));
        assert!((13_500..=13_600).contains(&ttl("-3600")));
    }

    #[test]
    fn a_disk_is_full_for_its_host_alone() {
        let folder = tempfile::tempdir().unwrap();
        let disk = match Disk::mount(folder.path().to_owned(), 256 << 10) {
            Ok(disk) => disk,
            Err(why) => return eprintln!("not tested here: {why}"),
        };
        let file = folder.path().join("file");
        let write = || {
            let mut copy = disk.host().command("cp");
            let copied = copy.arg("/etc/hostname").arg(&file).stderr(Stdio::null());
            copied.status().unwrap().success()
        };
        disk.fill().unwrap();
        assert!(!write());
        disk.clear().unwrap();
        assert!(write() && !file.exists());
    }
}
