//! A cache as the settings say.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use larder_client::{Client, ClientSettings};
use larder_core::{
    Disabled, FixedGovernor, Frames, Governor, Key, KeyError, KeySecret, Outbox, OutboxLimits,
    Policy, Service, Store,
};
use larder_embedded::{EmbeddedStore, OpenError};
use larder_redis::{RedisStore, RedisUrl};

use crate::redis_tls;
use crate::settings::{Settings, SettingsError};
use crate::store_id::store_id;

/// Why a cache can't be started. A store or a control plane that is away is no reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The service's name can't be one.
    #[error(transparent)]
    Service(#[from] KeyError),
    /// A setting can't be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The key of an endpoint of a service: `cache_key("product-service", "/products")` is
/// `cache:product-service:/products`.
///
/// # Errors
/// A [`KeyError`] that says what to change.
pub fn cache_key(service: &str, endpoint: &str) -> Result<Key, KeyError> {
    Key::new(service, endpoint)
}

/// A service's cache: everything that [`larder_core::Cache`] does, with the store and the control plane that the
/// settings name. Cheap to clone; the clones are one cache.
#[derive(Clone)]
pub struct Cache {
    core: larder_core::Cache,
    client: Option<Arc<Client>>,
    key_secret: Option<KeySecret>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.fmt(f)
    }
}

impl Deref for Cache {
    type Target = larder_core::Cache;

    fn deref(&self) -> &Self::Target {
        &self.core
    }
}

impl Cache {
    /// A cache for a service, from the environment and `.env`. Needs a Tokio runtime. Waits for no server: a Redis or a
    /// control plane that is away is used as soon as it comes. The first who opens the folder of an embedded store reads
    /// all of it, others wait for that (10 s at the most): call it before there are requests.
    ///
    /// # Errors
    /// A [`StartError`] that names the setting and what to do.
    pub fn from_env(service: &str) -> Result<Self, StartError> {
        Builder::new(service, Settings::from_env()?)?.build()
    }

    /// Begins a cache from settings, to say more than they do.
    ///
    /// # Errors
    /// [`StartError::Service`] if the service's name can't be one.
    pub fn builder(service: &str, settings: Settings) -> Result<Builder, StartError> {
        Builder::new(service, settings)
    }

    /// A cache for this process alone, in at most this much memory (bytes).
    #[must_use]
    pub fn in_process(max_bytes: u64) -> Self {
        Self {
            core: larder_core::Cache::in_process(max_bytes),
            client: None,
            key_secret: None,
        }
    }

    /// The client of the control plane, if there is one.
    #[must_use]
    pub fn client(&self) -> Option<&Arc<Client>> {
        self.client.as_ref()
    }

    /// What hides identities in keys (`LARDER_KEY_SECRET`), for routes that vary by one
    /// ([`larder_http::CachingLayer::key_secret`]); `None` if it is not set.
    #[must_use]
    pub fn key_secret(&self) -> Option<KeySecret> {
        self.key_secret.clone()
    }

    /// Ends orderly: the last signals are sent, what was reported as stored is on its way to the disk, connections
    /// are given back.
    pub async fn close(&self) {
        if let Some(client) = &self.client {
            client.close().await;
        }
        if let Err(error) = self.core.close().await {
            tracing::warn!(%error, "the store did not end orderly");
        }
    }
}

/// Puts a [`Cache`] together.
pub struct Builder {
    service: Service,
    settings: Settings,
    store: Option<Arc<dyn Store>>,
    default_policy: Policy,
}

impl Builder {
    fn new(service: &str, settings: Settings) -> Result<Self, StartError> {
        Ok(Self {
            service: Service::new(service)?,
            settings,
            store: None,
            default_policy: Policy::default(),
        })
    }

    /// Uses this store, whatever the settings name.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// What holds for an endpoint of which the control plane says nothing.
    #[must_use]
    pub fn default_policy(mut self, policy: Policy) -> Self {
        self.default_policy = policy;
        self
    }

    /// The cache.
    ///
    /// # Errors
    /// [`StartError::Settings`] if a URL is not one.
    pub fn build(self) -> Result<Cache, StartError> {
        let store = match &self.store {
            Some(store) => Arc::clone(store),
            None => open_store(&self.settings)?,
        };
        let client = self.start_client()?;
        let governor: Arc<dyn Governor> = match &client {
            Some(client) => Arc::clone(client) as Arc<dyn Governor>,
            None => Arc::new(FixedGovernor::new(self.default_policy)),
        };
        let service = self.service.as_str();
        tracing::info!(service, store = store.name(), "cache connected");
        let outbox = open_outbox(&self.settings, &*store, &self.service);
        let core = larder_core::Cache::builder(self.service)
            .store(store)
            .governor(governor)
            .frames(Frames::new(self.settings.seal_keys.clone()))
            .l1_bytes(self.settings.l1_bytes)
            .outbox(Arc::new(outbox))
            .build();
        if let Some(client) = &client {
            client.invalidate_in(core.downgrade());
        }
        Ok(Cache {
            core,
            client,
            key_secret: self.settings.key_secret.as_ref().map(KeySecret::new),
        })
    }

