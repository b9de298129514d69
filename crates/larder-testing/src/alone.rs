//! Tests that count what their process takes.

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

/// What this process has in memory, in bytes.
#[must_use]
pub fn resident() -> u64 {
    status("VmRSS:")
}

/// The most that this process ever had in memory, in bytes.
#[must_use]
pub fn most_resident() -> u64 {
    status("VmHWM:")
}

fn status(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let kib = status
        .lines()
        .find_map(|said| said.strip_prefix(line))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    kib.expect("Linux tells it in KiB") * 1_024
}
