//! What lies in the store that the control plane has.

use serde::{Deserialize, Serialize};

/// An entry that was met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeySummary {
    /// Its whole key.
    pub key: String,
    /// How long it lives yet; `null` if it has no end, or that is not known.
    pub ttl_seconds: Option<f64>,
    /// Its size in the store, in bytes; `null` if the store does not tell.
    pub bytes: Option<u64>,
}

/// A page of a service's entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyList {
    /// The service.
    pub service_name: String,
    /// Which store they lie in.
    pub store: String,
    /// In the order of their keys; what is stored while they are read may be missing.
    pub keys: Vec<KeySummary>,
    /// The `after` of the next page; `null` on the last.
    pub next: Option<String>,
}

/// What an entry depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EntryStamp {
    /// `service`, `endpoint:…` or `tag:…`.
    pub name: String,
    /// `same`, or why the entry is dead: `renewed`, `other_life`, `pending`.
    pub state: String,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EntryDetail {
    /// `plain`, `framed` or `unreadable`.
    pub form: String,
    /// Its size in the store, in bytes.
    pub bytes: u64,
    /// How long it lives yet; `null` if it has no end, or that is not known.
    pub left_seconds: Option<f64>,
    /// How old it is; `null` where it does not say, as in the plain form.
    pub age_seconds: Option<f64>,
    /// How long it is fresh in all; `null` in the plain form.
    pub fresh_seconds: Option<f64>,
    /// Whether it is packed.
    pub packed: bool,
    /// Whether it is sealed.
    pub sealed: bool,
    /// What it depends on.
    pub stamps: Vec<EntryStamp>,
    /// The value as text, what steers a terminal escaped, cut to 4 KiB; `null` if it can't be read.
    pub value: Option<String>,
    /// The size of the whole value, in bytes; `null` if it can't be read.
    pub value_bytes: Option<u64>,
    /// Why it can't be read.
    pub why: Option<String>,
}

/// What is known of a key, and what a lookup of it would do now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyExplanation {
    /// The key.
    pub key: String,
    /// The store.
    pub store: String,
    /// The entry; `null` if there is none.
    pub entry: Option<EntryDetail>,
    /// How long the lease of a load that is under way holds, unless it is extended.
    pub lease_left_seconds: Option<f64>,
    /// Whether an invalidation of it is pending at the control plane.
    pub pending: bool,
    /// What a lookup would do: `hit`, `stale`, `wait`, `load` or `bypass`.
    pub lookup: String,
    /// By which rule.
    pub rule: String,
    /// Why, in one sentence.
    pub because: String,
    /// The policy in force, in one sentence.
    pub policy: String,
}
