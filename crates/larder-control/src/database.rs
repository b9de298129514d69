//! What is kept, by what it is: in a SQLite file, or in PostgreSQL, by the same statements. Text from outside is bound, never
//! written into a statement, and was bounded where it came in. A change is one [`Transaction`].
//!
//! **A table more.** One migration of the same name in `migrations/sqlite` and in `migrations/postgres`; those that are there never
//! change. `INTEGER` of SQLite is `BIGINT` there, `REAL` `DOUBLE PRECISION`, `BLOB` `BYTEA`; both know `TEXT` and `BOOLEAN`. A
//! trigger that raises is `EXECUTE FUNCTION stays()` there.
//!
//! **A statement more.** What is `sqlx::query` over SQLite alone is [`sql::query`], with `$1`, `$2`, … in its text, and
//! `bind`, `execute` (how many rows), `fetch_all`, `fetch_optional`, `fetch_one` as there; a row is a [`sql::SqlRow`] with `try_get`.
//! It runs on `&self.pool` ([`sql::Pool`] for `SqlitePool`), or in a change on `&mut Transaction` (for `SqliteConnection`). What both
//! databases read: `INSERT … ON CONFLICT (…) DO UPDATE SET a = excluded.a` (not `INSERT OR REPLACE`), `DO NOTHING`,
//! `RETURNING`, `LIMIT`, `CAST(… AS BIGINT)`; no `last_insert_rowid`, no `datetime(…)`: times are numbers that are bound.
//!
//! **A change that other replicas must hear of.** It is made in the transaction of [`Database::begin`], which nobody else has
//! meanwhile, in whichever process; [`Database::tell`] in it says a word to all replicas once it is committed, and
//! `crate::following` is where they hear it. A word may be lost, so they also look for themselves every few seconds: what
//! is kept in memory needs a number in the database that grows with each change. `Registry::note` writes an entry of the
//! audit trail that belongs to no such change.

mod decisions;
mod engines;
mod file;
mod keys;
mod migrations;
mod overrides;
mod place;
mod policies;
mod postgres;
mod revisions;
mod rollups;
mod sql;
mod told;
mod trail;
mod users;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use larder_model::{Endpoint, Service};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

pub use file::OpenError;
pub use place::{DatabasePlace, PostgresUrl, PostgresUrlError};
pub(crate) use postgres::{Begins, Candidate, Heard, Listener};
pub(crate) use revisions::NewRevision;
pub(crate) use sql::{Transaction, is_busy};

use crate::audit::Row as AuditRow;
use crate::moment::Moment;
use crate::stored::{Identity, StoredService};
use file::{check_integrity, create_private, is_foreign};
use sql::{Pool, query};

/// The open database.
#[derive(Clone)]
pub(crate) struct Database {
    pool: Pool,
    id: String,
    /// This process among those that share it.
    replica: String,
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
    pub(crate) async fn open(place: &DatabasePlace) -> Result<Self, OpenError> {
        match place {
            DatabasePlace::File(path) => {
                let opened = Self::of(open_file(path).await?).await;
                opened.map_err(|error| damaged(path, error))
            }
            DatabasePlace::Postgres(url) => {
                let opened = Self::of(postgres::open(url).await?).await;
                opened.map_err(|error| OpenError::of(url, error))
            }
        }
    }

    /// Opens one that is there, and may be in use, only to read it.
    pub(crate) async fn open_to_look(place: &DatabasePlace) -> Result<Self, sqlx::Error> {
        let pool = match place {
            DatabasePlace::File(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .busy_timeout(Duration::from_secs(5))
                    .pragma("query_only", "on");
                Pool::Sqlite(connect(options).await?)
            }
            DatabasePlace::Postgres(url) => postgres::open_to_look(url).await?,
        };
        Self::of(pool).await
    }

    async fn of(pool: Pool) -> Result<Self, sqlx::Error> {
        let row = query("SELECT database_id FROM identity").fetch_one(&pool);
        let id = row.await?.try_get(0)?;
        let mut replica = [0; 8];
        getrandom::fill(&mut replica)
            .map_err(|error| sqlx::Error::Io(std::io::Error::other(error)))?;
        Ok(Self {
            pool,
            id,
            replica: crate::hex::encode(&replica),
        })
    }

