//! Policies, as somebody set them.

use std::collections::BTreeMap;

use larder_model::{Endpoint, Method};

use super::sql::{Transaction, query};
use super::{LoadError, gone, news, signed, unsigned};
use crate::stored::{Identity, StoredPolicy};

pub(super) async fn read(
    transaction: &mut Transaction,
    service: &str,
) -> Result<BTreeMap<Identity, StoredPolicy>, LoadError> {
    let rows =
        query("SELECT method, shape, template, patch, version FROM policies WHERE service = $1")
            .bind(service)
            .fetch_all(transaction)
            .await?;
    let mut policies = BTreeMap::new();
    for row in rows {
        let (method, shape): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let policy = StoredPolicy {
            endpoint: Endpoint::new(Method::new(&method)?, row.try_get(2)?)?,
            patch: serde_json::from_str(row.try_get(3)?)?,
            version: unsigned(row.try_get(4)?),
        };
        policies.insert((method, shape), policy);
    }
    Ok(policies)
}

pub(super) async fn write(
    transaction: &mut Transaction,
    service: &str,
    before: &BTreeMap<Identity, StoredPolicy>,
    after: &BTreeMap<Identity, StoredPolicy>,
) -> Result<(), sqlx::Error> {
    for (method, shape) in gone(before, after) {
        query("DELETE FROM policies WHERE service = $1 AND method = $2 AND shape = $3")
            .bind(service)
            .bind(method)
            .bind(shape)
            .execute(&mut *transaction)
            .await?;
    }
    for ((method, shape), policy) in news(before, after) {
        query(
            "INSERT INTO policies (service, method, shape, template, patch, version) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (service, method, shape) DO UPDATE SET template = excluded.template, patch = excluded.patch, version = excluded.version",
        )
        .bind(service)
        .bind(method)
        .bind(shape)
        .bind(policy.endpoint.template())
        .bind(super::json(&policy.patch)?)
        .bind(signed(policy.version))
        .execute(&mut *transaction)
        .await?;
    }
    Ok(())
}
