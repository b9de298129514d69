//! One load per key at a time, for all who ask, whoever of them goes away.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Cache, LoadError, Outcome, PolicyPatch};
use tokio::sync::Notify;

use crate::{Calls, Failed, key, steered, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_lookups_of_one_key_are_one_load() {
    let cache = Cache::in_process(64 << 20);
    let key = key("/products");
    let calls = Calls::default();
    let lookups: Vec<_> = (0..10_000)
        .map(|_| {
            let (cache, key, calls) = (cache.clone(), key.clone(), calls.clone());
            tokio::spawn(async move {
                let loader = move || async move {
                    calls.add();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok::<_, Failed>(7)
                };
                cache.get_or_load(&key, loader).await.unwrap().value
            })
        })
        .collect();
    for lookup in lookups {
        assert_eq!(lookup.await.unwrap(), 7);
    }
    assert_eq!(calls.count(), 1);
    assert_eq!(cache.counts().loads, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lookups_that_arrive_as_a_load_lands_do_not_load_again() {
    let cache = Cache::in_process(64 << 20);
    for round in 0..200 {
        let key = key(&format!("/round/{round}"));
        let calls = Calls::default();
        let lookups: Vec<_> = (0..64)
            .map(|_| {
                let (cache, key, calls) = (cache.clone(), key.clone(), calls.clone());
                tokio::spawn(async move {
                    let loader = move || async move {
                        calls.add();
                        Ok::<_, Failed>(round)
                    };
                    cache.get_or_load(&key, loader).await.unwrap()
                })
            })
            .collect();
        for lookup in lookups {
            assert_eq!(lookup.await.unwrap().value, round);
        }
        assert_eq!(calls.count(), 1, "round {round}");
    }
}

#[tokio::test]
async fn the_others_get_the_value_when_the_first_caller_goes_away() {
    let cache = Cache::in_process(64 << 20);
    let key = key("/slow");
    let go = Arc::new(Notify::new());
    let calls = Calls::default();
    let lookup = |cache: Cache| {
        let (key, go, calls) = (key.clone(), Arc::clone(&go), calls.clone());
        tokio::spawn(async move {
            let loader = move || async move {
                calls.add();
                go.notified().await;
                Ok::<_, Failed>("value".to_owned())
            };
            cache.get_or_load(&key, loader).await
        })
    };
    let first = lookup(cache.clone());
    until("the load began", || calls.count() == 1).await;
    let other = lookup(cache.clone());
    until("the other waits", || cache.counts().joined == 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    go.notify_one();
    assert_eq!(other.await.unwrap().unwrap().value, "value");
    assert_eq!(calls.count(), 1);
    assert_eq!(cache.get::<String>(&key).await.as_deref(), Some("value"));
}

#[tokio::test]
async fn every_waiter_gets_the_loaders_own_error_and_the_next_call_loads_again() {
    let cache = Cache::in_process(64 << 20);
    let key = key("/failing");
    let go = Arc::new(Notify::new());
    let waiters: Vec<_> = (0..10)
        .map(|_| {
            let (cache, key, go) = (cache.clone(), key.clone(), Arc::clone(&go));
            tokio::spawn(async move {
                let loader = move || async move {
                    go.notified().await;
                    Err::<u32, _>(Failed("the database said no"))
                };
                cache.get_or_load(&key, loader).await
            })
        })
        .collect();
    until("all wait", || cache.counts().joined == 9).await;
    go.notify_one();
    for waiter in waiters {
        match waiter.await.unwrap() {
            Err(LoadError::Loader(error)) => assert_eq!(*error, Failed("the database said no")),
            other => panic!("{other:?}"),
        }
    }
    let again = cache
        .get_or_load(&key, || async { Ok::<_, Failed>(1) })
        .await
        .unwrap();
    assert_eq!((again.value, again.outcome), (1, Outcome::Miss));
}

#[tokio::test]
async fn a_panic_is_an_error_to_every_waiter_and_the_next_call_loads_again() {
    let cache = Cache::in_process(64 << 20);
    let key = key("/panicking");
    let go = Arc::new(Notify::new());
    let waiters: Vec<_> = (0..10)
        .map(|_| {
            let (cache, key, go) = (cache.clone(), key.clone(), Arc::clone(&go));
            tokio::spawn(async move {
                let loader = move || async move {
                    go.notified().await;
                    if true {
                        panic!("no such table");
                    }
                    Ok::<u32, Failed>(0)
                };
                cache.get_or_load(&key, loader).await
            })
        })
        .collect();
    until("all wait", || cache.counts().joined == 9).await;
    go.notify_one();
    for waiter in waiters {
        match waiter.await.unwrap() {
            Err(LoadError::Panicked(message)) => assert_eq!(&*message, "no such table"),
            other => panic!("{other:?}"),
        }
    }
    let again = cache
        .get_or_load(&key, || async { Ok::<_, Failed>(1) })
        .await
        .unwrap();
    assert_eq!(again.value, 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_takes_too_long_fails() {
    let (cache, governor, _) = steered();
    governor.set(&PolicyPatch {
        load_timeout_seconds: Some(2.0),
        ..PolicyPatch::default()
    });
    let loader = || async {
        std::future::pending::<()>().await;
        Ok::<u32, Failed>(0)
    };
    let begin = tokio::time::Instant::now();
    let answer = cache.get_or_load(&key("/hanging"), loader).await;
    assert!(matches!(answer, Err(LoadError::TimedOut)), "{answer:?}");
    assert_eq!(begin.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn two_types_under_one_key_each_get_their_own() {
    let cache = Cache::in_process(64 << 20);
    let key = key("/typed");
    let go = Arc::new(Notify::new());
    let numbers = {
        let (cache, key, go) = (cache.clone(), key.clone(), Arc::clone(&go));
        tokio::spawn(async move {
            let loader = move || async move {
                go.notified().await;
                Ok::<_, Failed>(vec![1_u8])
            };
            cache.get_or_load(&key, loader).await.unwrap().value
        })
    };
    until("the load began", || cache.counts().loads == 1).await;
    let texts = {
        let (cache, key) = (cache.clone(), key.clone());
        tokio::spawn(async move {
            let loader = || async { Ok::<_, Failed>("text".to_owned()) };
            cache.get_or_load(&key, loader).await.unwrap().value
        })
    };
    until("the other waits", || cache.counts().joined == 1).await;
    go.notify_one();
    assert_eq!(numbers.await.unwrap(), [1]);
    assert_eq!(texts.await.unwrap(), "text");
}

#[test]
fn the_future_of_a_lookup_does_not_hold_the_load() {
    let cache = Cache::in_process(1 << 20);
    let key = key("/a");
    let loader = || async {
        let large = [0_u8; 4_096];
        tokio::task::yield_now().await;
        Ok::<_, Failed>(large.len())
    };
    // It is made, moved and dropped at every hit, which needs no load.
    let bytes = size_of_val(&cache.get_or_load_json(&key, loader));
    assert!(bytes < size_of_val(&loader()), "{bytes}");
}
