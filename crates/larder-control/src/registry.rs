//! The policies in force: read from memory, changed through the database.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use larder_decide::MIN_ANSWERS;
use larder_model::api::{EndpointConfig, PolicyDocument, PolicyList, ServiceConfig, Source, Watch};
use larder_model::{Endpoint, Method, Mode, Policy, PolicyError, PolicyPatch, Service, Templates};
use tokio::sync::Mutex;

use crate::database::{Database, OpenError, StoredPolicy, StoredService, shape};
use crate::decision::Decision;
use crate::engines::Watched;
use crate::streams::{Event, Streams};

/// No service has more policies.
const MAX_POLICIES: usize = 2_000;
/// No more services have policies.
const MAX_SERVICES: usize = 1_000;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the policy is not as If-Match or If-None-Match says: read it again, and decide anew")]
    Precondition,
    #[error("there is no policy for this endpoint")]
    Absent,
    #[error("there are {0} already, the most there may be: remove some first")]
    Full(&'static str),
    #[error("the database did not take the change")]
    Database(#[from] sqlx::Error),
}

/// What must be true of a policy for a change to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preconditions {
    /// One of these tags is the policy's (`*`: it exists).
    pub(crate) if_match: Option<Tags>,
    /// None of these tags is the policy's (`*`: it does not exist).
    pub(crate) if_none_match: Option<Tags>,
}

/// The tags of a precondition.
#[derive(Debug, Clone)]
pub(crate) struct Tags(pub(crate) String);

impl Tags {
    /// Whether `tag` is among them; `W/` doesn't count.
    pub(crate) fn has(&self, tag: Option<&str>) -> bool {
        let Some(tag) = tag else { return false };
        self.0
            .split(',')
            .map(str::trim)
            .any(|listed| listed == "*" || listed.strip_prefix("W/").unwrap_or(listed) == tag)
    }
}

impl Preconditions {
    fn hold(&self, tag: Option<&str>) -> bool {
        self.if_match.as_ref().is_none_or(|tags| tags.has(tag))
            && self
                .if_none_match
                .as_ref()
                .is_none_or(|tags| !tags.has(tag))
    }
}

/// All that holds for a service at one version. It never changes.
#[derive(Debug)]
pub(crate) struct Snapshot {
    stored: StoredService,
    templates: Templates<Arc<EndpointConfig>>,
    etag: String,
    document: Bytes,
}

/// The policies of all services.
pub(crate) struct Registry {
    services: ArcSwap<BTreeMap<String, Arc<Snapshot>>>,
    /// Held while a change goes through the database, so that versions come in order.
    changes: Mutex<Database>,
    database: Database,
    /// Those who follow a service hear of each of its snapshots.
    streams: Arc<Streams>,
}

/// What a service's clients are given.
pub(crate) struct Published {
    pub(crate) etag: String,
    /// The [`ServiceConfig`], as JSON.
    pub(crate) document: Bytes,
}

