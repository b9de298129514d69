//! What a simulation counts, and what a fixed TTL would have done with the same requests.

use std::collections::HashMap;

use super::Request;

/// What a simulation counts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// Those answered from the cache.
    pub hits: u64,
    /// Those among the hits whose answer the origin would not have given any more.
    pub stale: u64,
    /// Calls of the origin, checks of fresh entries among them.
    pub origin_calls: u64,
    /// Checks of fresh entries.
    pub checks: u64,
    /// How long the requests waited for the origin, in milliseconds.
    pub waited_ms: f64,
    /// How long they would have waited without a cache.
    pub without_ms: f64,
}

impl Tally {
    /// The share of requests that the cache answered.
    #[must_use]
    pub fn hit_ratio(&self) -> f64 {
        share(self.hits, self.requests)
    }

    /// The share of hits that were stale.
    #[must_use]
    pub fn stale_share(&self) -> f64 {
        share(self.stale, self.hits)
    }

    /// What was counted after an earlier tally.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            hits: self.hits - earlier.hits,
            stale: self.stale - earlier.stale,
            origin_calls: self.origin_calls - earlier.origin_calls,
            checks: self.checks - earlier.checks,
            waited_ms: self.waited_ms - earlier.waited_ms,
            without_ms: self.without_ms - earlier.without_ms,
        }
    }

    /// Calls of the origin by requests.
    #[must_use]
    pub fn origin_share(&self) -> f64 {
        share(self.origin_calls, self.requests)
    }
}

fn share(part: u64, all: u64) -> f64 {
    if all == 0 {
        0.0
    } else {
        part as f64 / all as f64
    }
}

/// An entry of a simulated store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) filled_ms: u64,
    pub(super) body: u32,
}

/// A store whose entries all live equally long: what a fixed policy would do.
#[derive(Debug, Clone, Default)]
pub struct Fixed {
    ttl_ms: u64,
    entries: HashMap<u32, Entry>,
    tally: Tally,
}

impl Fixed {
    /// With this TTL, in milliseconds.
    #[must_use]
    pub fn new(ttl_ms: u64) -> Self {
        Self {
            ttl_ms,
            ..Self::default()
        }
    }

    /// Answers a request; whether the origin was called.
    pub fn step(&mut self, request: &Request) -> bool {
        self.tally.requests += 1;
        self.tally.without_ms += request.latency_ms;
        let entry = self.entries.get(&request.key);
        if let Some(entry) = entry
            && request.at_ms < entry.filled_ms + self.ttl_ms
        {
            self.tally.hits += 1;
            self.tally.stale += u64::from(entry.body != request.body);
            return false;
        }
        self.tally.origin_calls += 1;
        self.tally.waited_ms += request.latency_ms;
        if !request.is_error {
            let entry = Entry {
                filled_ms: request.at_ms,
                body: request.body,
            };
            self.entries.insert(request.key, entry);
        }
        true
    }

    /// What was counted.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}
