//! What is counted of the engine's answers.

use larder_core::{Event, Outcome};
use serde::Serialize;

/// Answers, counted as the engine reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// From the cache.
    pub(crate) hits: u64,
    /// From the origin.
    pub(crate) misses: u64,
    /// Loads that were begun.
    pub(crate) origin_calls: u64,
    pub(crate) hit_bytes: u64,
    pub(crate) origin_bytes: u64,
}

impl Tally {
    pub(crate) fn note(&mut self, event: &Event) {
        if event.outcome == Outcome::Hit {
            self.hits += 1;
            self.hit_bytes = self.hit_bytes.saturating_add(event.bytes);
            return;
        }
        self.misses += 1;
        // One load is timed once, however many waited for it.
        self.origin_calls += u64::from(event.latency.is_some());
        self.origin_bytes = self.origin_bytes.saturating_add(event.bytes);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.origin_calls += other.origin_calls;
        self.hit_bytes = self.hit_bytes.saturating_add(other.hit_bytes);
        self.origin_bytes = self.origin_bytes.saturating_add(other.origin_bytes);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.hits + self.misses
    }

    /// The share of hits; `None` without a request.
    pub(crate) fn hit_ratio(&self) -> Option<f64> {
        let requests = self.requests();
        (requests > 0).then(|| self.hits as f64 / requests as f64)
    }
}
