//! All that is stored of a service, and how it is changed.

use std::collections::BTreeMap;

use larder_model::{Endpoint, Mode, PolicyPatch, Service};

use crate::cause::Author;
use crate::database::shape;
use crate::decision::Decision;
use crate::moment::Expiry;

/// What makes two spellings of an endpoint one: its method and its shape.
pub(crate) type Identity = (String, String);

pub(crate) fn identity(endpoint: &Endpoint) -> Identity {
    (endpoint.method().as_str().to_owned(), shape(endpoint))
}

/// A policy that somebody set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredPolicy {
    pub(crate) endpoint: Endpoint,
    pub(crate) patch: PolicyPatch,
    /// The service's version in which it was set.
    pub(crate) version: u64,
}

/// A policy that somebody set for a limited time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredOverride {
    pub(crate) id: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) patch: PolicyPatch,
    pub(crate) author: Author,
    pub(crate) reason: String,
    /// When it began, in seconds since 1970.
    pub(crate) began_at: u64,
    pub(crate) expiry: Expiry,
}

/// All that is stored of a service.
#[derive(Debug, Clone)]
pub(crate) struct StoredService {
    pub(crate) service: Service,
    /// Grows with every change.
    pub(crate) version: u64,
    /// The version in which policies last changed.
    pub(crate) policies_version: u64,
    pub(crate) policies: BTreeMap<Identity, StoredPolicy>,
    /// Of endpoints with a policy that leaves it to the engine.
    pub(crate) decisions: BTreeMap<Identity, Decision>,
    /// At most one of an endpoint.
    pub(crate) overrides: BTreeMap<Identity, StoredOverride>,
}

impl StoredService {
    /// One of which nothing is stored yet.
    pub(crate) fn new(service: Service) -> Self {
        Self {
            service,
            version: 0,
            policies_version: 0,
            policies: BTreeMap::new(),
            decisions: BTreeMap::new(),
            overrides: BTreeMap::new(),
        }
    }

    /// The same, to be changed.
    pub(crate) fn next(&self) -> Self {
        let mut next = self.clone();
        next.version += 1;
        next
    }

    /// Sets a policy in this version. What was decided for the endpoint stays if that is decided still.
    pub(crate) fn set_policy(&mut self, endpoint: &Endpoint, patch: PolicyPatch) {
        let key = identity(endpoint);
        let was_decided = self
            .policies
            .get(&key)
            .is_some_and(|policy| is_decided(&policy.patch));
        if !(was_decided && is_decided(&patch)) {
            self.decisions.remove(&key);
        }
        let policy = StoredPolicy {
            endpoint: endpoint.clone(),
            patch,
            version: self.version,
        };
        self.policies.insert(key, policy);
        self.policies_version = self.version;
    }

    /// Removes a policy in this version, and what was decided for its endpoint.
    pub(crate) fn remove_policy(&mut self, key: &Identity) {
        self.policies.remove(key);
        self.decisions.remove(key);
        self.policies_version = self.version;
    }

    /// Gives it these policies in this version; those that are as they were stay so.
    pub(crate) fn replace_policies(&mut self, policies: Vec<(Endpoint, PolicyPatch)>) {
        let wanted: BTreeMap<_, _> = policies
            .into_iter()
            .map(|(endpoint, patch)| (identity(&endpoint), (endpoint, patch)))
            .collect();
        let gone: Vec<_> = self
            .policies
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .cloned()
            .collect();
        for key in &gone {
            self.remove_policy(key);
        }
        for (key, (endpoint, patch)) in wanted {
            let is_there = self
                .policies
                .get(&key)
                .is_some_and(|policy| policy.endpoint == endpoint && policy.patch == patch);
            if !is_there {
                self.set_policy(&endpoint, patch);
            }
        }
    }
}

/// Whether a policy leaves it to the engine, or has it shown what that would do.
pub(crate) fn is_decided(patch: &PolicyPatch) -> bool {
    matches!(patch.mode, Some(Mode::Auto | Mode::Shadow))
}
