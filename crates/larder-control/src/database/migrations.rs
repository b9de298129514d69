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
            "f0ffb9ef4309f40eb1730080",
            "4df428889854b03c6efc3628",
            "36b9f67f0464bdacfeeb668b",
        ];
        for (migration, checksum) in sqlite().iter().zip(out) {
            let is = crate::hex::encode(&migration.checksum);
            assert!(is.starts_with(checksum), "{}: {is}", migration.version);
        }
    }
}
