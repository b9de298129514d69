//! What is kept in the SQLite file. Text from outside is bound, never written into a statement.

mod engines;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::decision::Decision;

use larder_model::api::Watch;
use larder_model::{Endpoint, Method, PolicyPatch, Service};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqlitePool};

/// `LARD`: what the file says it is.
const APPLICATION_ID: i64 = 0x4c41_5244;

/// Why the database can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file can't be made or looked at.
    #[error(
        "can't open the control plane's database {path}: {source}; give it a folder that you may write in"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a folder, a symbolic link, a device.
    #[error(
        "{0} is not a regular file: move it away, or name another file for the control plane's database"
    )]
    NotAFile(PathBuf),
    /// It belongs to another program.
    #[error(
        "{0} is a SQLite database of another program: name another file for the control plane's database"
    )]
    Foreign(PathBuf),
    /// SQLite can't read it, or it was written by a newer version.
    #[error(
        "the control plane's database {path} can't be used: {source}; move it and its -wal and -shm files away to begin anew, or bring back a copy of it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stored policy does not read.
    #[error(
        "the control plane's database {path} holds a policy that can't be read ({what}): move the file away to begin anew, or bring back a copy of it"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        what: String,
    },
    /// A name in `allowed_hosts` is not one.
    #[error(transparent)]
    Host(#[from] crate::gate::HostError),
}

/// A policy that somebody set.
#[derive(Debug, Clone)]
pub(crate) struct StoredPolicy {
    pub(crate) endpoint: Endpoint,
    pub(crate) patch: PolicyPatch,
    /// The service's version in which it was set.
    pub(crate) version: u64,
}

/// All that is stored of a service.
#[derive(Debug, Clone)]
pub(crate) struct StoredService {
    pub(crate) service: Service,
    pub(crate) version: u64,
    pub(crate) policies: Vec<StoredPolicy>,
    /// By method and shape.
    pub(crate) decisions: Vec<((String, String), Decision)>,
}

