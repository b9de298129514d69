//! Every answer is recorded once for each who asked, and every load's time once.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;

use larder_core::{Cache, Event, Key, LoadError, Mode, Outcome, PolicyPatch};
use serde::{Serialize, Serializer};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::{Failed, Steered, key, steered, until};

/// What a test looks at of an event: outcome, whether it is an error, whether it tells a load's time.
type Seen = (Outcome, bool, bool);

const HIT: Seen = (Outcome::Hit, false, false);
const LOADED: Seen = (Outcome::Miss, false, true);
const JOINED: Seen = (Outcome::Miss, false, false);
const FAILED: Seen = (Outcome::Miss, true, true);
const JOINED_FAILED: Seen = (Outcome::Miss, true, false);
const BYPASSED: Seen = (Outcome::Bypass, false, true);
const BYPASSED_FAILED: Seen = (Outcome::Bypass, true, true);

fn seen(governor: &Steered, key: &Key) -> Vec<Seen> {
    let seen = |event: Event| (event.outcome, event.is_error, event.latency.is_some());
    governor.events(key).into_iter().map(seen).collect()
}

fn off() -> PolicyPatch {
    PolicyPatch {
        mode: Some(Mode::Off),
        ..PolicyPatch::default()
    }
}

async fn load(cache: &Cache, key: &Key) {
    let loader = || async { Ok::<_, Failed>(1_u32) };
    cache.get_or_load(key, loader).await.unwrap();
}

async fn fail(cache: &Cache, key: &Key) {
    let loader = || async { Err::<u32, _>(Failed("no")) };
    cache.get_or_load(key, loader).await.unwrap_err();
}

/// How a load of text ends.
#[derive(Clone, Copy)]
enum End {
    Value,
    Error,
    Panic,
    Never,
}

/// Lookups of one key that wait for one load; the first one's is the load.
async fn joined(cache: &Cache, key: &Key, count: usize, end: End) -> Vec<JoinHandle<bool>> {
    let go = Arc::new(Notify::new());
    let lookups = (0..count)
        .map(|_| {
            let (cache, key, go) = (cache.clone(), key.clone(), Arc::clone(&go));
            tokio::spawn(async move {
                let loader = move || async move {
                    go.notified().await;
                    match end {
                        End::Value => Ok("value".to_owned()),
                        End::Error => Err(Failed("no")),
                        End::Panic => panic!("no such table"),
                        End::Never => std::future::pending().await,
                    }
                };
                cache.get_or_load(&key, loader).await.is_ok()
            })
        })
        .collect();
    let others = count as u64 - 1;
    until("all wait", || cache.counts().joined == others).await;
    until("the load began", || cache.counts().loads == 1).await;
    go.notify_one();
    lookups
}

#[tokio::test]
async fn a_miss_a_hit_a_bypass_and_an_error() {
    let (cache, governor, _) = steered();
    let key = key("/a");
    fail(&cache, &key).await;
    load(&cache, &key).await;
    load(&cache, &key).await;
    governor.set(&off());
    load(&cache, &key).await;
    fail(&cache, &key).await;
    let expected = [FAILED, LOADED, HIT, BYPASSED, BYPASSED_FAILED];
    assert_eq!(seen(&governor, &key), expected);
}

#[tokio::test(start_paused = true)]
async fn all_who_waited_for_a_load_however_it_ends() {
    let ends = [
        ("/value", End::Value, LOADED, JOINED),
        ("/error", End::Error, FAILED, JOINED_FAILED),
        ("/panic", End::Panic, FAILED, JOINED_FAILED),
        ("/never", End::Never, FAILED, JOINED_FAILED),
    ];
    for (endpoint, end, first, other) in ends {
        let (cache, governor, _) = steered();
        let key = key(endpoint);
        for lookup in joined(&cache, &key, 3, end).await {
            assert_eq!(lookup.await.unwrap(), matches!(end, End::Value));
        }
        let expected = [first, other, other];
        assert_eq!(seen(&governor, &key), expected, "{endpoint}");
    }
}

/// It can't be written as JSON.
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

#[tokio::test]
async fn a_value_that_is_no_json() {
    let (cache, governor, _) = steered();
    let key = key("/a");
    let loader = || async { Ok::<_, Failed>(Unwritable) };
    let error = cache.get_or_load_json(&key, loader).await.unwrap_err();
    assert!(matches!(error, LoadError::NotJson(_)), "{error}");
    assert_eq!(seen(&governor, &key), [FAILED]);
}

#[tokio::test]
async fn a_joined_load_of_another_type_and_the_time_stays_with_those_whose_type_it_is() {
    let (cache, governor, _) = steered();
    let key = key("/a");
    let go = Arc::new(Notify::new());
    let text = |go: Arc<Notify>| {
        let (cache, key) = (cache.clone(), key.clone());
        tokio::spawn(async move {
            let loader = move || async move {
                go.notified().await;
                Ok::<_, Failed>("text".to_owned())
            };
            cache.get_or_load(&key, loader).await.unwrap();
        })
    };
    let gone = text(Arc::clone(&go));
    until("the load began", || cache.counts().loads == 1).await;
    let number = {
        let (cache, key) = (cache.clone(), key.clone());
        tokio::spawn(async move { load(&cache, &key).await })
    };
    until("the other type waits", || cache.counts().joined == 1).await;
    let same = text(Arc::clone(&go));
    until("the same type waits", || cache.counts().joined == 2).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    go.notify_one();
    number.await.unwrap();
    same.await.unwrap();
    assert_eq!(seen(&governor, &key), [LOADED, LOADED]);
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_time().build().unwrap()
}

