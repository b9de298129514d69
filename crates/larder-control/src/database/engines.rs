//! The engine's states, and the records of what it decided.

use larder_decide::{Engine, Record};
use larder_model::{Endpoint, Service};

use super::sql::{Transaction, query};
use super::{Database, gone, shape, signed};
use crate::stored::StoredService;

/// So many records of an endpoint are kept, the latest.
const MOST_RECORDS: i64 = 500;
/// What has no policy any more.
const LEFT_BEHIND: [&str; 2] = [
    "DELETE FROM engine_states WHERE NOT EXISTS (SELECT 1 FROM policies AS p \
     WHERE p.service = engine_states.service AND p.method = engine_states.method AND p.shape = engine_states.shape)",
    "DELETE FROM decision_records WHERE NOT EXISTS (SELECT 1 FROM policies AS p \
     WHERE p.service = decision_records.service AND p.method = decision_records.method AND p.shape = decision_records.shape)",
];

impl Database {
    /// The engine's state of an endpoint, as it was kept; `None` also for that of another version.
    pub(crate) async fn engine(
        &self,
        service: &Service,
        endpoint: &Endpoint,
    ) -> Result<Option<Engine>, sqlx::Error> {
        let row = query(
            "SELECT state FROM engine_states WHERE service = $1 AND method = $2 AND shape = $3",
        )
        .bind(service.as_str())
        .bind(endpoint.method().as_str())
        .bind(shape(endpoint))
        .fetch_optional(&self.pool)
        .await?;
        let state: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?;
        Ok(state.and_then(|state| Engine::from_bytes(&state)))
    }

    /// Keeps the engine's state of an endpoint, if that has a policy.
    pub(crate) async fn put_engine(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        engine: &Engine,
    ) -> Result<(), sqlx::Error> {
        query(
            "INSERT INTO engine_states (service, method, shape, state) \
             SELECT service, method, shape, $1 FROM policies WHERE service = $2 AND method = $3 AND shape = $4 \
             ON CONFLICT (service, method, shape) DO UPDATE SET state = excluded.state",
        )
        .bind(engine.to_bytes())
        .bind(service.as_str())
        .bind(endpoint.method().as_str())
        .bind(shape(endpoint))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Keeps a record, and of the endpoint's others the latest, if that has a policy.
    pub(crate) async fn put_record(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        record: &Record,
    ) -> Result<(), sqlx::Error> {
        let (method, shape) = (endpoint.method().as_str(), shape(endpoint));
        query(
            "INSERT INTO decision_records (service, method, shape, at_seconds, record) \
             SELECT service, method, shape, $1, $2 FROM policies WHERE service = $3 AND method = $4 AND shape = $5 \
             ON CONFLICT (service, method, shape, at_seconds) DO UPDATE SET record = excluded.record",
        )
        .bind(record.figures.now as i64)
        .bind(record.to_bytes())
        .bind(service.as_str())
        .bind(method)
        .bind(&shape)
        .execute(&self.pool)
        .await?;
        query(
            "DELETE FROM decision_records WHERE service = $1 AND method = $2 AND shape = $3 AND at_seconds < \
             (SELECT at_seconds FROM decision_records WHERE service = $1 AND method = $2 AND shape = $3 \
              ORDER BY at_seconds DESC LIMIT 1 OFFSET $4)",
        )
        .bind(service.as_str())
        .bind(method)
        .bind(&shape)
        .bind(MOST_RECORDS - 1)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The records of an endpoint that are not later than `at`, in seconds since 1970; so many at the most, newest first.
    pub(crate) async fn records(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        at: u64,
        most: u32,
    ) -> Result<Vec<Record>, sqlx::Error> {
        let rows = query(
            "SELECT record FROM decision_records WHERE service = $1 AND method = $2 AND shape = $3 AND at_seconds <= $4 \
             ORDER BY at_seconds DESC LIMIT $5",
        )
        .bind(service.as_str())
        .bind(endpoint.method().as_str())
        .bind(shape(endpoint))
        .bind(signed(at))
        .bind(most)
        .fetch_all(&self.pool)
        .await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            let bytes: Vec<u8> = row.try_get(0)?;
            records.extend(Record::from_bytes(&bytes));
        }
        Ok(records)
    }

    /// Removes the states and records of endpoints that have no policy.
    pub(crate) async fn forget_left_behind(&self) -> Result<(), sqlx::Error> {
        for statement in LEFT_BEHIND {
            query(statement).execute(&self.pool).await?;
        }
        Ok(())
    }
}

/// Forgets what was measured of endpoints for which nothing is decided any more, and what was decided over time for those that
/// have no policy any more.
pub(super) async fn forget(
    transaction: &mut Transaction,
    before: &StoredService,
    after: &StoredService,
) -> Result<(), sqlx::Error> {
    const STATE: &str =
        "DELETE FROM engine_states WHERE service = $1 AND method = $2 AND shape = $3";
    const RECORDS: &str =
        "DELETE FROM decision_records WHERE service = $1 AND method = $2 AND shape = $3";
    let undecided = gone(&before.decisions, &after.decisions).map(|gone| (STATE, gone));
    let states = gone(&before.policies, &after.policies).map(|gone| (STATE, gone));
    let records = gone(&before.policies, &after.policies).map(|gone| (RECORDS, gone));
    for (statement, (method, shape)) in undecided.chain(states).chain(records) {
        query(statement)
            .bind(after.service.as_str())
            .bind(method)
            .bind(shape)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(())
}
