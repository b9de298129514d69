//! The SQLite file: private, ours, whole; or why it can't be opened.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::SqlitePool;

use super::sql::is_away;

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
    /// PostgreSQL can't be reached; it may be later.
    #[error(
        "PostgreSQL at {place} can't be reached ({source}): start it, or set DATABASE_URL to where it is"
    )]
    Away {
        /// Where, without the password.
        place: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// PostgreSQL speaks no TLS, or its certificate is not one to be trusted.
    #[error(
        "PostgreSQL at {place} can't be trusted ({source}): let sslrootcert in DATABASE_URL name the authority of its certificate, and its host be a name that is in there; or ask for less by sslmode"
    )]
    Untrusted {
        /// Where, without the password.
        place: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// PostgreSQL does not let us do what we must.
    #[error(
        "PostgreSQL at {place} refuses what the control plane needs ({source}): the user of DATABASE_URL must be able to log in to that database, and to create in it; or create a schema larder that belongs to him"
    )]
    Postgres {
        /// Where, without the password.
        place: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// PostgreSQL is older than 14.
    #[error("PostgreSQL at {place} is version {version}: the control plane needs 14 or newer")]
    TooOld {
        /// Where, without the password.
        place: String,
        /// Its major version.
        version: i32,
    },
    /// The tables in PostgreSQL have another form than this version's.
    #[error(
        "the schema larder of PostgreSQL at {place} is not of this version ({what}): start the version that wrote it, or a newer one"
    )]
    Form {
        /// Where, without the password.
        place: String,
        /// What differs.
        what: String,
    },
    /// `DATABASE_URL` is none.
    #[error(transparent)]
    Url(#[from] super::PostgresUrlError),
    /// A stored policy does not read.
    #[error(
        "the control plane's database {place} holds a policy that can't be read ({what}): move the file (or the schema larder) away to begin anew, or bring back a copy of it"
    )]
    Content {
        /// The file, or where PostgreSQL is.
        place: String,
        /// Which, and why.
        what: String,
    },
    /// The audit trail was written with another key than the one at hand, and others may be writing it.
    #[error(
        "the audit trail in {place} is written with the key {written}, and the one here ({here}) is another: all replicas need the same. Copy audit.key of one that runs into LARDER_DIR here, or set LARDER_AUDIT_KEY to what is in it. If the key is lost for good, end all replicas and start the first with --lost-audit-key {written}"
    )]
    OtherKey {
        /// Where, without the password.
        place: String,
        /// The name of the key that the trail ends with.
        written: String,
        /// The name of the key here, and where it is.
        here: String,
    },
    /// The audit trail's key can't be used.
    #[error(transparent)]
    Key(#[from] crate::audit::KeyError),
    /// A name in `allowed_hosts` is not one.
    #[error(transparent)]
    Host(#[from] crate::gate::HostError),
    /// The certificate or its key can't be used.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// A name in `trusted_proxies` is no address.
    #[error(transparent)]
    Proxy(#[from] crate::proxies::ProxyError),
}

impl OpenError {
    /// What PostgreSQL, or the way to it, said.
    pub(crate) fn of(url: &super::PostgresUrl, error: sqlx::Error) -> Self {
        let place = url.to_string();
        let is_away = is_away(&error);
        let is_untrusted = match &error {
            sqlx::Error::Tls(_) => true,
            sqlx::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
            _ => false,
        };
        let source = error.into();
        match is_untrusted {
            true => Self::Untrusted { place, source },
            false if is_away => Self::Away { place, source },
            false => Self::Postgres { place, source },
        }
    }

    /// Whether the same may do well later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// SQLite makes its file readable for all; and opens whatever a link points to.
pub(super) fn create_private(path: &Path) -> Result<(), OpenError> {
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

pub(super) async fn is_foreign(pool: &SqlitePool) -> Result<bool, sqlx::Error> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(pool)
        .await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master")
        .fetch_one(pool)
        .await?;
    Ok(application != APPLICATION_ID && (application != 0 || tables > 0))
}

pub(super) async fn check_integrity(
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
