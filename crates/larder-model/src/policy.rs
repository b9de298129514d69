//! Whether to cache, and for how long: one policy, with one validation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names;
use crate::tag::Tag;

/// No duration in a policy is longer: 365 days.
pub const MAX_DURATION: Duration = Duration::from_secs(31_536_000);

/// No `max_value_bytes` is larger: 64 MiB.
pub const MAX_VALUE_BYTES: u64 = 64 << 20;

/// Whether an endpoint is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is.
    #[default]
    On,
    /// It isn't: nothing is read or filled. Invalidations still run.
    Off,
    /// The control plane decides, from what it measures.
    Auto,
    /// It isn't, but what `auto` would decide is shown.
    Shadow,
}

/// Which parameters of a query are part of the key. The others are withheld from whatever makes the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Option<Vec<String>>", into = "Option<Vec<String>>")]
pub enum QueryRule {
    /// All of them (`null` on the wire).
    #[default]
    All,
    /// Those with these names (a list on the wire; an empty one: none), written as in a key: `ids%5B%5D`, not `ids[]`.
    /// A [`PolicyPatch`] takes both.
    Only(Vec<String>),
}

impl QueryRule {
    /// Whether a parameter with this name, written as in a key, is part of the key.
    #[must_use]
    pub fn includes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|included| included == name),
        }
    }
}

impl From<Option<Vec<String>>> for QueryRule {
    fn from(names: Option<Vec<String>>) -> Self {
        names.map_or(Self::All, Self::Only)
    }
}

impl From<QueryRule> for Option<Vec<String>> {
    fn from(rule: QueryRule) -> Self {
        match rule {
            QueryRule::All => None,
            QueryRule::Only(names) => Some(names),
        }
    }
}

/// Why values don't make a policy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A duration is negative, not a number, or too long.
    #[error("{field} is {value}: use 0 to 31536000 seconds (365 days)")]
    Duration {
        /// The field's name on the wire.
        field: &'static str,
        /// What was given.
        value: f64,
    },
    /// `staleness_budget` is not a share.
    #[error("staleness_budget is {0}: use a share above 0 and at most 1, such as 0.01")]
    StalenessBudget(f64),
    /// `min_ttl_seconds` is longer than `max_ttl_seconds`.
    #[error("min_ttl_seconds is {0}, longer than max_ttl_seconds, {1}")]
    TtlBounds(f64, f64),
    /// `jitter` is not a share.
    #[error("jitter is {0}: use a share from 0 to 1, such as 0.05")]
    Jitter(f64),
    /// `max_value_bytes` is too large.
    #[error("max_value_bytes is {0}: use at most 67108864 (64 MiB)")]
    MaxValueBytes(u64),
    /// `load_timeout_seconds` is 0.
    #[error("load_timeout_seconds is 0, so no load could ever end: use a time above 0")]
    NoLoadTime,
    /// A list of names is too long, or has a name that can't be one.
    #[error("{field} has {what}")]
    Names {
        /// The field's name on the wire.
        field: &'static str,
        /// What is wrong.
        what: &'static str,
    },
}

/// How one endpoint is cached. Its fields were checked when it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    mode: Mode,
    ttl: Duration,
    min_ttl: Duration,
    max_ttl: Duration,
    staleness_budget: f64,
    jitter: f64,
    stale_while_revalidate: Duration,
    stale_if_error: Duration,
    negative_ttl: Duration,
    soft_load_timeout: Duration,
    load_timeout: Duration,
    max_value_bytes: u64,
    include_query: QueryRule,
    vary: Vec<String>,
    tags: Vec<Tag>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::On,
            ttl: Duration::from_secs(300),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(3_600),
            staleness_budget: 0.01,
            jitter: 0.05,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            soft_load_timeout: Duration::ZERO,
            load_timeout: Duration::from_secs(30),
            max_value_bytes: 1 << 20,
            include_query: QueryRule::All,
            vary: Vec::new(),
            tags: Vec::new(),
        }
    }
}