/// Begins a lookup whose load runs on another runtime, while the lookup itself goes on here.
async fn begin_on<T>(runtime: &Runtime, mut lookup: Pin<&mut impl Future<Output = T>>) {
    std::future::poll_fn(|context| {
        let _entered = runtime.enter();
        assert!(lookup.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_load_whose_runtime_ended() {
    let (cache, governor, _) = steered();
    let key = key("/a");
    let other = runtime();
    let loader = || std::future::pending::<Result<u32, Failed>>();
    let mut lookup = pin!(cache.get_or_load(&key, loader));
    begin_on(&other, lookup.as_mut()).await;
    until("the load began", || cache.counts().loads == 1).await;
    let joined = {
        let (cache, key) = (cache.clone(), key.clone());
        tokio::spawn(async move { load(&cache, &key).await })
    };
    until("the other waits", || cache.counts().joined == 1).await;
    other.shutdown_background();
    let error = lookup.await.unwrap_err();
    assert!(matches!(error, LoadError::Abandoned), "{error}");
    // It has a loader of its own.
    joined.await.unwrap();
    let mut seen = seen(&governor, &key);
    seen.sort_by_key(|(_, is_error, _)| *is_error);
    assert_eq!(seen, [LOADED, JOINED_FAILED]);
}

async fn load_many(
    cache: &Cache,
    keys: &[Key],
    made: Result<u32, Failed>,
) -> Result<usize, LoadError<Failed>> {
    let loader = move |missing: Vec<Key>| async move {
        let made = made?;
        Ok(missing
            .into_iter()
            .map(|key| (key, made))
            .collect::<HashMap<_, _>>())
    };
    let answers = cache.get_or_load_many(keys, loader).await?;
    Ok(answers.len())
}

#[tokio::test]
async fn every_key_of_a_batch_whether_its_load_fails_or_not() {
    let (cache, governor, _) = steered();
    let [on, off_too, stored] = ["/on", "/off", "/stored"].map(key);
    governor.set_for(&off_too, &off());
    load(&cache, &stored).await;
    let keys = [on.clone(), off_too.clone(), stored.clone(), on.clone()];
    let failed = load_many(&cache, &keys, Err(Failed("no"))).await;
    assert!(matches!(failed, Err(LoadError::Loader(_))), "{failed:?}");
    assert_eq!(load_many(&cache, &keys, Ok(1)).await.unwrap(), 4);
    assert_eq!(seen(&governor, &on), [FAILED, LOADED]);
    assert_eq!(seen(&governor, &off_too), [BYPASSED_FAILED, BYPASSED]);
    assert_eq!(seen(&governor, &stored), [LOADED, HIT, HIT]);
}

#[tokio::test]
async fn every_key_of_a_batch_that_joins_a_load_that_fails() {
    let (cache, governor, _) = steered();
    let [one, two] = ["/one", "/two"].map(key);
    let go = Arc::new(Notify::new());
    let single = {
        let (cache, key, go) = (cache.clone(), one.clone(), Arc::clone(&go));
        tokio::spawn(async move {
            let loader = move || async move {
                go.notified().await;
                Err::<Option<u32>, _>(Failed("no"))
            };
            cache.get_or_load_optional(&key, loader).await.is_err()
        })
    };
    until("the load began", || cache.counts().loads == 1).await;
    let batch = {
        let (cache, keys) = (cache.clone(), [one.clone(), two.clone()]);
        tokio::spawn(async move { load_many(&cache, &keys, Ok(1)).await.is_err() })
    };
    until("the batch waits", || cache.counts().joined == 1).await;
    go.notify_one();
    assert!(single.await.unwrap() && batch.await.unwrap());
    assert_eq!(seen(&governor, &one), [FAILED, JOINED_FAILED]);
    assert_eq!(seen(&governor, &two), [LOADED]);
}

#[tokio::test]
async fn a_batch_that_failed_waits_for_no_other_load_and_does_not_judge_it() {
    let (cache, governor, _) = steered();
    let [own, joined] = ["/own", "/joined"].map(key);
    let endless = {
        let (cache, key) = (cache.clone(), joined.clone());
        tokio::spawn(async move {
            let loader = || std::future::pending::<Result<Option<u32>, Failed>>();
            cache.get_or_load_optional(&key, loader).await.is_ok()
        })
    };
    until("the load began", || cache.counts().loads == 1).await;
    let keys = [joined.clone(), own.clone()];
    let failed = load_many(&cache, &keys, Err(Failed("no"))).await;
    assert!(matches!(failed, Err(LoadError::Loader(_))), "{failed:?}");
    assert_eq!(seen(&governor, &own), [FAILED]);
    assert_eq!(seen(&governor, &joined), [JOINED]);
    endless.abort();
}

#[tokio::test]
async fn a_batch_whose_runtime_ended_and_one_that_had_joined_it() {
    let (cache, governor, _) = steered();
    let key = key("/a");
    let other = runtime();
    let keys = [key.clone()];
    let loader = |_| std::future::pending::<Result<HashMap<Key, u32>, Failed>>();
    let mut lookup = pin!(cache.get_or_load_many(&keys, loader));
    begin_on(&other, lookup.as_mut()).await;
    until("the load began", || cache.counts().loads == 1).await;
    let joined = {
        let (cache, keys) = (cache.clone(), keys.clone());
        tokio::spawn(async move { load_many(&cache, &keys, Ok(1)).await })
    };
    until("the other batch waits", || cache.counts().joined == 1).await;
    other.shutdown_background();
    let error = lookup.await.unwrap_err();
    assert!(matches!(error, LoadError::Abandoned), "{error}");
    let error = joined.await.unwrap().unwrap_err();
    assert!(matches!(error, LoadError::Abandoned), "{error}");
    assert_eq!(seen(&governor, &key), [JOINED_FAILED, JOINED_FAILED]);
}
