//! All that holds for a service at one version.

use std::sync::Arc;

use bytes::Bytes;
use larder_model::api::{EndpointConfig, Override, PolicyDocument, PolicyList, ServiceConfig};
use larder_model::{Endpoint, Method, PolicyError, Service, Templates};

use super::{etag, in_force};
use crate::engines::Watched;
use crate::stored::{StoredOverride, StoredPolicy, StoredService, identity, is_decided};

/// All that holds for a service at one version. It never changes.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(super) stored: StoredService,
    templates: Templates<Arc<EndpointConfig>>,
    etag: String,
    document: Bytes,
}

impl Snapshot {
    pub(super) fn new(stored: StoredService, database_id: &str) -> Result<Self, PolicyError> {
        let policies = stored.policies.iter();
        let policies = policies.map(|(key, policy)| (key, &policy.endpoint));
        let overrides = stored.overrides.iter();
        let overrides = overrides.map(|(key, over)| (key, &over.endpoint));
        let alone = overrides.filter(|(key, _)| !stored.policies.contains_key(*key));
        let mut endpoints: Vec<_> = policies.chain(alone).collect();
        endpoints.sort_by(|(_, one), (_, other)| by_name(one).cmp(&by_name(other)));
        let mut templates = Templates::default();
        let mut policies = Vec::with_capacity(endpoints.len());
        for (key, endpoint) in endpoints {
            let config = in_force::config(&stored, key, endpoint)?;
            templates.insert(endpoint, Arc::new(config.clone()));
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
            .filter(|(_, policy)| is_decided(&policy.patch) && policy.endpoint.method().is_safe());
        watched
            .map(|(key, policy)| Watched {
                endpoint: policy.endpoint.clone(),
                patch: policy.patch.clone(),
                decision: self.stored.decisions.get(key).cloned(),
            })
            .collect()
    }

    pub(crate) fn list(&self) -> PolicyList {
        let mut policies: Vec<_> = self.stored.policies.values().collect();
        policies.sort_by(|one, other| by_name(&one.endpoint).cmp(&by_name(&other.endpoint)));
        PolicyList {
            service_name: self.stored.service.as_str().to_owned(),
            version: self.stored.version,
            policies: policies
                .into_iter()
                .map(|policy| self.describe(policy))
                .collect(),
        }
    }

    /// The policy that was set for exactly this endpoint.
    pub(crate) fn policy(&self, endpoint: &Endpoint) -> Option<PolicyDocument> {
        let policy = self.stored.policies.get(&identity(endpoint))?;
        Some(self.describe(policy))
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

    /// The overrides in force.
    pub(crate) fn overrides(&self) -> impl Iterator<Item = Override> {
        let overrides = self.stored.overrides.values();
        overrides.map(|over| describe(&self.stored.service, over))
    }
}

/// An override, for those who ask.
pub(super) fn describe(service: &Service, over: &StoredOverride) -> Override {
    Override {
        id: over.id.clone(),
        service_name: service.as_str().to_owned(),
        endpoint: over.endpoint.template().to_owned(),
        method: over.endpoint.method().as_str().to_owned(),
        policy: over.patch.clone(),
        reason: over.reason.clone(),
        author: over.author.name.clone(),
        author_verified: over.author.is_verified,
        began_at_seconds: over.began_at,
        expires_at_seconds: over.expiry.at_seconds(),
    }
}

fn by_name(endpoint: &Endpoint) -> (&str, &Method) {
    (endpoint.template(), endpoint.method())
}
