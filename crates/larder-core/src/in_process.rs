//! A store in the process alone, bounded in bytes.

mod leases;
mod versions;

use std::cell::Cell;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use larder_model::{Key, Pattern, Service};
use quick_cache::Weighter;
use quick_cache::sync::Cache as QuickCache;

use crate::beside::Beside;
use crate::clock::{Clock, CoarseClock};
use crate::frame::is_framed;
use crate::lease::{Acquired, Lease, Released};
use crate::mutants::{self, is_off};
use crate::proof::Proof;
use crate::store::{
    ClearMode, Cursor, Deleted, NewEntry, Page, ScannedEntry, Skip, Store, StoreFuture, StoreStats,
    Stored, Ttl, Written,
};
use crate::sync::{self, RwLock};
use crate::version::{Told, VersionName};
use leases::Leases;
use versions::Versions;

/// What an entry costs beside its key's and value's bytes, in bytes, rounded up: resident memory grew by 142 to 150 for
/// each of 1,000,000 entries, with values of 16, 200 and 1,024 bytes.
const OVERHEAD: u64 = 160;
/// What an entry is expected to weigh: the number of places reserved at first follows from it.
const EXPECTED_BYTES: u64 = 1_024;

/// A store for one process: `quick_cache`, with expiry and a bound in bytes. It holds nothing when the process ends.
pub struct InProcess {
    entries: QuickCache<Key, Entry, ByBytes>,
    /// Held shared by fills, alone by what deletes: so a fill is wholly before a delete or judged after it.
    fills: RwLock<()>,
    leases: Leases,
    versions: Versions,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Entry {
    bytes: Bytes,
    framed: bool,
    /// By the store's clock.
    expires_at: Duration,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Entry> for ByBytes {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        (key.as_str().len() + entry.bytes.len()) as u64 + OVERHEAD
    }
}

impl InProcess {
    /// A store that takes at most this much memory, in bytes.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self::with_clock(max_bytes, Arc::new(CoarseClock))
    }

    /// [`InProcess::new`] with a clock of the caller's.
    #[must_use]
    pub fn with_clock(max_bytes: u64, clock: Arc<dyn Clock>) -> Self {
        let expected = usize::try_from(max_bytes / EXPECTED_BYTES).unwrap_or(usize::MAX);
        Self {
            entries: QuickCache::with_weighter(expected, max_bytes, ByBytes),
            fills: RwLock::new(()),
            leases: Leases::new(),
            versions: Versions::new(),
            clock,
        }
    }

    fn read(&self, key: &Key, longest: Ttl) -> Option<Stored> {
        let now = self.clock.now();
        let entry = self.entries.get(key)?;
        let left = entry.expires_at.saturating_sub(now);
        if left.is_zero() {
            self.entries
                .remove_if(key, |current| current.expires_at <= now);
            return None;
        }
        if left > longest.get() {
            self.cut(key, &entry, now + longest.get());
        }
        Some(Stored {
            bytes: entry.bytes,
            framed: entry.framed,
            ttl: Some(left.min(longest.get())),
            foreign: false,
            incarnation: 0,
            proof: None,
        })
    }

    /// Shortens the life of the entry that was read. It may have been replaced since, or cut by another read.
    fn cut(&self, key: &Key, entry: &Entry, expires_at: Duration) {
        let _alone = self.fills.write().unwrap_or_else(PoisonError::into_inner);
        let is_to_be_cut = self.entries.peek(key).is_some_and(|current| {
            current.bytes.as_ptr() == entry.bytes.as_ptr() && current.expires_at > expires_at
        });
        if is_to_be_cut {
            let cut = Entry {
                expires_at,
                ..entry.clone()
            };
            self.entries.insert(key.clone(), cut);
        }
    }

    fn write(&self, entry: NewEntry) -> Written {
        let weight = (entry.key.as_str().len() + entry.bytes.len()) as u64 + OVERHEAD;
        // A shard keeps part of its room for entries on probation.
        if weight > self.entries.shard_capacity() / 2 {
            return Written::Skipped(Skip::TooLarge);
        }
        let now = self.clock.now();
        let written = Entry {
            framed: is_framed(&entry.bytes),
            expires_at: now.saturating_add(entry.ttl.get()),
            bytes: entry.bytes,
        };
        let _shared = self.fills.read().unwrap_or_else(PoisonError::into_inner);
        if !entry.guard.allows() {
            return Written::Refused;
        }
        if let Some(lease) = entry.guard.lease() {
            let put = || self.entries.insert(entry.key.clone(), written);
            return match self.leases.end_with(lease, now, None, put) {
                true => Written::Stored,
                false => Written::Refused,
            };
        }
        if !is_off(mutants::Guard::SetEndsLease) {
            self.leases.end_of(&entry.key);
        }
        self.entries.insert(entry.key, written);
        Written::Stored
    }

    fn is_living(&self, entry: &Entry) -> bool {
        entry.expires_at > self.clock.now()
    }
}

impl Store for InProcess {
    fn get(&self, key: &Key, longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        StoreFuture::ready(Ok(self.read(key, longest)))
    }

    fn get_many(&self, keys: &[Key], longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        StoreFuture::ready(Ok(keys.iter().map(|key| self.read(key, longest)).collect()))
    }