impl Policy {
    /// Whether an endpoint is cached.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How long an entry is fresh. Nothing is stored for 0.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The shortest TTL that `auto` may choose.
    #[must_use]
    pub fn min_ttl(&self) -> Duration {
        self.min_ttl
    }

    /// The longest TTL that `auto` may choose.
    #[must_use]
    pub fn max_ttl(&self) -> Duration {
        self.max_ttl
    }

    /// The share of hits that may be stale where `auto` decides, above 0 and at most 1.
    #[must_use]
    pub fn staleness_budget(&self) -> f64 {
        self.staleness_budget
    }

    /// The share of `ttl` that chance may take away, so that entries stored together don't end together; 0 to 1.
    #[must_use]
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// How long past `ttl` an entry may be served while it is loaded anew in the background.
    #[must_use]
    pub fn stale_while_revalidate(&self) -> Duration {
        self.stale_while_revalidate
    }

    /// How long past `ttl` an entry may be served where a load fails.
    #[must_use]
    pub fn stale_if_error(&self) -> Duration {
        self.stale_if_error
    }

    /// How long "there is none" is fresh. Nothing is stored for 0.
    #[must_use]
    pub fn negative_ttl(&self) -> Duration {
        self.negative_ttl
    }

    /// After this time a stale value is served if there is one that may be, and the load goes on; 0: never.
    #[must_use]
    pub fn soft_load_timeout(&self) -> Duration {
        self.soft_load_timeout
    }

    /// After this time a load fails; above 0.
    #[must_use]
    pub fn load_timeout(&self) -> Duration {
        self.load_timeout
    }

    /// Larger values are not cached, and counted; in bytes.
    #[must_use]
    pub fn max_value_bytes(&self) -> u64 {
        self.max_value_bytes
    }

    /// Which parameters of a query are part of the key.
    #[must_use]
    pub fn include_query(&self) -> &QueryRule {
        &self.include_query
    }

    /// The request headers that the answer depends on, in lower case.
    #[must_use]
    pub fn vary(&self) -> &[String] {
        &self.vary
    }

    /// What entries depend on: invalidating one of these tags invalidates them.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// Whether entries need the framed form: what they may be served for past `ttl`, and what they depend on, is kept in it.
    #[must_use]
    pub fn is_framed(&self) -> bool {
        !(self.stale_while_revalidate.is_zero()
            && self.stale_if_error.is_zero()
            && self.tags.is_empty())
    }

    /// This policy, but off or on: what an automatic decision sets.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }
}

/// Some fields of a policy, as they are on the wire: durations in seconds. Those left out stay as they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyPatch {
    /// `on`, `off`, `auto` or `shadow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "on"))]
    pub mode: Option<Mode>,
    /// How long an entry is fresh.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::api::optional_seconds"
    )]
    pub ttl_seconds: Option<f64>,
    /// The shortest TTL that `auto` may choose.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::api::optional_seconds"
    )]
    pub min_ttl_seconds: Option<f64>,
    /// The longest TTL that `auto` may choose; left out: `ttl_seconds`, or an hour.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::api::optional_seconds"
    )]
    pub max_ttl_seconds: Option<f64>,
    /// The share of hits that may be stale where `auto` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness_budget: Option<f64>,
    /// The share of the TTL that chance may take away, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// How long past the TTL an entry may be served while it is loaded anew.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::api::optional_seconds"
    )]
    pub stale_while_revalidate_seconds: Option<f64>,
    /// How long past the TTL an entry may be served where a load fails.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::api::optional_seconds"
    )]
    pub stale_if_error_seconds: Option<f64>,
    /// How long "there is none" is fresh.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::api::optional_seconds"
    )]
    pub negative_ttl_seconds: Option<f64>,
    /// After this time a stale value is served if there is one that may be, and the load goes on; 0: never.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::api::optional_seconds"
    )]
    pub soft_load_timeout_seconds: Option<f64>,
    /// After this time a load fails.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "crate::api::optional_seconds"
    )]
    pub load_timeout_seconds: Option<f64>,
    /// Larger values are not cached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_value_bytes: Option<u64>,
    /// The query parameters that are part of the key; `null` or left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub include_query: Option<QueryRule>,
    /// The request headers that the answer depends on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vary: Option<Vec<String>>,
    /// What the entries depend on: names by which they can be invalidated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Vec<String>>))]
    pub tags: Option<Vec<Tag>>,
}

