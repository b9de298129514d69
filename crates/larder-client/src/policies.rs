//! The policies in force: made once from a whole answer, then only read.

use std::sync::Arc;

use larder_core::api::{EndpointConfig, ServiceConfig, Source};
use larder_core::{
    Endpoint, EndpointError, Gate, Key, Method, Mode, Policy, PolicyError, Templates,
};

use crate::client::Shared;
use crate::recorder::Counters;

/// No service has more policies.
const MAX_POLICIES: usize = 2_000;
/// A reason is cut to this many characters.
const MAX_REASON: usize = 500;

/// Why an answer of the control plane is not put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is not the document that was asked for: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("it is for the service {0:?}")]
    Service(String),
    #[error("it has {0} policies, more than the 2,000 that a service may have")]
    TooMany(usize),
    #[error("{endpoint:?} is no endpoint: {source}")]
    Endpoint {
        endpoint: String,
        source: EndpointError,
    },
    #[error("the policy for {endpoint:?} can't be: {source}")]
    Policy {
        endpoint: String,
        source: PolicyError,
    },
}

/// What holds for a key, where it came from, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Where it came from.
    pub source: Source,
    /// Why, in one sentence.
    pub reason: Arc<str>,
    /// The version of the service's policies; `None` before there are any.
    pub version: Option<u64>,
}

/// What holds for one endpoint.
struct Entry {
    endpoint: Endpoint,
    policy: Arc<Policy>,
    gate: Gate,
    source: Source,
    reason: Arc<str>,
    counters: Arc<Counters>,
}

/// All that holds at one version.
pub(crate) struct Policies {
    version: Option<u64>,
    templates: Templates<Arc<Entry>>,
    entries: Vec<Arc<Entry>>,
    default: (Arc<Policy>, Gate),
    /// For methods whose answers are never cached.
    never: (Arc<Policy>, Gate),
}

impl Policies {
    /// Before the control plane has said anything.
    pub(crate) fn defaults(defaults: &Policy) -> Self {
        let pair = |policy: Policy| {
            let gate = Gate::from(&policy);
            (Arc::new(policy), gate)
        };
        Self {
            version: None,
            templates: Templates::default(),
            entries: Vec::new(),
            default: pair(defaults.clone()),
            never: pair(defaults.clone().with_mode(Mode::Off)),
        }
    }

    /// All of an answer, or nothing of it. Counters go on from `before`.
    pub(crate) fn new(
        config: &ServiceConfig,
        shared: &Shared,
        before: &Self,
    ) -> Result<Self, Unusable> {
        if config.service_name != shared.service.as_str() {
            let name = config.service_name.chars().take(80).collect();
            return Err(Unusable::Service(name));
        }
        if config.policies.len() > MAX_POLICIES {
            return Err(Unusable::TooMany(config.policies.len()));
        }
        let mut policies = Self::defaults(&shared.defaults);
        policies.version = Some(config.version);
        for endpoint in &config.policies {
            let entry = Arc::new(Entry::new(endpoint, before)?);
            policies
                .templates
                .insert(&entry.endpoint, Arc::clone(&entry));
            policies.entries.push(entry);
        }
        Ok(policies)
    }

    pub(crate) fn gate(&self, key: &Key) -> Gate {
        let method = key.method();
        match self.templates.find(method, key.path()) {
            Some(entry) => entry.gate,
            None => self.otherwise(method).1,
        }
    }

    pub(crate) fn policy(&self, key: &Key) -> Arc<Policy> {
        let method = key.method();
        match self.templates.find(method, key.path()) {
            Some(entry) => Arc::clone(&entry.policy),
            None => Arc::clone(&self.otherwise(method).0),
        }
    }

    /// Where an endpoint that has a policy is counted.
    pub(crate) fn counters(&self, key: &Key) -> Option<&Counters> {
        let entry = self.templates.find(key.method(), key.path())?;
        Some(&entry.counters)
    }

    pub(crate) fn in_force(&self, key: &Key) -> InForce {
        let method = key.method();
        if let Some(entry) = self.templates.find(method, key.path()) {
            return InForce {
                policy: Arc::clone(&entry.policy),
                source: entry.source,
                reason: Arc::clone(&entry.reason),
                version: self.version,
            };
        }
        let reason = if Method::is_safe_name(method) {
            "the control plane has no policy for this endpoint: the service's own default holds"
        } else {
            "the method is not safe, so its answers are never cached"
        };
        InForce {
            policy: Arc::clone(&self.otherwise(method).0),
            source: Source::Default,
            reason: reason.into(),
            version: self.version,
        }
    }

    /// The counters of every endpoint that has a policy.
    pub(crate) fn measured(&self) -> impl Iterator<Item = (&Endpoint, &Counters)> {
        self.entries
            .iter()
            .map(|entry| (&entry.endpoint, &*entry.counters))
    }

    /// Whether there is a policy for exactly this endpoint.
    pub(crate) fn has(&self, endpoint: &Endpoint) -> bool {
        self.entry(endpoint).is_some()
    }

    fn entry(&self, endpoint: &Endpoint) -> Option<&Entry> {
        let method = endpoint.method().as_str();
        let entry = self.templates.find(method, endpoint.template())?;
        (entry.endpoint == *endpoint).then_some(entry)
    }

    fn otherwise(&self, method: &str) -> &(Arc<Policy>, Gate) {
        if Method::is_safe_name(method) {
            &self.default
        } else {
            &self.never
        }
    }
}

impl Entry {
    fn new(config: &EndpointConfig, before: &Policies) -> Result<Self, Unusable> {
        let shown = || config.endpoint.chars().take(80).collect();
        let endpoint = Method::new(&config.method)
            .and_then(|method| Endpoint::new(method, &config.endpoint))
            .map_err(|source| Unusable::Endpoint {
                endpoint: shown(),
                source,
            })?;
        let policy = config.policy().map_err(|source| Unusable::Policy {
            endpoint: shown(),
            source,
        })?;
        // Above whatever the control plane says.
        let policy = if endpoint.method().is_safe() {
            policy
        } else {
            policy.with_mode(Mode::Off)
        };
        let counters = before
            .entry(&endpoint)
            .map(|entry| Arc::clone(&entry.counters));
        let counters = counters.unwrap_or_default();
        Ok(Self {
            gate: Gate::from(&policy),
            policy: Arc::new(policy),
            source: config.source,
            reason: config
                .reason
                .chars()
                .take(MAX_REASON)
                .collect::<String>()
                .into(),
            counters,
            endpoint,
        })
    }
}
