//! The control plane: opened, routed, run.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use larder_http::Limits;
use larder_model::Service;
use tokio::net::TcpListener;

use crate::access::{self, Access};
use crate::audit::AuditKeyPlace;
use crate::bind::{BindError, check_bind, is_loopback};
use crate::database::{DatabasePlace, OpenError};
use crate::engines::Engines;
use crate::exchange::Exchange;
use crate::gate::{self, Gate, HostError, Hosts};
use crate::instances::Instances;
use crate::invalidations::{InvalidationLimits, Invalidations};
use crate::leading::Leading;
use crate::live::Live;
use crate::measured::Measured;
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::proxies::Proxies;
use crate::registry::{Opens, Registry};
use crate::rollups::Rollups;
use crate::shared_store::SharedStore;
use crate::streams::{StreamLimits, Streams};
use crate::tls::{Tls, TlsFiles};
use crate::{auto, exchange, expiring, following, rollups, routes};

/// No body is larger, in bytes.
const MAX_BODY: usize = 1 << 20;
/// So many connections of those who scrape and probe.
const PROBES: usize = 100;
/// So many connections there may be besides those of streams.
const CONNECTIONS: usize = 10_000;

/// What the control plane needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where its state lies.
    pub database: DatabasePlace,
    /// Where the key of the audit trail is: the same for all control planes that share a database.
    pub audit_key: AuditKeyPlace,
    /// The name of the key that a shared audit trail was written with, if that key is lost: the trail goes on with another.
    pub lost_audit_key: Option<String>,
    /// Names by which it may be reached, besides `127.0.0.1`, `localhost` and `[::1]`: `control.example.com`, or with a
    /// port.
    pub allowed_hosts: Vec<String>,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed: addresses, or networks such as `10.0.0.0/24`.
    pub trusted_proxies: Vec<String>,
    /// The certificate that it shows and its key, read anew when they change; `None`: it speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where `/metrics`, `/healthz` and `/readyz` are answered besides, without a key: for those who scrape and probe. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
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
            audit_key: database.with_file_name("audit.key").into(),
            database: database.into(),
            lost_audit_key: None,
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            metrics: None,
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
    /// It can't listen at [`Settings::metrics`].
    #[error("can't listen at {address} for metrics: {source}; choose another address and port")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The database can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// What the routes share.
pub(crate) struct Plane {
    pub(crate) registry: Registry,
    pub(crate) access: Access,
    pub(crate) measured: Measured,
    pub(crate) metrics: Metrics,
    pub(crate) engines: Engines,
    pub(crate) leading: Leading,
    pub(crate) exchange: Exchange,
    pub(crate) rollups: Rollups,
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
    proxies: Arc<Proxies>,
    tls: Option<Arc<Tls>>,
    metrics: Option<SocketAddr>,
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
    pub fn open(settings: Settings) -> impl Future<Output = Result<Self, OpenError>> + Send {
        // Boxed, as all that is long and others wait for: their crates then compile none of it.
        Self::opened(settings).boxed()
    }

    async fn opened(settings: Settings) -> Result<Self, OpenError> {
        Hosts::new(0, &settings.allowed_hosts)?;
        let proxies = Arc::new(Proxies::new(&settings.trusted_proxies)?);
        let tls = settings
            .tls
            .clone()
            .map(Tls::open)
            .transpose()?
            .map(Arc::new);
        let streams = Arc::new(Streams::new(settings.streams.clone()));
        let registry = Registry::open(&settings, Arc::clone(&streams), Opens::ControlPlane).await?;
        let database = registry.database();
        let limits = settings.invalidations.clone();
        let invalidations = Invalidations::open(&database, limits).await;
        let invalidations = invalidations
            .map_err(|error| crate::registry::unopened(&settings.database, error.into()))?;
        let access = Access::new(registry.database());
        if let Err(error) = access.refresh().await {
            tracing::error!(%error, "the keys can't be read: until they are, nobody is let in");
        }
        let leading = Leading::new(registry.database());
        leading.step().await;
        // What ended while nothing ran is not in force for a moment. What can't be ended now is tried again.
        if leading.holds()
            && let Err(error) = registry.expire(Moment::now()).await
        {
            tracing::warn!(%error, "an override that is over could not be ended");
        }
        let (rollups, measured) = (Rollups::new(registry.database()), Measured::default());
        if let Err(error) = rollups.restore(&measured, auto::now()).await {
            tracing::warn!(%error, "what was measured in the last hour could not be read");
        }
        let before = services_before(&registry, &measured, &invalidations);
        let plane = Plane {
            access,
            engines: Engines::new(registry.database()),
            leading,
            exchange: Exchange::new(registry.database()),
            rollups,
            tick: settings.tick.max(Duration::from_millis(10)),
            registry,
            measured,
            metrics: Metrics::new(),
            streams,
            instances: Instances::new(auto::now(), before),
            store: settings.store,
            invalidations: Arc::new(invalidations),
            live: Live::default(),
        };
        Ok(Self {
            plane: Arc::new(plane),
            allowed_hosts: settings.allowed_hosts,
            proxies,
            tls,
            metrics: settings.metrics,
        })
    }

