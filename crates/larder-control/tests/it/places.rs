//! Over which database a test runs: a SQLite file, or a PostgreSQL with a database for each path that the file would have.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_control::{DatabasePlace, PostgresUrl, Settings};
use larder_model::Secret;
use larder_testing::postgres::PostgresServer;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

/// Runs tests of a module once more, over PostgreSQL.
macro_rules! also_over_postgres {
    ($($test:ident),* $(,)?) => {
        mod over_postgres {
            $(
                #[test]
                fn $test() {
                    $crate::places::over_postgres(super::$test);
                }
            )*
        }
    };
}

/// The databases of a test that runs over PostgreSQL.
struct Databases {
    server: Arc<PostgresServer>,
    by_path: HashMap<PathBuf, String>,
}

thread_local! {
    static POSTGRES: RefCell<Option<Databases>> = const { RefCell::new(None) };
}

/// Runs a test of this thread over PostgreSQL.
pub(crate) fn over_postgres(test: fn()) {
    let databases = Databases {
        server: PostgresServer::shared(),
        by_path: HashMap::new(),
    };
    POSTGRES.set(Some(databases));
    test();
    POSTGRES.set(None);
}

/// Settings of a control plane in the place of this file.
pub(crate) fn settings(file: &Path) -> Settings {
    let mut settings = Settings::new(file);
    POSTGRES.with_borrow_mut(|databases| {
        if let Some(Databases { server, by_path }) = databases {
            let url = by_path.entry(file.to_owned());
            settings.database = place(url.or_insert_with(|| server.database()));
        }
    });
    settings
}

/// A PostgreSQL's database.
pub(crate) fn place(url: &str) -> DatabasePlace {
    let url = PostgresUrl::parse(Secret::new(url.to_owned()));
    DatabasePlace::Postgres(url.unwrap())
}

/// What lets others than the control plane change the audit trail; some of it in one database only.
pub(crate) const UNGUARD: [&str; 3] = [
    "DROP TRIGGER IF EXISTS audit_stays",
    "DROP TRIGGER IF EXISTS audit_is_kept",
    "DROP TRIGGER IF EXISTS audit_stays ON audit",
];

/// Runs a statement in the place of a file, as somebody beside the control plane; what it answers, if that is text.
pub(crate) async fn sql(file: &Path, statement: &'static str) -> Result<String, String> {
    let answers = all_sql(file, &[statement]).await;
    answers.into_iter().next().unwrap()
}

/// The same with several, over one connection where it is a file.
pub(crate) async fn all_sql(
    file: &Path,
    statements: &[&'static str],
) -> Vec<Result<String, String>> {
    let postgres = POSTGRES.with_borrow(|databases| {
        let databases = databases.as_ref()?;
        let url = databases.by_path.get(file)?;
        let answer = |statement: &&str| databases.server.try_sql(url, statement);
        Some(statements.iter().map(answer).collect())
    });
    if let Some(answers) = postgres {
        return answers;
    }
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = options.connect().await.unwrap();
    let mut answers = Vec::new();
    for statement in statements {
        let row = sqlx::query(*statement)
            .fetch_optional(&mut connection)
            .await;
        let text = |row: Option<SqliteRow>| row.map_or_else(String::new, |row| row.get(0));
        answers.push(row.map(text).map_err(|error| error.to_string()));
    }
    connection.close().await.unwrap();
    answers
}