    fn start_client(&self) -> Result<Option<Arc<Client>>, StartError> {
        let Some(url) = &self.settings.control_plane_url else {
            return Ok(None);
        };
        if let Some(warning) = self.settings.control_key_warning() {
            tracing::warn!("{warning}");
        }
        let settings = ClientSettings {
            url: url.clone(),
            key: self.settings.control_key.clone(),
            authorities: self.settings.control_tls_ca.clone(),
            service: self.service.clone(),
            state_dir: Some(self.settings.dir.clone()),
            defaults: self.default_policy.clone(),
            store_id: store_id(&self.settings),
        };
        match Client::start(settings) {
            Ok(client) => Ok(Some(client)),
            Err(error) => {
                let name = match error {
                    larder_client::StartError::Key(_) => "LARDER_CONTROL_KEY",
                    larder_client::StartError::Authorities(_) => "CONTROL_TLS_CA",
                    _ => "CONTROL_PLANE_URL",
                };
                Err(self.settings.error(name, error.to_string()).into())
            }
        }
    }
}

/// What the store can't be told is kept where the settings say.
fn open_outbox(settings: &Settings, store: &dyn Store, service: &Service) -> Outbox {
    let limits = OutboxLimits::default();
    let identity = identity(settings, store);
    match settings.journal_folder() {
        Some(folder) => Outbox::open(&folder, &identity, service.clone(), limits),
        None => Outbox::new(service.clone(), limits),
    }
}

/// One store has one name, wherever a process stands that uses it.
fn identity(settings: &Settings, store: &dyn Store) -> String {
    match settings.redis_url {
        Some(_) => store.name(),
        None => std::fs::canonicalize(settings.dir.join("store"))
            .map_or_else(|_| store.name(), |folder| folder.display().to_string()),
    }
}

/// What the processes of this machine have pending for the store that the settings name, to be looked at: nothing of it is
/// adopted or applied.
#[must_use]
pub fn look_at_outbox(settings: &Settings, store: &dyn Store, service: &Service) -> Outbox {
    match settings.journal_folder() {
        Some(folder) => Outbox::look(&folder, &identity(settings, store), service.clone()),
        None => Outbox::new(service.clone(), OutboxLimits::default()),
    }
}

/// The store that the settings name. One that can't be used holds nothing, which is said once, with the next step.
///
/// # Errors
/// As [`open_redis`].
pub fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, SettingsError> {
    open(settings, Terms::default())
}

/// [`open_store`], for one who would rather wait than go without: an operation is given up after `deadline`.
///
/// # Errors
/// As [`open_redis`].
pub fn open_store_within(
    settings: &Settings,
    deadline: Duration,
) -> Result<Arc<dyn Store>, SettingsError> {
    open(settings, Terms::within(deadline))
}

/// [`open_store_within`], for one who looks, and changes nothing that was not asked for: what a Redis has of another life is not
/// read, and not removed.
///
/// # Errors
/// As [`open_redis`].
pub fn look_at_store(
    settings: &Settings,
    deadline: Duration,
) -> Result<Arc<dyn Store>, SettingsError> {
    let terms = Terms::within(deadline);
    open(
        settings,
        Terms {
            sweeps: false,
            ..terms
        },
    )
}

/// How a store is used.
struct Terms {
    /// `None`: the store's own.
    deadline: Option<Duration>,
    sweeps: bool,
}

impl Terms {
    fn within(deadline: Duration) -> Self {
        Self {
            deadline: Some(deadline),
            ..Self::default()
        }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            deadline: None,
            sweeps: true,
        }
    }
}

fn open(settings: &Settings, terms: Terms) -> Result<Arc<dyn Store>, SettingsError> {
    if let Some(store) = connect(settings, &terms)? {
        return Ok(Arc::new(store));
    }
    Ok(match open_folder(settings, &terms) {
        Ok(store) => Arc::new(store),
        Err(error) => {
            tracing::error!(%error, "nothing is cached");
            Arc::new(Disabled::new(error.to_string()))
        }
    })
}

/// The store of `REDIS_URL`; `None` if it is not set. Begins to connect, and returns at once.
///
/// # Errors
/// A [`SettingsError`] that names the variable: `REDIS_URL` is not one, or a file of `REDIS_TLS_…` can't be used.
///
/// With `LARDER_L1_BYTES=0` its reads have no proofs: an L1 of another cache over it would keep nothing.
pub fn open_redis(settings: &Settings) -> Result<Option<RedisStore>, SettingsError> {
    connect(settings, &Terms::default())
}

fn connect(settings: &Settings, terms: &Terms) -> Result<Option<RedisStore>, SettingsError> {
    let Some(url) = &settings.redis_url else {
        return Ok(None);
    };
    let url = RedisUrl::parse(url.expose())
        .map_err(|error| settings.error("REDIS_URL", error.to_string()))?;
    let tls = redis_tls::read(settings)?;
    if redis_tls::is_named(settings) && !url.is_secured() {
        tracing::warn!(server = %url, "REDIS_TLS_… is set, but nothing is encrypted: write rediss:// in REDIS_URL");
    }
    let own = larder_redis::Options::default();
    let options = larder_redis::Options {
        deadline: terms.deadline.unwrap_or(own.deadline),
        tls,
        after_failover: settings.after_failover,
        sweeps: terms.sweeps,
        notes_entries: settings.l1_bytes > 0,
        ..own
    };
    Ok(Some(RedisStore::connect(url, options)))
}

/// The embedded store in `LARDER_DIR`.
///
/// # Errors
/// An [`OpenError`] that says what to do.
pub fn open_embedded(settings: &Settings) -> Result<EmbeddedStore, OpenError> {
    open_folder(settings, &Terms::default())
}

fn open_folder(settings: &Settings, terms: &Terms) -> Result<EmbeddedStore, OpenError> {
    let own = larder_embedded::Options::default();
    let options = larder_embedded::Options {
        max_bytes: settings.max_bytes,
        deadline: terms.deadline.unwrap_or(own.deadline),
        ..own
    };
    EmbeddedStore::open(&settings.dir.join("store"), options)
}
