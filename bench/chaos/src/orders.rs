//! What the conductor tells a worker, one line of JSON each.

use serde::{Deserialize, Serialize};

/// An order, and by which number the worker says that it was carried out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) order: Order,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Begin to use the cache at random.
    Mix(Mix),
    /// End that, and all lookups.
    Rest,
    /// Look a key up; its load takes so many milliseconds.
    Look { key: usize, load_ms: u64 },
    /// Look a key up without a load, again and again for so many milliseconds.
    Peek { key: usize, for_ms: u64 },
    /// Look up what lives long, without a load and without a break, for so many milliseconds in which the process is not stopped.
    Spin { for_ms: u64 },
    /// `set`.
    Set { key: usize },
    /// `delete`.
    Delete { key: usize },
    /// `clear` of a kind's keys.
    Clear { kind: usize },
    /// `invalidate_tag`.
    Tag { tag: usize },
    /// `invalidate_endpoint` of a kind.
    Endpoint { kind: usize },
    /// `invalidate_service`.
    Service,
    /// Switch the policies.
    Switch { is_off: bool },
}

/// How the cache is used at random.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Mix {
    /// So many tasks of readers at once.
    pub(crate) readers: usize,
    /// Deletes in a second.
    pub(crate) deletes: u64,
    /// Clears, invalidations of tags, endpoints and the service in ten seconds, each.
    pub(crate) wide: u64,
    /// Sets in a second.
    pub(crate) sets: u64,
    /// A load takes up to so many milliseconds;
    pub(crate) load_ms: u64,
    /// one in a hundred up to so many.
    pub(crate) slow_ms: u64,
    /// Of 1,000 loads of framed entries so many fail.
    pub(crate) failing: u64,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            readers: 6,
            deletes: 40,
            wide: 10,
            sets: 8,
            load_ms: 12,
            slow_ms: 120,
            failing: 80,
        }
    }
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ended {
    /// An invalidation is done, a lookup over.
    Done,
    /// An invalidation is pending.
    Pending,
    /// A lookup failed that may not.
    Failed,
}

/// What a worker says.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) number: u64,
    pub(crate) ended: Ended,
}
