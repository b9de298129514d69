//! What the kernel knows of this process, or of another.

use std::path::Path;

use crate::Error;

/// What a process has of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// The part of it that is no file's, in bytes.
    pub anonymous_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// How often its living threads slept and were woken.
    pub wake_ups: u64,
}

impl Usage {
    /// This process's.
    ///
    /// # Errors
    /// The kernel does not tell: `/proc` is not mounted.
    pub fn now() -> Result<Self, Error> {
        Self::of("self")
    }

    fn of(process: &str) -> Result<Self, Error> {
        let folder = Path::new("/proc").join(process);
        let status = std::fs::read_to_string(folder.join("status"))?;
        let mut usage = Self {
            resident_bytes: field(&status, "VmRSS:") << 10,
            anonymous_bytes: field(&status, "RssAnon:") << 10,
            threads: field(&status, "Threads:"),
            descriptors: std::fs::read_dir(folder.join("fd"))?.count() as u64,
            wake_ups: 0,
        };
        for thread in std::fs::read_dir(folder.join("task"))? {
            // A thread that has ended meanwhile has nothing to say.
            let status = std::fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            usage.wake_ups += field(&status, "voluntary_ctxt_switches:");
        }
        Ok(usage)
    }
}

/// The number behind a name; 0 where the kernel doesn't have it.
fn field(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_is_seen() {
        let before = Usage::now().unwrap();
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        let after = Usage::now().unwrap();
        assert!(
            after.wake_ups >= before.wake_ups + 20,
            "{before:?} {after:?}"
        );
        assert!(after.resident_bytes > 0 && after.threads > 0 && after.descriptors > 2);
    }
}
