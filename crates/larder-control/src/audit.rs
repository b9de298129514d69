//! The audit trail: who did what, from where, and what was refused. Each entry has an HMAC of itself and of the one before
//! it, made with a key that does not lie in the database: who changes the trail without the key is found out.

mod key;
mod refusals;
mod verify;

use larder_model::api::{AuditEntry, AuditHead};
use serde_json::Value;

pub(crate) use key::AuditKey;
pub use key::KeyError;
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
    /// `None` where it is to be read from the database: after a write of which it is not known whether it was done.
    pub(crate) head: Option<Head>,
}

impl Trail {
    pub(crate) fn new(key: AuditKey) -> Self {
        Self { key, head: None }
    }

    /// The entry with which a trail begins, or goes on with another key; `None` where it goes on as it was.
    pub(crate) fn opening(&self, head: &Head, at_seconds: u64) -> Option<Row> {
        let is_new = head.key_id != self.key.id();
        is_new.then(|| self.seal(head, Entry::key_made(&self.key), at_seconds))
    }

    /// The head behind these entries, as far as they follow it and were made with the key.
    pub(crate) fn follow(&self, head: &Head, rows: &[Row]) -> Head {
        let mut head = head.clone();
        for row in rows {
            let is_next = row.sequence == head.sequence.saturating_add(1);
            if !is_next || !self.key.has_signed(&head.mac, row) {
                break;
            }
            head = Head::of(row);
        }
        head
    }

    /// The entry that comes behind a head.
    pub(crate) fn seal(&self, head: &Head, entry: Entry, at_seconds: u64) -> Row {
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
