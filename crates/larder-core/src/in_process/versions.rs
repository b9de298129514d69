//! Versions of the store in the process.

use larder_model::Service;
use quick_cache::sync::Cache as QuickCache;

use crate::random;
use crate::version::{Told, Version, VersionName};

/// More versions than this are not remembered: one that was forgotten gets a new value, and what depends on it is dead.
const MOST: usize = 100_000;

pub(super) struct Versions(QuickCache<(Service, VersionName), u128>);

impl Versions {
    pub(super) fn new() -> Self {
        Self(QuickCache::new(MOST))
    }

    pub(super) fn tell(&self, service: &Service, name: &VersionName) -> Told {
        let place = (service.clone(), name.clone());
        let made = || Ok::<_, std::convert::Infallible>(random::u128());
        let Ok(value) = self.0.get_or_insert_with(&place, made);
        Told {
            version: Version {
                value,
                incarnation: 0,
            },
            proof: None,
        }
    }

    /// A version, if it is there.
    pub(super) fn look(&self, service: &Service, name: &VersionName) -> Option<Version> {
        let value = self.0.peek(&(service.clone(), name.clone()))?;
        Some(Version {
            value,
            incarnation: 0,
        })
    }

    pub(super) fn renew(&self, service: &Service, name: &VersionName) {
        self.0
            .insert((service.clone(), name.clone()), random::u128());
    }
}
