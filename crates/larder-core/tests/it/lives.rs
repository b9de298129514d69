//! No entry lives longer than the policy in force allows, whenever that changed.

use std::collections::HashMap;
use std::sync::Arc;

use larder_core::{Cache, InProcess, Key, Mode, Outcome, PolicyPatch, Store, Tag, Ttl};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::{Failed, key, steered, until};

fn lives(ttl: f64, negative_ttl: f64) -> PolicyPatch {
    PolicyPatch {
        ttl_seconds: Some(ttl),
        negative_ttl_seconds: Some(negative_ttl),
        jitter: Some(0.0),
        ..PolicyPatch::default()
    }
}

/// How long an entry has to live, in seconds, rounded up.
async fn left(store: &InProcess, key: &Key) -> Option<u64> {
    let stored = store.get(key, Ttl::MAX).await.unwrap()?;
    Some(stored.ttl.unwrap().as_secs_f64().ceil() as u64)
}

async fn find(cache: &Cache, key: &Key, found: Option<u32>) -> Outcome {
    let loader = move || async move { Ok::<_, Failed>(found) };
    let answer = cache.get_or_load_optional(key, loader).await.unwrap();
    assert_eq!(answer.value, found);
    answer.outcome
}

/// Finds 1 under every key.
async fn find_many(cache: &Cache, keys: &[Key]) -> Vec<Outcome> {
    let loader = |missing: Vec<Key>| async move {
        Ok::<HashMap<_, _>, Failed>(missing.into_iter().map(|key| (key, 1_u32)).collect())
    };
    let answers = cache.get_or_load_many(keys, loader).await.unwrap();
    assert!(answers.iter().all(|answer| answer.value == Some(1)));
    answers.into_iter().map(|answer| answer.outcome).collect()
}

#[tokio::test]
async fn a_batch_cuts_each_entry_to_the_ttl_of_its_own_policy() {
    let (cache, governor, store) = steered();
    let [short, long, none] = ["/short", "/long", "/none"].map(key);
    let keys = [long.clone(), short.clone(), none.clone()];
    governor.set(&lives(300.0, 0.0));
    find_many(&cache, &keys).await;
    governor.set_for(&short, &lives(10.0, 0.0));
    governor.set_for(&none, &lives(0.0, 0.0));
    let (hit, miss) = (Outcome::Hit, Outcome::Miss);
    assert_eq!(find_many(&cache, &keys).await, [hit, hit, miss]);
    assert_eq!(left(&store, &short).await, Some(10));
    assert_eq!(left(&store, &long).await, Some(300));
}

#[tokio::test]
async fn a_value_lives_no_longer_than_ttl_where_negative_ttl_is_longer() {
    let (cache, governor, store) = steered();
    let [typed, optional, many] = ["/typed", "/optional", "/many"].map(key);
    governor.set(&lives(300.0, 0.0));
    for key in [&typed, &optional, &many] {
        find(&cache, key, Some(1)).await;
    }
    governor.set(&lives(10.0, 100.0));
    let loader = || async { Ok::<_, Failed>(1_u32) };
    let answer = cache.get_or_load(&typed, loader).await.unwrap();
    assert_eq!(answer.outcome, Outcome::Hit);
    assert_eq!(find(&cache, &optional, Some(1)).await, Outcome::Hit);
    let found = find_many(&cache, std::slice::from_ref(&many)).await;
    assert_eq!(found, [Outcome::Hit]);
    for key in [&typed, &optional, &many] {
        assert_eq!(left(&store, key).await, Some(10), "{key}");
    }
}

#[tokio::test]
async fn an_absent_answer_lives_no_longer_than_negative_ttl() {
    let (cache, governor, store) = steered();
    let [one, many] = ["/one", "/many"].map(key);
    governor.set(&lives(300.0, 100.0));
    for key in [&one, &many] {
        find(&cache, key, None).await;
    }
    governor.set(&lives(300.0, 5.0));
    assert_eq!(find(&cache, &one, None).await, Outcome::Hit);
    let loader = |_missing| async { Ok::<HashMap<Key, u32>, Failed>(HashMap::new()) };
    let keys = std::slice::from_ref(&many);
    let found = cache.get_or_load_many(keys, loader).await.unwrap();
    assert_eq!(found[0].outcome, Outcome::Hit);
    for key in [&one, &many] {
        assert_eq!(left(&store, key).await, Some(5), "{key}");
    }
}

