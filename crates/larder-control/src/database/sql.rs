//! One statement for both databases: what is bound, where it runs, and how long that may take.
//!
//! A statement is a `'static` text, so nothing from outside can be written into it; both databases take `$1`. SQLite runs it in
//! this process. PostgreSQL may be away: every statement there has a deadline, and after one that failed for that reason others
//! are refused at once for a second, so that nobody waits in a queue for what does not come. Who waits in vain for one of this
//! process's connections while PostgreSQL answers is told that it is busy, and nobody else is refused for that.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{Arguments as _, ColumnIndex, Decode, Encode, Postgres, Row as _, Sqlite, Type};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A statement of PostgreSQL takes no longer.
pub(super) const DEADLINE: Duration = Duration::from_secs(4);
/// So long nothing is asked of a PostgreSQL that was away.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// A PostgreSQL that answered within this time is there: who would lead asks it more often. Shorter than a connection is waited
/// for, so that what was answered before that wait says nothing.
const THERE: Duration = Duration::from_secs(2);

/// Connections to the database.
#[derive(Clone)]
pub(crate) enum Pool {
    Sqlite(SqlitePool),
    Postgres(Remote),
}

/// Connections to PostgreSQL.
#[derive(Clone)]
pub(crate) struct Remote(Arc<Connections>);

struct Connections {
    options: (PgPoolOptions, PgConnectOptions),
    /// Left behind for a new one when the server is away: what hangs in the old one hangs nobody else.
    shared: ArcSwap<Shared>,
    seen: Mutex<Seen>,
}

/// Connections that may be used by one after another.
struct Shared {
    pool: PgPool,
    /// How many are free: who has waited in vain for one of these waited for this process, and not for the server.
    free: Arc<Semaphore>,
}

/// As long as a connection is in use.
type InUse = OwnedSemaphorePermit;

/// How the server was met lately.
#[derive(Default)]
struct Seen {
    /// Since when it is away.
    away: Option<Instant>,
    /// When it last answered.
    answered: Option<Instant>,
}

/// A change that is under way. All of it is made by [`Transaction::commit`]; dropped before, nothing is.
pub(crate) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>, Remote, InUse),
}

/// Where a statement runs: on a connection of its own, or in a transaction.
pub(crate) enum On<'a> {
    Pool(&'a Pool),
    Transaction(&'a mut Transaction),
}

impl<'a> From<&'a Pool> for On<'a> {
    fn from(pool: &'a Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'a> From<&'a mut Transaction> for On<'a> {
    fn from(transaction: &'a mut Transaction) -> Self {
        Self::Transaction(transaction)
    }
}

// === impl Pool ===

impl Pool {
    /// Connects when there is something to ask.
    pub(super) fn remote(pool: PgPoolOptions, connection: PgConnectOptions) -> Self {
        let first = Shared::new(&pool, &connection);
        Self::Postgres(Remote(Arc::new(Connections {
            options: (pool, connection),
            shared: ArcSwap::from_pointee(first),
            seen: Mutex::default(),
        })))
    }

    pub(super) async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        match self {
            Self::Sqlite(pool) => Ok(Transaction::Sqlite(pool.begin().await?)),
            Self::Postgres(remote) => {
                let (shared, in_use) = remote.free().await?;
                let begun = remote.within(shared.pool.begin()).await?;
                Ok(Transaction::Postgres(begun, remote.clone(), in_use))
            }
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            // One that is away does not say goodbye.
            Self::Postgres(remote) => {
                let shared = remote.0.shared.load_full();
                let _ = tokio::time::timeout(DEADLINE, shared.pool.close()).await;
            }
        }
    }
}

// === impl Remote ===

impl Remote {
    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        if self.is_refused() {
            return Err(late("the database was away a moment ago"));
        }
        let done = tokio::time::timeout(DEADLINE, work).await;
        let done = done.unwrap_or_else(|_| Err(late("the database did not answer in time")));
        match &done {
            Ok(_) => {
                self.seen().away = None;
                self.answered();
            }
            Err(error) if is_away(error) => self.leave(),
            Err(_) => {}
        }
        done
    }

    /// A connection. The wait for it counts for no statement's own time.
    async fn connection(&self) -> Result<(PoolConnection<Postgres>, InUse), sqlx::Error> {
        let (shared, in_use) = self.free().await?;
        let connection = self.within(shared.pool.acquire()).await?;
        Ok((connection, in_use))
    }

    /// Waits until one of the connections is free.
    async fn free(&self) -> Result<(Arc<Shared>, InUse), sqlx::Error> {
        if self.is_refused() {
            return Err(late("the database was away a moment ago"));
        }
        let shared = self.0.shared.load_full();
        let most = self.0.options.0.get_acquire_timeout();
        let free = Arc::clone(&shared.free).acquire_owned();
        match tokio::time::timeout(most, free).await {
            Ok(Ok(in_use)) => Ok((shared, in_use)),
            _ if self.is_there() => Err(all_in_use()),
            _ => {
                self.leave();
                Err(late("the database did not answer in time"))
            }
        }
    }

    /// The server answered, over whichever connection.
    pub(super) fn answered(&self) {
        self.seen().answered = Some(Instant::now());
    }

    fn is_there(&self) -> bool {
        let answered = self.seen().answered;
        answered.is_some_and(|at| at.elapsed() < THERE)
    }

    pub(super) fn options(&self) -> PgConnectOptions {
        self.0.options.1.clone()
    }

    fn leave(&self) {
        let (pool, connection) = &self.0.options;
        self.seen().away = Some(Instant::now());
        self.0.shared.store(Shared::new(pool, connection).into());
    }

    fn is_refused(&self) -> bool {
        let away = self.seen().away;
        away.is_some_and(|at| at.elapsed() < REFUSED_FOR)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn new(pool: &PgPoolOptions, connection: &PgConnectOptions) -> Self {
        Self {
            free: Arc::new(Semaphore::new(pool.get_max_connections() as usize)),
            pool: pool.clone().connect_lazy_with(connection.clone()),
        }
    }
}

fn late(what: &'static str) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, what))
}

fn all_in_use() -> sqlx::Error {
    let what = "all connections to the database are in use";
    sqlx::Error::Io(io::Error::new(io::ErrorKind::ResourceBusy, what))
}

/// Whether the database itself can't be asked, and the same statement may do well later.
pub(crate) fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // What can't be trusted is not away, nor what others are being answered by.
        sqlx::Error::Io(error) => !matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::ResourceBusy
        ),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        // It starts or ends, lost the connection, has none left, became a standby.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["57P", "08", "53"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "25006"
        }),
        _ => false,
    }
}

