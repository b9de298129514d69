//! Leases: one load of a key at a time, over all processes that share a store.
//!
//! A lease is a random token that the store keeps beside an entry for a time. Whoever holds it may fill, once: `delete`, `clear`
//! and `set` end it with the entry, so that a load which began before them fills nothing after them.

use std::time::Duration;

use bytes::Bytes;
use larder_model::Key;

use crate::proof::Proof;
use crate::store::Stored;

/// The right of one load to fill one key, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Of which key.
    pub key: Key,
    /// Random; nobody else has it.
    pub token: u128,
    /// The life of the server that granted it: in another one it is worth nothing.
    pub incarnation: u64,
    /// By what the store knows the entry that was there when the lease was granted; `None` if there was none. Its meaning is
    /// the store's own affair.
    pub expected: Option<Bytes>,
}

/// What a store answers who asks for a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Acquired {
    /// It is granted.
    Granted {
        /// The lease.
        lease: Lease,
        /// The entry, read after the lease was granted: another load may have filled since it was looked for.
        found: Option<Stored>,
    },
    /// Another load holds it.
    Held {
        /// For how long, at the most, unless it is extended.
        left: Duration,
        /// Ends when the lease does, or the entry changes.
        proof: Option<Proof>,
        /// The entry.
        found: Option<Stored>,
    },
    /// A load just ended with nothing that is stored: whoever waited loads now, all at the same time, and fills nothing.
    Uncached {
        /// The entry.
        found: Option<Stored>,
    },
}

/// How a load gives its lease back without a fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It made nothing (the loader failed, or what it made was not taken): the next one may try.
    Failed,
    /// It made something that is not stored: those who wait need not come one after the other.
    Uncached,
}
