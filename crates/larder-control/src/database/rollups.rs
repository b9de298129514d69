//! What was measured of each service, by minutes and by hours.

use larder_model::{Service, Window};

use super::sql::{SqlRow, query};
use super::{Database, json, signed, unsigned};

impl Database {
    /// Keeps what was measured of a service in a stretch that begins at a time, both in seconds; one that is kept stays as it is.
    pub(crate) async fn put_rollup(
        &self,
        service: &str,
        (at, length): (u64, u64),
        window: &Window,
    ) -> Result<(), sqlx::Error> {
        query(
            "INSERT INTO rollups (service, length_seconds, at_seconds, figures) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (service, length_seconds, at_seconds) DO NOTHING",
        )
        .bind(service)
        .bind(signed(length))
        .bind(signed(at))
        .bind(json(window)?)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Stretches of a length, of all services or of one, that begin from a time on, oldest first; so many at the most.
    pub(crate) async fn rollups(
        &self,
        only: Option<&Service>,
        length: u64,
        since: u64,
        most: u32,
    ) -> Result<Vec<(String, u64, Window)>, sqlx::Error> {
        let rows = query(
            "SELECT service, at_seconds, figures FROM rollups \
             WHERE length_seconds = $1 AND at_seconds >= $2 AND ($3 = '' OR service = $3) ORDER BY at_seconds LIMIT $4",
        )
        .bind(signed(length))
        .bind(signed(since))
        .bind(only.map_or("", Service::as_str))
        .bind(most)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Which longer stretches, of so many seconds, end before a time, have shorter ones in them, and are not kept yet.
    pub(crate) async fn missing_rollups(
        &self,
        (short, long): (u64, u64),
        until: u64,
    ) -> Result<Vec<(String, u64)>, sqlx::Error> {
        let rows = query(
            "SELECT DISTINCT service, at_seconds - at_seconds % $2 FROM rollups AS a \
             WHERE length_seconds = $1 AND at_seconds < $3 AND NOT EXISTS (SELECT 1 FROM rollups AS b \
             WHERE b.service = a.service AND b.length_seconds = $2 AND b.at_seconds = a.at_seconds - a.at_seconds % $2)",
        )
        .bind(signed(short))
        .bind(signed(long))
        .bind(signed(until))
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &SqlRow| Ok((row.try_get(0)?, unsigned(row.try_get(1)?)));
        rows.iter().map(read).collect()
    }

    /// Removes stretches of a length that begin before a time.
    pub(crate) async fn forget_rollups(&self, length: u64, before: u64) -> Result<(), sqlx::Error> {
        query("DELETE FROM rollups WHERE length_seconds = $1 AND at_seconds < $2")
            .bind(signed(length))
            .bind(signed(before))
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

fn read(row: &SqlRow) -> Result<(String, u64, Window), sqlx::Error> {
    let figures = serde_json::from_str(row.try_get(2)?);
    let figures = figures.map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok((row.try_get(0)?, unsigned(row.try_get(1)?), figures))
}