impl PolicyPatch {
    /// These fields, and of `other` those that are not set here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            mode: self.mode.or(other.mode),
            ttl_seconds: self.ttl_seconds.or(other.ttl_seconds),
            min_ttl_seconds: self.min_ttl_seconds.or(other.min_ttl_seconds),
            max_ttl_seconds: self.max_ttl_seconds.or(other.max_ttl_seconds),
            staleness_budget: self.staleness_budget.or(other.staleness_budget),
            jitter: self.jitter.or(other.jitter),
            stale_while_revalidate_seconds: self
                .stale_while_revalidate_seconds
                .or(other.stale_while_revalidate_seconds),
            stale_if_error_seconds: self.stale_if_error_seconds.or(other.stale_if_error_seconds),
            negative_ttl_seconds: self.negative_ttl_seconds.or(other.negative_ttl_seconds),
            soft_load_timeout_seconds: self
                .soft_load_timeout_seconds
                .or(other.soft_load_timeout_seconds),
            load_timeout_seconds: self.load_timeout_seconds.or(other.load_timeout_seconds),
            max_value_bytes: self.max_value_bytes.or(other.max_value_bytes),
            include_query: self.include_query.or(other.include_query),
            vary: self.vary.or(other.vary),
            tags: self.tags.or(other.tags),
        }
    }

    /// The policy that this makes of another one.
    ///
    /// # Errors
    /// A [`PolicyError`] that names the field and what it may be.
    pub fn apply(&self, base: &Policy) -> Result<Policy, PolicyError> {
        let mut policy = base.clone();
        if let Some(mode) = self.mode {
            policy.mode = mode;
        }
        if let Some(ttl) = self.ttl_seconds {
            policy.ttl = duration("ttl_seconds", ttl)?;
            policy.max_ttl = policy.ttl;
        }
        if let Some(ttl) = self.min_ttl_seconds {
            policy.min_ttl = duration("min_ttl_seconds", ttl)?;
        }
        if let Some(ttl) = self.max_ttl_seconds {
            policy.max_ttl = duration("max_ttl_seconds", ttl)?;
        }
        if let Some(least) = self.min_ttl_seconds
            && matches!(policy.mode, Mode::Auto | Mode::Shadow)
            && policy.min_ttl > policy.max_ttl
        {
            return Err(PolicyError::TtlBounds(least, policy.max_ttl.as_secs_f64()));
        }
        if let Some(budget) = self.staleness_budget {
            if !(budget > 0.0 && budget <= 1.0) {
                return Err(PolicyError::StalenessBudget(budget));
            }
            policy.staleness_budget = budget;
        }
        if let Some(jitter) = self.jitter {
            if !(0.0..=1.0).contains(&jitter) {
                return Err(PolicyError::Jitter(jitter));
            }
            policy.jitter = jitter;
        }
        if let Some(stale) = self.stale_while_revalidate_seconds {
            policy.stale_while_revalidate = duration("stale_while_revalidate_seconds", stale)?;
        }
        if let Some(stale) = self.stale_if_error_seconds {
            policy.stale_if_error = duration("stale_if_error_seconds", stale)?;
        }
        if let Some(ttl) = self.negative_ttl_seconds {
            policy.negative_ttl = duration("negative_ttl_seconds", ttl)?;
        }
        if let Some(timeout) = self.soft_load_timeout_seconds {
            policy.soft_load_timeout = duration("soft_load_timeout_seconds", timeout)?;
        }
        if let Some(timeout) = self.load_timeout_seconds {
            policy.load_timeout = duration("load_timeout_seconds", timeout)?;
            if policy.load_timeout.is_zero() {
                return Err(PolicyError::NoLoadTime);
            }
        }
        if let Some(bytes) = self.max_value_bytes {
            if bytes > MAX_VALUE_BYTES {
                return Err(PolicyError::MaxValueBytes(bytes));
            }
            policy.max_value_bytes = bytes;
        }
        if let Some(rule) = &self.include_query {
            policy.include_query = match rule {
                QueryRule::All => QueryRule::All,
                QueryRule::Only(names) => QueryRule::Only(names::of_parameters(names)?),
            };
        }
        if let Some(names) = &self.vary {
            policy.vary = names::of_headers(names)?;
        }
        if let Some(tags) = &self.tags {
            policy.tags = names::of_tags(tags)?;
        }
        Ok(policy)
    }
}

