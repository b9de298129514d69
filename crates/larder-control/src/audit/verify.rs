//! Looks over a whole audit trail.

use futures_util::FutureExt as _;
use larder_model::api::AuditHead;

use super::{AuditKey, AuditKeyPlace, Head, KeyError, Row};
use crate::database::{Database, DatabasePlace};

/// A trail that nobody changed, as far as the key can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many entries it has.
    pub entries: u64,
    /// Where it ends.
    pub head: AuditHead,
}

/// What is wrong with a trail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFault {
    /// There is nothing, and the control plane writes an entry at its first start.
    #[error("the trail is empty: its entries were removed")]
    Empty,
    /// An entry that must be there is not.
    #[error("entry {expected} is missing, the next is {found}: entries were removed")]
    Missing {
        /// Which.
        expected: u64,
        /// Which there is in its place.
        found: u64,
    },
    /// An entry is not as it was written, or not behind the one that it was written behind.
    #[error(
        "entry {0} is not as the control plane wrote it: it, or the one before it, was changed, put in or moved"
    )]
    Changed(u64),
    /// An entry was made with another key.
    #[error(
        "entry {sequence} was made with the key {key_id}, which is not the one at hand: bring that key file back to verify it"
    )]
    OtherKey {
        /// Which.
        sequence: u64,
        /// The other key's name.
        key_id: String,
    },
    /// The trail ends before an entry that it had.
    #[error("the trail ends at entry {end}, and had an entry {head}: its end was cut")]
    Cut {
        /// The last entry that is there.
        end: u64,
        /// An entry that was there.
        head: u64,
    },
    /// An entry's MAC is another than the one that was published.
    #[error("entry {0} is another than the one that was published: the trail was written anew")]
    OtherHead(u64),
}

/// Why a trail could not be looked over, or what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The key can't be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The database can't be read.
    #[error(
        "can't read the audit trail in {place}: {source}; name the folder of the control plane in LARDER_DIR, or its PostgreSQL in DATABASE_URL"
    )]
    Database {
        /// The file, or where PostgreSQL is.
        place: String,
        /// What the database said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The trail was changed.
    #[error(transparent)]
    Fault(#[from] AuditFault),
}

/// Looks over the audit trail in a control plane's database, which may be in use. With a `published` head, as
/// `GET /api/audit/head` gave it at some time (its key's name does not count), the trail must still have that entry.
///
/// # Errors
/// A [`VerifyError::Fault`] says what was done to it, as far as can be told: which entry is the first that is wrong.
pub fn verify_audit<'a>(
    database: &'a DatabasePlace,
    key: &'a AuditKeyPlace,
    published: Option<&'a AuditHead>,
) -> impl Future<Output = Result<Verified, VerifyError>> + Send {
    verify(database, key, published).boxed()
}

async fn verify(
    database: &DatabasePlace,
    key: &AuditKeyPlace,
    published: Option<&AuditHead>,
) -> Result<Verified, VerifyError> {
    let error = |source: Box<dyn std::error::Error + Send + Sync>| VerifyError::Database {
        place: database.to_string(),
        source,
    };
    let key = AuditKey::open(key)?;
    let opened = Database::open_to_look(database).await;
    let opened = opened.map_err(|source| error(source.into()))?;
    let mut walk = Walk::new(Head::none(opened.id()), published);
    loop {
        let rows = opened.audit_after(walk.head.sequence).await;
        let rows = rows.map_err(|source| error(source.into()))?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            walk.step(&key, row)?;
        }
    }
    opened.close().await;
    Ok(walk.end()?)
}

/// Goes from entry to entry.
struct Walk<'a> {
    head: Head,
    published: Option<&'a AuditHead>,
}

impl<'a> Walk<'a> {
    fn new(head: Head, published: Option<&'a AuditHead>) -> Self {
        Self { head, published }
    }

    fn step(&mut self, key: &AuditKey, row: &Row) -> Result<(), AuditFault> {
        let expected = self.head.sequence.saturating_add(1);
        if row.sequence != expected {
            let found = row.sequence;
            return Err(AuditFault::Missing { expected, found });
        }
        if row.key_id != key.id() {
            return Err(AuditFault::OtherKey {
                sequence: row.sequence,
                key_id: row.key_id.clone(),
            });
        }
        if !key.has_signed(&self.head.mac, row) {
            return Err(AuditFault::Changed(row.sequence));
        }
        let is_published = |head: &&AuditHead| head.sequence == row.sequence;
        if let Some(published) = self.published.filter(is_published)
            && !published.mac.eq_ignore_ascii_case(&row.mac)
        {
            return Err(AuditFault::OtherHead(row.sequence));
        }
        self.head = Head::of(row);
        Ok(())
    }

    fn end(self) -> Result<Verified, AuditFault> {
        let end = self.head.sequence;
        match self.published {
            Some(published) if published.sequence > end => Err(AuditFault::Cut {
                end,
                head: published.sequence,
            }),
            _ if end == 0 => Err(AuditFault::Empty),
            _ => Ok(Verified {
                entries: end,
                head: self.head.describe(),
            }),
        }
    }
}
