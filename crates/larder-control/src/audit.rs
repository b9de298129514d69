//! The audit trail: who did what, from where, and what was refused. Each entry has an HMAC of itself and of the one before
//! it, made with a key that does not lie in the database: who changes the trail without the key is found out.

mod key;
mod refusals;
mod verify;

use larder_model::api::{AuditEntry, AuditHead};
use serde_json::Value;

pub(crate) use key::AuditKey;
pub use key::{AuditKeyPlace, KeyError};
pub(crate) use refusals::Refusals;
pub use verify::{AuditFault, Verified, VerifyError, verify_audit};

use crate::cause::Cause;
use crate::hex;

/// What a refused request is called in the trail.
const REFUSED: &str = "refused";
/// What the first entry of a key is called.
const KEY_MADE: &str = "key_made";

/// What is to be written into the trail.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) cause: Cause,
    pub(crate) action: &'static str,
    pub(crate) service: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

impl Entry {
    /// A request that was refused, and how many were before it that are not in the trail.
    pub(crate) fn refused(cause: Cause, request: String, status: u16, unwritten: u64) -> Self {
        let after = serde_json::json!({ "status": status, "not_written_before": unwritten });
        Self {
            cause,
            action: REFUSED,
            service: None,
            target: Some(request),
            before: None,
            after: Some(after),
        }
    }

    /// The first entry that is made with a key.
    fn key_made(key: &AuditKey) -> Self {
        Self {
            cause: Cause::larder(
                "what is before this entry was made with another key, or not at all",
            ),
            action: KEY_MADE,
            service: None,
            target: None,
            before: None,
            after: Some(serde_json::json!({ "key_id": key.id() })),
        }
    }
}

/// An entry as it is stored. All but the MAC goes into the MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) sequence: u64,
    pub(crate) at_seconds: u64,
    pub(crate) actor: String,
    pub(crate) actor_verified: bool,
    pub(crate) address: Option<String>,
    pub(crate) action: String,
    pub(crate) service: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) reason: String,
    pub(crate) key_id: String,
    pub(crate) mac: String,
}

impl Row {
    /// The entry for those who ask. What is no JSON any more was changed by others: it is shown as text.
    pub(crate) fn describe(self) -> AuditEntry {
        let value = |text: Option<String>| {
            text.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)))
        };
        AuditEntry {
            sequence: self.sequence,
            at_seconds: self.at_seconds,
            actor: self.actor,
            actor_verified: self.actor_verified,
            address: self.address,
            action: self.action,
            service_name: self.service,
            target: self.target,
            before: value(self.before),
            after: value(self.after),
            reason: self.reason,
            mac: self.mac,
        }
    }
}

/// Where the trail ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// 0: nothing is in it.
    pub(crate) sequence: u64,
    /// The last entry's MAC; before the first one the database's name.
    pub(crate) mac: String,
    /// The last entry's key; before the first one nothing.
    pub(crate) key_id: String,
}

impl Head {
    /// That of an empty trail.
    pub(crate) fn none(database_id: &str) -> Self {
        Self {
            sequence: 0,
            mac: database_id.to_owned(),
            key_id: String::new(),
        }
    }

    pub(crate) fn of(row: &Row) -> Self {
        Self {
            sequence: row.sequence,
            mac: row.mac.clone(),
            key_id: row.key_id.clone(),
        }
    }

    pub(crate) fn describe(&self) -> AuditHead {
        AuditHead {
            sequence: self.sequence,
            mac: self.mac.clone(),
            key_id: self.key_id.clone(),
        }
    }
}

/// Makes entries that follow each other.
pub(crate) struct Trail {
    key: AuditKey,
    /// The furthest entry that this process knows of: where the database has none that far, its end was cut, and the next one
    /// leaves a gap.
    known: Head,
}

impl Trail {
    pub(crate) fn new(key: AuditKey, database_id: &str) -> Self {
        Self {
            key,
            known: Head::none(database_id),
        }
    }

    /// What the key is called.
    pub(crate) fn key_id(&self) -> &str {
        self.key.id()
    }

    /// Whether an entry of a head could be one of this key's.
    pub(crate) fn wrote(&self, head: &Head) -> bool {
        head.key_id == self.key.id()
    }

    /// Takes note of where the trail ends.
    pub(crate) fn learn(&mut self, head: Head) {
        if head.sequence > self.known.sequence {
            self.known = head;
        }
    }

    /// The furthest entry that is known.
    pub(crate) fn known(&self) -> &Head {
        &self.known
    }

    /// The entry with which a trail begins, or goes on with another key.
    pub(crate) fn opening(&self, at_seconds: u64) -> Row {
        self.seal(&self.known, Entry::key_made(&self.key), at_seconds)
    }

    /// The entry that comes next.
    pub(crate) fn next(&self, entry: Entry, at_seconds: u64) -> Row {
        self.seal(&self.known, entry, at_seconds)
    }

    fn seal(&self, head: &Head, entry: Entry, at_seconds: u64) -> Row {
        let text = |value: Option<Value>| value.map(|value| value.to_string());
        let mut row = Row {
            sequence: head.sequence.saturating_add(1),
            at_seconds,
            actor: entry.cause.author.name,
            actor_verified: entry.cause.author.is_verified,
            address: entry.cause.address.map(|address| address.to_string()),
            action: entry.action.to_owned(),
            service: entry.service,
            target: entry.target,
            before: text(entry.before),
            after: text(entry.after),
            reason: entry.cause.reason,
            key_id: self.key.id().to_owned(),
            mac: String::new(),
        };
        row.mac = hex::encode(self.key.sign(&head.mac, &row).as_ref());
        row
    }
}
