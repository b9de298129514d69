//! What the writer thread is doing, for those who wait for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::clock::millis;

/// What the writer is doing, for those who wait for it.
pub(crate) struct Progress {
    began: Instant,
    /// When it began what it is doing, in milliseconds since `began`, and one more; 0: it waits for work.
    busy_since: AtomicU64,
    is_leaving: AtomicBool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            busy_since: AtomicU64::new(0),
            is_leaving: AtomicBool::new(false),
        }
    }

    pub(crate) fn begin(&self) {
        self.busy_since
            .store(millis(self.began.elapsed()) + 1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// All is written: only the folder is still to be left.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Whether all is written, and only the folder is still to be left.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed)
    }

    /// For how long it has been at the same step, in milliseconds.
    pub(crate) fn busy_for(&self) -> u64 {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => 0,
            since => (millis(self.began.elapsed()) + 1).saturating_sub(since),
        }
    }
}