/// Whether what others do took too long to be waited for: a change, or all that this process asks at once.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Io(error) = error {
        return error.kind() == io::ErrorKind::ResourceBusy;
    }
    let code = error.as_database_error().and_then(|error| error.code());
    // `lock_not_available`; `SQLITE_BUSY` with what it may be extended by.
    code.is_some_and(|code| code == "55P03" || code == "5" || code == "261" || code == "517")
}

// === impl Transaction ===

impl Transaction {
    /// Makes the change. After an error it may be made all the same: the database tells.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction, remote, _in_use) => {
                remote.within(transaction.commit()).await
            }
        }
    }
}

/// A value that a statement is given.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
    Real(f64),
    Flag(bool),
    Bytes(Vec<u8>),
}

/// Makes values of what Rust has.
macro_rules! values {
    ($($from:ty: $name:ident => $value:expr,)*) => {
        $(impl From<$from> for Value {
            fn from($name: $from) -> Self {
                $value
            }
        })*
    };
}

values! {
    &str: text => Self::Text(Some(text.to_owned())),
    String: text => Self::Text(Some(text)),
    &String: text => Self::Text(Some(text.clone())),
    Option<String>: text => Self::Text(text),
    &Option<String>: text => Self::Text(text.clone()),
    Option<&str>: text => Self::Text(text.map(str::to_owned)),
    i64: number => Self::Integer(Some(number)),
    Option<i64>: number => Self::Integer(number),
    u32: number => Self::Integer(Some(number.into())),
    f64: number => Self::Real(number),
    bool: flag => Self::Flag(flag),
    Vec<u8>: bytes => Self::Bytes(bytes),
    &[u8]: bytes => Self::Bytes(bytes.to_vec()),
}

/// A statement, with what is bound to it.
#[must_use]
pub(crate) struct Query {
    sql: &'static str,
    values: Vec<Value>,
}

/// A statement. What comes from outside is bound to it.
pub(crate) fn query(sql: &'static str) -> Query {
    Query {
        sql,
        values: Vec::new(),
    }
}

