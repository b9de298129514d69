//! Applies what is pending to the store, part by part, and keeps what fails.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::Ordering;
use std::time::Duration;

use larder_model::{Key, Pattern, Service};

use super::Outbox;
use super::invalidation::Item;
use super::tombstones::Pending;
use crate::mutants::{Guard, is_off};
use crate::store::{StoreError, StoreFuture};
use crate::version::VersionName;

/// How many keys are deleted together.
const KEYS_AT_ONCE: usize = 500;
/// After so many failures, the rest of a round is left for the next one.
const MAX_FAILURES: usize = 16;
/// Wide invalidations wait for a random part of this: the processes that come out of an outage together don't clear at the
/// same moment.
const SPREAD: Duration = Duration::from_millis(500);

/// What can be done to a store to invalidate.
pub trait Apply: Send + Sync + 'static {
    /// Deletes entries.
    fn delete<'a>(&'a self, keys: &'a [Key]) -> StoreFuture<'a, ()>;

    /// Deletes the entries that a pattern means.
    fn clear<'a>(&'a self, pattern: &'a Pattern) -> StoreFuture<'a, ()>;

    /// Gives versions of a service new values.
    fn renew<'a>(&'a self, service: &'a Service, names: &'a [VersionName]) -> StoreFuture<'a, ()>;
}

/// What a round did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Applied {
    /// So many parts were applied.
    pub applied: usize,
    /// So many are still pending.
    pub left: usize,
    /// Why, as the store said last.
    pub error: Option<StoreError>,
}

/// What is applied in one call to the store.
enum Step {
    Delete(Vec<Pending>),
    Renew(Service, Vec<Pending>),
    Clear(Pattern, Pending),
}

impl Outbox {
    /// Applies all that is pending, each part once. What the store does not confirm stays; so does what is added anew
    /// while it is applied.
    ///
    /// Safe to be dropped at any point: what is not known to be applied is applied again.
    pub async fn apply(&self, store: &(impl Apply + ?Sized)) -> Applied {
        let _alone = self.applying.lock().await;
        let mut applied = Applied::default();
        let (near, wide) = steps(self.tombstones_mut().begin());
        let mut failures = 0;
        self.apply_steps(near, store, &mut failures, &mut applied)
            .await;
        if !wide.is_empty() && failures < MAX_FAILURES {
            tokio::time::sleep(SPREAD.mul_f64(chance())).await;
        }
        self.apply_steps(wide, store, &mut failures, &mut applied)
            .await;
        applied.left = self.tombstones().len();
        applied
    }

    async fn apply_steps(
        &self,
        mut steps: Vec<Step>,
        store: &(impl Apply + ?Sized),
        failures: &mut usize,
        applied: &mut Applied,
    ) {
        while let Some(step) = steps.pop() {
            if *failures >= MAX_FAILURES {
                self.tombstones_mut().failed(&step.into_parts());
                continue;
            }
            let failure = step.call(store).await.err();
            match failure.filter(|_| !is_off(Guard::AppliedIsConfirmed)) {
                None => applied.applied += self.confirm(&step.into_parts()),
                Some(error) => {
                    *failures += 1;
                    applied.error = Some(error);
                    match step.halve() {
                        // One key that the store refuses must not keep the others.
                        Ok(halves) => steps.extend(halves),
                        Err(step) => self.tombstones_mut().failed(&step.into_parts()),
                    }
                }
            }
        }
    }

    fn confirm(&self, done: &[Pending]) -> usize {
        let mut journal = self.journal();
        self.tombstones_mut().applied(done);
        let records: Vec<u64> = done.iter().map(|pending| pending.record).collect();
        self.settle(&mut journal, &records);
        self.applied.fetch_add(done.len() as u64, Ordering::Relaxed);
        done.len()
    }
}

/// What is to be done: what is of single entries, and what is of many.
fn steps(pending: Vec<Pending>) -> (Vec<Step>, Vec<Step>) {
    let mut keys = Vec::new();
    let mut tags: HashMap<Service, Vec<Pending>> = HashMap::new();
    let mut wide = Vec::new();
    for pending in pending {
        match &pending.item {
            Item::Key(_) => keys.push(pending),
            Item::Version(service, VersionName::Tag(_)) => {
                tags.entry(service.clone()).or_default().push(pending);
            }
            Item::Version(service, _) => wide.push(Step::Renew(service.clone(), vec![pending])),
            Item::Pattern(pattern) => wide.push(Step::Clear(pattern.clone(), pending)),
        }
    }
    let mut near: Vec<Step> = keys
        .chunks(KEYS_AT_ONCE)
        .map(|keys| Step::Delete(keys.to_vec()))
        .collect();
    near.extend(tags.into_iter().map(|(of, tags)| Step::Renew(of, tags)));
    (near, wide)
}

impl Step {
    async fn call(&self, store: &(impl Apply + ?Sized)) -> Result<(), StoreError> {
        match self {
            Self::Delete(parts) => {
                let keys: Vec<Key> = parts.iter().filter_map(key_of).collect();
                store.delete(&keys).await
            }
            Self::Renew(service, parts) => {
                let names: Vec<VersionName> = parts.iter().filter_map(name_of).collect();
                store.renew(service, &names).await
            }
            Self::Clear(pattern, _) => store.clear(pattern).await,
        }
    }

    fn into_parts(self) -> Vec<Pending> {
        match self {
            Self::Delete(parts) | Self::Renew(_, parts) => parts,
            Self::Clear(_, part) => vec![part],
        }
    }

    /// The same in two steps; itself if it is of one part.
    fn halve(self) -> Result<[Self; 2], Self> {
        match self {
            Self::Delete(mut parts) if parts.len() > 1 => {
                let rest = parts.split_off(parts.len() / 2);
                Ok([Self::Delete(parts), Self::Delete(rest)])
            }
            Self::Renew(service, mut parts) if parts.len() > 1 => {
                let rest = parts.split_off(parts.len() / 2);
                let first = Self::Renew(service.clone(), parts);
                Ok([first, Self::Renew(service, rest)])
            }
            whole => Err(whole),
        }
    }
}

fn key_of(pending: &Pending) -> Option<Key> {
    match &pending.item {
        Item::Key(key) => Some(key.clone()),
        _ => None,
    }
}

fn name_of(pending: &Pending) -> Option<VersionName> {
    match &pending.item {
        Item::Version(_, name) => Some(name.clone()),
        _ => None,
    }
}

/// A random number from 0 to 1.
pub(super) fn chance() -> f64 {
    // Every `RandomState` has other keys: chance enough for this.
    RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64
}

impl<A: Apply + ?Sized> Apply for std::sync::Arc<A> {
    fn delete<'a>(&'a self, keys: &'a [Key]) -> StoreFuture<'a, ()> {
        (**self).delete(keys)
    }

    fn clear<'a>(&'a self, pattern: &'a Pattern) -> StoreFuture<'a, ()> {
        (**self).clear(pattern)
    }

    fn renew<'a>(&'a self, service: &'a Service, names: &'a [VersionName]) -> StoreFuture<'a, ()> {
        (**self).renew(service, names)
    }
}