/// The open database.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pool: SqlitePool,
    id: String,
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
        let pool = SqlitePoolOptions::new()
            .max_connections(2)
            .acquire_timeout(Duration::from_secs(6))
            .connect_with(options)
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
        let id = sqlx::query_scalar("SELECT database_id FROM identity")
            .fetch_one(&pool)
            .await
            .map_err(|error| damaged(error.into()))?;
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
        let rows = sqlx::query("SELECT name, version FROM services ORDER BY name")
            .fetch_all(&self.pool)
            .await?;
        let mut services = Vec::with_capacity(rows.len());
        for row in rows {
            let name: String = row.try_get(0)?;
            services.push(StoredService {
                service: Service::new(&name)?,
                version: unsigned(row.try_get(1)?),
                policies: self.policies(&name).await?,
                decisions: self.decisions(&name).await?,
            });
        }
        Ok(services)
    }

    async fn policies(&self, service: &str) -> Result<Vec<StoredPolicy>, LoadError> {
        let rows = sqlx::query(
            "SELECT method, template, patch, version FROM policies WHERE service = ? ORDER BY template, method",
        )
        .bind(service)
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<StoredPolicy, LoadError> {
            let method = Method::new(row.try_get(0)?)?;
            Ok(StoredPolicy {
                endpoint: Endpoint::new(method, row.try_get(1)?)?,
                patch: serde_json::from_str(row.try_get(2)?)?,
                version: unsigned(row.try_get(3)?),
            })
        };
        rows.iter().map(read).collect()
    }

    async fn decisions(
        &self,
        service: &str,
    ) -> Result<Vec<((String, String), Decision)>, LoadError> {
        let rows = sqlx::query(
            "SELECT method, shape, cache_enabled, reason, since_seconds, ttl_seconds, key_share, check_share FROM decisions WHERE service = ?",
        )
        .bind(service)
        .fetch_all(&self.pool)
        .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| -> Result<_, LoadError> {
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

    /// Sets a policy; forgets what was decided for its endpoint, unless that is still decided.
    pub(crate) async fn put(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        patch: &PolicyPatch,
        version: u64,
        keeps_decision: bool,
    ) -> Result<(), sqlx::Error> {
        let patch =
            serde_json::to_string(patch).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let shape = shape(endpoint);
        let mut transaction = self.pool.begin().await?;
        set_version(&mut transaction, service, version).await?;
        sqlx::query(
            "INSERT OR REPLACE INTO policies (service, method, shape, template, patch, version) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(service.as_str())
        .bind(endpoint.method().as_str())
        .bind(&shape)
        .bind(endpoint.template())
        .bind(patch)
        .bind(signed(version))
        .execute(&mut *transaction)
        .await?;
        if !keeps_decision {
            forget_decision(&mut transaction, service, endpoint, &shape).await?;
        }
        transaction.commit().await
    }

    /// Removes a policy, and what was decided for its endpoint.
    pub(crate) async fn delete(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        version: u64,
    ) -> Result<(), sqlx::Error> {
        let shape = shape(endpoint);
        let mut transaction = self.pool.begin().await?;
        set_version(&mut transaction, service, version).await?;
        sqlx::query("DELETE FROM policies WHERE service = ? AND method = ? AND shape = ?")
            .bind(service.as_str())
            .bind(endpoint.method().as_str())
            .bind(&shape)
            .execute(&mut *transaction)
            .await?;
        forget_decision(&mut transaction, service, endpoint, &shape).await?;
        engines::forget_records(&mut transaction, service, endpoint).await?;
        transaction.commit().await
    }

    pub(crate) async fn put_decisions(
        &self,
        service: &Service,
        decisions: &[(Endpoint, Decision)],
        version: u64,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        set_version(&mut transaction, service, version).await?;
        for (endpoint, decision) in decisions {
            sqlx::query(
                "INSERT OR REPLACE INTO decisions (service, method, shape, cache_enabled, reason, since_seconds, ttl_seconds, key_share, check_share) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(service.as_str())
            .bind(endpoint.method().as_str())
            .bind(shape(endpoint))
            .bind(decision.cache_enabled)
            .bind(&decision.reason)
            .bind(signed(decision.since.as_secs()))
            .bind(decision.ttl.as_secs_f64())
            .bind(decision.watch.key_share)
            .bind(decision.watch.check_share)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }
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

/// SQLite makes its file readable for all; and opens whatever a link points to.
fn create_private(path: &Path) -> Result<(), OpenError> {
    let error = |source| OpenError::File {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(OpenError::NotAFile(path.to_owned())),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map(drop)
            .map_err(error),
        Err(source) => Err(error(source)),
    }
}

async fn is_foreign(pool: &SqlitePool) -> Result<bool, sqlx::Error> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(pool)
        .await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master")
        .fetch_one(pool)
        .await?;
    Ok(application != APPLICATION_ID && (application != 0 || tables > 0))
}

async fn check_integrity(
    pool: &SqlitePool,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(pool)
        .await?;
    if verdict == "ok" {
        Ok(())
    } else {
        Err(verdict.into())
    }
}

async fn set_version(
    transaction: &mut sqlx::SqliteConnection,
    service: &Service,
    version: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO services (name, version) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET version = excluded.version",
    )
    .bind(service.as_str())
    .bind(signed(version))
    .execute(transaction)
    .await?;
    Ok(())
}

async fn forget_decision(
    transaction: &mut sqlx::SqliteConnection,
    service: &Service,
    endpoint: &Endpoint,
    shape: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM decisions WHERE service = ? AND method = ? AND shape = ?")
        .bind(service.as_str())
        .bind(endpoint.method().as_str())
        .bind(shape)
        .execute(&mut *transaction)
        .await?;
    engines::forget_state(transaction, service, endpoint).await
}

/// SQLite knows signed integers only; versions and seconds are far from their end.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
