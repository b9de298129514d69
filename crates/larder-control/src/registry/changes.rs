//! How policies are changed: one at a time, all of a service's at once, by decision.

use std::collections::HashSet;
use std::time::Instant;

use larder_model::api::{Action, EndpointConfig, EndpointPolicy, Kind, Replaced};
use larder_model::{Endpoint, EndpointError, Policy, PolicyError, PolicyPatch, Service};
use serde_json::{Value, json};

use super::state::{differences, state};
use super::trail::{Made, Told};
use super::{Registry, Snapshot};
use crate::cause::Cause;
use crate::database::{CommitError, is_busy};
use crate::decision::Decision;
use crate::stored::{StoredService, identity, is_decided};

/// No service has more policies.
const MAX_POLICIES: usize = 2_000;
/// No more services have policies.
const MAX_SERVICES: usize = 1_000;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("the policy of {endpoint}: {error}")]
    PolicyOf {
        endpoint: Endpoint,
        error: PolicyError,
    },
    #[error("{text:?} is no endpoint: {error}")]
    Endpoint { text: String, error: EndpointError },
    #[error("{0} has two policies: say one")]
    Twice(Endpoint),
    #[error("{0}")]
    Override(&'static str),
    #[error(
        "an override is in force for this endpoint: end it first, or send If-Match with its ETag or * to replace it"
    )]
    Overridden,
    #[error("it is not as If-Match or If-None-Match says: read it again, and decide anew")]
    Precondition,
    #[error("there is no policy for this endpoint")]
    Absent,
    #[error("there is no such override: it ended, or never was")]
    NoOverride,
    #[error("revision {0} is not there: it never was, or was too old to be kept")]
    NoRevision(u64),
    #[error("there are {0} already, the most there may be: remove some first")]
    Full(&'static str),
    #[error("the policies of this service were replaced 60 times within a minute: wait for one")]
    TooOften,
    #[error(
        "the audit trail is written with the key {written} meanwhile, which is not the one here: start this control plane again with that key"
    )]
    OtherKey { written: String },
    #[error(
        "what is stored of {service} can't be read ({what}): bring back a copy of the database, or remove it there"
    )]
    Unreadable { service: String, what: String },
    #[error("many changes wait for each other: try again in some seconds")]
    Busy,
    #[error(
        "the database did not take the change, and nothing was changed: what was set before holds, and is served. Try again in some seconds; GET /readyz says when the database is back"
    )]
    Database(sqlx::Error),
    #[error(
        "the database did not say whether it took the change, so it may be made or not: look again when GET /readyz says that it is back, and change what is not as it is to be"
    )]
    Unsure(sqlx::Error),
}

impl From<sqlx::Error> for ChangeError {
    fn from(error: sqlx::Error) -> Self {
        match is_busy(&error) {
            true => Self::Busy,
            false => Self::Database(error),
        }
    }
}

impl From<CommitError> for ChangeError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Undone(error) => error.into(),
            CommitError::Unsure(error) => Self::Unsure(error),
        }
    }
}

/// What must be true for a change to be made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preconditions {
    /// One of these tags is that of what is changed (`*`: it exists).
    pub(crate) if_match: Option<Tags>,
    /// None of these tags is (`*`: it does not exist).
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
    pub(super) fn check(&self, tag: Option<&str>) -> Result<(), ChangeError> {
        let is_matched = self.if_match.as_ref().is_none_or(|tags| tags.has(tag));
        let none_matches = self
            .if_none_match
            .as_ref()
            .is_none_or(|tags| !tags.has(tag));
        (is_matched && none_matches)
            .then_some(())
            .ok_or(ChangeError::Precondition)
    }
}

/// What a service's policies are replaced by.
pub(crate) enum Replacement {
    /// These.
    Policies(Vec<EndpointPolicy>),
    /// Those of a revision.
    Revision(u64),
}

impl Registry {
    pub(crate) async fn put(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        patch: PolicyPatch,
        preconditions: &Preconditions,
        cause: &Cause,
    ) -> Result<(EndpointConfig, String), ChangeError> {
        patch.apply(&Policy::default())?;
        let changing = self.begin(Some(service)).await?;
        let stored = self.stored(service)?;
        let old = stored.policies.get(&identity(endpoint));
        let tag = old.map(|old| self.etag(old.version));
        preconditions.check(tag.as_deref())?;
        if old.is_none() && stored.policies.len() >= MAX_POLICIES {
            return Err(ChangeError::Full("2,000 policies for this service"));
        }
        let told = Told {
            target: Some(endpoint.to_string()),
            before: old.map(|old| json!(old.patch)),
            after: json!(patch),
        };
        let mut next = stored.next();
        next.set_policy(endpoint, patch);
        let version = next.version;
        let made = Made {
            action: Action::PolicySet,
            cause,
            told: Some(told),
        };
        self.commit(changing, &stored, next, made).await?;
        Ok((self.config(service, endpoint), self.etag(version)))
    }

    pub(crate) async fn delete(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        preconditions: &Preconditions,
        cause: &Cause,
    ) -> Result<(), ChangeError> {
        let changing = self.begin(Some(service)).await?;
        let stored = self.stored(service)?;
        let key = identity(endpoint);
        let old = stored.policies.get(&key).ok_or(ChangeError::Absent)?;
        preconditions.check(Some(&self.etag(old.version)))?;
        let told = Told {
            target: Some(endpoint.to_string()),
            before: Some(json!(old.patch)),
            after: Value::Null,
        };
        let mut next = stored.next();
        next.remove_policy(&key);
        let made = Made {
            action: Action::PolicyRemoved,
            cause,
            told: Some(told),
        };
        self.commit(changing, &stored, next, made).await
    }