impl Registry {
    pub(crate) async fn open(path: &Path, streams: Arc<Streams>) -> Result<Self, OpenError> {
        let database = Database::open(path).await?;
        let mut services = BTreeMap::new();
        for stored in database.load(path).await? {
            let name = stored.service.as_str().to_owned();
            let snapshot =
                Snapshot::new(stored, database.id()).map_err(|error| OpenError::Content {
                    path: path.to_owned(),
                    what: format!("{name}: {error}"),
                })?;
            services.insert(name, Arc::new(snapshot));
        }
        Ok(Self {
            services: ArcSwap::from_pointee(services),
            changes: Mutex::new(database.clone()),
            database,
            streams,
        })
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
            None => default_config(service, endpoint, snapshot.map_or(0, |s| s.stored.version)),
        }
    }

    /// The database, for what is kept beside the policies.
    pub(crate) fn database(&self) -> Database {
        self.database.clone()
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

    pub(crate) async fn put(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        patch: PolicyPatch,
        preconditions: &Preconditions,
    ) -> Result<(EndpointConfig, String), ChangeError> {
        patch.apply(&Policy::default())?;
        let database = self.changes.lock().await;
        let mut stored = self.stored(service)?;
        let at = stored.position(endpoint);
        let tag = at.map(|at| self.etag(stored.policies[at].version));
        if !preconditions.hold(tag.as_deref()) {
            return Err(ChangeError::Precondition);
        }
        if at.is_none() && stored.policies.len() >= MAX_POLICIES {
            return Err(ChangeError::Full("2,000 policies for this service"));
        }
        stored.version += 1;
        let was_decided = at.is_some_and(|at| is_decided(&stored.policies[at].patch));
        let kept = stored.decision(endpoint).cloned();
        let kept = kept.filter(|_| was_decided && is_decided(&patch));
        let keeps_decision = kept.is_some();
        stored.forget(endpoint);
        stored
            .decisions
            .extend(kept.map(|kept| (identity(endpoint), kept)));
        stored.policies.push(StoredPolicy {
            endpoint: endpoint.clone(),
            patch: patch.clone(),
            version: stored.version,
        });
        let (version, snapshot) = (stored.version, Snapshot::new(stored, database.id())?);
        database
            .put(service, endpoint, &patch, version, keeps_decision)
            .await?;
        self.activate(snapshot);
        Ok((self.config(service, endpoint), self.etag(version)))
    }

    pub(crate) async fn delete(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        preconditions: &Preconditions,
    ) -> Result<(), ChangeError> {
        let database = self.changes.lock().await;
        let mut stored = self.stored(service)?;
        let at = stored.position(endpoint).ok_or(ChangeError::Absent)?;
        let tag = self.etag(stored.policies[at].version);
        if !preconditions.hold(Some(&tag)) {
            return Err(ChangeError::Precondition);
        }
        stored.version += 1;
        stored.forget(endpoint);
        let (version, snapshot) = (stored.version, Snapshot::new(stored, database.id())?);
        database.delete(service, endpoint, version).await?;
        self.activate(snapshot);
        Ok(())
    }

    /// Takes decisions over, for endpoints whose policy still leaves it to us.
    pub(crate) async fn decide(
        &self,
        service: &Service,
        mut news: Vec<(Endpoint, Decision)>,
    ) -> Result<usize, ChangeError> {
        let database = self.changes.lock().await;
        let mut stored = self.stored(service)?;
        news.retain(|(endpoint, _)| {
            let at = stored.position(endpoint);
            at.is_some_and(|at| is_decided(&stored.policies[at].patch))
        });
        if news.is_empty() {
            return Ok(0);
        }
        stored.version += 1;
        for (endpoint, decision) in &news {
            let key = identity(endpoint);
            stored.decisions.retain(|(other, _)| *other != key);
            stored.decisions.push((key, decision.clone()));
        }
        let (version, snapshot) = (stored.version, Snapshot::new(stored, database.id())?);
        database.put_decisions(service, &news, version).await?;
        self.activate(snapshot);
        Ok(news.len())
    }

    fn stored(&self, service: &Service) -> Result<StoredService, ChangeError> {
        let services = self.services.load();
        if let Some(snapshot) = services.get(service.as_str()) {
            return Ok(snapshot.stored.clone());
        }
        if services.len() >= MAX_SERVICES {
            return Err(ChangeError::Full("1,000 services with policies"));
        }
        Ok(StoredService {
            service: service.clone(),
            version: 0,
            policies: Vec::new(),
            decisions: Vec::new(),
        })
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

// === impl StoredService ===

impl StoredService {
    fn position(&self, endpoint: &Endpoint) -> Option<usize> {
        let key = identity(endpoint);
        self.policies
            .iter()
            .position(|policy| identity(&policy.endpoint) == key)
    }

    fn decision(&self, endpoint: &Endpoint) -> Option<&Decision> {
        let key = identity(endpoint);
        let found = self.decisions.iter().find(|(other, _)| *other == key);
        found.map(|(_, decision)| decision)
    }

    /// Drops an endpoint's policy and what was decided for it.
    fn forget(&mut self, endpoint: &Endpoint) {
        let key = identity(endpoint);
        self.policies
            .retain(|policy| identity(&policy.endpoint) != key);
        self.decisions.retain(|(other, _)| *other != key);
    }
}

/// What makes two spellings of an endpoint one: its method and its shape.
fn identity(endpoint: &Endpoint) -> (String, String) {
    (endpoint.method().as_str().to_owned(), shape(endpoint))
}

// === impl Snapshot ===

impl Snapshot {
    fn new(mut stored: StoredService, database_id: &str) -> Result<Self, PolicyError> {
        stored.policies.sort_by(|a, b| {
            (a.endpoint.template(), a.endpoint.method())
                .cmp(&(b.endpoint.template(), b.endpoint.method()))
        });
        let mut templates = Templates::default();
        let mut policies = Vec::with_capacity(stored.policies.len());
        for policy in &stored.policies {
            let config = config(&stored, policy)?;
            templates.insert(&policy.endpoint, Arc::new(config.clone()));
            policies.push(config);
        }
        let document = ServiceConfig {
            service_name: stored.service.as_str().to_owned(),
            version: stored.version,
            policies,
        };
        Ok(Self {
            etag: etag(database_id, stored.version),
            document: crate::json::bytes(&document),
            templates,
            stored,
        })
    }

    /// The most specific template for an endpoint, which may be a concrete path.
    pub(crate) fn find(&self, endpoint: &Endpoint) -> Option<Arc<EndpointConfig>> {
        self.templates
            .find(endpoint.method().as_str(), endpoint.template())
            .cloned()
    }

    pub(crate) fn etag(&self) -> &str {
        &self.etag
    }

    /// The [`ServiceConfig`], as JSON.
    pub(crate) fn document(&self) -> Bytes {
        self.document.clone()
    }

    pub(crate) fn service(&self) -> &Service {
        &self.stored.service
    }

    pub(crate) fn version(&self) -> u64 {
        self.stored.version
    }

    pub(crate) fn policies(&self) -> usize {
        self.stored.policies.len()
    }

    /// The endpoints that are decided for.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let policies = self.stored.policies.iter();
        let watched = policies
            .filter(|policy| is_decided(&policy.patch) && policy.endpoint.method().is_safe());
        watched
            .map(|policy| Watched {
                endpoint: policy.endpoint.clone(),
                patch: policy.patch.clone(),
                decision: self.stored.decision(&policy.endpoint).cloned(),
            })
            .collect()
    }

    pub(crate) fn list(&self) -> PolicyList {
        PolicyList {
            service_name: self.stored.service.as_str().to_owned(),
            version: self.stored.version,
            policies: self
                .stored
                .policies
                .iter()
                .map(|policy| self.describe(policy))
                .collect(),
        }
    }

    /// The policy that was set for exactly this endpoint.
    pub(crate) fn policy(&self, endpoint: &Endpoint) -> Option<PolicyDocument> {
        let at = self.stored.position(endpoint)?;
        Some(self.describe(&self.stored.policies[at]))
    }

    fn describe(&self, policy: &StoredPolicy) -> PolicyDocument {
        PolicyDocument {
            service_name: self.stored.service.as_str().to_owned(),
            endpoint: policy.endpoint.template().to_owned(),
            method: policy.endpoint.method().as_str().to_owned(),
            policy: policy.patch.clone(),
            version: policy.version,
        }
    }
}

/// Whether a policy leaves it to the engine, or has it shown what that would do.
fn is_decided(patch: &PolicyPatch) -> bool {
    matches!(patch.mode, Some(Mode::Auto | Mode::Shadow))
}

fn etag(database_id: &str, version: u64) -> String {
    format!("\"{database_id}-{version}\"")
}

// === what is in force, and why ===

fn config(stored: &StoredService, policy: &StoredPolicy) -> Result<EndpointConfig, PolicyError> {
    let endpoint = &policy.endpoint;
    let values = policy.patch.apply(&Policy::default())?;
    let ttl = values.ttl().as_secs_f64();
    let (cache_enabled, reason, source) = match values.mode() {
        _ if !endpoint.method().is_safe() => {
            (false, unsafe_reason(endpoint.method()), Source::Policy)
        }
        Mode::On => (
            true,
            format!("a policy caches this endpoint for {ttl} s"),
            Source::Policy,
        ),
        Mode::Off => (
            false,
            "a policy keeps this endpoint out of the cache".to_owned(),
            Source::Policy,
        ),
        mode => {
            let decision = stored.decision(endpoint);
            let reason = decision.map_or_else(undecided, |decision| decision.reason.clone());
            let is_on = decision.is_some_and(|decision| decision.cache_enabled);
            (mode == Mode::Auto && is_on, reason, Source::Auto)
        }
    };
    let in_force = (cache_enabled, reason, source);
    let mut config = assemble(&stored.service, endpoint, &values, stored.version, in_force);
    if source == Source::Auto {
        watch(&mut config, stored.decision(endpoint), &values);
    }
    Ok(config)
}

/// What was decided, and is to be measured. The policy's bounds hold, also those that were set since.
fn watch(config: &mut EndpointConfig, decision: Option<&Decision>, policy: &Policy) {
    config.watch = Some(decision.map_or(EVERYTHING, |decision| decision.watch));
    let ttl = decision
        .map(|decision| decision.ttl)
        .filter(|ttl| !ttl.is_zero());
    if let Some(ttl) = ttl {
        let ttl = ttl.max(policy.min_ttl()).min(policy.max_ttl());
        config.ttl_seconds = ttl.as_secs_f64();
    }
}

/// What is measured before anything was decided.
const EVERYTHING: Watch = Watch {
    key_share: 1.0,
    check_share: 0.0,
};

fn default_config(service: &Service, endpoint: &Endpoint, version: u64) -> EndpointConfig {
    let (cache_enabled, reason) = if endpoint.method().is_safe() {
        let reason = "no policy is set for this endpoint: the default holds, unless the service's code has its own";
        (true, reason.to_owned())
    } else {
        (false, unsafe_reason(endpoint.method()))
    };
    let in_force = (cache_enabled, reason, Source::Default);
    assemble(service, endpoint, &Policy::default(), version, in_force)
}

fn assemble(
    service: &Service,
    endpoint: &Endpoint,
    policy: &Policy,
    version: u64,
    (cache_enabled, reason, source): (bool, String, Source),
) -> EndpointConfig {
    EndpointConfig {
        service_name: service.as_str().to_owned(),
        endpoint: endpoint.template().to_owned(),
        method: endpoint.method().as_str().to_owned(),
        cache_enabled,
        mode: policy.mode(),
        ttl_seconds: policy.ttl().as_secs_f64(),
        watch: None,
        jitter: policy.jitter(),
        stale_while_revalidate_seconds: policy.stale_while_revalidate().as_secs_f64(),
        stale_if_error_seconds: policy.stale_if_error().as_secs_f64(),
        negative_ttl_seconds: policy.negative_ttl().as_secs_f64(),
        soft_load_timeout_seconds: policy.soft_load_timeout().as_secs_f64(),
        load_timeout_seconds: policy.load_timeout().as_secs_f64(),
        max_value_bytes: policy.max_value_bytes(),
        include_query: policy.include_query().clone(),
        vary: policy.vary().to_vec(),
        tags: policy.tags().to_vec(),
        circuit_breaker: false,
        reason,
        source,
        version,
    }
}

fn unsafe_reason(method: &Method) -> String {
    format!("{method} is not a safe method, so its answers are never cached")
}

fn undecided() -> String {
    format!("auto: off until {MIN_ANSWERS} answers of the origin were measured")
}