impl Query {
    /// Binds the next of `$1`, `$2`, ….
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Runs it; how many rows it wrote.
    pub(crate) async fn execute<'a>(self, on: impl Into<On<'a>>) -> Result<u64, sqlx::Error> {
        match on.into() {
            On::Pool(Pool::Sqlite(pool)) => {
                let done = self.for_sqlite()?.execute(pool).await?;
                Ok(done.rows_affected())
            }
            On::Transaction(Transaction::Sqlite(transaction)) => {
                let done = self.for_sqlite()?.execute(&mut **transaction).await?;
                Ok(done.rows_affected())
            }
            On::Pool(Pool::Postgres(remote)) => {
                let (mut connection, _in_use) = remote.connection().await?;
                let work = self.for_postgres()?.execute(&mut *connection);
                Ok(remote.within(work).await?.rows_affected())
            }
            On::Transaction(Transaction::Postgres(transaction, remote, _)) => {
                let work = self.for_postgres()?.execute(&mut **transaction);
                Ok(remote.within(work).await?.rows_affected())
            }
        }
    }

    /// All rows.
    pub(crate) async fn fetch_all<'a>(
        self,
        on: impl Into<On<'a>>,
    ) -> Result<Vec<SqlRow>, sqlx::Error> {
        let sqlite = |rows: Vec<SqliteRow>| rows.into_iter().map(SqlRow::Sqlite).collect();
        let postgres = |rows: Vec<PgRow>| rows.into_iter().map(SqlRow::Postgres).collect();
        match on.into() {
            On::Pool(Pool::Sqlite(pool)) => self.for_sqlite()?.fetch_all(pool).await.map(sqlite),
            On::Transaction(Transaction::Sqlite(transaction)) => {
                let rows = self.for_sqlite()?.fetch_all(&mut **transaction);
                rows.await.map(sqlite)
            }
            On::Pool(Pool::Postgres(remote)) => {
                let (mut connection, _in_use) = remote.connection().await?;
                let work = self.for_postgres()?.fetch_all(&mut *connection);
                remote.within(work).await.map(postgres)
            }
            On::Transaction(Transaction::Postgres(transaction, remote, _)) => {
                let work = self.for_postgres()?.fetch_all(&mut **transaction);
                remote.within(work).await.map(postgres)
            }
        }
    }

    /// The first row, if there is one.
    pub(crate) async fn fetch_optional<'a>(
        self,
        on: impl Into<On<'a>>,
    ) -> Result<Option<SqlRow>, sqlx::Error> {
        Ok(self.fetch_all(on).await?.into_iter().next())
    }

    /// The first row, which there must be.
    pub(crate) async fn fetch_one<'a>(self, on: impl Into<On<'a>>) -> Result<SqlRow, sqlx::Error> {
        let row = self.fetch_optional(on).await?;
        row.ok_or(sqlx::Error::RowNotFound)
    }

    fn for_sqlite(
        self,
    ) -> Result<sqlx::query::Query<'static, Sqlite, SqliteArguments>, sqlx::Error> {
        Ok(sqlx::query_with(
            self.sql,
            arguments::<Sqlite>(self.values)?,
        ))
    }

    fn for_postgres(
        self,
    ) -> Result<sqlx::query::Query<'static, Postgres, PgArguments>, sqlx::Error> {
        Ok(sqlx::query_with(
            self.sql,
            arguments::<Postgres>(self.values)?,
        ))
    }
}

fn arguments<DB>(values: Vec<Value>) -> Result<DB::Arguments, sqlx::Error>
where
    DB: sqlx::Database,
    Option<String>: for<'q> Encode<'q, DB> + Type<DB>,
    Vec<u8>: for<'q> Encode<'q, DB> + Type<DB>,
    Option<i64>: for<'q> Encode<'q, DB> + Type<DB>,
    f64: for<'q> Encode<'q, DB> + Type<DB>,
    bool: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut arguments = DB::Arguments::default();
    for value in values {
        let added = match value {
            Value::Text(text) => arguments.add(text),
            Value::Integer(number) => arguments.add(number),
            Value::Real(number) => arguments.add(number),
            Value::Flag(flag) => arguments.add(flag),
            Value::Bytes(bytes) => arguments.add(bytes),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// A row of either.
pub(crate) enum SqlRow {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl SqlRow {
    /// What is in a column, by its place or its name.
    pub(crate) fn try_get<'r, T>(
        &'r self,
        column: impl ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    ) -> Result<T, sqlx::Error>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_testing::postgres::PostgresServer;

    use super::*;
    use crate::database::postgres::CONNECTIONS;
    use crate::database::{Database, DatabasePlace, PostgresUrl};

    #[tokio::test]
    async fn a_postgresql_whose_connections_are_all_in_use_is_busy_and_not_away() {
        let server = PostgresServer::shared();
        let url = larder_model::Secret::new(server.database());
        let place = DatabasePlace::Postgres(PostgresUrl::parse(url).unwrap());
        let database = Database::open(&place).await.unwrap();
        let mut candidate = database.candidate().await.unwrap().unwrap();
        let asking = tokio::spawn(async move {
            loop {
                candidate.ask().await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let all = async || {
            let mut all = Vec::new();
            for _ in 0..CONNECTIONS {
                all.push(database.begin_to_read().await.unwrap());
            }
            all
        };
        let in_use = all().await;
        let (one_more, is_reachable) = tokio::join!(database.users(), database.is_reachable());
        let error = one_more.err().unwrap();
        assert!(is_busy(&error) && !is_away(&error), "{error}");
        assert!(is_reachable, "it is there");
        drop(in_use);
        let next = database.users().await;
        assert!(next.is_ok(), "nobody is refused for it: {:?}", next.err());

        // One that says nothing to anybody is away.
        asking.abort();
        let _in_use = all().await;
        let error = database.users().await.err().unwrap();
        assert!(is_away(&error), "{error}");
    }
}
