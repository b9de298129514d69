//! Overrides in force.

use std::collections::BTreeMap;

use larder_model::{Endpoint, Method};

use super::sql::{Transaction, query};
use super::{LoadError, gone, news, signed, unsigned};
use crate::cause::Author;
use crate::moment::{Expiry, Moment};
use crate::stored::{Identity, StoredOverride};

pub(super) async fn read(
    transaction: &mut Transaction,
    service: &str,
    now: Moment,
) -> Result<BTreeMap<Identity, StoredOverride>, LoadError> {
    let rows = query(
        "SELECT method, shape, id, template, patch, author, author_verified, reason, began_at_seconds, expires_at_seconds \
         FROM overrides WHERE service = $1",
    )
    .bind(service)
    .fetch_all(transaction)
    .await?;
    let mut overrides = BTreeMap::new();
    for row in rows {
        let (method, shape): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let one = StoredOverride {
            id: row.try_get(2)?,
            endpoint: Endpoint::new(Method::new(&method)?, row.try_get(3)?)?,
            patch: serde_json::from_str(row.try_get(4)?)?,
            author: Author {
                name: row.try_get(5)?,
                is_verified: row.try_get(6)?,
            },
            reason: row.try_get(7)?,
            began_at: unsigned(row.try_get(8)?),
            expiry: Expiry::at(unsigned(row.try_get(9)?), now),
        };
        overrides.insert((method, shape), one);
    }
    Ok(overrides)
}

pub(super) async fn write(
    transaction: &mut Transaction,
    service: &str,
    before: &BTreeMap<Identity, StoredOverride>,
    after: &BTreeMap<Identity, StoredOverride>,
) -> Result<(), sqlx::Error> {
    let replaced = news(before, after).map(|(key, _)| key);
    for (method, shape) in gone(before, after).chain(replaced) {
        query("DELETE FROM overrides WHERE service = $1 AND method = $2 AND shape = $3")
            .bind(service)
            .bind(method)
            .bind(shape)
            .execute(&mut *transaction)
            .await?;
    }
    for ((method, shape), one) in news(before, after) {
        query(
            "INSERT INTO overrides (service, method, shape, id, template, patch, author, author_verified, reason, \
             began_at_seconds, expires_at_seconds) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(service)
        .bind(method)
        .bind(shape)
        .bind(&one.id)
        .bind(one.endpoint.template())
        .bind(super::json(&one.patch)?)
        .bind(&one.author.name)
        .bind(one.author.is_verified)
        .bind(&one.reason)
        .bind(signed(one.began_at))
        .bind(signed(one.expiry.at_seconds()))
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}
