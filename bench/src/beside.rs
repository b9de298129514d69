//! Another process of this program, beside what is measured.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

/// This program, where it gets a processor only while nobody else wants it: what attacks has others, in life. With the lowest
/// priority it would keep one that was given to it for some milliseconds more, whoever wakes (EEVDF's slice).
pub(crate) fn yielding() -> std::io::Result<Command> {
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(std::env::current_exe()?);
    Ok(command)
}

/// While it lives, this program and what it starts come first on the processors (`SCHED_RR`).
pub(crate) struct First(());

impl First {
    /// # Errors
    /// Where this user may not say so.
    pub(crate) fn begin() -> anyhow::Result<Self> {
        let is_first = schedule(&["--rr", "--pid", "1"]);
        anyhow::ensure!(is_first, "chrt --rr failed: run this as root");
        Ok(Self(()))
    }
}

impl Drop for First {
    fn drop(&mut self) {
        schedule(&["--other", "--pid", "0"]);
    }
}

fn schedule(how: &[&str]) -> bool {
    let mut command = Command::new("chrt");
    command.args(how).arg(std::process::id().to_string());
    command.status().is_ok_and(|status| status.success())
}

/// A process, until it is dropped.
pub(crate) struct Beside(Child);

impl Beside {
    /// Starts it, and waits until it says this line.
    pub(crate) fn start(command: &mut Command, says: &str) -> anyhow::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().context("it has an output")?;
        let beside = Self(child);
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        anyhow::ensure!(line.trim_end() == says, "{command:?} ended");
        Ok(beside)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