impl From<&Policy> for PolicyPatch {
    /// All fields.
    fn from(policy: &Policy) -> Self {
        Self {
            mode: Some(policy.mode),
            ttl_seconds: Some(policy.ttl.as_secs_f64()),
            min_ttl_seconds: Some(policy.min_ttl.as_secs_f64()),
            max_ttl_seconds: Some(policy.max_ttl.as_secs_f64()),
            staleness_budget: Some(policy.staleness_budget),
            jitter: Some(policy.jitter),
            stale_while_revalidate_seconds: Some(policy.stale_while_revalidate.as_secs_f64()),
            stale_if_error_seconds: Some(policy.stale_if_error.as_secs_f64()),
            negative_ttl_seconds: Some(policy.negative_ttl.as_secs_f64()),
            soft_load_timeout_seconds: Some(policy.soft_load_timeout.as_secs_f64()),
            load_timeout_seconds: Some(policy.load_timeout.as_secs_f64()),
            max_value_bytes: Some(policy.max_value_bytes),
            include_query: Some(policy.include_query.clone()),
            vary: Some(policy.vary.clone()),
            tags: Some(policy.tags.clone()),
        }
    }
}

fn duration(field: &'static str, seconds: f64) -> Result<Duration, PolicyError> {
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or(PolicyError::Duration {
            field,
            value: seconds,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ttl(seconds: f64) -> Result<Policy, PolicyError> {
        let patch = PolicyPatch {
            ttl_seconds: Some(seconds),
            ..PolicyPatch::default()
        };
        patch.apply(&Policy::default())
    }

    #[test]
    fn durations_are_finite_not_negative_and_at_most_a_year() {
        for seconds in [
            -1.0,
            -0.001,
            f64::NAN,
            f64::INFINITY,
            31_536_001.0,
            u64::MAX as f64,
        ] {
            assert!(ttl(seconds).is_err(), "{seconds}");
        }
        for seconds in [0.0, 0.5, 300.0, 31_536_000.0] {
            assert_eq!(
                ttl(seconds).unwrap().ttl(),
                Duration::from_secs_f64(seconds)
            );
        }
    }

    #[test]
    fn a_policy_survives_the_wire() {
        let policy = ttl(60.0).unwrap();
        let wire = serde_json::to_string(&PolicyPatch::from(&policy)).unwrap();
        let patch: PolicyPatch = serde_json::from_str(&wire).unwrap();
        assert_eq!(patch.apply(&Policy::default()).unwrap(), policy);
    }

    #[test]
    fn fields_that_are_set_come_before_those_of_another_patch() {
        let all = PolicyPatch::from(&ttl(60.0).unwrap());
        assert_eq!(PolicyPatch::default().or(all.clone()), all);
        assert_eq!(all.clone().or(PolicyPatch::default()), all);
        let shorter = PolicyPatch {
            ttl_seconds: Some(5.0),
            ..PolicyPatch::default()
        };
        let both = shorter.or(all.clone());
        assert_eq!((both.ttl_seconds, both.jitter), (Some(5.0), all.jitter));
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        assert!(serde_json::from_str::<PolicyPatch>(r#"{"tll_seconds":60}"#).is_err());
    }
}
