//! What boards while a delete is under way may have found the old value: who begins after the delete must not join it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_core::{
    Cache, ClearMode, Cursor, Deleted, InProcess, Key, NewEntry, Page, Pattern, Service, Store,
    StoreFuture, StoreStats, Stored, Ttl, Written,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::{Failed, key, until};

/// Holds up the next operation, after it was told to.
struct Turnstile {
    to_hold: AtomicUsize,
    held: AtomicUsize,
    go: Semaphore,
}

impl Turnstile {
    fn new() -> Self {
        Self {
            to_hold: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            go: Semaphore::new(0),
        }
    }

    fn hold_next(&self) {
        self.to_hold.store(1, Ordering::SeqCst);
    }

    async fn pass(&self) {
        if self.to_hold.swap(0, Ordering::SeqCst) == 1 {
            self.held.fetch_add(1, Ordering::SeqCst);
            self.go.acquire().await.unwrap().forget();
        }
    }

    async fn holds(&self, count: usize) {
        until("an operation is held up", || {
            self.held.load(Ordering::SeqCst) == count
        })
        .await;
    }
}

/// The in-process store, behind turnstiles: reads after they have read, deletes before they delete.
struct Slow {
    store: InProcess,
    reads: Turnstile,
    deletes: Turnstile,
}

impl Store for Slow {
    fn get(&self, key: &Key, longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        let found = self.store.get(key, longest);
        StoreFuture::pending(async move {
            let found = found.await;
            self.reads.pass().await;
            found
        })
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
        let keys = keys.to_vec();
        StoreFuture::pending(async move {
            self.deletes.pass().await;
            self.store.delete(&keys).await
        })
    }
    fn clear(&self, pattern: &Pattern, mode: ClearMode) -> StoreFuture<'_, Deleted> {
        let pattern = pattern.clone();
        StoreFuture::pending(async move {
            self.deletes.pass().await;
            self.store.clear(&pattern, mode).await
        })
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

fn load(cache: &Cache, key: &Key, value: &'static str) -> JoinHandle<String> {
    let (cache, key) = (cache.clone(), key.clone());
    tokio::spawn(async move {
        let loader = move || async move { Ok::<_, Failed>(value.to_owned()) };
        cache.get_or_load(&key, loader).await.unwrap().value
    })
}

async fn nobody_joins_what_boarded_during<D>(delete: impl FnOnce(Cache, Key) -> JoinHandle<D>) {
    let slow = Arc::new(Slow {
        store: InProcess::new(64 << 20),
        reads: Turnstile::new(),
        deletes: Turnstile::new(),
    });
    let cache = Cache::builder(Service::new("svc").unwrap())
        .store(Arc::clone(&slow) as Arc<dyn Store>)
        .build();
    let key = key("/products");

    // One reads that there is nothing, and is held up; meanwhile another loads and fills.
    slow.reads.hold_next();
    let early = load(&cache, &key, "never loaded");
    slow.reads.holds(1).await;
    assert_eq!(load(&cache, &key, "old").await.unwrap(), "old");

    // A delete is under way when the first goes on: it reads again, finds the old value, and is held up with it.
    slow.deletes.hold_next();
    let deleted = delete(cache.clone(), key.clone());
    slow.deletes.holds(1).await;
    slow.reads.hold_next();
    slow.reads.go.add_permits(1);
    slow.reads.holds(2).await;
    slow.deletes.go.add_permits(1);
    deleted.await.unwrap();

    let late = load(&cache, &key, "new");
    let joined = cache.counts().joined;
    until("the late one has joined or has its answer", || {
        cache.counts().joined > joined || late.is_finished()
    })
    .await;
    slow.reads.go.add_permits(1);
    assert_eq!(early.await.unwrap(), "old", "it began before the delete");
    assert_eq!(late.await.unwrap(), "new", "it began after the delete");
}

#[tokio::test]
async fn nobody_joins_what_boarded_during_a_delete() {
    nobody_joins_what_boarded_during(|cache, key| {
        tokio::spawn(async move { cache.delete(&key).await.unwrap() })
    })
    .await;
}

#[tokio::test]
async fn nobody_joins_what_boarded_during_a_clear() {
    nobody_joins_what_boarded_during(|cache, _key| {
        tokio::spawn(async move {
            let pattern = Pattern::parse("cache:svc:*").unwrap();
            cache.clear(&pattern).await.unwrap()
        })
    })
    .await;
}
