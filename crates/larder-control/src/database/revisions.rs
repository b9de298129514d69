//! What held for a service from change to change.

use larder_model::Service;
use larder_model::api::{Action, Revision, ServiceState};

use super::sql::{SqlRow, Transaction, query};
use super::{Database, signed, unsigned};
use crate::cause::Author;

/// No more revisions of a service are kept, the latest, and of automatic decisions a tenth of them.
const MOST: u64 = 10_000;
/// Fewer, if their snapshots would take more than so many bytes at the size of the last.
const MOST_BYTES: u64 = 64 << 20;
/// But no fewer than these.
const LEAST: u64 = 100;

/// A revision that is to be kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewRevision {
    pub(crate) number: u64,
    pub(crate) at_seconds: u64,
    pub(crate) action: Action,
    pub(crate) author: Author,
    pub(crate) reason: String,
    /// A [`ServiceState`] as JSON.
    pub(crate) snapshot: String,
    pub(crate) sha256: String,
}

fn read(service: &Service, row: &SqlRow) -> Result<Revision, sqlx::Error> {
    let action: String = row.try_get("action")?;
    let unknown = || sqlx::Error::Decode("a revision's action is none that there is".into());
    Ok(Revision {
        service_name: service.as_str().to_owned(),
        number: unsigned(row.try_get("number")?),
        at_seconds: unsigned(row.try_get("at_seconds")?),
        action: Action::of_name(&action).ok_or_else(unknown)?,
        author: row.try_get("author")?,
        author_verified: row.try_get("author_verified")?,
        reason: row.try_get("reason")?,
        sha256: row.try_get("sha256")?,
        snapshot: None,
    })
}

impl Database {
    /// The revisions before this one, newest first, without their snapshots.
    pub(crate) async fn revisions_before(
        &self,
        service: &Service,
        number: u64,
        most: u32,
    ) -> Result<Vec<Revision>, sqlx::Error> {
        let rows = query(
            "SELECT number, at_seconds, action, author, author_verified, reason, sha256 FROM revisions \
             WHERE service = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        )
        .bind(service.as_str())
        .bind(signed(number))
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| read(service, row)).collect()
    }

    /// One revision, with its snapshot.
    pub(crate) async fn revision(
        &self,
        service: &Service,
        number: u64,
    ) -> Result<Option<Revision>, sqlx::Error> {
        let row = query(
            "SELECT number, at_seconds, action, author, author_verified, reason, sha256, snapshot FROM revisions \
             WHERE service = $1 AND number = $2",
        )
        .bind(service.as_str())
        .bind(signed(number))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mut revision = read(service, &row)?;
        let snapshot: ServiceState = serde_json::from_str(row.try_get("snapshot")?)
            .map_err(|error| sqlx::Error::Decode(error.into()))?;
        revision.snapshot = Some(snapshot);
        Ok(Some(revision))
    }
}

/// Adds a revision, and of automatic decisions (else of all) keeps the latest.
pub(super) async fn append(
    transaction: &mut Transaction,
    service: &str,
    revision: &NewRevision,
) -> Result<(), sqlx::Error> {
    query(
        "INSERT INTO revisions (service, number, at_seconds, action, author, author_verified, reason, sha256, snapshot) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(service)
    .bind(signed(revision.number))
    .bind(signed(revision.at_seconds))
    .bind(revision.action.as_str())
    .bind(&revision.author.name)
    .bind(revision.author.is_verified)
    .bind(&revision.reason)
    .bind(&revision.sha256)
    .bind(&revision.snapshot)
    .execute(&mut *transaction)
    .await?;
    let decided = Action::Decided.as_str();
    let most = most(revision.snapshot.len());
    let (of, most) = match revision.action {
        Action::Decided => (decided, most / 10),
        _ => ("", most),
    };
    query(
        "DELETE FROM revisions WHERE service = $1 AND ($2 = '' OR action = $2) AND number <= \
         (SELECT number FROM revisions WHERE service = $1 AND ($2 = '' OR action = $2) ORDER BY number DESC LIMIT 1 OFFSET $3)",
    )
    .bind(service)
    .bind(of)
    .bind(signed(most))
    .execute(transaction)
    .await?;
    Ok(())
}

/// How many revisions are kept, where a snapshot takes so many bytes.
fn most(snapshot: usize) -> u64 {
    let fitting = MOST_BYTES / (snapshot as u64).max(1);
    fitting.clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_snapshots_are_kept_less_often() {
        assert_eq!(most(0), 10_000);
        assert_eq!(most(3_000), 10_000);
        assert_eq!(most(64 << 10), 1_024);
        assert_eq!(most(64 << 20), 100);
    }
}
