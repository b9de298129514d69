//! Who may do what: API keys, all but their secrets.

use super::sql::{SqlRow, Transaction, query};
use super::{CommitError, Database, signed, trail, unsigned, users};
use crate::access::{AccessChange, Digest, Services, StoredKey};
use crate::audit::Row as AuditRow;
use larder_model::api::KeyRole;

impl Database {
    /// Which change of who may do what was the last.
    pub(crate) async fn access_version(&self) -> Result<u64, sqlx::Error> {
        let row = query("SELECT version FROM access").fetch_one(&self.pool);
        Ok(unsigned(row.await?.try_get(0)?))
    }

    /// All keys, oldest first.
    pub(crate) async fn api_keys(&self) -> Result<Vec<StoredKey>, sqlx::Error> {
        let rows = query(
            "SELECT id, sha256, name, role, services, made_at_seconds, expires_at_seconds, revoked_at_seconds, used_at_seconds \
             FROM api_keys ORDER BY made_at_seconds, id",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Makes a change, with its entry in the audit trail; `false`: there was nothing to change.
    pub(crate) async fn change_access(
        &self,
        mut transaction: Transaction,
        change: &AccessChange,
        audit: &AuditRow,
    ) -> Result<bool, CommitError> {
        let changed = match change {
            AccessChange::MakeKey(key) => make(&mut transaction, key).await?,
            AccessChange::RevokeKey { id, at_seconds } => {
                revoke(&mut transaction, id, *at_seconds).await?
            }
            AccessChange::MakeUser(user) => users::make(&mut transaction, user).await?,
            AccessChange::SetUser {
                name,
                role,
                password,
            } => users::set(&mut transaction, name, role.as_ref(), password.as_ref()).await?,
            AccessChange::RemoveUser { name, at_seconds } => {
                users::remove(&mut transaction, name, *at_seconds).await?
            }
            AccessChange::BeginSession(session) => {
                users::begin_session(&mut transaction, session).await?
            }
            AccessChange::EndSession { digest, .. } => {
                users::end_session(&mut transaction, *digest).await?
            }
        };
        if changed == 0 {
            return Ok(false);
        }
        if !change.is_of_a_session() {
            query("UPDATE access SET version = version + 1")
                .execute(&mut transaction)
                .await?;
        }
        trail::append(&mut transaction, audit).await?;
        self.tell(&mut transaction, "audit").await?;
        transaction.commit().await.map_err(CommitError::Unsure)?;
        Ok(true)
    }

    /// Writes down when keys were used.
    pub(crate) async fn note_uses(&self, uses: &[(String, u64)]) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        for (id, at_seconds) in uses {
            query(
                "UPDATE api_keys SET used_at_seconds = $1 WHERE id = $2 AND COALESCE(used_at_seconds, 0) < $1",
            )
            .bind(signed(*at_seconds))
            .bind(id)
            .execute(&mut transaction)
            .await?;
        }
        transaction.commit().await
    }
}

async fn make(transaction: &mut Transaction, key: &StoredKey) -> Result<u64, sqlx::Error> {
    query(
        "INSERT INTO api_keys (id, sha256, name, role, services, made_at_seconds, expires_at_seconds) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&key.id)
    .bind(key.digest.to_hex())
    .bind(&key.name)
    .bind(key.role.as_str())
    .bind(super::json(&key.services.names())?)
    .bind(signed(key.made_at))
    .bind(key.expires_at.map(signed))
    .execute(transaction)
    .await
}

async fn revoke(
    transaction: &mut Transaction,
    id: &str,
    at_seconds: u64,
) -> Result<u64, sqlx::Error> {
    query(
        "UPDATE api_keys SET revoked_at_seconds = $1 WHERE id = $2 AND revoked_at_seconds IS NULL",
    )
    .bind(signed(at_seconds))
    .bind(id)
    .execute(transaction)
    .await
}

fn read(row: &SqlRow) -> Result<StoredKey, sqlx::Error> {
    let no_key = |what: &str| sqlx::Error::Decode(format!("an API key has no {what}").into());
    let (digest, role): (String, String) = (row.try_get("sha256")?, row.try_get("role")?);
    let services: Vec<String> = serde_json::from_str(row.try_get("services")?)
        .map_err(|error| sqlx::Error::Decode(error.into()))?;
    let seconds = |column: &str| -> Result<Option<u64>, sqlx::Error> {
        let seconds: Option<i64> = row.try_get(column)?;
        Ok(seconds.map(unsigned))
    };
    Ok(StoredKey {
        id: row.try_get("id")?,
        digest: Digest::of_hex(&digest).ok_or_else(|| no_key("hash"))?,
        name: row.try_get("name")?,
        role: KeyRole::of_name(&role).ok_or_else(|| no_key("role"))?,
        services: Services::of_names(&services)
            .map_err(|_| no_key("services"))?
            .into(),
        made_at: unsigned(row.try_get("made_at_seconds")?),
        expires_at: seconds("expires_at_seconds")?,
        revoked_at: seconds("revoked_at_seconds")?,
        used_at: seconds("used_at_seconds")?,
    })
}