    fn set(&self, entry: NewEntry) -> StoreFuture<'_, Written> {
        StoreFuture::ready(Ok(self.write(entry)))
    }

    fn set_many(&self, entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        StoreFuture::ready(Ok(entries
            .into_iter()
            .map(|entry| self.write(entry))
            .collect()))
    }

    fn delete(&self, keys: &[Key]) -> StoreFuture<'_, Deleted> {
        let _alone = self.fills.write().unwrap_or_else(PoisonError::into_inner);
        let entries = keys
            .iter()
            .inspect(|key| {
                if !is_off(mutants::Guard::DeleteEndsLease) {
                    self.leases.end_of(key);
                }
            })
            .filter_map(|key| self.entries.remove(key))
            .filter(|(_, entry)| self.is_living(entry))
            .count();
        StoreFuture::ready(Ok(Deleted {
            entries: entries as u64,
        }))
    }

    fn clear(&self, pattern: &Pattern, mode: ClearMode) -> StoreFuture<'_, Deleted> {
        let _alone = self.fills.write().unwrap_or_else(PoisonError::into_inner);
        let entries = Cell::new(0);
        if mode == ClearMode::Delete && !is_off(mutants::Guard::ClearEndsLeases) {
            self.leases
                .end_matching(|key| pattern.matches(key.as_str()));
        }
        self.entries.retain(|key, entry| {
            let is_meant = pattern.matches(key.as_str());
            entries.set(entries.get() + u64::from(is_meant && self.is_living(entry)));
            !is_meant || mode == ClearMode::DryRun
        });
        StoreFuture::ready(Ok(Deleted {
            entries: entries.get(),
        }))
    }

    fn acquire(&self, keys: &[Key], time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        let at = (self.clock.now(), time);
        let acquire = |key| self.leases.acquire(key, at, || self.read(key, Ttl::MAX));
        StoreFuture::ready(Ok(keys.iter().map(acquire).collect()))
    }

    fn extend(&self, leases: &[Lease], time: Duration) -> StoreFuture<'_, Vec<bool>> {
        let at = (self.clock.now(), time);
        let extend = |lease| self.leases.extend(lease, at);
        StoreFuture::ready(Ok(leases.iter().map(extend).collect()))
    }

    fn release(&self, leases: &[Lease], released: Released) -> StoreFuture<'_, Vec<bool>> {
        let now = self.clock.now();
        let end = |lease| self.leases.end(lease, now, Some(released));
        StoreFuture::ready(Ok(leases.iter().map(end).collect()))
    }

    fn versions(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        let tell = |name| self.versions.tell(service, name);
        StoreFuture::ready(Ok(names.iter().map(tell).collect()))
    }

    fn renew(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, ()> {
        names
            .iter()
            .for_each(|name| self.versions.renew(service, name));
        StoreFuture::ready(Ok(()))
    }

    fn beside(&self, key: &Key, names: &[VersionName]) -> StoreFuture<'_, Beside> {
        let service = Service::from(key);
        let version = |name| self.versions.look(&service, name);
        StoreFuture::ready(Ok(Beside {
            lease: self.leases.left(key, self.clock.now()),
            versions: names.iter().map(version).collect(),
        }))
    }

    fn has_proofs(&self) -> bool {
        false
    }

    fn holds(&self, proof: &Proof) -> bool {
        self.leases.holds(proof)
    }

    fn changed(&self, proof: Proof, most: Duration) -> StoreFuture<'_, ()> {
        StoreFuture::pending(async move {
            self.leases.changed(proof, most).await;
            Ok(())
        })
    }

    fn incarnation(&self, _key: &Key) -> u64 {
        0
    }

    fn scan(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
        limit: usize,
    ) -> StoreFuture<'_, Page> {
        let after = after.map(|cursor| cursor.0).unwrap_or_default();
        let now = self.clock.now();
        let mut found: Vec<(Key, Entry)> = self
            .entries
            .iter()
            .filter(|(key, entry)| {
                key.as_str() > after.as_str()
                    && entry.expires_at > now
                    && pattern.is_none_or(|pattern| pattern.matches(key.as_str()))
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let is_last = found.len() <= limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| !is_last)
            .map(|(key, _)| Cursor(key.as_str().to_owned()));
        let entries = found
            .into_iter()
            .map(|(key, entry)| ScannedEntry {
                key,
                ttl: Some(entry.expires_at.saturating_sub(now)),
                bytes: Some(entry.bytes.len() as u64),
            })
            .collect();
        StoreFuture::ready(Ok(Page { entries, next }))
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        StoreFuture::ready(Ok(StoreStats {
            entries: Some(self.entries.len() as u64),
            used_bytes: Some(self.entries.weight()),
            limit_bytes: Some(self.entries.capacity()),
            ..StoreStats::default()
        }))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        StoreFuture::ready(Ok(()))
    }

    fn name(&self) -> String {
        "in this process".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Guard;

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Duration {
            Duration::from_secs(1_000)
        }
    }

    fn ttl(seconds: u64) -> Ttl {
        Ttl::new(Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn a_read_that_comes_late_with_its_cut_does_not_lengthen_a_life() {
        let store = InProcess::with_clock(1 << 20, Arc::new(Stopped));
        let key = Key::new("svc", "/a").unwrap();
        let bytes = Bytes::from_static(b"1");
        let entry = NewEntry {
            key: key.clone(),
            bytes,
            ttl: ttl(300),
            guard: Guard::Always,
        };
        assert!(store.write(entry.clone()).is_stored());
        let seen_by_the_late = store.entries.get(&key).unwrap();
        let left = || store.read(&key, Ttl::MAX).unwrap().ttl.unwrap().as_secs();
        let cut_late = || store.cut(&key, &seen_by_the_late, Duration::from_secs(1_100));

        store.read(&key, ttl(10));
        cut_late();
        assert_eq!(left(), 10, "another read had cut it shorter");

        // The same bytes, but another entry.
        assert!(
            store
                .write(NewEntry {
                    ttl: ttl(5),
                    ..entry
                })
                .is_stored()
        );
        cut_late();
        assert_eq!(left(), 5, "it had been stored anew, for less");
    }
}
