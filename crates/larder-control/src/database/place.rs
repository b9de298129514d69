//! Where the control plane's state lies: a SQLite file, or PostgreSQL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;

use larder_model::Secret;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// What a URL may say behind its `?`: a misspelt one is an error, not a connection without it.
const PARAMETERS: [&str; 6] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "application_name",
];

/// Where the control plane's state lies.
#[derive(Debug, Clone)]
pub enum DatabasePlace {
    /// In this SQLite file; it is made if there is none.
    File(PathBuf),
    /// In the schema `larder` of a PostgreSQL; several control planes may share it.
    Postgres(PostgresUrl),
}

impl From<PathBuf> for DatabasePlace {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// Shown without a password.
impl fmt::Display for DatabasePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// Why a text is no URL of a PostgreSQL. The text itself is not shown: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("DATABASE_URL {0}")]
pub struct PostgresUrlError(&'static str);

/// The URL of a PostgreSQL.
#[derive(Clone)]
pub struct PostgresUrl {
    url: Secret,
    shown: String,
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl PostgresUrl {
    /// Reads `postgres://user:password@host:5432/database`, or the same with `postgresql`. TLS is as `sslmode` says, as in
    /// libpq; a folder with a socket is `?host=/run/postgresql`.
    ///
    /// ```
    /// use larder_control::PostgresUrl;
    /// use larder_model::Secret;
    ///
    /// let url = "postgres://larder:hunter2@db.example.com/larder?sslmode=verify-full";
    /// let url = PostgresUrl::parse(Secret::new(url.to_owned()))?;
    /// assert_eq!(url.to_string(), "postgres://larder@db.example.com:5432/larder");
    /// # Ok::<(), larder_control::PostgresUrlError>(())
    /// ```
    ///
    /// # Errors
    /// A [`PostgresUrlError`] that says what to write.
    pub fn parse(url: Secret) -> Result<Self, PostgresUrlError> {
        let text = url.expose();
        let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme.to_ascii_lowercase().as_str() {
            "postgres" | "postgresql" => {}
            "sqlite" | "file" => {
                return Err(PostgresUrlError(
                    "names a SQLite database: unset it, and the control plane keeps its state in the SQLite file control.db in LARDER_DIR",
                ));
            }
            _ => {
                return Err(PostgresUrlError(
                    "is no URL of a PostgreSQL: use postgres://user:password@host:5432/database, or unset it for the SQLite file control.db in LARDER_DIR",
                ));
            }
        }
        let parameters = text.split_once('?').map_or("", |(_, rest)| rest);
        let names = parameters.split('&').filter(|pair| !pair.is_empty());
        let mut names = names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
        if names.any(|name| !PARAMETERS.contains(&name)) {
            return Err(PostgresUrlError(
                "has a parameter that is none: behind the ? there may be sslmode, sslrootcert, sslcert, sslkey, host, application_name",
            ));
        }
        const NOT_ENCODED: PostgresUrlError = PostgresUrlError(
            "is no URL of a PostgreSQL: use postgres://user:password@host:5432/database, and write what is special in a user or a password as %40 for @, %2F for /, %3A for :, %3F for ?",
        );
        let options = PgConnectOptions::from_str(text).map_err(|_| NOT_ENCODED)?;
        let Some(database) = options.get_database() else {
            return Err(PostgresUrlError(
                "names no database: use postgres://user:password@host:5432/database",
            ));
        };
        // The rest of a password, which would be shown.
        if database.contains(['@', '/', ':']) {
            return Err(NOT_ENCODED);
        }
        Ok(Self {
            shown: shown(&options),
            url,
        })
    }

    pub(super) fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let options = PgConnectOptions::from_str(self.url.expose())?;
        Ok(match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("larder-control"),
        })
    }

    /// Whether what goes over the net there may be read or changed on its way.
    pub(super) fn is_exposed(options: &PgConnectOptions) -> bool {
        let host = options.get_host();
        let is_near = options.get_socket().is_some()
            || host.starts_with('/')
            || matches!(host, "localhost" | "127.0.0.1" | "::1" | "[::1]");
        let is_verified = matches!(
            options.get_ssl_mode(),
            PgSslMode::VerifyFull | PgSslMode::VerifyCa
        );
        !is_near && !is_verified
    }
}

/// Without the password, and without what the URL's parameters say.
fn shown(options: &PgConnectOptions) -> String {
    let place = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let text = format!(
        "postgres://{}@{place}/{}",
        options.get_username(),
        options.get_database().unwrap_or_default()
    );
    larder_model::escape(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<PostgresUrl, PostgresUrlError> {
        PostgresUrl::parse(Secret::new(url.to_owned()))
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            (
                "postgres://larder:canary@db:5433/state?sslmode=verify-full",
                "postgres://larder@db:5433/state",
            ),
            (
                "postgresql://larder:can%40ary@db/state",
                "postgres://larder@db:5432/state",
            ),
            (
                "postgres://larder@localhost/state?host=/run/postgresql",
                "postgres://larder@/run/postgresql/state",
            ),
        ] {
            let url = parse(url).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn what_is_no_url_of_a_postgresql_says_what_to_write_and_not_what_it_was() {
        for (url, next) in [
            ("mysql://u:canary@h/db", "use postgres://"),
            ("canary", "use postgres://"),
            ("sqlite:canary.db", "unset it"),
            ("postgres://u:canary@h", "names no database"),
            ("postgres://u:canary@h/db?sslmodus=require", "sslmode"),
            ("postgres://u:canary@h/db?sslmode=canary", "use postgres://"),
            ("postgres://u:c@n/ary@h:x/db", "%40"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.starts_with("DATABASE_URL"), "{error}");
            assert!(error.contains(next), "{url}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn what_goes_over_the_net_unverified_is_known() {
        for (url, is_exposed) in [
            ("postgres://u@db/larder", true),
            ("postgres://u@db/larder?sslmode=require", true),
            ("postgres://u@db/larder?sslmode=verify-full", false),
            ("postgres://u@127.0.0.1/larder", false),
            ("postgres://u@localhost/larder?host=/run/postgresql", false),
        ] {
            let options = parse(url).unwrap().options().unwrap();
            assert_eq!(PostgresUrl::is_exposed(&options), is_exposed, "{url}");
        }
    }
}
