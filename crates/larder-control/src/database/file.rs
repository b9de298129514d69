//! The SQLite file: private, ours, whole; or why it can't be opened.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::SqlitePool;

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
