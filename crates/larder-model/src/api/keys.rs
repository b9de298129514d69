//! API keys: who may do what at the control plane.

use serde::{Deserialize, Serialize};

/// In place of names of services: all of them, also those that come later.
pub const ALL_SERVICES: &str = "*";

/// What an API key may be used for, of the services that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeyRole {
    /// What a service needs: its policies, its stream, and to report what it measured.
    Report,
    /// To look: policies, streams, measurements, history, audit trail; for a key of all services metrics, too.
    Read,
    /// To look, to report and to change; a key of all services also makes and revokes keys.
    Admin,
}

impl KeyRole {
    /// As it is written: `report`, `read`, `admin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    /// The role that is written so.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let all = [Self::Report, Self::Read, Self::Admin];
        all.into_iter().find(|role| role.as_str() == name)
    }
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiKey {
    /// What it is called by: the digits between `lrd_` and the secret.
    pub id: String,
    /// What it is for, in words.
    pub name: String,
    /// What it may be used for.
    pub role: KeyRole,
    /// The services that it is for; `*`: all.
    pub services: Vec<String>,
    /// When it was made, in seconds since 1970.
    pub made_at_seconds: u64,
    /// When it ends; left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_seconds: Option<u64>,
    /// When it was revoked; left out: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_seconds: Option<u64>,
    /// When it was last used, to some minutes; left out: never yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at_seconds: Option<u64>,
}

/// All keys, also those that were revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiKeyList {
    /// Oldest first.
    pub keys: Vec<ApiKey>,
}

/// A key that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewApiKey {
    /// What it is for, in words: one line, at most 64 bytes.
    pub name: String,
    /// What it may be used for.
    pub role: KeyRole,
    /// The services that it is for; `*`: all.
    pub services: Vec<String>,
    /// When it ends, in seconds since 1970; left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_seconds: Option<u64>,
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A key that was made. Its secret is told this once, and has no `Debug`.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MadeApiKey {
    /// The key.
    #[serde(flatten)]
    pub key: ApiKey,
    /// What is sent as `Authorization: Bearer …`.
    pub secret: String,
}
