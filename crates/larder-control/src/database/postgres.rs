//! PostgreSQL: a schema of our own, what a connection begins with, who leads, and what other replicas say.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{Connection as _, Executor as _};

use super::sql::{DEADLINE, Pool, Remote};
use super::{OpenError, PostgresUrl};

/// `server_version_num` of the oldest that has what is needed (`idle_session_timeout`).
const OLDEST: i32 = 140_000;
/// At most so many connections of a replica ask and change; one more listens, one more may lead.
pub(super) const CONNECTIONS: u32 = 5;
/// At the start the first connection is made within this time.
const OPEN: Duration = Duration::from_secs(10);
/// A connection is had within this time, less than a statement may take.
const CONNECT: Duration = Duration::from_secs(3);
/// A leader is answered within this time, or leads no more.
const ANSWER: Duration = Duration::from_secs(2);
/// Tables are brought to the present form within this time.
const PREPARE: Duration = Duration::from_secs(600);
/// What a connection begins with: the server gives up before we do ([`DEADLINE`]), and says why. A replica that stops in the
/// middle of a change holds the others up for 5 s.
const SESSION: &str = "SET search_path TO larder; SET default_transaction_isolation TO 'read committed'; SET client_encoding TO 'UTF8'; SET statement_timeout TO '3500ms'; \
     SET lock_timeout TO '3s'; SET idle_in_transaction_session_timeout TO '5s'";
/// The server ends the session of a leader that it has not heard of for so long.
const LEADING: &str = "SET statement_timeout TO '2s'; SET idle_session_timeout TO '4s'";
/// What makes locks ours: `larder` as a number; the other half is the database's own.
const LOCKS: i32 = 0x6c61_7264;

/// Opens the database, after it was brought to the present form.
pub(super) async fn open(url: &PostgresUrl) -> Result<Pool, OpenError> {
    let options = url.options().map_err(|error| OpenError::of(url, error))?;
    if PostgresUrl::is_exposed(&options) {
        tracing::warn!(
            database = %url,
            "who is between here and PostgreSQL may read and change what is said: add ?sslmode=verify-full to DATABASE_URL"
        );
    }
    let prepared = tokio::time::timeout(OPEN, PgConnection::connect_with(&options)).await;
    let prepared = prepared.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    let mut connection = prepared.map_err(|error| OpenError::of(url, error))?;
    let prepared = tokio::time::timeout(PREPARE, prepare(&mut connection, url)).await;
    prepared.unwrap_or_else(|_| Err(OpenError::of(url, sqlx::Error::PoolTimedOut)))?;
    // Only a courtesy: what was prepared is there.
    let _ = connection.close().await;
    Ok(Pool::remote(pool(CONNECTIONS), options))
}

/// Opens one that is there, only to read it.
pub(super) async fn open_to_look(url: &PostgresUrl) -> Result<Pool, sqlx::Error> {
    Ok(Pool::remote(pool(1), url.options()?))
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT)
        .idle_timeout(Duration::from_secs(300))
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(SESSION).await?;
                Ok(())
            })
        })
}

/// Makes the schema and its tables, or brings them to the present form. Replicas that start together wait for each other.
async fn prepare(connection: &mut PgConnection, url: &PostgresUrl) -> Result<(), OpenError> {
    let failed = |error| OpenError::of(url, error);
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if version < OLDEST {
        return Err(OpenError::TooOld {
            place: url.to_string(),
            version: version / 10_000,
        });
    }
    make_schema(connection).await.map_err(failed)?;
    // Not `run`: the compiler can't tell that what waits for it may be spawned.
    let migrations = super::migrations::postgres();
    let migrated = migrations.run_direct(None, connection, false);
    migrated.await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(error) => OpenError::of(url, error),
        error => OpenError::Form {
            place: url.to_string(),
            what: error.to_string(),
        },
    })
}

async fn make_schema(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1, 0)")
        .bind(LOCKS)
        .execute(&mut *transaction)
        .await?;
    let is_there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'larder')")
            .fetch_one(&mut *transaction)
            .await?;
    if !is_there {
        transaction.execute("CREATE SCHEMA larder").await?;
    }
    transaction.commit().await?;
    connection.execute("SET search_path TO larder").await?;
    Ok(())
}

/// Who would lead: one of all replicas has the lock, for as long as its session lives.
///
/// A session of a machine that is gone would keep the lock until TCP gives up: so the server is told to end one that says
/// nothing for some seconds.
pub(crate) struct Candidate {
    remote: Remote,
    connection: PgConnection,
    lock: i32,
    /// This replica's name.
    replica: String,
    has_lock: bool,
}