    /// Differs for every database ever made, so that versions of two of them are never taken for each other.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether other control planes may use it, too.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.pool, Pool::Postgres(_))
    }

    pub(crate) async fn is_reachable(&self) -> bool {
        let row = query("SELECT version FROM services LIMIT 1").fetch_optional(&self.pool);
        // One that has much to do answers, only not this one in time.
        row.await.map_or_else(|error| is_busy(&error), |_| true)
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    /// Begins a change. Nobody else has one meanwhile, in any process.
    pub(crate) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        // Writes nothing new: it takes SQLite's lock for writing, or PostgreSQL's of the row.
        query("UPDATE identity SET database_id = database_id")
            .execute(&mut transaction)
            .await?;
        Ok(transaction)
    }

    /// Begins to read what is stored as it is at one moment. Nobody waits for it, and it for nobody.
    pub(crate) async fn begin_to_read(&self) -> Result<Transaction, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if self.is_shared() {
            query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                .execute(&mut transaction)
                .await?;
        }
        Ok(transaction)
    }

    /// Says something to all replicas, this one too, when the change is made.
    pub(crate) async fn tell(
        &self,
        transaction: &mut Transaction,
        what: &str,
    ) -> Result<(), sqlx::Error> {
        if self.is_shared() {
            query("SELECT 1 FROM pg_notify($1, $2)")
                .bind(postgres::channel(&self.id))
                .bind(what)
                .fetch_all(transaction)
                .await?;
        }
        Ok(())
    }

    /// What other replicas say; `None` where there are none.
    pub(crate) fn listener(&self) -> Option<Listener> {
        match &self.pool {
            Pool::Sqlite(_) => None,
            Pool::Postgres(remote) => Some(Listener::new(remote.options(), &self.id)),
        }
    }

    /// One that would lead all replicas; `None` where there are no others.
    pub(crate) async fn candidate(&self) -> Result<Option<Candidate>, sqlx::Error> {
        match &self.pool {
            Pool::Sqlite(_) => Ok(None),
            Pool::Postgres(remote) => {
                let candidate = Candidate::new(remote, &self.id, &self.replica);
                candidate.await.map(Some)
            }
        }
    }

    /// Whether this replica leads yet. Another one begins to only when the transaction has ended.
    pub(crate) async fn leads(&self, transaction: &mut Transaction) -> Result<bool, sqlx::Error> {
        if !self.is_shared() {
            return Ok(true);
        }
        let row = query("SELECT replica FROM leader WHERE replica = $1 FOR SHARE");
        let row = row.bind(&self.replica).fetch_optional(transaction).await?;
        Ok(row.is_some())
    }

    /// The versions of all services, or of one.
    pub(crate) async fn versions<'a>(
        &self,
        on: impl Into<sql::On<'a>>,
        only: Option<&Service>,
    ) -> Result<Vec<(String, u64)>, sqlx::Error> {
        let rows = query("SELECT name, version FROM services WHERE $1 = '' OR name = $1")
            .bind(only.map_or("", Service::as_str))
            .fetch_all(on)
            .await?;
        let read = |row: &sql::SqlRow| Ok((row.try_get(0)?, unsigned(row.try_get(1)?)));
        rows.iter().map(read).collect()
    }

    /// Those of [`Database::versions`], outside of a change.
    pub(crate) async fn versions_now(&self) -> Result<Vec<(String, u64)>, sqlx::Error> {
        self.versions(&self.pool, None).await
    }

    /// All that is stored of a service.
    pub(crate) async fn load(
        &self,
        transaction: &mut Transaction,
        name: &str,
    ) -> Result<StoredService, LoadError> {
        let row = query("SELECT version, policies_version FROM services WHERE name = $1")
            .bind(name)
            .fetch_one(&mut *transaction)
            .await?;
        Ok(StoredService {
            version: unsigned(row.try_get(0)?),
            policies_version: unsigned(row.try_get(1)?),
            policies: policies::read(transaction, name).await?,
            decisions: decisions::read(transaction, name).await?,
            overrides: overrides::read(transaction, name, Moment::now()).await?,
            service: Service::new(name)?,
        })
    }

    /// Makes a change of a service.
    pub(crate) async fn commit(
        &self,
        mut transaction: Transaction,
        change: &Change<'_>,
    ) -> Result<(), CommitError> {
        self.write(&mut transaction, change).await?;
        transaction.commit().await.map_err(CommitError::Unsure)
    }

    async fn write(
        &self,
        transaction: &mut Transaction,
        change: &Change<'_>,
    ) -> Result<(), sqlx::Error> {
        let Change { before, after, .. } = change;
        let service = after.service.as_str();
        set_versions(transaction, after).await?;
        policies::write(transaction, service, &before.policies, &after.policies).await?;
        decisions::write(transaction, service, &before.decisions, &after.decisions).await?;
        engines::forget(transaction, before, after).await?;
        overrides::write(transaction, service, &before.overrides, &after.overrides).await?;
        revisions::append(transaction, service, change.revision).await?;
        if let Some(row) = change.audit {
            trail::append(transaction, row).await?;
        }
        self.tell(transaction, &format!("service {service}")).await
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// It was not.
    #[error(transparent)]
    Undone(#[from] sqlx::Error),
    /// It may have been: the answer did not come.
    #[error("{0}")]
    Unsure(sqlx::Error),
}

async fn open_file(path: &Path) -> Result<Pool, OpenError> {
    create_private(path)?;
    let failed = |error: sqlx::Error| damaged(path, error);
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true);
    let pool = connect(options).await.map_err(failed)?;
    if is_foreign(&pool).await.map_err(failed)? {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let migrated = migrations::sqlite().run(&pool).await;
    migrated.map_err(|error| damaged(path, error))?;
    let checked = check_integrity(&pool).await;
    checked.map_err(|error| damaged(path, error))?;
    Ok(Pool::Sqlite(pool))
}

fn damaged(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        source: source.into(),
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
    transaction: &mut Transaction,
    stored: &StoredService,
) -> Result<(), sqlx::Error> {
    query(
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

/// Why what is stored can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
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
