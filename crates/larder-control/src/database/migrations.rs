//! The forms that the database had, one after another: `sqlx` brings it to the last one. They are listed here and not by
//! `sqlx::migrate!`, for whose macros a user would wait: they compile both drivers, and SQLite, a second time.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A name, and what brings it about in SQLite and in PostgreSQL. Their numbers count from 1.
macro_rules! migrations {
    ($($name:literal)*) => {
        [$((
            $name,
            include_str!(concat!("../../migrations/sqlite/", $name, ".sql")),
            include_str!(concat!("../../migrations/postgres/", $name, ".sql")),
        )),*]
    };
}

const ALL: [(&str, &str, &str); 5] = migrations! {
    "0001_policies"
    "0002_decisions"
    "0003_history"
    "0004_keys"
    "0005_rollups"
};

pub(super) fn sqlite() -> Migrator {
    migrator(|(name, sqlite, _)| (name, sqlite))
}

pub(super) fn postgres() -> Migrator {
    migrator(|(name, _, postgres)| (name, postgres))
}

fn migrator(
    of: impl Fn((&'static str, &'static str, &'static str)) -> (&'static str, &'static str),
) -> Migrator {
    let all = (1..).zip(ALL).map(|(number, one)| {
        let (name, sql) = of(one);
        let (_, description) = name.split_once('_').unwrap_or(("", name));
        Migration::new(
            number,
            description.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(all.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_the_list() {
        for database in ["sqlite", "postgres"] {
            let folder = format!("{}/migrations/{database}", env!("CARGO_MANIFEST_DIR"));
            let files = std::fs::read_dir(folder).unwrap();
            let mut files: Vec<_> = files
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            files.sort();
            let listed: Vec<_> = ALL.iter().map(|one| format!("{}.sql", one.0)).collect();
            assert_eq!(files, listed);
        }
    }

    #[test]
    fn those_that_are_out_never_change() {
        // A database that has one refuses another of the same number.
        let out = [
            ("f0ffb9ef4309f40e", "395ae2a6b5b2eb1a"),
            ("4df428889854b03c", "74017e2fe3c4b372"),
            ("36b9f67f0464bdac", "15437c7a3e9fa9d2"),
            ("db16c72eea61c195", "db16c72eea61c195"),
            ("11c0eb4ffc8ff4fe", "11c0eb4ffc8ff4fe"),
        ];
        let (sqlite, postgres) = (sqlite(), postgres());
        let both = sqlite.iter().zip(postgres.iter());
        for ((of_sqlite, of_postgres), (one, other)) in both.zip(out) {
            for (migration, checksum) in [(of_sqlite, one), (of_postgres, other)] {
                let is = crate::hex::encode(&migration.checksum);
                assert!(is.starts_with(checksum), "{}: {is}", migration.version);
            }
        }
    }
}
