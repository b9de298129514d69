//! Invalidations: what is deleted, cleared, or dead by its versions; and what the store could not be told of it.

use std::fmt;
use std::sync::Arc;

use larder_model::{Endpoint, Key, Pattern, Service, Tag};
use tokio::sync::oneshot;

use crate::cache::{Cache, Inner};
use crate::governor::Named;
use crate::mutants::{Guard, is_off};
use crate::outbox::{Apply, Invalidation, Kept};
use crate::store::{ClearMode, Deleted, Store, StoreError, StoreFuture};
use crate::target::Target;
use crate::version::VersionName;

/// What came of an invalidation.
#[derive(Debug)]
#[must_use]
pub enum Invalidated {
    /// It is done: no lookup that begins after this returned finds a value whose load began before the call. In this process at
    /// once, and in others for what they read from the store; what they keep themselves goes within the time of a push.
    Done {
        /// How many entries were there and are gone; 0 where entries are dead and not removed.
        entries: u64,
    },
    /// It is done for framed entries. Plain ones carry no versions: they are being removed. This process serves none of them
    /// any more.
    Sweeping(Sweep),
    /// The store could not be told, at least not all of it. This process serves nothing that it names; it is told to the store
    /// as soon as that can be. Others may serve old values until then.
    Pending {
        /// How safely it is kept.
        kept: Kept,
        /// Why it is not done.
        why: StoreError,
    },
}

impl Invalidated {
    /// Whether it is done, but for plain entries that are being removed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !matches!(self, Self::Pending { .. })
    }

    /// How many entries are known to be removed by now.
    #[must_use]
    pub fn entries(&self) -> u64 {
        match self {
            Self::Done { entries } => *entries,
            Self::Sweeping(_) | Self::Pending { .. } => 0,
        }
    }

    /// Waits until plain entries are removed as well.
    pub async fn swept(self) -> Self {
        match self {
            Self::Sweeping(sweep) => match sweep.0.await {
                Ok(invalidated) => invalidated,
                // The runtime that it ran on ended.
                Err(_) => Self::Pending {
                    kept: Kept::Pending,
                    why: StoreError::NotBegun,
                },
            },
            other => other,
        }
    }
}

impl fmt::Display for Invalidated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { .. } => f.write_str("done"),
            Self::Sweeping(_) => f.write_str("done; plain entries are being removed"),
            Self::Pending { kept, why } => match kept {
                Kept::Pending => write!(f, "pending, and kept on the disk: {why}"),
                Kept::PendingVolatile(reason) => {
                    write!(f, "pending, and kept in memory alone ({reason}): {why}")
                }
            },
        }
    }
}

/// The removal of plain entries that runs behind an invalidation.
#[derive(Debug)]
pub struct Sweep(oneshot::Receiver<Invalidated>);

impl Cache {
    /// Deletes the entry under a key, and ends the lease of a load of it that is under way, in whichever process. Whatever the
    /// policy says.
    pub async fn delete(&self, key: &Key) -> Invalidated {
        self.delete_many(std::slice::from_ref(key)).await
    }

    /// [`Cache::delete`] of several keys.
    pub async fn delete_many(&self, keys: &[Key]) -> Invalidated {
        let inner = &*self.inner;
        if is_off(Guard::OffStillInvalidates)
            && keys
                .iter()
                .any(|key| !inner.governor.gate(key).cache_enabled)
        {
            return Invalidated::Done { entries: 0 };
        }
        let end = || {
            for key in keys {
                if !is_off(Guard::DeleteEndsFlights) {
                    inner.flights.end(key);
                }
                inner.forget(key);
            }
        };
        end();
        inner.governor.note_invalidated(Named::Keys(keys));
        let deleted = inner.store.delete(keys).await;
        // What boarded in between may have found the old value: nobody joins it any more.
        end();
        inner.settle(deleted, || Invalidation::Keys(keys.to_vec()))
    }

    /// Deletes all entries that a pattern means, answers how many there were, and ends the leases of loads of them that are
    /// under way.
    pub async fn clear(&self, pattern: &Pattern) -> Invalidated {
        self.inner.governor.note_invalidated(Named::Endpoint(None));
        self.inner.clear(pattern).await
    }

    /// How many entries [`Cache::clear`] would delete.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not be asked.
    pub async fn count(&self, pattern: &Pattern) -> Result<Deleted, StoreError> {
        self.inner.store.clear(pattern, ClearMode::DryRun).await
    }

    /// Invalidates all entries with a tag, however many they are, by one write.
    pub async fn invalidate_tag(&self, tag: &Tag) -> Invalidated {
        let inner = &self.inner;
        inner.governor.note_invalidated(Named::Tag(tag));
        let has_tag = |key: &Key| inner.governor.policy(key).tags().contains(tag);
        inner
            .invalidate(VersionName::Tag(tag.clone()), has_tag, Vec::new())
            .await
    }

