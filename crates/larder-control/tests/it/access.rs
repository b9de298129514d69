//! Who may do what: with API keys nobody gets in without one, and nobody beyond his role and his services (SECURITY SC-4, SC-8).

mod keys;
mod probes;
mod routes;
mod users;

use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_control::{Keyring, Settings};
use larder_model::api::{KeyRole, MadeApiKey, NewApiKey};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use crate::{Answer, Running, places};

/// A control plane's database, and the keys in it.
pub(crate) struct Keyed {
    folder: TempDir,
    keys: Keyring,
}

impl Keyed {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keyring::open(&settings(folder.path())).await.unwrap();
        Self { folder, keys }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("control.db")
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(|_| ()).await
    }

    pub(crate) async fn start_with(&self, set: impl FnOnce(&mut Settings)) -> Running {
        let mut settings = settings(self.folder.path());
        set(&mut settings);
        Running::start_as(settings).await
    }

    pub(crate) async fn key(&mut self, role: KeyRole, services: &[&str]) -> MadeApiKey {
        self.key_until(role, services, None).await
    }

    pub(crate) async fn key_until(
        &mut self,
        role: KeyRole,
        services: &[&str],
        expires_at_seconds: Option<u64>,
    ) -> MadeApiKey {
        let new = NewApiKey {
            name: "a test's".to_owned(),
            role,
            services: services.iter().map(|name| (*name).to_owned()).collect(),
            expires_at_seconds,
            reason: None,
        };
        self.keys.create(&new, None).await.unwrap()
    }

    pub(crate) async fn revoke(&mut self, id: &str) -> bool {
        self.keys.revoke(id, None, None).await.unwrap()
    }
}

fn settings(folder: &Path) -> Settings {
    let mut settings = places::settings(&folder.join("control.db"));
    settings.tick = Duration::from_millis(100);
    settings
}

impl Running {
    /// With a key, or none.
    pub(crate) async fn with(
        &self,
        key: Option<&str>,
        method: &str,
        path: &str,
        body: &str,
    ) -> Answer {
        let bearer = key.map(|key| format!("Bearer {key}"));
        let mut headers = vec![];
        if let Some(bearer) = &bearer {
            headers.push(("Authorization", bearer.as_str()));
        }
        if !body.is_empty() {
            headers.push(("Content-Type", "application/json"));
        }
        self.send(method, path, &headers, body).await
    }
}

/// Does something to the database's file that the control plane never would.
async fn tamper_with(database: &Path, statements: &[&str]) {
    let options = SqliteConnectOptions::new().filename(database);
    let mut connection = options.connect().await.unwrap();
    for statement in statements {
        let statement = sqlx::AssertSqlSafe((*statement).to_owned());
        let done = sqlx::query(statement).execute(&mut connection).await;
        done.unwrap();
    }
    connection.close().await.unwrap();
}
