//! The documents that the control plane and its clients exchange.
//!
//! A reader ignores fields that it doesn't know where the document comes from the control plane, so that a newer one
//! can be started before its clients; what the control plane is sent has no unknown field.

mod entries;
mod history;
mod instances;
mod invalidations;
mod keys;
mod users;

use serde::de::value::StringDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::entries::*;
pub use self::history::*;
pub use self::instances::*;
pub use self::invalidations::*;
pub use self::keys::*;
pub use self::users::*;
use crate::{Evidence, Mode, Outcome, Policy, PolicyError, PolicyPatch, QueryRule, Tag, Window};

/// Where a policy in force came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Source {
    /// Somebody set it for a limited time.
    Override,
    /// Somebody set it.
    Policy,
    /// Somebody left it to the control plane, which decided (or has not yet).
    Auto,
    /// Nobody set anything.
    Default,
}

/// The policy in force for an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointConfig {
    /// The service.
    pub service_name: String,
    /// The route template that holds, or the path that was asked for if none does.
    pub endpoint: String,
    /// The method.
    pub method: String,
    /// Whether answers are cached: what comes out of `mode`.
    pub cache_enabled: bool,
    /// `on`, `off`, `auto` or `shadow`.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "on"))]
    pub mode: Mode,
    /// How long an entry is fresh.
    #[serde(serialize_with = "seconds")]
    pub ttl_seconds: f64,
    /// What `auto` decides by, and wants to be told; `null` where it decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
    /// The share of the TTL that chance may take away.
    pub jitter: f64,
    /// How long past the TTL an entry may be served while it is loaded anew.
    #[serde(default, serialize_with = "seconds")]
    pub stale_while_revalidate_seconds: f64,
    /// How long past the TTL an entry may be served where a load fails.
    #[serde(default, serialize_with = "seconds")]
    pub stale_if_error_seconds: f64,
    /// How long "there is none" is fresh.
    #[serde(serialize_with = "seconds")]
    pub negative_ttl_seconds: f64,
    /// After this time a stale value is served if there is one that may be, and the load goes on; 0: never.
    #[serde(default, serialize_with = "seconds")]
    pub soft_load_timeout_seconds: f64,
    /// After this time a load fails.
    #[serde(serialize_with = "seconds")]
    pub load_timeout_seconds: f64,
    /// Larger values are not cached.
    pub max_value_bytes: u64,
    /// The query parameters that are part of the key; `null`: all.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub include_query: QueryRule,
    /// The request headers that the answer depends on.
    pub vary: Vec<String>,
    /// What the entries depend on: names by which they can be invalidated.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub tags: Vec<Tag>,
    /// Whether the origin fails and stale answers stand in for it.
    pub circuit_breaker: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// Where it came from. A word that is not known yet counts as `policy`: it says why, and not what holds.
    #[serde(deserialize_with = "known_source")]
    pub source: Source,
    /// The version of the service's policies. It only grows.
    pub version: u64,
}

impl EndpointConfig {
    /// The policy that the document carries, switched as `cache_enabled` says.
    ///
    /// # Errors
    /// A [`PolicyError`] that names the field that is out of bounds.
    pub fn policy(&self) -> Result<Policy, PolicyError> {
        let patch = PolicyPatch {
            mode: Some(self.mode),
            ttl_seconds: Some(self.ttl_seconds),
            min_ttl_seconds: None,
            max_ttl_seconds: None,
            staleness_budget: None,
            jitter: Some(self.jitter),
            stale_while_revalidate_seconds: Some(self.stale_while_revalidate_seconds),
            stale_if_error_seconds: Some(self.stale_if_error_seconds),
            negative_ttl_seconds: Some(self.negative_ttl_seconds),
            soft_load_timeout_seconds: Some(self.soft_load_timeout_seconds),
            load_timeout_seconds: Some(self.load_timeout_seconds),
            max_value_bytes: Some(self.max_value_bytes),
            include_query: Some(self.include_query.clone()),
            vary: Some(self.vary.clone()),
            tags: Some(self.tags.clone()),
        };
        let policy = patch.apply(&Policy::default())?;
        let enabled = self.cache_enabled && self.mode != Mode::Off;
        Ok(policy.with_mode(if enabled { Mode::On } else { Mode::Off }))
    }
}

