//! What changed and who changed it, what holds for a limited time, and policies as files have them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::PolicyPatch;

/// The form of [`PolicyFile`] that this version reads and writes.
pub const POLICY_FILE: u32 = 1;

/// What was set for an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointPolicy {
    /// The route template, with a method before it if that is not GET (`POST /search`).
    pub endpoint: String,
    /// The fields that were set.
    pub policy: PolicyPatch,
}

/// The policies that a service is to have, in place of those that it has.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyReplacement {
    /// All of them: endpoints that are not among them have none afterwards.
    pub policies: Vec<EndpointPolicy>,
    /// Why; at most 500 bytes in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who; at most 100 bytes in one line. `local` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
}

/// Why something is changed, and by whom.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Because {
    /// Why; at most 500 bytes in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who; at most 100 bytes in one line. `local` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
}

/// The policies of some services, as a file in a repository has them.
///
/// ```
/// use larder_model::api::PolicyFile;
///
/// let text = r#"{ "larder_policies": 1, "services": [ { "service_name": "product-service", "policies": [
///     { "endpoint": "/products", "policy": { "mode": "on", "ttl_seconds": 60 } } ] } ] }"#;
/// let file: PolicyFile = serde_json::from_str(text)?;
/// assert_eq!(file.services[0].policies[0].policy.ttl_seconds, Some(60.0));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// The file's form: [`POLICY_FILE`].
    pub larder_policies: u32,
    /// Each service once.
    pub services: Vec<ServicePolicies>,
}

/// All policies of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePolicies {
    /// The service.
    pub service_name: String,
    /// Each endpoint once.
    pub policies: Vec<EndpointPolicy>,
}

/// What a change is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Kind {
    /// A policy that somebody set.
    Policy,
    /// An override.
    Override,
    /// An automatic decision.
    Decision,
}

/// What is, or would be, different for an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Difference {
    /// Of what.
    pub kind: Kind,
    /// The route template, with a method before it if that is not GET.
    pub endpoint: String,
    /// The fields before; `null` if there was none.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<Value>,
    /// The fields after; `null` if there is none.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub after: Option<Value>,
}

/// What a replacement or a rollback did, or would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Replaced {
    /// The service.
    pub service_name: String,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// The version of the service's policies: a new one if something changed, and its revision's number.
    pub version: u64,
    /// What changed, or would.
    pub changes: Vec<Difference>,
}

/// What made a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Action {
    /// A policy was set.
    PolicySet,
    /// A policy was removed.
    PolicyRemoved,
    /// All policies were replaced.
    PoliciesReplaced,
    /// The policies of an earlier revision were brought back.
    RolledBack,
    /// An override began.
    OverrideBegan,
    /// An override was ended.
    OverrideEnded,
    /// An override's time was over.
    OverrideExpired,
    /// The engine decided.
    Decided,
}

impl Action {
    const ALL: [Self; 8] = [
        Self::PolicySet,
        Self::PolicyRemoved,
        Self::PoliciesReplaced,
        Self::RolledBack,
        Self::OverrideBegan,
        Self::OverrideEnded,
        Self::OverrideExpired,
        Self::Decided,
    ];

    /// Its name, as on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PolicySet => "policy_set",
            Self::PolicyRemoved => "policy_removed",
            Self::PoliciesReplaced => "policies_replaced",
            Self::RolledBack => "rolled_back",
            Self::OverrideBegan => "override_began",
            Self::OverrideEnded => "override_ended",
            Self::OverrideExpired => "override_expired",
            Self::Decided => "decided",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

/// What held for a service from one change to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revision {
    /// The service.
    pub service_name: String,
    /// The version of the service's policies that it made.
    pub number: u64,
    /// When, in seconds since 1970.
    pub at_seconds: u64,
    /// What made it.
    pub action: Action,
    /// Who; `larder` for what the control plane does by itself, `local` where nobody said.
    pub author: String,
    /// Whether that is known, and not only what the caller said.
    pub author_verified: bool,
    /// Why; empty where nobody said.
    pub reason: String,
    /// The SHA-256 of the snapshot as it is stored, in hexadecimal digits.
    pub sha256: String,
    /// All that was set and decided; left out in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<ServiceState>,
}

/// All that is set, overridden and decided for a service.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceState {
    /// The policies, by method and template.
    pub policies: Vec<EndpointPolicy>,
    /// The overrides.
    pub overrides: Vec<OverrideState>,
    /// What the engine decided.
    pub decisions: Vec<DecisionState>,
}

