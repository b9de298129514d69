//! A store that clears only when a test lets it.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{
    Acquired, Beside, ClearMode, Cursor, Deleted, Key, Lease, NewEntry, Page, Pattern, Proof,
    Released, Service, Store, StoreFuture, StoreStats, Stored, Told, Ttl, VersionName, Written,
};
use tokio::sync::Semaphore;

/// Another store, behind a gate for what clears.
pub(crate) struct Held {
    store: Arc<dyn Store>,
    /// How many may clear.
    pub(crate) go: Semaphore,
}

impl Held {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            go: Semaphore::new(0),
        })
    }
}

impl Store for Held {
    fn clear(&self, pattern: &Pattern, mode: ClearMode) -> StoreFuture<'_, Deleted> {
        let pattern = pattern.clone();
        StoreFuture::pending(async move {
            let _go = self.go.acquire().await;
            self.store.clear(&pattern, mode).await
        })
    }

    fn get(&self, key: &Key, longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        self.store.get(key, longest)
    }

    fn get_many(&self, keys: &[Key], longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        self.store.get_many(keys, longest)
    }

    fn set(&self, entry: NewEntry) -> StoreFuture<'_, Written> {
        self.store.set(entry)
    }

    fn set_many(&self, entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        self.store.set_many(entries)
    }

    fn delete(&self, keys: &[Key]) -> StoreFuture<'_, Deleted> {
        self.store.delete(keys)
    }

    fn acquire(&self, keys: &[Key], time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        self.store.acquire(keys, time)
    }

    fn extend(&self, leases: &[Lease], time: Duration) -> StoreFuture<'_, Vec<bool>> {
        self.store.extend(leases, time)
    }

    fn release(&self, leases: &[Lease], released: Released) -> StoreFuture<'_, Vec<bool>> {
        self.store.release(leases, released)
    }

    fn versions(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        self.store.versions(service, names)
    }

    fn renew(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, ()> {
        self.store.renew(service, names)
    }

    fn beside(&self, key: &Key, names: &[VersionName]) -> StoreFuture<'_, Beside> {
        self.store.beside(key, names)
    }

    fn holds(&self, proof: &Proof) -> bool {
        self.store.holds(proof)
    }

    fn changed(&self, proof: Proof, most: Duration) -> StoreFuture<'_, ()> {
        self.store.changed(proof, most)
    }

    fn incarnation(&self, key: &Key) -> u64 {
        self.store.incarnation(key)
    }

    fn scan(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
        limit: usize,
    ) -> StoreFuture<'_, Page> {
        self.store.scan(pattern, after, limit)
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.store.stats()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.store.close()
    }

    fn name(&self) -> String {
        self.store.name()
    }
}