/// What a service is to measure of an endpoint that `auto` watches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Watch {
    /// Of the keys that are seldom asked for, the share that is reported.
    pub key_share: f64,
    /// The share of hits that is checked against the origin in the background.
    pub check_share: f64,
}

/// All policies of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceConfig {
    /// The service.
    pub service_name: String,
    /// The version of its policies. It only grows.
    pub version: u64,
    /// What holds for each endpoint that has a policy.
    pub policies: Vec<EndpointConfig>,
}

/// A policy as somebody set it: only the fields that were given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyDocument {
    /// The service.
    pub service_name: String,
    /// The route template.
    pub endpoint: String,
    /// The method.
    pub method: String,
    /// What was set.
    pub policy: PolicyPatch,
    /// The version of the service's policies in which it was set.
    pub version: u64,
}

/// The policies of a service, as somebody set them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyList {
    /// The service.
    pub service_name: String,
    /// The version of its policies.
    pub version: u64,
    /// By method and template.
    pub policies: Vec<PolicyDocument>,
}

/// A service that has policies or was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceSummary {
    /// The service.
    pub service_name: String,
    /// The version of its policies; 0 if it never had one.
    pub version: u64,
    /// How many policies it has.
    pub policies: u64,
    /// How many of its endpoints were measured lately.
    pub endpoints: u64,
}

/// All services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceList {
    /// By name.
    pub services: Vec<ServiceSummary>,
}

/// What was measured of an endpoint lately.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MeasuredEndpoint {
    /// The service.
    pub service_name: String,
    /// The route template, or `other` for those past the bound.
    pub endpoint: String,
    /// The method.
    pub method: String,
    /// What was measured in the last minutes.
    pub window: Window,
    /// The share of hits; `null` if the cache was not asked.
    pub hit_ratio: Option<f64>,
    /// The origin's mean latency; `null` if it was not measured.
    pub origin_ms_mean: Option<f64>,
}

/// What was decided for an endpoint, from what, and what would flip it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The service.
    pub service_name: String,
    /// The route template.
    pub endpoint: String,
    /// The method.
    pub method: String,
    /// `on`, `off`, `auto` or `shadow`: what its policy says.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "auto"))]
    pub mode: Mode,
    /// What it was last decided from.
    pub decision: Option<DecisionRecord>,
    /// What was decided before, newest first: each time that it, or its reason, became another.
    pub history: Vec<PastDecision>,
}

/// A decision with its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DecisionRecord {
    /// When, in seconds since 1970.
    pub at_seconds: u64,
    /// Whether the endpoint is cached, or would be.
    pub cache_enabled: bool,
    /// For how long.
    pub ttl_seconds: f64,
    /// The reason's code.
    pub code: String,
    /// The reason, in one sentence with its figures.
    pub reason: String,
    /// What it was decided from, by name.
    pub figures: std::collections::BTreeMap<String, f64>,
    /// What would make it another.
    pub flips: Vec<FlipOf>,
    /// The engine's version.
    pub engine_version: u32,
    /// Whether deciding anew from the record gives the same, bit for bit.
    pub replays: bool,
    /// The record itself, in base64.
    pub record: String,
}

/// What would have to be different for another decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlipOf {
    /// Which figure.
    pub figure: String,
    /// What it is.
    pub is: f64,
    /// What it would have to be.
    pub needed: f64,
    /// The same in a sentence.
    pub sentence: String,
}

/// A decision of the past.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PastDecision {
    /// When, in seconds since 1970.
    pub at_seconds: u64,
    /// Whether the endpoint was cached, or would have been.
    pub cache_enabled: bool,
    /// For how long.
    pub ttl_seconds: f64,
    /// The reason's code.
    pub code: String,
    /// The reason, in one sentence with its figures.
    pub reason: String,
}

