//! What is being removed behind an invalidation that has returned: the plain entries of an endpoint or a service, which
//! carry no versions.

use std::sync::PoisonError;

use larder_model::{Key, Pattern};

use super::sync::{AtomicU64, AtomicUsize, Ordering, RwLock};
use crate::mutants::{Guard, is_off};

/// The sweeps that run. Until one is through, this process serves no plain entry that it means.
#[derive(Default)]
pub(crate) struct Sweeps {
    count: AtomicUsize,
    next: AtomicU64,
    /// How many have ended.
    ended: AtomicU64,
    patterns: RwLock<Vec<(u64, Pattern)>>,
}

/// How many sweeps had ended when something was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swept(u64);

impl Sweeps {
    /// To be taken before a read is sent.
    #[inline]
    pub(crate) fn swept(&self) -> Swept {
        Swept(self.ended.load(Ordering::Acquire))
    }

    /// Whether a plain entry that was read may be one that was invalidated: a sweep that meant it runs, or one ended since the
    /// read was sent, which may have found what that removed.
    #[inline]
    pub(crate) fn hides_read(&self, key: &Key, asked: Swept) -> bool {
        self.hides(key) || (self.swept() != asked && !is_off(Guard::SweptReadsHide))
    }

    /// Whether a sweep runs that means a key.
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
        // Before it is no more among those that run.
        self.ended.fetch_add(1, Ordering::Release);
        self.count.store(patterns.len(), Ordering::Release);
    }
}
