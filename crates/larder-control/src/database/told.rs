//! What services told one replica, for the others: the batches as they came, for a short time.
//!
//! Each replica numbers what it writes, and is alone in writing under its name, so that who reads behind a number misses nothing.

use std::time::Duration;

use super::sql::{Pool, query};
use super::{Database, signed, unsigned};

/// What is older is removed, in milliseconds.
const KEPT_MS: f64 = 120_000.0;
/// So many batches of one replica are read at once.
const MOST: i64 = 8;

/// A batch that another replica was told.
pub(crate) struct Told {
    pub(crate) number: u64,
    /// How long ago it was written, by the database's clock.
    pub(crate) age: Duration,
    /// As JSON.
    pub(crate) batch: String,
}

impl Database {
    /// Writes a batch for the others.
    pub(crate) async fn put_told(&self, number: u64, batch: String) -> Result<(), sqlx::Error> {
        query("INSERT INTO told (replica, number, batch) VALUES ($1, $2, $3) ON CONFLICT (replica, number) DO NOTHING")
            .bind(&self.replica)
            .bind(signed(number))
            .bind(batch)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Up to which number each replica has written, but this one.
    pub(crate) async fn told_by_others(&self) -> Result<Vec<(String, u64)>, sqlx::Error> {
        let rows =
            query("SELECT replica, MAX(number) FROM told WHERE replica <> $1 GROUP BY replica")
                .bind(&self.replica)
                .fetch_all(&self.pool)
                .await?;
        let read = |row: &super::sql::SqlRow| Ok((row.try_get(0)?, unsigned(row.try_get(1)?)));
        rows.iter().map(read).collect()
    }

    /// What a replica wrote behind a number, oldest first, so much as is read at once.
    pub(crate) async fn told_behind(
        &self,
        replica: &str,
        number: u64,
    ) -> Result<Vec<Told>, sqlx::Error> {
        let rows = query(
            "SELECT number, CAST(EXTRACT(EPOCH FROM clock_timestamp() - written_at) * 1000 AS BIGINT), batch \
             FROM told WHERE replica = $1 AND number > $2 ORDER BY number LIMIT $3",
        )
        .bind(replica)
        .bind(signed(number))
        .bind(MOST)
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &super::sql::SqlRow| {
            Ok(Told {
                number: unsigned(row.try_get(0)?),
                age: Duration::from_millis(unsigned(row.try_get(1)?)),
                batch: row.try_get(2)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Removes what is old, of all replicas: some are gone.
    pub(crate) async fn forget_told(&self) -> Result<(), sqlx::Error> {
        if matches!(self.pool, Pool::Sqlite(_)) {
            return Ok(());
        }
        query(
            "DELETE FROM told WHERE written_at < clock_timestamp() - $1 * INTERVAL '1 millisecond'",
        )
        .bind(KEPT_MS)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
