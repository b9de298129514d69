//! Users of the dashboard, and their sessions.

use larder_model::api::UserRole;

use super::sql::{SqlRow, Transaction, query};
use super::{Database, signed, unsigned};
use crate::access::session::{AGE, IDLE, MOST, StoredSession};
use crate::access::user::StoredUser;
use crate::access::{Digest, Hashed, Services, SignedIn};

impl Database {
    /// Whether there is, or was, a user.
    pub(crate) async fn has_users(&self) -> Result<bool, sqlx::Error> {
        let user = query("SELECT name FROM users LIMIT 1").fetch_optional(&self.pool);
        Ok(user.await?.is_some())
    }

    /// All users, by name.
    pub(crate) async fn users(&self) -> Result<Vec<StoredUser>, sqlx::Error> {
        let rows = query(
            "SELECT name, role, services, password, made_at_seconds, changed FROM users \
             WHERE removed_at_seconds IS NULL ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// One user.
    pub(crate) async fn user(&self, name: &str) -> Result<Option<StoredUser>, sqlx::Error> {
        let row = query(
            "SELECT name, role, services, password, made_at_seconds, changed FROM users \
             WHERE name = $1 AND removed_at_seconds IS NULL",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// Who has a session that is not over, and when it was last used, in seconds since 1970. A user that was changed since has
    /// none.
    pub(crate) async fn session(
        &self,
        digest: Digest,
        now: u64,
    ) -> Result<Option<(SignedIn, u64)>, sqlx::Error> {
        let row = query(
            "SELECT users.name, users.role, users.services, sessions.seen_at_seconds FROM sessions \
             JOIN users ON users.name = sessions.user_name AND users.changed = sessions.user_changed \
             WHERE sessions.sha256 = $1 AND users.removed_at_seconds IS NULL \
             AND sessions.began_at_seconds > $2 AND sessions.seen_at_seconds > $3",
        )
        .bind(digest.to_hex())
        .bind(signed(now.saturating_sub(AGE)))
        .bind(signed(now.saturating_sub(IDLE)))
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let signed_in = SignedIn {
            name: row.try_get(0)?,
            role: role(row.try_get(1)?)?,
            services: services(row.try_get(2)?)?,
        };
        Ok(Some((signed_in, unsigned(row.try_get(3)?))))
    }

    /// Writes down that a session was used.
    pub(crate) async fn note_session(&self, digest: Digest, now: u64) -> Result<(), sqlx::Error> {
        query("UPDATE sessions SET seen_at_seconds = $1 WHERE sha256 = $2")
            .bind(signed(now))
            .bind(digest.to_hex())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// A new user, also in place of one that was removed.
pub(super) async fn make(
    transaction: &mut Transaction,
    user: &StoredUser,
) -> Result<u64, sqlx::Error> {
    query(
        "INSERT INTO users (name, role, services, password, made_at_seconds, changed) VALUES ($1, $2, $3, $4, $5, 0) \
         ON CONFLICT (name) DO UPDATE SET role = excluded.role, services = excluded.services, password = excluded.password, \
         made_at_seconds = excluded.made_at_seconds, changed = users.changed + 1, removed_at_seconds = NULL \
         WHERE users.removed_at_seconds IS NOT NULL",
    )
    .bind(&user.name)
    .bind(user.role.as_str())
    .bind(super::json(&user.services.names())?)
    .bind(user.password.as_str())
    .bind(signed(user.made_at))
    .execute(transaction)
    .await
}

/// Another role, for other services, or another password, or both: his sessions end.
pub(super) async fn set(
    transaction: &mut Transaction,
    name: &str,
    role: Option<&(UserRole, Services)>,
    password: Option<&Hashed>,
) -> Result<u64, sqlx::Error> {
    let (role, services) = role.map(|(role, services)| (role, services)).unzip();
    let services = services.map(|services| super::json(&services.names()));
    query(
        "UPDATE users SET role = COALESCE($1, role), services = COALESCE($2, services), password = COALESCE($3, password), \
         changed = changed + 1 WHERE name = $4 AND removed_at_seconds IS NULL",
    )
    .bind(role.map(|role| role.as_str()))
    .bind(services.transpose()?)
    .bind(password.map(Hashed::as_str))
    .bind(name)
    .execute(transaction)
    .await
}

pub(super) async fn remove(
    transaction: &mut Transaction,
    name: &str,
    at_seconds: u64,
) -> Result<u64, sqlx::Error> {
    query(
        "UPDATE users SET removed_at_seconds = $1, changed = changed + 1, password = '' \
         WHERE name = $2 AND removed_at_seconds IS NULL",
    )
    .bind(signed(at_seconds))
    .bind(name)
    .execute(transaction)
    .await
}

/// Begins a session. Those that are over are forgotten, and of his others the oldest.
pub(super) async fn begin_session(
    transaction: &mut Transaction,
    session: &StoredSession,
) -> Result<u64, sqlx::Error> {
    let now = session.began_at;
    query("DELETE FROM sessions WHERE began_at_seconds <= $1 OR seen_at_seconds <= $2")
        .bind(signed(now.saturating_sub(AGE)))
        .bind(signed(now.saturating_sub(IDLE)))
        .execute(&mut *transaction)
        .await?;
    query(
        "DELETE FROM sessions WHERE user_name = $1 AND sha256 NOT IN \
         (SELECT sha256 FROM sessions WHERE user_name = $1 ORDER BY began_at_seconds DESC, sha256 LIMIT $2)",
    )
    .bind(&session.user)
    .bind(signed(MOST - 1))
    .execute(&mut *transaction)
    .await?;
    query(
        "INSERT INTO sessions (sha256, user_name, user_changed, began_at_seconds, seen_at_seconds) VALUES ($1, $2, $3, $4, $4)",
    )
    .bind(session.digest.to_hex())
    .bind(&session.user)
    .bind(signed(session.user_changed))
    .bind(signed(now))
    .execute(transaction)
    .await
}

pub(super) async fn end_session(
    transaction: &mut Transaction,
    digest: Digest,
) -> Result<u64, sqlx::Error> {
    query("DELETE FROM sessions WHERE sha256 = $1")
        .bind(digest.to_hex())
        .execute(transaction)
        .await
}

fn read(row: &SqlRow) -> Result<StoredUser, sqlx::Error> {
    Ok(StoredUser {
        name: row.try_get("name")?,
        role: role(row.try_get("role")?)?,
        services: services(row.try_get("services")?)?,
        password: Hashed::stored(row.try_get("password")?),
        made_at: unsigned(row.try_get("made_at_seconds")?),
        changed: unsigned(row.try_get("changed")?),
    })
}

fn role(name: &str) -> Result<UserRole, sqlx::Error> {
    let unknown = || sqlx::Error::Decode("a user's role is none that there is".into());
    UserRole::of_name(name).ok_or_else(unknown)
}

fn services(list: &str) -> Result<Services, sqlx::Error> {
    let unknown = || sqlx::Error::Decode("a user's services are none".into());
    let names: Vec<String> = serde_json::from_str(list).map_err(|_| unknown())?;
    Services::of_names(&names).map_err(|_| unknown())
}
