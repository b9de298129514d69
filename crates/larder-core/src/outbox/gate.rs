//! How much is pending: what a lookup reads first, and nearly always alone.

use super::sync::{AtomicUsize, Ordering};

/// The number of parts that are pending.
#[derive(Debug, Default)]
pub(crate) struct Gate(AtomicUsize);

impl Gate {
    /// Whether nothing is. What ended before that was so is seen by who learns of it: that a proof in the store ended, above all,
    /// which the lookup asks next.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Says how much is pending from now on: what was applied is done in the store.
    pub(crate) fn set(&self, len: usize) {
        self.0.store(len, Ordering::Release);
    }
}