    /// Answers those who scrape and probe, where that is apart.
    async fn probes(
        &self,
        port: u16,
    ) -> Result<impl Future<Output = io::Result<()>> + use<>, RunError> {
        let gate = self.gate(port)?;
        let router = routes::probes(Arc::clone(&self.plane))
            .layer(middleware::from_fn_with_state(gate, gate::check_probe));
        let listener = match self.metrics {
            None => None,
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.map_err(|source| RunError::Metrics { address, source })?)
            }
        };
        Ok(async move {
            match listener {
                None => std::future::pending().await,
                Some(listener) => {
                    let limits = Limits {
                        connections: PROBES,
                        ..Limits::default()
                    };
                    larder_http::serve(listener, router, limits, std::future::pending()).await
                }
            }
        })
    }

    fn gate(&self, port: u16) -> Result<Gate, HostError> {
        Ok(Gate {
            hosts: Arc::new(Hosts::new(port, &self.allowed_hosts)?),
            proxies: Arc::clone(&self.proxies),
            plane: Arc::clone(&self.plane),
        })
    }

    /// Everything that it answers, for a server that listens on `port`.
    ///
    /// # Errors
    /// [`HostError`] if a name in [`Settings::allowed_hosts`] is not one.
    pub fn router(&self, port: u16) -> Result<Router, HostError> {
        let gate = self.gate(port)?;
        let routes = routes::router(Arc::clone(&self.plane))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(
                Arc::clone(&self.plane),
                access::check,
            ))
            .layer(middleware::from_fn_with_state(gate, gate::check));
        // The gate stands before the routes: a layer of a router alone would run after the route was found.
        Ok(Router::new().fallback_service(routes))
    }

    /// Whether it may listen at an address: on loopback alone, as long as there never was an API key.
    ///
    /// # Errors
    /// A [`BindError`] that says what to do.
    pub fn check_bind(&self, address: SocketAddr) -> Result<(), BindError> {
        // Keys that were not read yet are asked for.
        check_bind(address, self.plane.access.is_protected() != Some(false))
    }

    /// Serves until `shutdown` comes, and decides meanwhile for endpoints in mode `auto`. Then those who follow a stream
    /// are asked to come again later, and requests that are being answered end.
    ///
    /// # Errors
    /// A [`RunError`]; [`RunError::Bind`] for an address that other machines reach, as long as there are no API keys.
    pub fn run(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<(), RunError>> + Send {
        self.running(listener, shutdown.boxed()).boxed()
    }

    async fn running(
        &self,
        listener: TcpListener,
        shutdown: BoxFuture<'static, ()>,
    ) -> Result<(), RunError> {
        let address = listener.local_addr()?;
        self.check_bind(address)?;
        if !is_loopback(address) {
            self.plane.access.is_reached_by_others();
            if self.tls.is_none() {
                tracing::warn!(%address, "other machines reach this in clear: whoever is on the way reads API keys and policies; CONTROL_TLS_CERT and CONTROL_TLS_KEY seal it");
            }
        }
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
        let serving = async {
            match &self.tls {
                None => larder_http::serve(listener, router, limits, shutdown).await,
                Some(tls) => {
                    let serving =
                        larder_http::serve_tls(listener, router, limits, tls.config(), shutdown);
                    tokio::select! {
                        served = serving => served,
                        () = tls.follow() => Ok(()),
                    }
                }
            }
        };
        let probes = self.probes(address.port()).await?;
        let served = tokio::select! {
            served = serving => served,
            served = probes => served,
            () = auto::run(&self.plane) => Ok(()),
            () = expiring::run(&self.plane) => Ok(()),
            () = access::run(&self.plane) => Ok(()),
            () = following::run(&self.plane) => Ok(()),
            () = exchange::run(&self.plane) => Ok(()),
            () = rollups::run(&self.plane) => Ok(()),
            () = self.plane.leading.run() => Ok(()),
        };
        if self.plane.leading.holds() {
            // It goes on saying that it leads until all is kept.
            tokio::select! {
                () = self.plane.engines.keep() => {}
                () = self.plane.leading.run() => {}
            }
        }
        self.plane.leading.end().await;
        self.plane.registry.close().await;
        Ok(served?)
    }
}

/// Services of which something is known from before the start: of these there may be instances.
fn services_before(
    registry: &Registry,
    measured: &Measured,
    invalidations: &Invalidations,
) -> HashSet<Service> {
    let set = registry.services();
    let set = set.keys().cloned();
    let measured = measured.services().into_iter().map(|(name, _)| name);
    let names = set
        .chain(measured)
        .filter_map(|name| Service::new(&name).ok());
    names.chain(invalidations.services()).collect()
}
