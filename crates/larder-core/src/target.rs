//! What is to be invalidated, as one value: for those who are told of it over a wire.

use std::sync::{Arc, Weak};

use larder_model::api::Named;
use larder_model::{
    Endpoint, EndpointError, Key, KeyError, Pattern, PatternError, Service, Tag, TagError,
};

use crate::cache::{Cache, Inner};
use crate::invalidate::Invalidated;
use crate::store::{StoreError, Ttl};
use crate::version::VersionName;

/// What is to be invalidated of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One entry.
    Key(Key),
    /// The entries that a pattern means.
    Pattern(Pattern),
    /// The entries of an endpoint, whatever its method.
    Endpoint(Endpoint),
    /// The entries that depend on a tag.
    Tag(Tag),
    /// All of them.
    Service,
}

/// Why a text names nothing that could be invalidated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It is no pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// It is no endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// It is no tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// It names entries of another service.
    #[error("that is of the service {0}: name that one, or leave service_name out")]
    OtherService(String),
    /// Nothing is named.
    #[error("there is no {0} to invalidate: say which")]
    NoName(Named),
}

impl Target {
    /// Reads what `what` says that `name` is.
    ///
    /// # Errors
    /// A [`TargetError`] that says what to change.
    pub fn read(service: &Service, what: Named, name: Option<&str>) -> Result<Self, TargetError> {
        if what == Named::Service {
            return Ok(Self::Service);
        }
        let name = name.ok_or(TargetError::NoName(what))?;
        let is_ours = |named: &str| {
            (named == service.as_str())
                .then_some(())
                .ok_or_else(|| TargetError::OtherService(named.to_owned()))
        };
        Ok(match what {
            Named::Key => {
                let key = Key::parse(name)?;
                is_ours(key.service())?;
                Self::Key(key)
            }
            Named::Pattern => {
                let pattern = Pattern::parse(name)?;
                is_ours(pattern.service())?;
                Self::Pattern(pattern)
            }
            Named::Endpoint => Self::Endpoint(name.parse()?),
            Named::Tag => Self::Tag(Tag::new(name)?),
            Named::Service => Self::Service,
        })
    }

    /// What it names.
    #[must_use]
    pub fn what(&self) -> Named {
        match self {
            Self::Key(_) => Named::Key,
            Self::Pattern(_) => Named::Pattern,
            Self::Endpoint(_) => Named::Endpoint,
            Self::Tag(_) => Named::Tag,
            Self::Service => Named::Service,
        }
    }

    /// Which one; `None` for all of the service.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key.as_str()),
            Self::Pattern(pattern) => Some(pattern.as_str()),
            Self::Endpoint(endpoint) => Some(endpoint.template()),
            Self::Tag(tag) => Some(tag.as_str()),
            Self::Service => None,
        }
    }
}

/// A [`Cache`] that is not kept by this: for those whom it keeps itself.
#[derive(Clone)]
pub struct WeakCache(Weak<Inner>, bool);

impl WeakCache {
    /// The cache, while somebody else has it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Cache> {
        Some(Cache {
            inner: self.0.upgrade()?,
            refreshes: self.1,
        })
    }
}

impl Cache {
    /// This cache, without keeping it.
    #[must_use]
    pub fn downgrade(&self) -> WeakCache {
        WeakCache(Arc::downgrade(&self.inner), self.refreshes)
    }

    /// Invalidates what a target names.
    pub async fn invalidate(&self, target: &Target) -> Invalidated {
        match target {
            Target::Key(key) => self.delete(key).await,
            Target::Pattern(pattern) => self.clear(pattern).await,
            Target::Endpoint(endpoint) => self.invalidate_endpoint(endpoint).await,
            Target::Tag(tag) => self.invalidate_tag(tag).await,
            Target::Service => self.invalidate_service().await,
        }
    }

    /// Takes note that what a target names was invalidated in the store by another process: what comes next is no change that
    /// nobody told of, and no load that is under way here is joined any more.
    pub fn note_invalidated(&self, target: &Target) {
        self.inner.note_told(target);
    }

    /// What the store that this service has is known by, now: two processes that are told the same have the same one. `store_id`
    /// says which it is where stores may be copies of each other, as folders are: 0 for one that is told by its server's life.
    /// `None` where it can't be told.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not be asked.
    pub async fn store_mark(&self, store_id: u32) -> Result<Option<String>, StoreError> {
        let names = [VersionName::Service];
        let told = self.store().versions(self.service(), &names).await?;
        let version = told.first().map(|told| told.version);
        // A server whose lives are not told apart may be a copy of another.
        let version = version.filter(|version| version.incarnation != 0 || store_id != 0);
        let mark = version.map(|version| {
            let (value, life) = (version.value, version.incarnation);
            format!("{store_id:08x}.{life:016x}.{value:032x}")
        });
        Ok(mark)
    }

    /// How many entries a target names; `None` for a tag, whose entries nobody lists.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not be asked.
    pub async fn count_of(&self, target: &Target) -> Result<Option<u64>, StoreError> {
        let patterns = match target {
            Target::Key(key) => {
                let stored = self.store().get(key, Ttl::MAX).await?;
                return Ok(Some(u64::from(stored.is_some())));
            }
            Target::Tag(_) => return Ok(None),
            Target::Pattern(pattern) => vec![pattern.clone()],
            Target::Endpoint(endpoint) => {
                crate::invalidate::patterns_of(self.service(), endpoint.template())
            }
            Target::Service => vec![Pattern::of_service(self.service())],
        };
        let mut entries = 0;
        for pattern in &patterns {
            entries += self.count(pattern).await?.entries;
        }
        Ok(Some(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written_and_never_reaches_another_service() {
        let service = Service::new("svc").unwrap();
        let read = |what, name| Target::read(&service, what, Some(name));
        for (what, name) in [
            (Named::Key, "cache:svc:/a?b=1"),
            (Named::Pattern, "cache:svc:/a*"),
            (Named::Endpoint, "/a/{id}"),
            (Named::Tag, "product:17"),
        ] {
            let target = read(what, name).unwrap();
            assert_eq!((target.what(), target.name()), (what, Some(name)));
            let none = Target::read(&service, what, None);
            assert_eq!(none, Err(TargetError::NoName(what)));
        }
        let other = || TargetError::OtherService("other".into());
        assert_eq!(read(Named::Key, "cache:other:/a"), Err(other()));
        assert_eq!(read(Named::Pattern, "cache:other:*"), Err(other()));
        for (what, name) in [
            (Named::Key, "products"),
            (Named::Pattern, "cache:*"),
            (Named::Endpoint, ""),
            (Named::Tag, ""),
            (Named::Tag, "a b"),
        ] {
            // The endpoint `` is `/`.
            assert!(
                read(what, name).is_err() || what == Named::Endpoint,
                "{name}"
            );
        }
        assert_eq!(
            Target::read(&service, Named::Service, None),
            Ok(Target::Service)
        );
    }
}
