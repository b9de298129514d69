//! What is to be invalidated, and what came of it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// What is to be invalidated: one of `key`, `pattern`, `endpoint` and `tag`, or with none of them all of a service.
///
/// ```
/// use larder_model::api::Invalidate;
///
/// let text = r#"{"service_name":"product-service","endpoint":"/products/{id}","reason":"wrong prices"}"#;
/// let asked: Invalidate = serde_json::from_str(text)?;
/// assert_eq!(asked.endpoint.as_deref(), Some("/products/{id}"));
/// // What is there and says nothing is no whole service.
/// assert!(serde_json::from_str::<Invalidate>(r#"{"service_name":"s","tag":null}"#).is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Invalidate {
    /// The service. May be left out where a key or a pattern names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// One entry, by its whole key.
    #[serde(
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(
        feature = "openapi",
        schema(example = "cache:product-service:/products/17")
    )]
    pub key: Option<String>,
    /// The entries that a pattern means.
    #[serde(
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(
        feature = "openapi",
        schema(example = "cache:product-service:/products*")
    )]
    pub pattern: Option<String>,
    /// The entries of an endpoint, by its route template; a method before it says nothing.
    #[serde(
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    #[cfg_attr(feature = "openapi", schema(example = "/products/{id}"))]
    pub endpoint: Option<String>,
    /// The entries that depend on a tag.
    #[serde(
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub tag: Option<String>,
    /// Only say what it would do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// The caller's own name for it, 1 to 64 of `A-Z a-z 0-9 . _ -`: sent again, it is done once. Made if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why; at most 500 bytes in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who; at most 100 bytes in one line. `local` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// How long the answer waits until all have done it: 0 to 30 s; 2 s if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
}

/// A field that is there has a text.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// What an invalidation names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Named {
    /// One entry.
    Key,
    /// The entries that a pattern means.
    Pattern,
    /// The entries of an endpoint.
    Endpoint,
    /// The entries that depend on a tag.
    Tag,
    /// All entries of the service.
    Service,
}

impl Named {
    /// As it is written: `key`, `pattern`, `endpoint`, `tag`, `service`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Pattern => "pattern",
            Self::Endpoint => "endpoint",
            Self::Tag => "tag",
            Self::Service => "service",
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far an invalidation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum InvalidationState {
    /// It was only tried.
    DryRun,
    /// The store and all instances that are heard of have done it.
    Done,
    /// The store or an instance has not done it yet.
    Pending,
}

/// How far it is in the store that the control plane has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StoreState {
    /// The control plane has no store: the instances do it in theirs.
    None,
    /// It was only counted.
    Counted,
    /// It is being told.
    Running,
    /// Framed entries are dead; plain ones are being removed.
    Sweeping,
    /// It is done.
    Done,
    /// The store could not be told. It is told as soon as that can be, and nothing is served of it by the control plane.
    Pending,
    /// The control plane was started anew since: whether the store was told is not known here. The instances do it.
    Unknown,
}

/// What came of it in the store that the control plane has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreOutcome {
    /// Which store; `null` if it has none.
    pub name: Option<String>,
    /// How far it is.
    pub state: StoreState,
    /// How many entries were removed, or would be; `null` where that is not known. What a tag names is dead, and not removed.
    pub entries: Option<u64>,
    /// Why it is not done, or was not counted to the end.
    pub why: Option<String>,
}

/// An instance that has not done it yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PendingInstance {
    /// Which one.
    pub instance: String,
    /// When it was last heard of.
    pub seen_seconds_ago: u64,
    /// Why it is not done there, as far as that is known.
    pub why: String,
}

/// What came of it in the instances of the service that the control plane knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstancesOutcome {
    /// How many are heard of, or have done it.
    pub known: u64,
    /// How many have done it.
    pub done: u64,
    /// The others, the first 100 of them.
    pub pending: Vec<PendingInstance>,
    /// How many have not done it and are not heard of any more: they are told when they come back, and not waited for.
    #[serde(default)]
    pub gone: u64,
}

/// What an invalidation sends to the origin, by what was measured in the last minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OriginLoad {
    /// Requests per second of the endpoints that it names.
    pub requests_per_second: f64,
    /// Hits per second among them: at most so many more calls reach the origin, until entries are loaded anew.
    pub extra_calls_per_second: f64,
    /// The origin's mean latency there, in milliseconds; `null` if it was not measured.
    pub origin_ms_mean: Option<f64>,
    /// So many calls of the origin are under way at once through that; `null` if its latency was not measured.
    pub extra_calls_at_once: Option<f64>,
}

/// What an invalidation did, where, and what is pending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Invalidation {
    /// Its name, for `GET /api/invalidations/{id}`.
    pub id: String,
    /// The service.
    pub service_name: String,
    /// What it names.
    pub what: Named,
    /// Which key, pattern, endpoint or tag; `null` for all of the service.
    pub name: Option<String>,
    /// How far it is.
    pub state: InvalidationState,
    /// The same in a sentence or two.
    pub says: String,
    /// In the store that the control plane has.
    pub store: StoreOutcome,
    /// In the instances.
    pub instances: InstancesOutcome,
    /// What it sends to the origin; `null` where nothing was measured of what it names.
    pub load: Option<OriginLoad>,
    /// When, in seconds since 1970.
    pub at_seconds: u64,
    /// Who; `local` where nobody said.
    pub author: String,
    /// Whether that is known, and not only what the caller said.
    pub author_verified: bool,
    /// Why; empty where nobody said.
    pub reason: String,
}

/// The latest invalidations, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InvalidationList {
    /// Of each service so many as are kept for those who follow it.
    pub invalidations: Vec<Invalidation>,
}

/// An invalidation, as those who follow a service are told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ToldInvalidation {
    /// What it names. A word that is not known yet counts as all of the service.
    #[serde(deserialize_with = "known_or_all")]
    pub what: Named,
    /// Which key, pattern, endpoint or tag.
    #[serde(default)]
    pub name: Option<String>,
    /// A store that was told already: who has the same need not tell it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_in: Option<String>,
}

fn known_or_all<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Named, D::Error> {
    let word = String::deserialize(deserializer)?;
    Ok(match word.as_str() {
        "key" => Named::Key,
        "pattern" => Named::Pattern,
        "endpoint" => Named::Endpoint,
        "tag" => Named::Tag,
        _ => Named::Service,
    })
}

/// What was missed of a service's invalidations, for one who polls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissedInvalidations {
    /// Where it goes on, once this is done.
    pub position: String,
    /// Whether more was missed than is kept: then everything of the service is to be invalidated, and nothing else.
    pub gap: bool,
    /// The others, in order.
    pub invalidations: Vec<MissedInvalidation>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MissedInvalidation {
    /// Where it stands.
    pub position: String,
    /// What it names.
    #[serde(flatten)]
    pub told: ToldInvalidation,
}

/// Where a service's invalidations stand, for one who begins to follow them or comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InvalidationPosition {
    /// The position from which it goes on.
    pub position: String,
    /// Whether more was missed than is kept: then everything of the service is to be invalidated.
    pub gap: bool,
}