/// What was measured lately.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MeasuredList {
    /// How far back the windows reach.
    pub window_seconds: u64,
    /// By service, method and template.
    pub endpoints: Vec<MeasuredEndpoint>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SignalStatus {
    /// It was answered.
    Success,
    /// The origin failed (5xx, a time-out).
    Error,
}

/// One request, as it was seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Signal {
    /// The service.
    pub service_name: String,
    /// A path or a route template; with a method before it if that is not GET (`POST /search`).
    pub endpoint: String,
    /// How long the answer took, in milliseconds.
    pub latency_ms: f64,
    /// How it ended.
    pub status: SignalStatus,
    /// What the cache did; left out: it was not asked, so the latency is the origin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Outcome>,
    /// The size of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What one instance measured of one endpoint in a stretch of time. The same `instance`, `boot` and `sequence` count
/// once, however often they are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WindowReport {
    /// The service.
    pub service_name: String,
    /// A path or a route template; with a method before it if that is not GET.
    pub endpoint: String,
    /// What was measured.
    pub window: Window,
    /// Its keys, where the endpoint is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// How long it was measured, in milliseconds.
    #[serde(default)]
    pub length_ms: u64,
    /// How long ago that ended when it was sent, in milliseconds.
    #[serde(default)]
    pub ended_ago_ms: u64,
    /// Which store the instance has: those with the same number share one.
    #[serde(default)]
    pub store_id: u32,
    /// Whether the store failed meanwhile, so that there were fewer hits than there could have been.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub store_failed: bool,
    /// Who measured: a random name, 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub instance: String,
    /// Which run of the instance: grows from one to the next.
    pub boot: u64,
    /// Grows with every window of a run.
    pub sequence: u64,
}

/// Many signals, or windows of them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignalBatch {
    /// Single requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Signal>,
    /// Windows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowReport>,
}

/// What was measured of a service in one minute or hour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rollup {
    /// When it begins, in seconds since 1970.
    pub at_seconds: u64,
    /// What was measured.
    pub window: Window,
}

/// What was measured of a service over time, oldest first; minutes or hours without a request are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RollupList {
    /// The service.
    pub service_name: String,
    /// How long each is, in seconds: 60 or 3600.
    pub step_seconds: u64,
    /// The minutes or hours.
    pub rollups: Vec<Rollup>,
}

/// The answer to signals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Received {
    /// `received`.
    pub status: String,
}

fn known_source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
    let word = String::deserialize(deserializer)?;
    let known = Source::deserialize(StringDeserializer::<D::Error>::new(word));
    Ok(known.unwrap_or(Source::Policy))
}

/// Whole seconds are written without a decimal point: 60, not 60.0.
pub(crate) fn seconds<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let is_whole = value.fract() == 0.0 && (0.0..=1e15).contains(value);
    if is_whole {
        serializer.serialize_u64(*value as u64)
    } else {
        serializer.serialize_f64(*value)
    }
}

/// [`seconds`] of a field that may be left out.
pub(crate) fn optional_seconds<S: Serializer>(
    value: &Option<f64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => seconds(value, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_for_where_a_policy_came_from_that_is_not_known_parks_no_document() {
        let document = |source: &str| {
            let text = r#"{"service_name":"svc","endpoint":"/a","method":"GET","cache_enabled":true,"mode":"on","ttl_seconds":60,
                "jitter":0,"negative_ttl_seconds":0,"load_timeout_seconds":30,"max_value_bytes":1,"include_query":null,"vary":[],
                "circuit_breaker":false,"reason":"","source":SOURCE,"version":1}"#;
            serde_json::from_str::<EndpointConfig>(&text.replace("SOURCE", source))
        };
        assert_eq!(document(r#""override""#).unwrap().source, Source::Override);
        assert_eq!(document(r#""quota""#).unwrap().source, Source::Policy);
        assert!(document("7").is_err());
    }
}
