//! The control plane: opened, routed, run.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use larder_http::Limits;
use tokio::net::TcpListener;

use crate::bind::{BindError, check_bind};
use crate::database::OpenError;
use crate::engines::Engines;
use crate::gate::{self, Gate, HostError, Hosts};
use crate::instances::Instances;
use crate::invalidations::{InvalidationLimits, Invalidations};
use crate::live::Live;
use crate::measured::Measured;
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::shared_store::SharedStore;
use crate::streams::{StreamLimits, Streams};
use crate::{auto, expiring, routes};

/// No body is larger, in bytes.
const MAX_BODY: usize = 1 << 20;
/// So many connections there may be besides those of streams.
const CONNECTIONS: usize = 10_000;

/// What the control plane needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The SQLite file; it is made if there is none.
    pub database: PathBuf,
    /// The file with the key of the audit trail, of this user alone (0600); it is made if there is none. Who can write it and
    /// the database can write the trail anew: a backup of it belongs elsewhere.
    pub audit_key: PathBuf,
    /// Names by which it may be reached, besides `127.0.0.1`, `localhost` and `[::1]`: `control.example.com`, or with a
    /// port.
    pub allowed_hosts: Vec<String>,
    /// How often decisions are made: each 10 s, unless a test can't wait so long.
    pub tick: Duration,
    /// How many streams there may be, and how each is served.
    pub streams: StreamLimits,
    /// The store that services share; `None`: what is invalidated is told to the services alone.
    pub store: Option<SharedStore>,
    /// How many invalidations there may be.
    pub invalidations: InvalidationLimits,
}

impl Settings {
    /// With this SQLite file, and `audit.key` beside it, reached by this machine's own names.
    #[must_use]
    pub fn new(database: impl Into<PathBuf>) -> Self {
        let database = database.into();
        Self {
            audit_key: database.with_file_name("audit.key"),
            database,
            allowed_hosts: Vec::new(),
            tick: Duration::from_secs(10),
            streams: StreamLimits::default(),
            store: None,
            invalidations: InvalidationLimits::default(),
        }
    }
}

/// Why the control plane can't run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The listener's address can't be told, or its connections can't be taken.
    #[error("the control plane's listener failed: {0}")]
    Listener(#[from] io::Error),
    /// It would be reached by other machines.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A name in [`Settings::allowed_hosts`] is not one.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What the routes share.
pub(crate) struct Plane {
    pub(crate) registry: Registry,
    pub(crate) measured: Measured,
    pub(crate) metrics: Metrics,
    pub(crate) engines: Engines,
    pub(crate) tick: Duration,
    pub(crate) streams: Arc<Streams>,
    pub(crate) instances: Instances,
    pub(crate) store: Option<SharedStore>,
    pub(crate) invalidations: Arc<Invalidations>,
    pub(crate) live: Live,
}

/// The control plane. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct ControlPlane {
    plane: Arc<Plane>,
    allowed_hosts: Vec<String>,
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlPlane").finish_non_exhaustive()
    }
}

impl ControlPlane {
    /// Opens the database, and reads it.
    ///
    /// # Errors
    /// An [`OpenError`] that says what to do.
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        Hosts::new(0, &settings.allowed_hosts)?;
        let streams = Arc::new(Streams::new(settings.streams));
        let registry = Registry::open(
            &settings.database,
            &settings.audit_key,
            Arc::clone(&streams),
        )
        .await?;
        let database = registry.database();
        let invalidations = Invalidations::open(&database, database.id(), settings.invalidations);
        let invalidations = invalidations.await.map_err(|source| OpenError::Damaged {
            path: settings.database.clone(),
            source: source.into(),
        })?;
        let plane = Plane {
            engines: Engines::new(registry.database()),
            tick: settings.tick.max(Duration::from_millis(10)),
            registry,
            measured: Measured::default(),
            metrics: Metrics::new(),
            streams,
            instances: Instances::default(),
            store: settings.store,
            invalidations: Arc::new(invalidations),
            live: Live::default(),
        };
        Ok(Self {
            plane: Arc::new(plane),
            allowed_hosts: settings.allowed_hosts,
        })
    }

    /// Everything that it answers, for a server that listens on `port`.
    ///
    /// # Errors
    /// [`HostError`] if a name in [`Settings::allowed_hosts`] is not one.
    pub fn router(&self, port: u16) -> Result<Router, HostError> {
        let gate = Gate {
            hosts: Arc::new(Hosts::new(port, &self.allowed_hosts)?),
            plane: Arc::clone(&self.plane),
        };
        let routes = routes::router(Arc::clone(&self.plane))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(gate, gate::check));
        // The gate stands before the routes: a layer of a router alone would run after the route was found.
        Ok(Router::new().fallback_service(routes))
    }

    /// Serves until `shutdown` comes, and decides meanwhile for endpoints in mode `auto`. Then those who follow a stream
    /// are asked to come again later, and requests that are being answered end.
    ///
    /// # Errors
    /// A [`RunError`]; [`RunError::Bind`] for an address that other machines reach.
    pub async fn run(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), RunError> {
        let address = listener.local_addr()?;
        check_bind(address)?;
        let router = self.router(address.port())?;
        let streams = Arc::clone(&self.plane.streams);
        let limits = Limits {
            connections: CONNECTIONS.saturating_add(streams.limits().in_all),
            write_timeout: streams.limits().stall,
            ..Limits::default()
        };
        let shutdown = async move {
            shutdown.await;
            streams.end();
        };
        let serving = larder_http::serve(listener, router, limits, shutdown);
        let served = tokio::select! {
            served = serving => served,
            () = auto::run(&self.plane) => Ok(()),
            () = expiring::run(&self.plane) => Ok(()),
        };
        self.plane.engines.keep().await;
        self.plane.registry.close().await;
        Ok(served?)
    }
}
