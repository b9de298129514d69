//! The versions that entries depend on, kept for as long as they are known to be what the store has: a lookup of an entry with
//! tags costs no round trip more.

use std::borrow::Cow;

use larder_model::{Key, Policy, Service};
use quick_cache::{Equivalent, sync::Cache as QuickCache};

use crate::cache::Inner;
use crate::mutants::{Guard, is_off};
use crate::proof::Proof;
use crate::store::StoreError;
use crate::version::{Stamp, Told, VersionName};

/// So many versions are kept.
const MOST: usize = 10_000;

/// Versions that were told.
pub(crate) struct Versions(QuickCache<(Service, VersionName), Told>);

/// What a version is kept under, borrowed: hashed as that is.
#[derive(Hash)]
struct Of<'a>(&'a Service, &'a VersionName);

impl Equivalent<(Service, VersionName)> for Of<'_> {
    fn equivalent(&self, (service, name): &(Service, VersionName)) -> bool {
        self.0 == service && self.1 == name
    }
}

impl Versions {
    pub(crate) fn new() -> Self {
        Self(QuickCache::new(MOST))
    }
}

impl Inner {
    /// The service that a key is of.
    pub(crate) fn service_of(&self, key: &Key) -> Cow<'_, Service> {
        match key.service() == self.service.as_str() {
            true => Cow::Borrowed(&self.service),
            false => Cow::Owned(Service::from(key)),
        }
    }

    /// A version that is known to be what the store has.
    fn known(&self, service: &Service, name: &VersionName) -> Option<Told> {
        let known = self.versions.0.get(&Of(service, name))?;
        let is_proven = |proof: &Proof| is_off(Guard::VersionNeedsProof) || self.store.holds(proof);
        known.proof.as_ref().is_some_and(is_proven).then_some(known)
    }

    /// What an entry of this key depends on, by the policy in force.
    pub(crate) fn depends_on(&self, key: &Key, policy: &Policy) -> Vec<VersionName> {
        let mut names = vec![VersionName::Service, VersionName::of_endpoint(key.path())];
        if let Some(template) = self.governor.template(key)
            && *template != *key.path()
        {
            names.push(VersionName::of_endpoint(&template));
        }
        names.extend(policy.tags().iter().cloned().map(VersionName::Tag));
        names
    }

    /// Versions as they are now: those that are known to be so, and those that the store tells.
    pub(crate) async fn versions(
        &self,
        service: &Service,
        names: &[VersionName],
    ) -> Result<Vec<Told>, StoreError> {
        let mut told = Vec::with_capacity(names.len());
        let mut missing = Vec::new();
        for name in names {
            let known = self.known(service, name);
            if known.is_none() {
                missing.push(name.clone());
            }
            told.push(known);
        }
        if missing.is_empty() {
            return Ok(told.into_iter().flatten().collect());
        }
        let mut asked = self.store.versions(service, &missing).await?.into_iter();
        let mut all = Vec::with_capacity(names.len());
        for (name, known) in names.iter().zip(told) {
            let Some(told) = known.or_else(|| asked.next()) else {
                return Err(StoreError::Refused("not all versions were told".to_owned()));
            };
            if known.is_none() && told.proof.is_some() {
                self.versions
                    .0
                    .insert((service.clone(), name.clone()), told);
            }
            all.push(told);
        }
        Ok(all)
    }

    /// Whether what an entry depends on is as it was when its load began, with the proofs that it is; `None` for an entry that
    /// is dead, or of which that can't be told.
    pub(crate) async fn holds_up(&self, service: &Service, stamps: &[Stamp]) -> Option<Proven> {
        let names = stamps.iter().map(|stamp| &stamp.name);
        let hides = |name| self.outbox.hides_version(service, name);
        if !self.outbox.is_empty() && names.clone().any(hides) {
            return None;
        }
        // Most often all are.
        let known: Option<Vec<Told>> = names
            .clone()
            .map(|name| self.known(service, name))
            .collect();
        let told = match known {
            Some(told) => Ok(told),
            None => {
                let names: Vec<VersionName> = names.cloned().collect();
                self.versions(service, &names).await
            }
        };
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                self.note_error(&error);
                return is_off(Guard::UnknownVersionIsDead).then_some(Proven(None));
            }
        };
        let is_same = |(stamp, told): (&Stamp, &Told)| told.version.is_still(stamp.version);
        if !is_off(Guard::StampsAreCompared) && !stamps.iter().zip(&told).all(is_same) {
            return None;
        }
        // The L1 has use for them.
        let proofs: Option<Vec<Proof>> = self
            .l1
            .as_ref()
            .and_then(|_| told.iter().map(|told| told.proof).collect());
        Some(Proven(proofs))
    }
}

/// An entry's versions are what they were; with their proofs, if all have one.
pub(crate) struct Proven(pub(crate) Option<Vec<Proof>>);
