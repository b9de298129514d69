//! The policies in force: read from memory, changed through the database.

mod changes;
mod in_force;
mod overrides;
mod snapshot;
mod state;
mod trail;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use larder_model::api::{EndpointConfig, ServiceConfig};
use larder_model::{Endpoint, Service};
use tokio::sync::Mutex;

use crate::audit::{AuditKey, Head, Refusals, Trail};
use crate::database::{Database, DatabasePlace, OpenError};
use crate::pace::{PerService, REPLACEMENTS};
use crate::plane::Settings;
use crate::streams::{Event, Streams};
pub(crate) use changes::{ChangeError, Preconditions, Replacement, Tags};
use in_force::default_config;
pub(crate) use snapshot::Snapshot;
pub(crate) use state::differences;
use trail::TrailError;

/// The policies of all services.
pub(crate) struct Registry {
    services: ArcSwap<BTreeMap<String, Arc<Snapshot>>>,
    /// Held while something goes through the database, so that versions and the trail's entries come in order.
    changes: Mutex<Trail>,
    database: Database,
    audit_head: ArcSwap<Head>,
    refusals: Refusals,
    replacements: PerService,
    /// Those who follow a service hear of each of its snapshots.
    streams: Arc<Streams>,
}

/// What a service's clients are given.
pub(crate) struct Published {
    pub(crate) etag: String,
    /// The [`ServiceConfig`], as JSON.
    pub(crate) document: Bytes,
}

/// Who opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opens {
    /// It serves, and goes on with the audit trail where the key of that is lost.
    ControlPlane,
    /// It changes who may do what, perhaps beside a control plane: with another key than that one's it would end all of its
    /// changes. It needs no policies.
    Keyring,
}

impl Registry {
    pub(crate) async fn open(
        settings: &Settings,
        streams: Arc<Streams>,
        opens: Opens,
    ) -> Result<Self, OpenError> {
        let Settings {
            database: place,
            audit_key,
            ..
        } = settings;
        let database = Database::open(place).await?;
        let head = database.audit_head_now().await;
        let head = head.map_err(|error| unopened(place, error.into()))?;
        let may_replace = opens == Opens::ControlPlane && !database.is_shared();
        let key = AuditKey::open_or_make(audit_key, may_replace || head.sequence == 0)?;
        let registry = Self {
            services: ArcSwap::default(),
            changes: Mutex::new(Trail::new(key, database.id())),
            audit_head: ArcSwap::from_pointee(head),
            refusals: Refusals::default(),
            replacements: PerService::new(REPLACEMENTS),
            database,
            streams,
        };
        if opens == Opens::ControlPlane {
            let loaded = registry.load().await;
            loaded.map_err(|error| unopened(place, error))?;
        }
        let lost = settings.lost_audit_key.as_deref();
        let opened = registry.open_trail(may_replace, lost).await;
        opened.map_err(|error| match error {
            TrailError::OtherKey { written, here } => OpenError::OtherKey {
                place: place.to_string(),
                written,
                here: format!("{here}, {audit_key}"),
            },
            TrailError::Change(error) => unopened(place, error),
        })?;
        Ok(registry)
    }

    pub(crate) fn services(&self) -> Arc<BTreeMap<String, Arc<Snapshot>>> {
        self.services.load_full()
    }

    pub(crate) fn service(&self, service: &Service) -> Option<Arc<Snapshot>> {
        self.services.load().get(service.as_str()).cloned()
    }

    /// What a service's clients are given, also of one that never had a policy.
    pub(crate) fn published(&self, service: &Service) -> Published {
        if let Some(snapshot) = self.service(service) {
            return Published {
                etag: snapshot.etag().to_owned(),
                document: snapshot.document(),
            };
        }
        let nothing = ServiceConfig {
            service_name: service.as_str().to_owned(),
            version: 0,
            policies: Vec::new(),
        };
        Published {
            etag: self.etag(0),
            document: crate::json::bytes(&nothing),
        }
    }

    /// [`Registry::published`], as streams say it.
    pub(crate) fn event(&self, service: &Service) -> Event {
        let Published { etag, document } = self.published(service);
        Event::new(&etag, &document)
    }

    /// The policy in force for an endpoint or a concrete path.
    pub(crate) fn config(&self, service: &Service, endpoint: &Endpoint) -> EndpointConfig {
        let snapshot = self.service(service);
        let found = snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.find(endpoint));
        match found {
            Some(config) => EndpointConfig::clone(&config),
            None => default_config(service, endpoint, snapshot.map_or(0, |s| s.version())),
        }
    }

    /// The database, for what is kept beside the policies.
    pub(crate) fn database(&self) -> Database {
        self.database.clone()
    }

    /// The version of a service, as it is in force here.
    fn version(&self, service: &str) -> Option<u64> {
        let services = self.services.load();
        services.get(service).map(|snapshot| snapshot.version())
    }

    pub(crate) async fn is_reachable(&self) -> bool {
        self.database.is_reachable().await
    }

    pub(crate) async fn close(&self) {
        self.database.close().await;
    }

    pub(crate) fn etag(&self, version: u64) -> String {
        etag(self.database.id(), version)
    }

    /// The tag of all policies that were set for a service: decisions and overrides don't change it.
    pub(crate) fn policies_etag(&self, snapshot: Option<&Snapshot>) -> String {
        let version = snapshot.map_or(0, |snapshot| snapshot.stored.policies_version);
        self.etag_of_policies(version)
    }

    fn etag_of_policies(&self, version: u64) -> String {
        format!("\"{}-p{version}\"", self.database.id())
    }

    /// The tag of an override.
    pub(crate) fn etag_of_override(&self, id: &str) -> String {
        format!("\"{}-{id}\"", self.database.id())
    }

    fn activate(&self, snapshot: Snapshot) {
        let name = snapshot.stored.service.as_str().to_owned();
        let snapshot = Arc::new(snapshot);
        let mut services = BTreeMap::clone(&self.services.load());
        services.insert(name, Arc::clone(&snapshot));
        self.services.store(Arc::new(services));
        // Behind the store: a stream that is opened meanwhile sees it there, or hears of it here.
        self.streams.publish(&snapshot);
    }
}

/// What went wrong while the database was opened.
pub(crate) fn unopened(place: &DatabasePlace, error: ChangeError) -> OpenError {
    match (place, error) {
        (_, error @ ChangeError::Unreadable { .. }) => OpenError::Content {
            place: place.to_string(),
            what: error.to_string(),
        },
        (DatabasePlace::File(path), error) => OpenError::Damaged {
            path: path.clone(),
            source: match error {
                ChangeError::Database(error) | ChangeError::Unsure(error) => error.into(),
                error => error.into(),
            },
        },
        (DatabasePlace::Postgres(url), error) => match error {
            ChangeError::Database(error) | ChangeError::Unsure(error) => OpenError::of(url, error),
            error => OpenError::Away {
                place: url.to_string(),
                source: error.into(),
            },
        },
    }
}

fn etag(database_id: &str, version: u64) -> String {
    format!("\"{database_id}-{version}\"")
}
