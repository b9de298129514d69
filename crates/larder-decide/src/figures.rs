//! What a decision is made from: the figures of a tick, and what has been decided so far.

use serde::{Deserialize, Serialize};

use crate::change::ChangeFigures;
use crate::ghost::TTLS;
use crate::latency::Bounds;

/// What a policy leaves to the engine, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// The shortest TTL, in seconds; at least 1.
    pub min_ttl: f64,
    /// The longest TTL, in seconds.
    pub max_ttl: f64,
    /// The share of hits that may be stale.
    pub budget: f64,
    /// Whether what is decided is done; else it is only said (`shadow`).
    pub is_applied: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_ttl: 1.0,
            max_ttl: 3_600.0,
            budget: 0.01,
            is_applied: true,
        }
    }
}

/// An origin that has not answered for so long is silent, in seconds.
const SILENCE: f64 = 3_600.0;

/// Seconds of waiting that caching has to save per second.
pub const THETA: f64 = 0.01;

/// What was measured, as it stands at a tick. Times are in seconds, latencies in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Figures {
    /// The time, by the clock of whoever ticks.
    pub now: f64,
    /// Lookups per second.
    pub lambda: f64,
    /// Lookups that the ghost knows of; faded.
    pub lookups: f64,
    /// The share of hits that each of [`TTLS`] would have, by the ghost.
    pub ghost: [f64; TTLS.len()],
    /// The real hit ratio by the ghost's.
    pub rho: f64,
    /// Of the keys that are not hot, the share that is recorded.
    pub key_share: f64,
    /// Requests, and those of them that had a lookup with a key; faded.
    pub requests: [f64; 2],
    /// Requests of which it was not told whether they had one; faded.
    pub untold: f64,
    /// How long the origin takes.
    pub origin: Bounds,
    /// How long a hit takes.
    pub hit_ms: f64,
    /// What is known of changes.
    pub change: ChangeFigures,
    /// Of the lookups while caching was on, the share of hits; and how many lookups.
    pub measured: [f64; 2],
    /// Of this tick: calls of the origin, and those that failed.
    pub calls: [f64; 2],
    /// When the origin last answered.
    pub answered_at: f64,
    /// Whether it goes on, since a day at the most, from a decision whose evidence was lost.
    pub is_resumed: bool,
}

impl Figures {
    /// The share of hits at a TTL: the ghost's, as far as real hits come up to it; linear in the TTL's logarithm.
    #[must_use]
    pub fn hit_ratio(&self, ttl: f64) -> f64 {
        self.rho * self.ghost_ratio(ttl)
    }

    pub(crate) fn ghost_ratio(&self, ttl: f64) -> f64 {
        let above = TTLS.iter().position(|known| f64::from(*known) >= ttl);
        match above {
            None => self.ghost[TTLS.len() - 1],
            Some(0) => self.ghost[0] * ttl / f64::from(TTLS[0]),
            Some(above) => {
                let (low, high) = (f64::from(TTLS[above - 1]), f64::from(TTLS[above]));
                let part = (ttl / low).ln() / (high / low).ln();
                self.ghost[above - 1] + part * (self.ghost[above] - self.ghost[above - 1])
            }
        }
    }

    /// Whether the origin has not answered for so long that nothing is decided.
    pub(crate) fn is_silent(&self, now: &Standing) -> bool {
        now.is_on && self.now - self.answered_at > (2.0 * now.ttl).max(SILENCE)
    }

    /// Whether what a TTL was decided from was lost, and nothing that was seen since speaks against it.
    pub(crate) fn is_unproven(&self, ttl: f64, budget: f64) -> bool {
        let known = 1.25 * self.change.longest_ttl(budget);
        self.is_resumed && self.change.changed <= 0.0 && ttl > known
    }

    /// The milliseconds that caching saves a request at a hit ratio, if the origin takes `origin_ms`. A miss asks the
    /// store as well as a hit does.
    #[must_use]
    pub fn saving(&self, hit_ratio: f64, origin_ms: f64) -> f64 {
        hit_ratio * origin_ms - self.hit_ms
    }

    /// The longest TTL that the budget and the policy allow; `None` if even the shortest is too long.
    #[must_use]
    pub fn longest_ttl(&self, limits: &Limits) -> Option<f64> {
        let longest = self.change.longest_ttl(limits.budget).min(limits.max_ttl);
        (longest >= limits.min_ttl.max(1.0)).then_some(longest)
    }

    /// The shortest TTL with nearly all of the hits that can be had.
    #[must_use]
    pub fn best_ttl(&self, limits: &Limits) -> Option<f64> {
        let longest = self.longest_ttl(limits)?;
        let enough = 0.98 * self.hit_ratio(longest);
        let least = limits.min_ttl.max(1.0);
        let known = TTLS.iter().map(|ttl| f64::from(*ttl));
        let mut candidates = known.filter(|ttl| (least..=longest).contains(ttl));
        candidates
            .find(|ttl| self.hit_ratio(*ttl) >= enough)
            .or(Some(longest))
    }
}

/// How it was before caching made the origin faster.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Before {
    /// The origin's mean latency, in milliseconds.
    pub origin_ms: f64,
    /// Lookups per second.
    pub lambda: f64,
    /// When, in seconds.
    pub at: f64,
}

/// What has been decided so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether the endpoint is cached.
    pub is_on: bool,
    /// For how long, in seconds; what it was last while it is off.
    pub ttl: f64,
    /// When it was last switched.
    pub changed_at: f64,
    /// When its TTL was last moved.
    pub ttl_at: f64,
    /// How often it was switched.
    pub flips: u32,
    /// The least time between two switches is multiplied by this.
    pub dwell: f64,
    /// Since when it has been calm, for the next halving of `dwell`.
    pub calm_since: f64,
    /// Ticks in a row that spoke for switching on; that had no TTL that is short enough; that saved too little.
    pub ticks: [u8; 3],
    /// How it was when it was switched on.
    pub before: Option<Before>,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            is_on: false,
            ttl: 0.0,
            changed_at: 0.0,
            ttl_at: 0.0,
            flips: 0,
            dwell: LEAST_DWELL,
            calm_since: 0.0,
            ticks: [0; 3],
            before: None,
        }
    }
}

/// The first switch makes this 1.
pub(crate) const LEAST_DWELL: f64 = 0.5;
