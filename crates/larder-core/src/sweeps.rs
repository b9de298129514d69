//! What is being removed behind an invalidation that has returned: the plain entries of an endpoint or a service, which
//! carry no versions.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use larder_model::{Key, Pattern};

use crate::mutants::{Guard, is_off};

/// The sweeps that run. Until one is through, this process serves no plain entry that it means.
#[derive(Default)]
pub(crate) struct Sweeps {
    count: AtomicUsize,
    next: AtomicU64,
    patterns: RwLock<Vec<(u64, Pattern)>>,
}

impl Sweeps {
    /// Whether a plain entry may be one that was invalidated.
    #[inline]
    pub(crate) fn hides(&self, key: &Key) -> bool {
        self.count.load(Ordering::Acquire) > 0 && !is_off(Guard::SweepsHide) && self.is_meant(key)
    }

    #[cold]
    fn is_meant(&self, key: &Key) -> bool {
        let patterns = self.patterns.read().unwrap_or_else(PoisonError::into_inner);
        patterns
            .iter()
            .any(|(_, pattern)| pattern.matches(key.as_str()))
    }

    pub(crate) fn begin(&self, pattern: &Pattern) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut patterns = self
            .patterns
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        patterns.push((number, pattern.clone()));
        self.count.store(patterns.len(), Ordering::Release);
        number
    }

    pub(crate) fn end(&self, number: u64) {
        let mut patterns = self
            .patterns
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        patterns.retain(|(other, _)| *other != number);
        self.count.store(patterns.len(), Ordering::Release);
    }
}