    /// Gives a service other policies, all at once or none; if that changes nothing, no revision is made. With it comes the
    /// tag of the policies that there are then.
    pub(crate) async fn replace(
        &self,
        service: &Service,
        replacement: Replacement,
        preconditions: &Preconditions,
        cause: &Cause,
        dry_run: bool,
    ) -> Result<(Replaced, String), ChangeError> {
        let action = match replacement {
            Replacement::Policies(_) => Action::PoliciesReplaced,
            Replacement::Revision(_) => Action::RolledBack,
        };
        let from = match replacement {
            Replacement::Policies(_) => Value::Null,
            Replacement::Revision(number) => number.into(),
        };
        let policies = self.policies_of(service, replacement).await?;
        let changing = self.begin(Some(service)).await?;
        let stored = self.stored(service)?;
        let tag = self.etag_of_policies(stored.policies_version);
        preconditions.check(Some(&tag))?;
        let mut next = stored.next();
        next.replace_policies(policies);
        let mut changes = differences(&state(&stored), &state(&next));
        changes.retain(|change| change.kind == Kind::Policy);
        let mut replaced = Replaced {
            service_name: service.as_str().to_owned(),
            dry_run,
            version: stored.version,
            changes,
        };
        if dry_run || replaced.changes.is_empty() {
            // What could not be done is not promised.
            Snapshot::new(next, self.database.id())?;
            return Ok((replaced, tag));
        }
        if !self.replacements.take(service, Instant::now()) {
            return Err(ChangeError::TooOften);
        }
        let tag = self.etag_of_policies(next.policies_version);
        replaced.version = next.version;
        let told = Told {
            target: None,
            before: Some(json!({ "revision": stored.version })),
            after: json!({ "changes": replaced.changes.len(), "of_revision": from }),
        };
        let made = Made {
            action,
            cause,
            told: Some(told),
        };
        self.commit(changing, &stored, next, made).await?;
        Ok((replaced, tag))
    }

    async fn policies_of(
        &self,
        service: &Service,
        replacement: Replacement,
    ) -> Result<Vec<(Endpoint, PolicyPatch)>, ChangeError> {
        match replacement {
            Replacement::Policies(policies) => checked(policies),
            Replacement::Revision(number) => {
                let revision = self.database.revision(service, number).await?;
                let snapshot = revision.and_then(|revision| revision.snapshot);
                checked(snapshot.ok_or(ChangeError::NoRevision(number))?.policies)
            }
        }
    }

    /// Takes decisions over, for endpoints whose policy still leaves it to us.
    pub(crate) async fn decide(
        &self,
        service: &Service,
        mut news: Vec<(Endpoint, Decision)>,
    ) -> Result<usize, ChangeError> {
        let mut changing = self.begin(Some(service)).await?;
        if !self.leads(&mut changing).await? {
            return Ok(0);
        }
        let stored = self.stored(service)?;
        news.retain(|(endpoint, _)| {
            let policy = stored.policies.get(&identity(endpoint));
            policy.is_some_and(|policy| is_decided(&policy.patch))
        });
        if news.is_empty() {
            return Ok(0);
        }
        let reasons: Vec<String> = news
            .iter()
            .map(|(endpoint, decision)| format!("{endpoint}: {}", decision.reason))
            .collect();
        let decided = news.len();
        let mut next = stored.next();
        let news = news.into_iter();
        next.decisions
            .extend(news.map(|(endpoint, decision)| (identity(&endpoint), decision)));
        let made = Made {
            action: Action::Decided,
            cause: &Cause::larder(reasons.join("; ")),
            told: None,
        };
        self.commit(changing, &stored, next, made).await?;
        Ok(decided)
    }

    pub(super) fn stored(&self, service: &Service) -> Result<StoredService, ChangeError> {
        let services = self.services.load();
        if let Some(snapshot) = services.get(service.as_str()) {
            return Ok(snapshot.stored.clone());
        }
        if services.len() >= MAX_SERVICES {
            return Err(ChangeError::Full("1,000 services with policies"));
        }
        Ok(StoredService::new(service.clone()))
    }
}

/// Policies that could each be set, of endpoints that differ.
fn checked(policies: Vec<EndpointPolicy>) -> Result<Vec<(Endpoint, PolicyPatch)>, ChangeError> {
    if policies.len() > MAX_POLICIES {
        return Err(ChangeError::Full("2,000 policies for this service"));
    }
    let mut seen = HashSet::new();
    let mut checked = Vec::with_capacity(policies.len());
    for EndpointPolicy { endpoint, policy } in policies {
        let endpoint: Endpoint = endpoint.parse().map_err(|error| ChangeError::Endpoint {
            text: endpoint.chars().take(100).collect(),
            error,
        })?;
        if let Err(error) = policy.apply(&Policy::default()) {
            return Err(ChangeError::PolicyOf { endpoint, error });
        }
        if !seen.insert(identity(&endpoint)) {
            return Err(ChangeError::Twice(endpoint));
        }
        checked.push((endpoint, policy));
    }
    Ok(checked)
}
