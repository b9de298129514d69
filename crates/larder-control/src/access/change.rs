//! A change of who may do what, and what the audit trail says of it.

use larder_model::api::UserRole;
use serde_json::{Value, json};

use super::key::StoredKey;
use super::password::Hashed;
use super::services::Services;
use super::session::StoredSession;
use super::token::Digest;
use super::user::StoredUser;
use crate::audit::Entry;
use crate::cause::Cause;

/// A change that is to be made, together with its entry in the trail.
pub(crate) enum AccessChange {
    MakeKey(StoredKey),
    RevokeKey {
        id: String,
        at_seconds: u64,
    },
    MakeUser(StoredUser),
    /// Another role, for other services, or another password, or both.
    SetUser {
        name: String,
        role: Option<(UserRole, Services)>,
        password: Option<Hashed>,
    },
    RemoveUser {
        name: String,
        at_seconds: u64,
    },
    BeginSession(StoredSession),
    EndSession {
        user: String,
        digest: Digest,
    },
}

impl AccessChange {
    pub(crate) fn entry(&self, cause: &Cause) -> Entry {
        let (action, target, after) = match self {
            Self::MakeKey(key) => {
                let services = key.services.names();
                let after = json!({
                    "name": key.name, "role": key.role, "services": services, "expires_at_seconds": key.expires_at,
                });
                ("key_created", format!("key {}", key.id), after)
            }
            Self::RevokeKey { id, .. } => (
                "key_revoked",
                format!("key {id}"),
                json!({ "revoked": true }),
            ),
            Self::MakeUser(user) => {
                let after = json!({ "role": user.role, "services": user.services.names() });
                ("user_created", format!("user {}", user.name), after)
            }
            Self::SetUser {
                name,
                role,
                password,
            } => {
                let mut after = json!({});
                if let Some((role, services)) = role {
                    after = json!({ "role": role, "services": services.names() });
                }
                if password.is_some() {
                    after["password"] = "another".into();
                }
                ("user_changed", format!("user {name}"), after)
            }
            Self::RemoveUser { name, .. } => ("user_removed", format!("user {name}"), Value::Null),
            Self::BeginSession(session) => {
                ("logged_in", format!("user {}", session.user), Value::Null)
            }
            Self::EndSession { user, .. } => ("logged_out", format!("user {user}"), Value::Null),
        };
        Entry {
            cause: cause.clone(),
            action,
            service: None,
            target: Some(target),
            before: None,
            after: (!after.is_null()).then_some(after),
        }
    }

    /// Whether it changes nobody's rights.
    pub(crate) fn is_of_a_session(&self) -> bool {
        matches!(self, Self::BeginSession(_) | Self::EndSession { .. })
    }
}
