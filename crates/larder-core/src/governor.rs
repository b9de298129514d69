//! Who says whether an endpoint is cached, and is told what happened.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_model::{Key, Mode, Outcome, Policy, Tag};

use crate::store::Ttl;

/// The policy for an endpoint now; and a place to record what happened. Asked at every call: it takes no lock and
/// does no I/O.
pub trait Governor: Send + Sync + 'static {
    /// What a lookup needs to know before it reads.
    fn gate(&self, key: &Key) -> Gate;

    /// The whole policy in force for a key.
    fn policy(&self, key: &Key) -> Arc<Policy>;

    /// The route template whose policy holds for a key, if one does: by it the key's entries can be invalidated.
    fn template(&self, key: &Key) -> Option<Box<str>>;

    /// Takes note of an answer.
    fn record(&self, key: &Key, event: Event);

    /// Takes note of a load in the background, which answered nobody: how long it took, if it succeeded.
    fn record_refresh(&self, key: &Key, load: Option<Duration>);

    /// Takes note of a lookup, whatever comes of it. Only where [`Gate::is_watched`].
    fn note_lookup(&self, _key: &Key) {}

    /// Takes note of what the origin answered, where that was stored or could have been, as JSON; and of what a fresh entry
    /// that it was to check was. Only where [`Gate::is_watched`].
    fn note_answer(&self, _key: &Key, _json: &Bytes, _check: Option<Check>) {}

    /// Takes note that the store did not do what it was asked.
    fn note_store_error(&self) {}

    /// Takes note of an invalidation: what comes next under a key is no change that nobody told of.
    fn note_invalidated(&self, _what: Named<'_>) {}
}

/// What an answer of the origin was compared with: an entry that was fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// How old it was, at the least.
    pub age: Duration,
    /// Whether that follows from the TTL in force, as of an entry of the plain form, which does not say its age: one that was stored
    /// for less is younger.
    pub is_by_ttl: bool,
    /// Whether the origin answers something else.
    pub has_changed: bool,
}

/// What an invalidation names.
#[derive(Debug, Clone, Copy)]
pub enum Named<'a> {
    /// These keys.
    Keys(&'a [Key]),
    /// Whatever depends on a tag.
    Tag(&'a Tag),
    /// The entries of a route template, or of all.
    Endpoint(Option<&'a str>),
}

/// What a lookup needs to know before it reads: so little that it costs a copy, where a policy would cost a shared
/// count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// Whether the endpoint is cached.
    pub cache_enabled: bool,
    /// The longest that a value may live; `None` if none is stored.
    pub ttl: Option<Ttl>,
    /// How long past its TTL an entry may be served while it is loaded anew.
    pub stale_while_revalidate: Duration,
    /// How long past its TTL an entry may be served where a load fails.
    pub stale_if_error: Duration,
    /// The longest that "there is none" may live; `None` if it is not stored.
    pub negative_ttl: Option<Ttl>,
    /// Longer values are not read out of frames, in bytes.
    pub max_value_bytes: u64,
    /// Whether the governor wants to know of lookups and answers.
    pub is_watched: bool,
    /// The share of hits to be checked against the origin in the background, of 2³².
    pub check_share: u32,
}

impl Gate {
    /// Lets everything live that is fresh by its own word: what plain reads go by.
    #[must_use]
    pub(crate) fn plain(self) -> Self {
        Self {
            ttl: Some(Ttl::MAX),
            negative_ttl: Some(Ttl::MAX),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            ..self
        }
    }
}

impl From<&Policy> for Gate {
    /// A policy that leaves it to the control plane (`auto`) caches nothing until that has decided.
    fn from(policy: &Policy) -> Self {
        Self {
            cache_enabled: policy.mode() == Mode::On,
            ttl: Ttl::new(policy.ttl()),
            stale_while_revalidate: policy.stale_while_revalidate(),
            stale_if_error: policy.stale_if_error(),
            negative_ttl: Ttl::new(policy.negative_ttl()),
            max_value_bytes: policy.max_value_bytes(),
            is_watched: false,
            check_share: 0,
        }
    }
}

/// An answer that was given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// What the lookup did.
    pub outcome: Outcome,
    /// How long it took: the origin for a miss or a bypass, the whole answer for a hit; `None` if not measured.
    pub latency: Option<Duration>,
    /// Whether the origin failed (5xx, a time-out, a loader's error).
    pub is_error: bool,
    /// Whether the answer said that the request was wrong (4xx): no error of the origin, and no measure of how long it takes.
    pub is_client_error: bool,
    /// The value's size in bytes.
    pub bytes: u64,
}

impl Event {
    /// An answer that was not timed, and no error.
    #[must_use]
    pub fn of(outcome: Outcome, bytes: u64) -> Self {
        Self {
            outcome,
            latency: None,
            is_error: false,
            is_client_error: false,
            bytes,
        }
    }
}

/// One policy for everything, that never changes: what there is without a control plane.
#[derive(Debug, Clone)]
pub struct FixedGovernor {
    policy: Arc<Policy>,
    gate: Gate,
}

impl FixedGovernor {
    /// The same policy for every endpoint.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            gate: Gate::from(&policy),
            policy: Arc::new(policy),
        }
    }
}

impl Default for FixedGovernor {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl Governor for FixedGovernor {
    fn gate(&self, _key: &Key) -> Gate {
        self.gate
    }

    fn policy(&self, _key: &Key) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    fn template(&self, _key: &Key) -> Option<Box<str>> {
        None
    }

    fn record(&self, _key: &Key, _event: Event) {}

    fn record_refresh(&self, _key: &Key, _load: Option<Duration>) {}
}
