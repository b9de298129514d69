//! A store whose operations a test holds up, so that what happens meanwhile is certain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use larder_core::{
    Acquired, Cache, ClearMode, Cursor, Deleted, InProcess, Key, Lease, NewEntry, Page, Pattern,
    Proof, Released, Service, Store, StoreError, StoreFuture, StoreStats, Stored, Told, Ttl,
    VersionName, Written,
};
use tokio::sync::Semaphore;

use crate::until;

/// Holds up the next operation, after it was told to.
pub(crate) struct Turnstile {
    to_hold: AtomicUsize,
    held: AtomicUsize,
    pub(crate) go: Semaphore,
}

impl Turnstile {
    fn new() -> Self {
        Self {
            to_hold: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            go: Semaphore::new(0),
        }
    }

    pub(crate) fn hold_next(&self) {
        self.to_hold.store(1, Ordering::SeqCst);
    }

    async fn pass(&self) {
        if self.to_hold.swap(0, Ordering::SeqCst) == 1 {
            self.held.fetch_add(1, Ordering::SeqCst);
            self.go.acquire().await.unwrap().forget();
        }
    }

    pub(crate) async fn holds(&self, count: usize) {
        until("an operation is held up", || {
            self.held.load(Ordering::SeqCst) == count
        })
        .await;
    }
}

/// The in-process store, behind turnstiles: reads (those of an acquire, too) after they have read, deletes before they delete.
pub(crate) struct Slow {
    store: InProcess,
    pub(crate) reads: Turnstile,
    pub(crate) deletes: Turnstile,
    /// Whether every operation fails.
    pub(crate) is_away: AtomicBool,
}

impl Slow {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            store: InProcess::new(64 << 20),
            reads: Turnstile::new(),
            deletes: Turnstile::new(),
            is_away: AtomicBool::new(false),
        })
    }

    /// What is behind the turnstiles.
    pub(crate) fn store(&self) -> &InProcess {
        &self.store
    }

    pub(crate) fn cache(self: &Arc<Self>) -> Cache {
        Cache::builder(Service::new("svc").unwrap())
            .store(Arc::clone(self) as Arc<dyn Store>)
            .build()
    }
}

impl Slow {
    fn away<T>(&self) -> Option<StoreFuture<'static, T>> {
        let error = || StoreError::Away("it was told to be".to_owned());
        let is_away = self.is_away.load(Ordering::SeqCst);
        is_away.then(|| StoreFuture::ready(Err(error())))
    }
}

impl Store for Slow {
    fn get(&self, key: &Key, longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        if let Some(away) = self.away() {
            return away;
        }
        let found = self.store.get(key, longest);
        StoreFuture::pending(async move {
            let found = found.await;
            self.reads.pass().await;
            found
        })
    }
    fn get_many(&self, keys: &[Key], longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        if let Some(away) = self.away() {
            return away;
        }
        let found = self.store.get_many(keys, longest);
        StoreFuture::pending(async move {
            let found = found.await;
            self.reads.pass().await;
            found
        })
    }
    fn set(&self, entry: NewEntry) -> StoreFuture<'_, Written> {
        if let Some(away) = self.away() {
            return away;
        }
        self.store.set(entry)
    }
    fn set_many(&self, entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        if let Some(away) = self.away() {
            return away;
        }
        self.store.set_many(entries)
    }
    fn delete(&self, keys: &[Key]) -> StoreFuture<'_, Deleted> {
        if let Some(away) = self.away() {
            return away;
        }
        let keys = keys.to_vec();
        StoreFuture::pending(async move {
            self.deletes.pass().await;
            self.store.delete(&keys).await
        })
    }
    fn clear(&self, pattern: &Pattern, mode: ClearMode) -> StoreFuture<'_, Deleted> {
        if let Some(away) = self.away() {
            return away;
        }
        let pattern = pattern.clone();
        StoreFuture::pending(async move {
            self.deletes.pass().await;
            self.store.clear(&pattern, mode).await
        })
    }
    fn acquire(&self, keys: &[Key], time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        if let Some(away) = self.away() {
            return away;
        }
        let acquired = self.store.acquire(keys, time);
        StoreFuture::pending(async move {
            let acquired = acquired.await;
            self.reads.pass().await;
            acquired
        })
    }
    fn extend(&self, leases: &[Lease], time: Duration) -> StoreFuture<'_, Vec<bool>> {
        if let Some(away) = self.away() {
            return away;
        }
        self.store.extend(leases, time)
    }
    fn release(&self, leases: &[Lease], released: Released) -> StoreFuture<'_, Vec<bool>> {
        if let Some(away) = self.away() {
            return away;
        }
        self.store.release(leases, released)
    }
    fn versions(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        if let Some(away) = self.away() {
            return away;
        }
        self.store.versions(service, names)
    }
    fn renew(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, ()> {
        if let Some(away) = self.away() {
            return away;
        }
        self.store.renew(service, names)
    }
    fn beside(&self, key: &Key, names: &[VersionName]) -> StoreFuture<'_, larder_core::Beside> {
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
        "slow".to_owned()
    }
}
