//! The audit trail: only ever added to.

use super::sql::{On, SqlRow, Transaction, query};
use super::{CommitError, Database, signed, unsigned};
use crate::audit::{Head, Row};

/// So many entries are read at once.
const PAGE: i64 = 500;

impl Database {
    /// Where the trail ends.
    pub(crate) async fn audit_head<'a>(&self, on: impl Into<On<'a>>) -> Result<Head, sqlx::Error> {
        let row = query("SELECT * FROM audit ORDER BY sequence DESC LIMIT 1");
        match row.fetch_optional(on).await? {
            Some(row) => Ok(Head::of(&read(&row)?)),
            None => Ok(Head::none(&self.id)),
        }
    }

    /// Where the trail ends, outside of a change.
    pub(crate) async fn audit_head_now(&self) -> Result<Head, sqlx::Error> {
        self.audit_head(&self.pool).await
    }

    /// Adds an entry that belongs to no change of a service, and makes the change that it belongs to.
    pub(crate) async fn append_audit(
        &self,
        mut transaction: Transaction,
        row: &Row,
    ) -> Result<(), CommitError> {
        append(&mut transaction, row).await?;
        self.tell(&mut transaction, "audit").await?;
        transaction.commit().await.map_err(CommitError::Unsure)
    }

    /// The entries behind this one, oldest first, so many as are read at once.
    pub(crate) async fn audit_after(&self, sequence: u64) -> Result<Vec<Row>, sqlx::Error> {
        let rows = query("SELECT * FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2")
            .bind(signed(sequence))
            .bind(PAGE)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// The entries before this one, newest first, of one service or of all.
    pub(crate) async fn audit_before(
        &self,
        sequence: u64,
        service: Option<&str>,
        most: u32,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let rows = query(
            "SELECT * FROM audit WHERE sequence < $1 AND ($2 = '' OR service = $2) ORDER BY sequence DESC LIMIT $3",
        )
        .bind(signed(sequence))
        .bind(service.unwrap_or_default())
        .bind(i64::from(most))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }
}

pub(super) async fn append(transaction: &mut Transaction, row: &Row) -> Result<(), sqlx::Error> {
    query(
        "INSERT INTO audit (sequence, at_seconds, actor, actor_verified, address, action, service, target, before_text, after_text, \
         reason, key_id, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(signed(row.sequence))
    .bind(signed(row.at_seconds))
    .bind(&row.actor)
    .bind(row.actor_verified)
    .bind(&row.address)
    .bind(&row.action)
    .bind(&row.service)
    .bind(&row.target)
    .bind(&row.before)
    .bind(&row.after)
    .bind(&row.reason)
    .bind(&row.key_id)
    .bind(&row.mac)
    .execute(transaction)
    .await?;
    Ok(())
}

fn read(row: &SqlRow) -> Result<Row, sqlx::Error> {
    Ok(Row {
        sequence: unsigned(row.try_get("sequence")?),
        at_seconds: unsigned(row.try_get("at_seconds")?),
        actor: row.try_get("actor")?,
        actor_verified: row.try_get("actor_verified")?,
        address: row.try_get("address")?,
        action: row.try_get("action")?,
        service: row.try_get("service")?,
        target: row.try_get("target")?,
        before: row.try_get("before_text")?,
        after: row.try_get("after_text")?,
        reason: row.try_get("reason")?,
        key_id: row.try_get("key_id")?,
        mac: row.try_get("mac")?,
    })
}