/// An override, as a revision has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverrideState {
    /// The endpoint, with a method before it if that is not GET.
    pub endpoint: String,
    /// Its name.
    pub id: String,
    /// What it sets.
    pub policy: PolicyPatch,
    /// When it ends, in seconds since 1970.
    pub expires_at_seconds: u64,
}

/// A decision, as a revision has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DecisionState {
    /// The endpoint, with a method before it if that is not GET.
    pub endpoint: String,
    /// Whether it is cached, or in mode `shadow` would be.
    pub cache_enabled: bool,
    /// For how long; 0: as its policy says.
    #[serde(serialize_with = "super::seconds")]
    pub ttl_seconds: f64,
    /// Of the keys that are seldom asked for, the share that is reported.
    pub key_share: f64,
    /// The share of hits that is checked against the origin.
    pub check_share: f64,
    /// Why.
    pub reason: String,
}

/// Revisions of a service, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevisionList {
    /// The service.
    pub service_name: String,
    /// Without their snapshots.
    pub revisions: Vec<Revision>,
    /// `before` of the next page; `null` on the last.
    pub next_before: Option<u64>,
}

/// What differs between two revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RevisionDiff {
    /// The service.
    pub service_name: String,
    /// The number of the one; 0: before the first.
    pub from: u64,
    /// The number of the other.
    pub to: u64,
    /// What became another.
    pub changes: Vec<Difference>,
}

/// An override that is to begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewOverride {
    /// The service.
    pub service_name: String,
    /// The route template, with a method before it if that is not GET (`POST /search`).
    pub endpoint: String,
    /// The fields that hold meanwhile; those left out are as without the override. `mode` is `on` or `off`.
    pub policy: PolicyPatch,
    /// Why; 1 to 500 bytes in one line.
    pub reason: String,
    /// Who; at most 100 bytes in one line. `local` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// How long it holds: 1 s to 30 days. This, or `expires_at_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// When it ends, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_seconds: Option<u64>,
}

/// A policy for a limited time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Override {
    /// Its name.
    pub id: String,
    /// The service.
    pub service_name: String,
    /// The route template.
    pub endpoint: String,
    /// The method.
    pub method: String,
    /// The fields that hold meanwhile.
    pub policy: PolicyPatch,
    /// Why.
    pub reason: String,
    /// Who.
    pub author: String,
    /// Whether that is known, and not only what the caller said.
    pub author_verified: bool,
    /// When it began, in seconds since 1970.
    pub began_at_seconds: u64,
    /// When it ends.
    pub expires_at_seconds: u64,
}

/// The overrides in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OverrideList {
    /// By service, method and template.
    pub overrides: Vec<Override>,
}

/// What somebody did, or tried to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Its place in the trail, from 1 without a gap.
    pub sequence: u64,
    /// When, in seconds since 1970.
    pub at_seconds: u64,
    /// Who.
    pub actor: String,
    /// Whether that is known, and not only what the caller said.
    pub actor_verified: bool,
    /// From where; `null` for what the control plane does by itself.
    pub address: Option<String>,
    /// What: an [`Action`], `refused`, or `key_made`.
    pub action: String,
    /// The service, where one is meant.
    pub service_name: Option<String>,
    /// The endpoint, or what was asked for where it was refused.
    pub target: Option<String>,
    /// What was before.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub before: Option<Value>,
    /// What is after.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub after: Option<Value>,
    /// Why; empty where nobody said.
    pub reason: String,
    /// The HMAC-SHA-256 of this entry and the one before it, in hexadecimal digits.
    pub mac: String,
}

/// A part of the audit trail, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditList {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// `before` of the next page; `null` on the last.
    pub next_before: Option<u64>,
}

/// Where the audit trail ends: who keeps this elsewhere finds a trail that was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditHead {
    /// The last entry's place.
    pub sequence: u64,
    /// Its MAC, in hexadecimal digits.
    pub mac: String,
    /// Which key made it: begins the SHA-256 of something made with it, so that it says nothing of the key.
    pub key_id: String,
}

impl std::fmt::Display for AuditHead {
    /// As `larder audit verify --head` takes it: `12:5f0c…`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.sequence, self.mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_named_as_on_the_wire() {
        for action in Action::ALL {
            let wire = serde_json::to_value(action).unwrap();
            assert_eq!(wire, action.as_str());
            assert_eq!(Action::of_name(action.as_str()), Some(action));
        }
        assert_eq!(Action::of_name("nothing"), None);
    }
}
