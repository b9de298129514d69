//! What the store could not be told: hidden here at once, told to it before it is used for it again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use larder_core::{
    Cache, FixedGovernor, Invalidated, Outcome, Pattern, PolicyPatch, Service, Store, Tag, Ttl,
};
use larder_testing::slow::Slow;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::{Calls, Failed, key, policy, until};

const TTL: Duration = Duration::from_secs(300);

fn cache(slow: &Arc<Slow>, patch: &PolicyPatch) -> Cache {
    Cache::builder(Service::new("svc").unwrap())
        .store(Arc::clone(slow) as Arc<dyn Store>)
        .governor(Arc::new(FixedGovernor::new(policy(patch))))
        .build()
}

async fn load(cache: &Cache, endpoint: &str, value: u32) -> (u32, Outcome) {
    let loader = move || async move { Ok::<_, Failed>(value) };
    let answer = cache.get_or_load(&key(endpoint), loader).await.unwrap();
    (answer.value, answer.outcome)
}

/// A lookup whose load ends when it may.
fn load_when(
    cache: &Cache,
    calls: &Calls,
    may_end: &Arc<Semaphore>,
    value: u32,
) -> JoinHandle<u32> {
    let (cache, calls, may_end) = (cache.clone(), calls.clone(), Arc::clone(may_end));
    tokio::spawn(async move {
        let loader = move || async move {
            calls.add();
            may_end.acquire().await.unwrap().forget();
            Ok::<_, Failed>(value)
        };
        cache.get_or_load(&key("/a"), loader).await.unwrap().value
    })
}

/// Waits until all that is pending was told.
async fn until_told(cache: &Cache) {
    let began = Instant::now();
    while !cache.outbox().is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it was never told"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_that_failed_hides_the_entry_until_it_is_done() {
    let slow = Slow::new();
    let cache = cache(&slow, &PolicyPatch::default());
    assert_eq!(load(&cache, "/a", 1).await, (1, Outcome::Miss));
    slow.is_away.store(true, Ordering::SeqCst);
    let deleted = cache.delete(&key("/a")).await;
    assert!(matches!(deleted, Invalidated::Pending { .. }), "{deleted}");
    slow.is_away.store(false, Ordering::SeqCst);
    // Whether it was told in the meantime or not.
    assert_ne!(load(&cache, "/a", 2).await.0, 1);
    until_told(&cache).await;
    assert_ne!(load(&cache, "/a", 3).await.0, 1);
    let stored = slow.store().get(&key("/a"), Ttl::MAX).await.unwrap();
    assert_ne!(stored.map(|stored| stored.bytes), Some("1".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_failed_hides_the_value_before_it() {
    let slow = Slow::new();
    let cache = cache(&slow, &PolicyPatch::default());
    assert!(cache.set(&key("/a"), &1, TTL).await.is_stored());
    slow.is_away.store(true, Ordering::SeqCst);
    assert!(!cache.set(&key("/a"), &2, TTL).await.is_stored());
    slow.is_away.store(false, Ordering::SeqCst);
    assert_eq!(cache.get::<u32>(&key("/a")).await, None);
    until_told(&cache).await;
    assert_eq!(cache.get::<u32>(&key("/a")).await, None);
    assert!(cache.set(&key("/a"), &3, TTL).await.is_stored());
    assert_eq!(cache.get::<u32>(&key("/a")).await, Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_and_a_tag_that_failed_hide_what_they_mean() {
    let tag = Tag::new("products").unwrap();
    let slow = Slow::new();
    let tagged = PolicyPatch {
        tags: Some(vec![tag.clone()]),
        ..PolicyPatch::default()
    };
    let cache = cache(&slow, &tagged);
    for endpoint in ["/a", "/b/1"] {
        load(&cache, endpoint, 1).await;
        assert_eq!(load(&cache, endpoint, 2).await, (1, Outcome::Hit));
    }
    slow.is_away.store(true, Ordering::SeqCst);
    let pattern = Pattern::parse("cache:svc:/b/*").unwrap();
    assert!(!cache.clear(&pattern).await.is_done());
    assert!(!cache.invalidate_tag(&tag).await.is_done());
    slow.is_away.store(false, Ordering::SeqCst);
    for endpoint in ["/a", "/b/1"] {
        assert_ne!(load(&cache, endpoint, 3).await.0, 1, "{endpoint}");
    }
    until_told(&cache).await;
    for endpoint in ["/a", "/b/1"] {
        assert_ne!(load(&cache, endpoint, 4).await.0, 1, "{endpoint}");
    }
}

#[tokio::test]
async fn who_joins_a_load_of_what_is_pending_here_after_anothers_delete_gets_a_new_one() {
    let slow = Slow::new();
    let cache = cache(&slow, &PolicyPatch::default());
    slow.is_away.store(true, Ordering::SeqCst);
    assert!(!cache.delete(&key("/a")).await.is_done());
    let (calls, may_end) = (Calls::default(), Arc::new(Semaphore::new(0)));
    let load = |value| load_when(&cache, &calls, &may_end, value);
    let pilot = load(1);
    until("it loads", || calls.count() == 1).await;
    // Another process has the store, and nobody here is told.
    slow.store().delete(&[key("/a")]).await.unwrap();
    let late = load(2);
    until("it joined", || cache.counts().joined == 1).await;
    may_end.add_permits(2);
    assert_eq!((pilot.await.unwrap(), late.await.unwrap()), (1, 2));
}

/// Another process may have the store, and invalidate what this one loads.
#[tokio::test]
async fn with_the_store_away_who_comes_two_seconds_after_a_load_began_gets_a_new_one() {
    let slow = Slow::new();
    let cache = cache(&slow, &PolicyPatch::default());
    slow.is_away.store(true, Ordering::SeqCst);
    let (calls, may_end) = (Calls::default(), Arc::new(Semaphore::new(0)));
    let load = |value| load_when(&cache, &calls, &may_end, value);
    let pilot = load(1);
    until("it loads", || calls.count() == 1).await;
    // What is looked at is time.
    tokio::time::sleep(Duration::from_millis(2_050)).await;
    let late = load(2);
    until("it joined", || cache.counts().joined == 1).await;
    may_end.add_permits(2);
    assert_eq!((pilot.await.unwrap(), late.await.unwrap()), (1, 2));
}

#[tokio::test]
async fn with_the_store_away_every_load_is_shared_and_none_is_lost() {
    let slow = Slow::new();
    let cache = cache(&slow, &PolicyPatch::default());
    slow.is_away.store(true, Ordering::SeqCst);
    let loads = (0..100).map(|_| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let loader = || async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok::<_, Failed>(7)
            };
            cache.get_or_load(&key("/a"), loader).await.unwrap().value
        })
    });
    let loads: Vec<_> = loads.collect();
    for load in loads {
        assert_eq!(load.await.unwrap(), 7);
    }
    assert_eq!(cache.counts().loads, 1, "single flight protects the origin");
}
