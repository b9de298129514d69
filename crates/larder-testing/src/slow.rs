//! A store whose operations a test holds up, so that what happens meanwhile is certain.

// The callers are tests.
#![allow(clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_core::{
    Acquired, Beside, Cache, ClearMode, Cursor, Deleted, InProcess, Key, Lease, NewEntry, Page,
    Pattern, Proof, Released, Service, Store, StoreError, StoreFuture, StoreStats, Stored, Told,
    Ttl, VersionName, Written,
};
use tokio::sync::{Semaphore, watch};

/// Longer than anything takes that a test waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Holds up the next operation, after it was told to.
#[derive(Debug)]
pub struct Turnstile {
    is_to_hold: AtomicBool,
    held: watch::Sender<usize>,
    go: Semaphore,
}

impl Turnstile {
    fn new() -> Self {
        Self {
            is_to_hold: AtomicBool::new(false),
            held: watch::Sender::new(0),
            go: Semaphore::new(0),
        }
    }

    /// The next operation is held up.
    pub fn hold_next(&self) {
        self.is_to_hold.store(true, Ordering::SeqCst);
    }

    /// Lets one go that is held up.
    pub fn let_go(&self) {
        self.go.add_permits(1);
    }

    async fn pass(&self) {
        if self.is_to_hold.swap(false, Ordering::SeqCst) {
            self.held.send_modify(|held| *held += 1);
            self.go
                .acquire()
                .await
                .expect("it is never closed")
                .forget();
        }
    }

    /// Waits until so many were held up.
    ///
    /// # Panics
    /// Where that takes 10 s.
    pub async fn holds(&self, count: usize) {
        let mut held = self.held.subscribe();
        let held = tokio::time::timeout(PATIENCE, held.wait_for(|held| *held == count)).await;
        let is_held = held.is_ok_and(|held| held.is_ok());
        assert!(is_held, "{count} operations were never held up");
    }
}

/// A store behind turnstiles: reads (those of an acquire, too) after they have read, deletes before they delete.
pub struct Slow {
    store: Arc<dyn Store>,
    /// What reads pass.
    pub reads: Turnstile,
    /// What deletes and clears pass.
    pub deletes: Turnstile,
    /// Whether every operation fails.
    pub is_away: AtomicBool,
}

impl Slow {
    /// One over the in-process store.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::over(Arc::new(InProcess::new(64 << 20)))
    }

    /// One over another store.
    #[must_use]
    pub fn over(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            reads: Turnstile::new(),
            deletes: Turnstile::new(),
            is_away: AtomicBool::new(false),
        })
    }

    /// What is behind the turnstiles.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// A cache of the service `svc` over it.
    #[must_use]
    pub fn cache(self: &Arc<Self>) -> Cache {
        Cache::builder(Service::new("svc").expect("a name"))
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
        "slow".to_owned()
    }
}
