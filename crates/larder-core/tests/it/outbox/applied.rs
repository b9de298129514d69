//! What is pending is done to a real store, and leaves nothing on the disk.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Apply, ClearMode, Guard, InProcess, Invalidation, Kept, Key, NewEntry, Pattern, Service, Store,
    StoreError, StoreFuture, Ttl, VersionName,
};

use super::{Place, hides, keys, pattern};

/// The store in the process, of which a test says what it refuses.
pub(crate) struct Steerable {
    store: InProcess,
    refused: Mutex<Vec<String>>,
    successes: Mutex<HashMap<String, usize>>,
}

impl Default for Steerable {
    fn default() -> Self {
        Self {
            store: InProcess::new(1 << 20),
            refused: Mutex::default(),
            successes: Mutex::default(),
        }
    }
}

impl Steerable {
    /// Refuses these from now on; `*` is everything.
    pub(crate) fn refuse(&self, names: &[&str]) {
        *self.refused.lock().unwrap() = names.iter().map(|name| (*name).to_owned()).collect();
    }

    pub(crate) fn successes(&self, name: &str) -> usize {
        let successes = self.successes.lock().unwrap();
        successes.get(name).copied().unwrap_or(0)
    }

    fn pass(&self, names: Vec<String>) -> Result<(), StoreError> {
        let refused = self.refused.lock().unwrap();
        let is_refused = |name: &String| refused.iter().any(|known| known == "*" || known == name);
        if names.iter().any(is_refused) {
            return Err(StoreError::Away("by the test".to_owned()));
        }
        let mut successes = self.successes.lock().unwrap();
        for name in names {
            *successes.entry(name).or_default() += 1;
        }
        Ok(())
    }
}

impl Apply for Steerable {
    fn delete<'a>(&'a self, keys: &'a [Key]) -> StoreFuture<'a, ()> {
        StoreFuture::pending(async {
            self.pass(keys.iter().map(Key::to_string).collect())?;
            self.store.delete(keys).await.map(|_| ())
        })
    }

    fn clear<'a>(&'a self, pattern: &'a Pattern) -> StoreFuture<'a, ()> {
        StoreFuture::pending(async {
            self.pass(vec![pattern.to_string()])?;
            let cleared = self.store.clear(pattern, ClearMode::Delete).await;
            cleared.map(|_| ())
        })
    }

    fn renew<'a>(&'a self, service: &'a Service, names: &'a [VersionName]) -> StoreFuture<'a, ()> {
        let names = names.iter().map(|name| format!("{service} {name}"));
        StoreFuture::ready(self.pass(names.collect()))
    }
}

async fn put(store: &InProcess, path: &str) {
    let entry = NewEntry {
        key: crate::key(path),
        bytes: Bytes::from_static(b"1"),
        ttl: Ttl::new(Duration::from_secs(300)).unwrap(),
        guard: Guard::Always,
    };
    assert!(store.set(entry).await.unwrap().is_stored());
}

async fn has(store: &InProcess, path: &str) -> bool {
    let found = store.get(&crate::key(path), Ttl::MAX).await;
    found.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_is_gone_from_the_store_and_from_the_disk() {
    let (place, store) = (Place::new(), Steerable::default());
    for path in ["/a", "/b", "/c/1", "/c/2", "/d"] {
        put(&store.store, path).await;
    }
    let outbox = place.open();
    assert_eq!(place.names(), Vec::<String>::new(), "nothing is pending");
    assert_eq!(outbox.add(keys(&["/a", "/b"])), Kept::Pending);
    assert_eq!(outbox.add(pattern("cache:svc:/c/*")), Kept::Pending);
    assert_eq!(place.names().len(), 1);
    store.refuse(&["*"]);
    let applied = outbox.apply(&store).await;
    assert_eq!((applied.applied, applied.left), (0, 3));
    assert!(has(&store.store, "/a").await && hides(&outbox, "/a"));
    store.refuse(&[]);
    let applied = outbox.apply(&store).await;
    assert_eq!((applied.applied, applied.left, applied.error), (3, 0, None));
    for path in ["/a", "/b", "/c/1", "/c/2"] {
        assert!(
            !has(&store.store, path).await && !hides(&outbox, path),
            "{path}"
        );
    }
    assert!(has(&store.store, "/d").await);
    assert_eq!(place.names(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_is_not_adopted() {
    let (place, store) = (Place::new(), Steerable::default());
    let outbox = place.open();
    let many: Vec<String> = (0..1_500).map(|index| format!("/{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(outbox.add(keys(&many)), Kept::Pending);
    let service = Service::new("svc").unwrap();
    let versions = Invalidation::Versions(service, vec![VersionName::Endpoint(3)]);
    assert_eq!(outbox.add(versions), Kept::Pending);
    store.refuse(&["cache:svc:/700"]);
    assert_eq!(outbox.apply(&store).await.left, 1);
    drop(outbox);
    let next = place.open();
    assert_eq!(next.counts().pending, 1);
    assert!(hides(&next, "/700"));
}

#[test]
fn a_journal_does_not_grow_with_what_is_added_again_and_again() {
    let (place, store) = (Place::new(), Steerable::default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let outbox = place.open();
    assert_eq!(outbox.add(keys(&["/stays"])), Kept::Pending);
    store.refuse(&["cache:svc:/stays"]);
    let path = |index| format!("/{index}/{}", "x".repeat(900));
    for round in 0..30 {
        for index in 0..200 {
            assert_eq!(outbox.add(keys(&[&path(index)])), Kept::Pending);
            assert_eq!(outbox.add(keys(&[&path(index)])), Kept::Pending);
        }
        let length = std::fs::metadata(place.journal()).unwrap().len();
        assert!(length < 5 << 20, "round {round}: {length}");
        assert_eq!(runtime.block_on(outbox.apply(&store)).left, 1);
    }
    drop(outbox);
    let next = place.open();
    assert_eq!((next.counts().pending, next.counts().unreadable), (1, 0));
}