/// Whether a candidate leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    /// Another one does.
    Not,
    /// From now on: the one before said that it ended.
    AtOnce,
    /// From now on; the one before did not say that it ended.
    AfterAnother,
    /// As before.
    Before,
}

impl Candidate {
    /// One that does not lead yet.
    pub(super) async fn new(remote: &Remote, id: &str, replica: &str) -> Result<Self, sqlx::Error> {
        let options = remote.options();
        let mut connection = within(PgConnection::connect_with(&options)).await?;
        within(connection.execute(LEADING)).await?;
        Ok(Self {
            remote: remote.clone(),
            connection,
            lock: lock_of(id),
            replica: replica.to_owned(),
            has_lock: false,
        })
    }

    /// Asks to lead, or says that it lives. After an error it leads no more.
    pub(crate) async fn ask(&mut self) -> Result<Begins, sqlx::Error> {
        let begins = self.begins().await?;
        self.remote.answered();
        Ok(begins)
    }

    async fn begins(&mut self) -> Result<Begins, sqlx::Error> {
        if self.has_lock {
            within(self.connection.execute("SELECT 1")).await?;
            return Ok(Begins::Before);
        }
        let lock = sqlx::query_scalar("SELECT pg_try_advisory_lock($1, $2)")
            .bind(LOCKS)
            .bind(self.lock);
        self.has_lock = within(lock.fetch_one(&mut self.connection)).await?;
        if !self.has_lock {
            return Ok(Begins::Not);
        }
        let before = sqlx::query_scalar(
            "UPDATE larder.leader SET replica = $1 FROM (SELECT replica AS before FROM larder.leader) AS it RETURNING it.before",
        )
        .bind(&self.replica);
        let before: String = within(before.fetch_one(&mut self.connection)).await?;
        Ok(match before.is_empty() {
            true => Begins::AtOnce,
            false => Begins::AfterAnother,
        })
    }

    /// Lets another one lead.
    pub(crate) async fn end(mut self) {
        let said = sqlx::query("UPDATE larder.leader SET replica = '' WHERE replica = $1");
        let said = said.bind(&self.replica);
        // If that can't be said, the next one waits.
        let _ = within(said.execute(&mut self.connection)).await;
        let _ = within(self.connection.close()).await;
    }
}

/// Of this database of ours alone, where one PostgreSQL holds several.
fn lock_of(id: &str) -> i32 {
    let digits = id.get(..8).unwrap_or_default();
    u32::from_str_radix(digits, 16).map_or(1, |number| (number | 1).cast_signed())
}

async fn within<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let done = tokio::time::timeout(ANSWER, work).await;
    done.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// What other replicas say, as long as nothing is lost on the way: who listens looks for himself, too.
pub(crate) struct Listener {
    options: PgConnectOptions,
    channel: String,
    listener: Option<PgListener>,
}

impl Listener {
    pub(super) fn new(options: PgConnectOptions, id: &str) -> Self {
        Self {
            options,
            channel: channel(id),
            listener: None,
        }
    }

    /// Waits until there may be something to look for; at most as long as `most`.
    pub(crate) async fn wait(&mut self, most: Duration) -> Heard {
        let Some(listener) = &mut self.listener else {
            return self.connect(most).await;
        };
        match tokio::time::timeout(most, listener.try_recv()).await {
            Ok(Ok(Some(_))) => Heard::News,
            Ok(Ok(None) | Err(_)) => {
                self.listener = None;
                Heard::Nothing
            }
            Err(_) => Heard::Nothing,
        }
    }

    /// What it heard was not all: it listens anew.
    pub(crate) fn reconnect(&mut self) {
        self.listener = None;
    }

    async fn connect(&mut self, most: Duration) -> Heard {
        let begun = tokio::time::Instant::now();
        let connected = tokio::time::timeout(DEADLINE, async {
            // A pool for each: what hangs in the last one holds no other up.
            let pool = PgPoolOptions::new().max_connections(1);
            let pool = pool.connect_lazy_with(self.options.clone());
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(&self.channel).await?;
            Ok::<_, sqlx::Error>(listener)
        });
        match connected.await {
            Ok(Ok(listener)) => self.listener = Some(listener),
            Ok(Err(_)) | Err(_) => tokio::time::sleep_until(begun + most).await,
        }
        Heard::Nothing
    }
}

/// What a [`Listener`] heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// That somebody changed something: what, it looks for itself.
    News,
    /// Nothing, or it may have missed something.
    Nothing,
}

/// Where replicas tell each other of changes.
pub(super) fn channel(id: &str) -> String {
    format!("larder_{id}")
}
