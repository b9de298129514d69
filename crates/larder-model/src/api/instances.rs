//! What instances say of the policies that they have in force.

use serde::{Deserialize, Serialize};

/// Over what an instance has what is in force in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Via {
    /// The control plane's stream.
    Stream,
    /// The control plane was asked.
    Poll,
    /// What was kept on the disk; the control plane has not confirmed it yet.
    LastKnownGood,
    /// Nothing came yet: the service's own defaults.
    #[default]
    Defaults,
}

impl Via {
    /// As it is written: `stream`, `poll`, `last_known_good`, `defaults`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Poll => "poll",
            Self::LastKnownGood => "last_known_good",
            Self::Defaults => "defaults",
        }
    }
}

/// What an instance has in force. It says so when that changes, and every half minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceReport {
    /// The service.
    pub service_name: String,
    /// Which one: a random name, 1 to 64 of `A-Z a-z 0-9 . _ -`; the same as in its windows.
    pub instance: String,
    /// The version of the policies in force; left out before there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// What the control plane called it: the `ETag` without its quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Over what it came.
    pub via: Via,
    /// How long it has been in force, in milliseconds.
    #[serde(default)]
    pub activated_ago_ms: u64,
    /// What the control plane sent since, and could not be put in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedReport>,
    /// Up to which position it has done all invalidations; left out where it does none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalidated: Option<String>,
    /// Why it could not do the next one yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalidation_trouble: Option<String>,
    /// Whether the instance ends, and will not be heard of any more.
    #[serde(default)]
    pub leaving: bool,
}

/// What an instance could not put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RejectedReport {
    /// What the control plane called it, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
    /// How long ago, in milliseconds.
    #[serde(default)]
    pub ago_ms: u64,
}

/// How an instance stands with the policies of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum InstanceState {
    /// It has the current version in force.
    Current,
    /// It has another one in force.
    Stale,
    /// It could not put the current version in force.
    Rejected,
    /// It was not heard of for a minute and a half, and did not say that it ends.
    Gone,
}

impl InstanceState {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Current, Self::Stale, Self::Rejected, Self::Gone];

    /// As it is written: `current`, `stale`, `rejected`, `gone`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Stale => "stale",
            Self::Rejected => "rejected",
            Self::Gone => "gone",
        }
    }
}

/// An instance, and the policies that it has in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceSummary {
    /// The service.
    pub service_name: String,
    /// Which one.
    pub instance: String,
    /// How it stands with the current version.
    pub state: InstanceState,
    /// The version in force in it; `null` before there is any.
    pub version: Option<u64>,
    /// The version of the service's policies.
    pub current_version: u64,
    /// Over what it came.
    pub via: Via,
    /// How long it has been in force.
    pub activated_seconds_ago: u64,
    /// When the instance was last heard of.
    pub seen_seconds_ago: u64,
    /// What it could not put in force.
    pub rejected: Option<RejectedVersion>,
}

/// What an instance could not put in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RejectedVersion {
    /// The `ETag` of what it was sent, without its quotes, if it had one.
    pub tag: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
    /// How long ago.
    pub seconds_ago: u64,
}

/// All instances that were heard of lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceList {
    /// By service and name.
    pub instances: Vec<InstanceSummary>,
}
