//! What is to be invalidated.

use larder_model::{Key, Pattern, Service};

use crate::version::VersionName;

/// What was to be invalidated. Of an endpoint or a service that is two: its version, and the pattern of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidation {
    /// These entries.
    Keys(Vec<Key>),
    /// The entries that a pattern means.
    Pattern(Pattern),
    /// What depends on these versions of a service.
    Versions(Service, Vec<VersionName>),
}

impl Invalidation {
    pub(super) fn into_items(self) -> Vec<Item> {
        match self {
            Self::Keys(keys) => keys.into_iter().map(Item::Key).collect(),
            Self::Pattern(pattern) => vec![Item::Pattern(pattern)],
            Self::Versions(service, names) => names
                .into_iter()
                .map(|name| Item::Version(service.clone(), name))
                .collect(),
        }
    }
}

/// One part of an invalidation: what is remembered, written down and applied by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Key(Key),
    Pattern(Pattern),
    Version(Service, VersionName),
}

impl Item {
    pub(super) fn service(&self) -> Service {
        match self {
            Self::Key(key) => Service::from(key),
            Self::Pattern(pattern) => Service::from(pattern),
            Self::Version(service, _) => service.clone(),
        }
    }

    /// All of a service: what depends on its version, and its entries.
    pub(super) fn all_of(service: &Service) -> [Self; 2] {
        [
            Self::Version(service.clone(), VersionName::Service),
            Self::Pattern(Pattern::of_service(service)),
        ]
    }

    /// What it takes in memory, in bytes, about: its text, and what is around it.
    pub(super) fn weight(&self) -> usize {
        const AROUND: usize = 64;
        let text = match self {
            Self::Key(key) => key.as_str().len(),
            Self::Pattern(pattern) => pattern.as_str().len(),
            Self::Version(service, VersionName::Tag(tag)) => {
                service.as_str().len() + tag.as_str().len()
            }
            Self::Version(service, _) => service.as_str().len(),
        };
        text + AROUND
    }
}

/// Whether a pattern is that of all entries of its service: `cache:{service}:*`.
pub(super) fn is_of_service(pattern: &Pattern) -> bool {
    let text = pattern.as_str();
    text.ends_with(":*") && text.len() == "cache:".len() + pattern.service().len() + ":*".len()
}