#[tokio::test]
async fn what_may_not_be_stored_any_more_is_not_handed_out() {
    let (cache, governor, store) = steered();
    let [value, absent] = ["/value", "/absent"].map(key);
    governor.set(&lives(300.0, 300.0));
    find(&cache, &value, Some(1)).await;
    find(&cache, &absent, None).await;
    governor.set(&lives(0.0, 300.0));
    assert_eq!(find(&cache, &value, Some(1)).await, Outcome::Miss);
    let found = find_many(&cache, std::slice::from_ref(&value)).await;
    assert_eq!(found, [Outcome::Miss]);
    assert_eq!(find(&cache, &absent, None).await, Outcome::Hit);
    assert_eq!(left(&store, &absent).await, Some(300));
    governor.set(&lives(300.0, 0.0));
    assert_eq!(find(&cache, &absent, None).await, Outcome::Miss);
}

/// Loads of text that are under way, one alone and one of a batch, until they are told to go on.
struct UnderWay {
    go: Arc<Semaphore>,
    loads: Vec<JoinHandle<()>>,
}

impl UnderWay {
    async fn begin(cache: &Cache, one: &Key, many: &Key) -> Self {
        let go = Arc::new(Semaphore::new(0));
        let single = {
            let (cache, key, go) = (cache.clone(), one.clone(), Arc::clone(&go));
            tokio::spawn(async move {
                let loader = move || async move {
                    go.acquire().await.unwrap().forget();
                    Ok::<_, Failed>("x".repeat(200))
                };
                cache.get_or_load(&key, loader).await.unwrap();
            })
        };
        let batch = {
            let (cache, key, go) = (cache.clone(), many.clone(), Arc::clone(&go));
            tokio::spawn(async move {
                let loader = move |missing: Vec<Key>| async move {
                    go.acquire().await.unwrap().forget();
                    let text = |key| (key, "x".repeat(200));
                    Ok::<HashMap<_, _>, Failed>(missing.into_iter().map(text).collect())
                };
                cache.get_or_load_many(&[key], loader).await.unwrap();
            })
        };
        until("both loads began", || cache.counts().loads == 2).await;
        let loads = vec![single, batch];
        Self { go, loads }
    }

    async fn end(self) {
        self.go.add_permits(self.loads.len());
        for load in self.loads {
            load.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_ttl_that_became_shorter_during_a_load_counts() {
    let (cache, governor, store) = steered();
    let keys = ["/one", "/many"].map(key);
    governor.set(&lives(300.0, 0.0));
    let under_way = UnderWay::begin(&cache, &keys[0], &keys[1]).await;
    governor.set(&lives(10.0, 0.0));
    under_way.end().await;
    for key in &keys {
        assert_eq!(left(&store, key).await, Some(10), "{key}");
    }
}

#[tokio::test]
async fn a_size_that_became_too_large_during_a_load_is_not_stored() {
    let (cache, governor, store) = steered();
    let keys = ["/one", "/many"].map(key);
    let under_way = UnderWay::begin(&cache, &keys[0], &keys[1]).await;
    governor.set(&PolicyPatch {
        max_value_bytes: Some(100),
        ..PolicyPatch::default()
    });
    under_way.end().await;
    for key in &keys {
        assert_eq!(left(&store, key).await, None, "{key}");
    }
    assert_eq!(cache.counts().too_large, 2);
}

#[tokio::test]
async fn a_framed_value_that_is_larger_than_is_allowed_now_is_not_read() {
    let (cache, governor, _) = steered();
    let tagged = |max_value_bytes| PolicyPatch {
        tags: Some(vec![Tag::new("t").unwrap()]),
        max_value_bytes: Some(max_value_bytes),
        ..PolicyPatch::default()
    };
    let look = || async {
        let load = || async { Ok::<_, Failed>("x".repeat(200)) };
        let answer = cache.get_or_load(&key("/large"), load).await.unwrap();
        answer.outcome
    };
    governor.set(&tagged(1_000));
    assert_eq!((look().await, look().await), (Outcome::Miss, Outcome::Hit));
    governor.set(&tagged(100));
    assert_eq!(look().await, Outcome::Miss);
    assert_eq!(cache.counts().undecodable, 1);
}

#[tokio::test]
async fn what_was_switched_off_during_a_load_is_not_stored() {
    let (cache, governor, store) = steered();
    let keys = ["/one", "/many"].map(key);
    let under_way = UnderWay::begin(&cache, &keys[0], &keys[1]).await;
    governor.set(&PolicyPatch {
        mode: Some(Mode::Off),
        ..PolicyPatch::default()
    });
    under_way.end().await;
    for key in &keys {
        assert_eq!(left(&store, key).await, None, "{key}");
    }
}
