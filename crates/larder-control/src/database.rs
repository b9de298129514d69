//! What is kept in the SQLite file, by what it is. Text from outside is bound, never written into a statement, and was bounded
//! where it came in. A change of a service is one transaction.

mod decisions;
mod engines;
mod file;
mod keys;
mod overrides;
mod policies;
mod revisions;
mod trail;
mod users;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use larder_model::{Endpoint, Service};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqliteConnection, SqlitePool};

pub use file::OpenError;
pub(crate) use revisions::NewRevision;

use crate::audit::Row as AuditRow;
use crate::moment::Moment;
use crate::stored::{Identity, StoredService};
use file::{check_integrity, create_private, is_foreign};

/// The open database.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pool: SqlitePool,
    id: String,
}

/// What a change of a service writes: all of it or nothing.
pub(crate) struct Change<'a> {
    pub(crate) before: &'a StoredService,
    pub(crate) after: &'a StoredService,
    pub(crate) revision: &'a NewRevision,
    /// What the audit trail says of it; automatic decisions are not in there.
    pub(crate) audit: Option<&'a AuditRow>,
}

impl Database {
    pub(crate) async fn open(path: &Path) -> Result<Self, OpenError> {
        create_private(path)?;
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| OpenError::Damaged {
            path: path.to_owned(),
            source,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true);
        let pool = connect(options)
            .await
            .map_err(|error| damaged(error.into()))?;
        if is_foreign(&pool)
            .await
            .map_err(|error| damaged(error.into()))?
        {
            return Err(OpenError::Foreign(path.to_owned()));
        }
        sqlx::migrate!("./migrations")
            .run(&pool)
            .await
            .map_err(|error| damaged(error.into()))?;
        check_integrity(&pool).await.map_err(damaged)?;
        Self::of(pool).await.map_err(|error| damaged(error.into()))
    }

    /// Opens one that is there, and may be in use, only to read it.
    pub(crate) async fn open_to_look(path: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(Duration::from_secs(5))
            .pragma("query_only", "on");
        Self::of(connect(options).await?).await
    }

    async fn of(pool: SqlitePool) -> Result<Self, sqlx::Error> {
        let id = sqlx::query_scalar("SELECT database_id FROM identity")
            .fetch_one(&pool)
            .await?;
        Ok(Self { pool, id })
    }

    /// Differs for every database ever made, so that versions of two of them are never taken for each other.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) async fn is_reachable(&self) -> bool {
        sqlx::query("SELECT version FROM services LIMIT 1")
            .fetch_optional(&self.pool)
            .await
            .is_ok()
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) async fn load(&self, path: &Path) -> Result<Vec<StoredService>, OpenError> {
        self.load_all().await.map_err(|error| OpenError::Content {
            path: path.to_owned(),
            what: error.to_string(),
        })
    }

    async fn load_all(&self) -> Result<Vec<StoredService>, LoadError> {
        let now = Moment::now();
        let rows =
            sqlx::query("SELECT name, version, policies_version FROM services ORDER BY name")
                .fetch_all(&self.pool)
                .await?;
        let mut services = Vec::with_capacity(rows.len());
        for row in rows {
            let name: String = row.try_get(0)?;
            services.push(StoredService {
                version: unsigned(row.try_get(1)?),
                policies_version: unsigned(row.try_get(2)?),
                policies: policies::read(&self.pool, &name).await?,
                decisions: decisions::read(&self.pool, &name).await?,
                overrides: overrides::read(&self.pool, &name, now).await?,
                service: Service::new(&name)?,
            });
        }
        Ok(services)
    }

    /// Makes a change of a service.
    pub(crate) async fn commit(&self, change: &Change<'_>) -> Result<(), sqlx::Error> {
        let Change { before, after, .. } = change;
        let service = after.service.as_str();
        let mut transaction = self.pool.begin().await?;
        set_versions(&mut transaction, after).await?;
        policies::write(&mut transaction, service, &before.policies, &after.policies).await?;
        decisions::write(
            &mut transaction,
            service,
            &before.decisions,
            &after.decisions,
        )
        .await?;
        engines::forget(&mut transaction, before, after).await?;
        overrides::write(
            &mut transaction,
            service,
            &before.overrides,
            &after.overrides,
        )
        .await?;
        revisions::append(&mut transaction, service, change.revision).await?;
        if let Some(row) = change.audit {
            trail::append(&mut transaction, row).await?;
        }
        transaction.commit().await
    }
}

async fn connect(options: SqliteConnectOptions) -> Result<SqlitePool, sqlx::Error> {
    SqlitePoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(6))
        .connect_with(options)
        .await
}

async fn set_versions(
    transaction: &mut SqliteConnection,
    stored: &StoredService,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO services (name, version, policies_version) VALUES ($1, $2, $3) \
         ON CONFLICT (name) DO UPDATE SET version = excluded.version, policies_version = excluded.policies_version",
    )
    .bind(stored.service.as_str())
    .bind(signed(stored.version))
    .bind(signed(stored.policies_version))
    .execute(transaction)
    .await?;
    Ok(())
}

/// What `after` has no more.
fn gone<'a, T>(
    before: &'a BTreeMap<Identity, T>,
    after: &'a BTreeMap<Identity, T>,
) -> impl Iterator<Item = &'a Identity> {
    before.keys().filter(|key| !after.contains_key(*key))
}

/// What `after` has, and `before` not or otherwise.
fn news<'a, T: PartialEq>(
    before: &'a BTreeMap<Identity, T>,
    after: &'a BTreeMap<Identity, T>,
) -> impl Iterator<Item = (&'a Identity, &'a T)> {
    after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(*value))
}

/// A document as it is stored.
fn json(document: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(document).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// The template without the names of its parameters: `/a/{id}` and `/a/{name}` are one endpoint.
pub(crate) fn shape(endpoint: &Endpoint) -> String {
    let mut shape = String::with_capacity(endpoint.template().len());
    for segment in endpoint.template().split('/').skip(1) {
        shape.push('/');
        shape.push_str(match segment {
            rest if rest.starts_with("{*") => "{*}",
            parameter if parameter.starts_with('{') => "{}",
            literal => literal,
        });
    }
    shape
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error(transparent)]
    Service(#[from] larder_model::KeyError),
    #[error(transparent)]
    Endpoint(#[from] larder_model::EndpointError),
    #[error(transparent)]
    Patch(#[from] serde_json::Error),
}

/// Databases know signed integers only; versions and seconds are far from their end.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