    /// Invalidates all entries of an endpoint: framed ones, however many they are, by one write; plain ones are removed behind it.
    pub async fn invalidate_endpoint(&self, endpoint: &Endpoint) -> Invalidated {
        let inner = &self.inner;
        let named = Named::Endpoint(Some(endpoint.template()));
        inner.governor.note_invalidated(named);
        let name = VersionName::of_endpoint(endpoint.template());
        let patterns = patterns_of(&inner.service, endpoint.template());
        let is_meant = |key: &Key| patterns.iter().any(|one| one.matches(key.as_str()));
        inner.invalidate(name, is_meant, patterns.clone()).await
    }

    /// Invalidates all entries of this service: framed ones, however many they are, by one write; plain ones are removed
    /// behind it.
    pub async fn invalidate_service(&self) -> Invalidated {
        let inner = &self.inner;
        inner.governor.note_invalidated(Named::Endpoint(None));
        let pattern = Pattern::of_service(&inner.service);
        let is_meant = |key: &Key| pattern.matches(key.as_str());
        inner
            .invalidate(VersionName::Service, is_meant, vec![pattern.clone()])
            .await
    }
}

impl Inner {
    /// What another process has told the store that this one uses.
    pub(crate) fn note_told(&self, target: &Target) {
        let (governor, flights) = (&self.governor, &self.flights);
        match target {
            Target::Key(key) => {
                flights.end(key);
                self.forget(key);
                governor.note_invalidated(Named::Keys(std::slice::from_ref(key)));
            }
            Target::Pattern(pattern) => {
                flights.end_matching(|key: &Key| pattern.matches(key.as_str()));
                governor.note_invalidated(Named::Endpoint(None));
            }
            Target::Endpoint(endpoint) => {
                let patterns = patterns_of(&self.service, endpoint.template());
                flights
                    .end_matching(|key: &Key| patterns.iter().any(|one| one.matches(key.as_str())));
                governor.note_invalidated(Named::Endpoint(Some(endpoint.template())));
            }
            Target::Tag(tag) => {
                flights.end_matching(|key: &Key| governor.policy(key).tags().contains(tag));
                governor.note_invalidated(Named::Tag(tag));
            }
            Target::Service => {
                flights.end_matching(|_: &Key| true);
                governor.note_invalidated(Named::Endpoint(None));
            }
        }
    }

    /// Serves nothing more of what is kept in this process under a key.
    fn forget(&self, key: &Key) {
        if let Some(l1) = &self.l1 {
            l1.forget(key);
        }
    }

    async fn clear(&self, pattern: &Pattern) -> Invalidated {
        let is_meant = |key: &Key| pattern.matches(key.as_str());
        self.flights.end_matching(is_meant);
        let cleared = self.store.clear(pattern, ClearMode::Delete).await;
        self.flights.end_matching(is_meant);
        self.settle(cleared, || Invalidation::Pattern(pattern.clone()))
    }

    /// Renews a version, and sweeps plain entries behind it.
    async fn invalidate(
        self: &Arc<Self>,
        name: VersionName,
        is_meant: impl Fn(&Key) -> bool,
        plain: Vec<Pattern>,
    ) -> Invalidated {
        self.flights.end_matching(&is_meant);
        // From now on no plain entry that it means is served here.
        let sweeps: Vec<u64> = plain.iter().map(|one| self.sweeps.begin(one)).collect();
        let names = std::slice::from_ref(&name);
        let renewed = self.store.renew(&self.service, names).await;
        self.flights.end_matching(&is_meant);
        if let Err(why) = renewed {
            self.note_error(&why);
            let versions = Invalidation::Versions(self.service.clone(), vec![name]);
            let mut kept = self.postpone(versions);
            for pattern in plain {
                let also = self.postpone(Invalidation::Pattern(pattern));
                kept = worse(kept, also);
            }
            sweeps.into_iter().for_each(|sweep| self.sweeps.end(sweep));
            return Invalidated::Pending { kept, why };
        }
        if plain.is_empty() {
            return Invalidated::Done { entries: 0 };
        }
        let (done, swept) = oneshot::channel();
        let inner = Arc::clone(self);
        let sweep = async move {
            let _ = done.send(inner.sweep(plain, sweeps).await);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(sweep);
            }
            // Without a runtime there is nobody else to run it.
            Err(_) => sweep.await,
        }
        Invalidated::Sweeping(Sweep(swept))
    }

    /// Removes what patterns mean, and answers for all of them.
    async fn sweep(&self, patterns: Vec<Pattern>, sweeps: Vec<u64>) -> Invalidated {
        let mut all = Invalidated::Done { entries: 0 };
        for (pattern, sweep) in patterns.iter().zip(sweeps) {
            // What fails is pending before it is shown again.
            let one = self.clear(pattern).await;
            self.sweeps.end(sweep);
            all = match (all, one) {
                (Invalidated::Done { entries }, Invalidated::Done { entries: more }) => {
                    Invalidated::Done {
                        entries: entries + more,
                    }
                }
                (pending @ Invalidated::Pending { .. }, _) | (_, pending) => pending,
            };
        }
        all
    }

    /// Keeps what the store could not be told.
    pub(crate) fn postpone(&self, invalidation: Invalidation) -> Kept {
        self.outbox.add(invalidation)
    }

    fn settle(
        &self,
        deleted: Result<Deleted, StoreError>,
        invalidation: impl FnOnce() -> Invalidation,
    ) -> Invalidated {
        match deleted {
            Ok(Deleted { entries }) => Invalidated::Done { entries },
            Err(why) => {
                self.note_error(&why);
                let kept = self.postpone(invalidation());
                Invalidated::Pending { kept, why }
            }
        }
    }
}

