//! What a governor that watches is told: every lookup, every answer of the origin, and what checks of fresh entries find.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Cache, Check, Event, Gate, Governor, Key, Named, Policy, PolicyPatch, Service, Store,
};
use larder_testing::slow::Slow;

use crate::{Calls, key, until};

#[derive(Default)]
struct Watching {
    is_watched: bool,
    check_share: u32,
    policy: Mutex<Policy>,
    lookups: Mutex<Vec<Key>>,
    answers: Mutex<Vec<(Bytes, Option<Check>)>>,
    store_errors: AtomicUsize,
    invalidated: Mutex<Vec<String>>,
}

impl Governor for Watching {
    fn gate(&self, key: &Key) -> Gate {
        Gate {
            is_watched: self.is_watched,
            check_share: self.check_share,
            ..Gate::from(&*self.policy(key))
        }
    }

    fn policy(&self, _key: &Key) -> Arc<Policy> {
        Arc::new(self.policy.lock().unwrap().clone())
    }

    fn template(&self, _key: &Key) -> Option<Box<str>> {
        None
    }

    fn record(&self, _key: &Key, _event: Event) {}

    fn record_refresh(&self, _key: &Key, _load: Option<Duration>) {}

    fn note_lookup(&self, key: &Key) {
        self.lookups.lock().unwrap().push(key.clone());
    }

    fn note_answer(&self, _key: &Key, json: &Bytes, check: Option<Check>) {
        self.answers.lock().unwrap().push((json.clone(), check));
    }

    fn note_store_error(&self) {
        self.store_errors.fetch_add(1, Ordering::Relaxed);
    }

    fn note_invalidated(&self, what: Named<'_>) {
        self.invalidated.lock().unwrap().push(format!("{what:?}"));
    }
}

fn cache(governor: Watching) -> (Cache, Arc<Watching>) {
    let governor = Arc::new(governor);
    let cache = Cache::builder(Service::new("svc").unwrap())
        .governor(Arc::clone(&governor) as Arc<dyn Governor>)
        .build();
    (cache, governor)
}

async fn load(cache: &Cache, calls: &Calls) -> usize {
    let calls = calls.clone();
    let key = key("/a");
    let loaded = cache.get_or_load(&key, move || async move { Ok::<_, ()>(calls.add()) });
    loaded.await.unwrap().value
}

/// Each hit is checked.
fn checking(policy: &str) -> (Cache, Arc<Watching>) {
    let (cache, governor) = cache(Watching {
        is_watched: true,
        check_share: u32::MAX,
        ..Watching::default()
    });
    governor.set(policy);
    (cache, governor)
}

impl Watching {
    fn set(&self, policy: &str) {
        let patch: PolicyPatch = serde_json::from_str(policy).unwrap();
        *self.policy.lock().unwrap() = patch.apply(&Policy::default()).unwrap();
    }
}

/// What the check of a hit on an entry found that was stored under one policy, and is read under another.
async fn checked(stored: &str, read: &str) -> Option<Check> {
    let (cache, governor) = checking(stored);
    let calls = Calls::default();
    load(&cache, &calls).await;
    governor.set(read);
    load(&cache, &calls).await;
    let is_checked = || governor.answers.lock().unwrap().len() == 2;
    until("it is checked", is_checked).await;
    governor.answers.lock().unwrap()[1].1
}

#[tokio::test]
async fn a_checked_entry_is_never_taken_for_older_than_it_is() {
    // It says its age itself.
    let framed = r#"{"ttl_seconds":60,"stale_if_error_seconds":60}"#;
    let longer = r#"{"ttl_seconds":3600,"stale_if_error_seconds":60}"#;
    let check = checked(framed, longer).await.unwrap();
    assert!(check.age < Duration::from_secs(30), "{check:?}");
    assert!(!check.is_by_ttl && check.has_changed);
    // It does not, and who knows the TTLs is told that it is said by that in force.
    let longer = r#"{"ttl_seconds":3600,"jitter":0}"#;
    let check = checked(r#"{"ttl_seconds":60,"jitter":0}"#, longer).await;
    assert!(check.unwrap().is_by_ttl, "{check:?}");
    // It may be so much older or younger by chance that nothing is known.
    let even = r#"{"ttl_seconds":60,"jitter":1}"#;
    assert_eq!(
        checked(r#"{"ttl_seconds":60,"jitter":0}"#, even).await,
        None
    );
}

#[tokio::test]
async fn a_store_that_fails_is_told() {
    let (store, governor) = (Slow::new(), Arc::new(Watching::default()));
    let cache = Cache::builder(Service::new("svc").unwrap())
        .governor(Arc::clone(&governor) as Arc<dyn Governor>)
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .build();
    load(&cache, &Calls::default()).await;
    let told = || governor.store_errors.load(Ordering::Relaxed);
    assert_eq!(told(), 0);
    store.is_away.store(true, Ordering::SeqCst);
    load(&cache, &Calls::default()).await;
    assert!(told() > 0);
}

#[tokio::test]
async fn a_hit_that_is_checked_tells_what_changed_and_is_answered_at_once() {
    let (cache, governor) = checking(r#"{"jitter":0}"#);
    let calls = Calls::default();
    assert_eq!(load(&cache, &calls).await, 1);
    assert_eq!(
        load(&cache, &calls).await,
        1,
        "the entry answers, not the check"
    );
    until("it is checked", || {
        governor.answers.lock().unwrap().len() == 2
    })
    .await;
    let answers = governor.answers.lock().unwrap().clone();
    assert_eq!((&answers[0].0[..], answers[0].1), (&b"1"[..], None));
    let check = answers[1].1.unwrap();
    assert!(
        check.has_changed && check.age < Duration::from_secs(60),
        "{check:?}"
    );
    assert_eq!(governor.lookups.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn who_does_not_watch_is_told_nothing_and_nothing_is_checked() {
    let (cache, governor) = cache(Watching {
        check_share: u32::MAX,
        ..Watching::default()
    });
    let calls = Calls::default();
    for _ in 0..100 {
        load(&cache, &calls).await;
    }
    assert_eq!(calls.count(), 1);
    assert!(governor.lookups.lock().unwrap().is_empty());
    assert!(governor.answers.lock().unwrap().is_empty());
}

#[tokio::test]
async fn invalidations_are_told() {
    let (cache, governor) = cache(Watching::default());
    let _ = cache.delete(&key("/a")).await;
    let _ = cache
        .invalidate_tag(&larder_core::Tag::new("t").unwrap())
        .await;
    let _ = cache.invalidate_service().await;
    let told = governor.invalidated.lock().unwrap().join(" ");
    for word in ["Keys", "Tag", "Endpoint(None)"] {
        assert!(told.contains(word), "{told}");
    }
}

/// What is set replaces what a load would have found, one value or many.
#[tokio::test]
async fn what_is_set_is_told() {
    let (cache, governor) = cache(Watching::default());
    let life = Duration::from_secs(60);
    assert!(cache.set(&key("/a"), &1, life).await.is_stored());
    let many = [(key("/b"), 2), (key("/c"), 3)];
    let written = cache.set_many(&many, life).await;
    assert!(written.iter().all(|written| written.is_stored()));
    let told = governor.invalidated.lock().unwrap().join(" ");
    for path in ["/a", "/b", "/c"] {
        assert!(told.contains(path), "{told}");
    }
}
