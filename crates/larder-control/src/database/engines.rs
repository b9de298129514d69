//! The engine's states, and the records of what it decided.

use larder_decide::{Engine, Record};
use larder_model::{Endpoint, Service};
use sqlx::Row as _;

use super::{Database, shape, signed};

/// So many records of an endpoint are kept, the latest.
const MOST_RECORDS: i64 = 500;

impl Database {
    /// The engine's state of an endpoint, as it was kept; `None` also for that of another version.
    pub(crate) async fn engine(
        &self,
        service: &Service,
        endpoint: &Endpoint,
    ) -> Result<Option<Engine>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT state FROM engine_states WHERE service = ? AND method = ? AND shape = ?",
        )
        .bind(service.as_str())
        .bind(endpoint.method().as_str())
        .bind(shape(endpoint))
        .fetch_optional(&self.pool)
        .await?;
        let state: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?;
        Ok(state.and_then(|state| Engine::from_bytes(&state)))
    }

    /// Keeps the engine's state of an endpoint.
    pub(crate) async fn put_engine(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        engine: &Engine,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT OR REPLACE INTO engine_states (service, method, shape, state) VALUES (?, ?, ?, ?)",
        )
        .bind(service.as_str())
        .bind(endpoint.method().as_str())
        .bind(shape(endpoint))
        .bind(engine.to_bytes())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Keeps a record, and of the endpoint's others the latest.
    pub(crate) async fn put_record(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        record: &Record,
    ) -> Result<(), sqlx::Error> {
        let (method, shape) = (endpoint.method().as_str(), shape(endpoint));
        sqlx::query(
            "INSERT OR REPLACE INTO decision_records (service, method, shape, at_seconds, record) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(service.as_str())
        .bind(method)
        .bind(&shape)
        .bind(record.figures.now as i64)
        .bind(record.to_bytes())
        .execute(&self.pool)
        .await?;
        sqlx::query(
            "DELETE FROM decision_records WHERE service = ?1 AND method = ?2 AND shape = ?3 AND at_seconds < \
             (SELECT at_seconds FROM decision_records WHERE service = ?1 AND method = ?2 AND shape = ?3 \
              ORDER BY at_seconds DESC LIMIT 1 OFFSET ?4)",
        )
        .bind(service.as_str())
        .bind(method)
        .bind(&shape)
        .bind(MOST_RECORDS - 1)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The records of an endpoint that are not later than `at`, in seconds since 1970; newest first.
    pub(crate) async fn records(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        at: u64,
    ) -> Result<Vec<Record>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT record FROM decision_records WHERE service = ? AND method = ? AND shape = ? AND at_seconds <= ? \
             ORDER BY at_seconds DESC",
        )
        .bind(service.as_str())
        .bind(endpoint.method().as_str())
        .bind(shape(endpoint))
        .bind(signed(at))
        .fetch_all(&self.pool)
        .await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let bytes: Vec<u8> = row.try_get(0)?;
            records.extend(Record::from_bytes(&bytes));
        }
        Ok(records)
    }
}