fn worse(one: Kept, other: Kept) -> Kept {
    match one {
        Kept::Pending => other,
        Kept::PendingVolatile(_) => one,
    }
}

/// What the entries of an endpoint are, and perhaps some more: a parameter stands for any text.
pub(crate) fn patterns_of(service: &Service, template: &str) -> Vec<Pattern> {
    let segments = template.split('/').map(|segment| match segment {
        parameter if parameter.starts_with('{') => "*".to_owned(),
        literal => Pattern::escape(literal),
    });
    let segments: Vec<String> = segments.collect();
    let path = format!("cache:{service}:{}", segments.join("/"));
    let forms = match path.ends_with('*') {
        true => vec![path],
        // Alone, with a query, with a variant.
        false => vec![format!("{path}\\?*"), format!("{path}#*"), path],
    };
    let patterns = forms.iter().map(|form| Pattern::parse(form));
    // One that is too long to be a pattern means all of the service.
    patterns
        .collect::<Result<_, _>>()
        .unwrap_or_else(|_| vec![Pattern::of_service(service)])
}

/// Tells a store what is pending.
pub(crate) struct Telling(pub(crate) Arc<dyn Store>);

impl Apply for Telling {
    fn delete<'a>(&'a self, keys: &'a [Key]) -> StoreFuture<'a, ()> {
        StoreFuture::pending(async move { self.0.delete(keys).await.map(drop) })
    }

    fn clear<'a>(&'a self, pattern: &'a Pattern) -> StoreFuture<'a, ()> {
        StoreFuture::pending(
            async move { self.0.clear(pattern, ClearMode::Delete).await.map(drop) },
        )
    }

    fn renew<'a>(&'a self, service: &'a Service, names: &'a [VersionName]) -> StoreFuture<'a, ()> {
        self.0.renew(service, names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweeps::Sweeps;

    #[test]
    fn an_endpoints_patterns_mean_its_keys_with_query_and_variant_and_no_others() {
        let service = Service::new("svc").unwrap();
        let is_meant = |template: &str, endpoint: &str| {
            let key = Key::new("svc", endpoint).unwrap();
            let patterns = patterns_of(&service, template);
            patterns.iter().any(|one| one.matches(key.as_str()))
        };
        for endpoint in ["/products", "/products?page=2", "products"] {
            assert!(is_meant("/products", endpoint), "{endpoint}");
        }
        for endpoint in ["/products/1", "/products-x", "/", "/a/products"] {
            assert!(!is_meant("/products", endpoint), "{endpoint}");
        }
        for endpoint in ["/products/1", "/products/1?full", "/products/a-b"] {
            assert!(is_meant("/products/{id}", endpoint), "{endpoint}");
        }
        for endpoint in ["/products", "/users/1"] {
            assert!(!is_meant("/products/{id}", endpoint), "{endpoint}");
        }
        assert!(is_meant("/a/{id}/b", "/a/1/b?x=1") && !is_meant("/a/{id}/b", "/a/1/c"));
    }

    #[test]
    fn what_was_asked_for_while_a_sweep_ran_is_hidden_after_its_end_too() {
        let sweeps = Sweeps::default();
        let key = Key::new("svc", "/a").unwrap();
        let pattern = Pattern::parse("cache:svc:/a").unwrap();
        let before = sweeps.swept();
        let sweep = sweeps.begin(&pattern);
        let during = sweeps.swept();
        assert!(sweeps.hides_read(&key, before) && sweeps.hides_read(&key, during));
        sweeps.end(sweep);
        assert!(sweeps.hides_read(&key, before) && sweeps.hides_read(&key, during));
        assert!(!sweeps.hides_read(&key, sweeps.swept()));
    }
}
