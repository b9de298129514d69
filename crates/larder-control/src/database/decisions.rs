//! What the engine decided and is in force.

use std::collections::BTreeMap;
use std::time::Duration;

use larder_model::api::Watch;

use super::sql::{SqlRow, Transaction, query};
use super::{LoadError, gone, news, signed, unsigned};
use crate::decision::Decision;
use crate::stored::Identity;

pub(super) async fn read(
    transaction: &mut Transaction,
    service: &str,
) -> Result<BTreeMap<Identity, Decision>, LoadError> {
    let rows = query(
        "SELECT method, shape, cache_enabled, reason, since_seconds, ttl_seconds, key_share, check_share FROM decisions WHERE service = $1",
    )
    .bind(service)
    .fetch_all(transaction)
    .await?;
    let read = |row: &SqlRow| -> Result<_, LoadError> {
        let decision = Decision {
            cache_enabled: row.try_get(2)?,
            reason: row.try_get(3)?,
            since: Duration::from_secs(unsigned(row.try_get(4)?)),
            ttl: Duration::try_from_secs_f64(row.try_get(5)?).unwrap_or_default(),
            watch: Watch {
                key_share: row.try_get(6)?,
                check_share: row.try_get(7)?,
            },
        };
        Ok(((row.try_get(0)?, row.try_get(1)?), decision))
    };
    rows.iter().map(read).collect()
}

pub(super) async fn write(
    transaction: &mut Transaction,
    service: &str,
    before: &BTreeMap<Identity, Decision>,
    after: &BTreeMap<Identity, Decision>,
) -> Result<(), sqlx::Error> {
    for (method, shape) in gone(before, after) {
        query("DELETE FROM decisions WHERE service = $1 AND method = $2 AND shape = $3")
            .bind(service)
            .bind(method)
            .bind(shape)
            .execute(&mut *transaction)
            .await?;
    }
    for ((method, shape), decision) in news(before, after) {
        query(
            "INSERT INTO decisions (service, method, shape, cache_enabled, reason, since_seconds, ttl_seconds, key_share, check_share) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (service, method, shape) DO UPDATE SET cache_enabled = excluded.cache_enabled, reason = excluded.reason, \
             since_seconds = excluded.since_seconds, ttl_seconds = excluded.ttl_seconds, key_share = excluded.key_share, \
             check_share = excluded.check_share",
        )
        .bind(service)
        .bind(method)
        .bind(shape)
        .bind(decision.cache_enabled)
        .bind(&decision.reason)
        .bind(signed(decision.since.as_secs()))
        .bind(decision.ttl.as_secs_f64())
        .bind(decision.watch.key_share)
        .bind(decision.watch.check_share)
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}
