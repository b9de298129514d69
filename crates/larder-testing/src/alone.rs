//! Tests that look at what a process takes.

#![allow(clippy::expect_used)]

use std::process::Command;

/// Whether this is the process that runs one test alone. If not, runs it there: other tests of this process would
/// count as its memory.
///
/// # Panics
/// If the test fails there.
#[must_use]
pub fn is_alone(test: &str) -> bool {
    const ALONE: &str = "LARDER_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let ran = Command::new(std::env::current_exe().expect("this test is a file"))
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("a test can be run again");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    false
}

/// What a process has of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// The most that was ever resident, in bytes.
    pub most_resident: u64,
}

impl Usage {
    /// That of a process, by its number.
    ///
    /// # Panics
    /// If there is no such process.
    #[must_use]
    pub fn of(process: u32) -> Self {
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd"));
        Self {
            threads: status(process, "Threads:"),
            descriptors: descriptors.expect("Linux tells it").count() as u64,
            resident: status(process, "VmRSS:") * 1_024,
            most_resident: status(process, "VmHWM:") * 1_024,
        }
    }
}

/// What this process has in memory, in bytes.
#[must_use]
pub fn resident() -> u64 {
    status(std::process::id(), "VmRSS:") * 1_024
}

/// The most that this process ever had in memory, in bytes.
#[must_use]
pub fn most_resident() -> u64 {
    status(std::process::id(), "VmHWM:") * 1_024
}

fn status(process: u32, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.expect("Linux tells it");
    let value = status
        .lines()
        .find_map(|said| said.strip_prefix(line))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|number| number.parse().ok());
    value.expect("Linux tells it, as a number")
}
