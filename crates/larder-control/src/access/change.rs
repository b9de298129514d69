//! A change of who may do what, and what the audit trail says of it.

use serde_json::json;

use super::key::StoredKey;
use crate::audit::Entry;
use crate::cause::Cause;

/// A change that is to be made, together with its entry in the trail.
pub(crate) enum AccessChange {
    MakeKey(StoredKey),
    RevokeKey { id: String, at_seconds: u64 },
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
        };
        Entry {
            cause: cause.clone(),
            action,
            service: None,
            target: Some(target),
            before: None,
            after: Some(after),
        }
    }
}
