//! Many keys at once: one read, one call of the loader for all that is missing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_core::{Cache, Key, LoadError, Mode, Outcome, PolicyPatch};

use crate::{Failed, key, steered, until};

fn keys(numbers: &[u32]) -> Vec<Key> {
    numbers
        .iter()
        .map(|number| key(&format!("/p/{number}")))
        .collect()
}

/// Loads each key's own number, and notes which keys were asked for.
async fn load(
    cache: &Cache,
    numbers: &[u32],
    asked: &Arc<Mutex<Vec<Vec<Key>>>>,
) -> Vec<(Option<u32>, Outcome)> {
    let asked = Arc::clone(asked);
    let loader = move |missing: Vec<Key>| async move {
        let number = |key: &Key| {
            key.path()
                .rsplit('/')
                .next()
                .unwrap()
                .parse::<u32>()
                .unwrap()
        };
        let loaded = missing
            .iter()
            .map(|key| (key.clone(), number(key)))
            .collect::<HashMap<_, _>>();
        asked.lock().unwrap().push(missing);
        Ok::<_, Failed>(loaded)
    };
    let answers = cache
        .get_or_load_many(&keys(numbers), loader)
        .await
        .unwrap();
    answers
        .into_iter()
        .map(|answer| (answer.value, answer.outcome))
        .collect()
}

#[tokio::test]
async fn one_call_loads_all_that_is_missing_and_only_that() {
    let cache = Cache::in_process(64 << 20);
    let asked = Arc::default();
    let set = cache
        .set(&key("/p/2"), &2_u32, Duration::from_secs(9))
        .await;
    assert!(set.is_stored());
    let answers = load(&cache, &[1, 2, 3, 1], &asked).await;
    let miss = |number| (Some(number), Outcome::Miss);
    assert_eq!(
        answers,
        [miss(1), (Some(2), Outcome::Hit), miss(3), miss(1)]
    );
    assert_eq!(*asked.lock().unwrap(), [keys(&[1, 3])]);
    assert_eq!(
        cache.get_many::<u32>(&keys(&[3, 4, 1])).await,
        [Some(3), None, Some(1)]
    );
    load(&cache, &[1, 2, 3], &asked).await;
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_the_loader_leaves_out_is_absent() {
    let (cache, governor, _) = steered();
    governor.set(&PolicyPatch {
        negative_ttl_seconds: Some(9.0),
        ..PolicyPatch::default()
    });
    let loader = |_missing| async { Ok::<HashMap<Key, u32>, Failed>(HashMap::new()) };
    let answers = cache.get_or_load_many(&keys(&[1]), loader).await.unwrap();
    assert_eq!(
        (answers[0].value, answers[0].outcome),
        (None, Outcome::Miss)
    );
    let answers = cache.get_or_load_many(&keys(&[1]), loader).await.unwrap();
    assert_eq!((answers[0].value, answers[0].outcome), (None, Outcome::Hit));
}

#[tokio::test]
async fn a_failed_call_is_everybodys_error() {
    let cache = Cache::in_process(64 << 20);
    let loader = |_missing| async { Err::<HashMap<Key, u32>, _>(Failed("no")) };
    let error = cache
        .get_or_load_many(&keys(&[1, 2]), loader)
        .await
        .unwrap_err();
    assert!(matches!(error, LoadError::Loader(error) if *error == Failed("no")));
}

#[tokio::test]
async fn batches_that_overlap_crosswise_do_not_wait_for_each_other_for_ever() {
    let cache = Cache::in_process(64 << 20);
    let asked: Arc<Mutex<Vec<Vec<Key>>>> = Arc::default();
    let forwards: Vec<u32> = (0..100).collect();
    let backwards: Vec<u32> = forwards.iter().rev().copied().collect();
    let (one, two) = tokio::join!(
        load(&cache, &forwards, &asked),
        load(&cache, &backwards, &asked)
    );
    assert_eq!((one.len(), two.len()), (100, 100));
    let loaded: usize = asked.lock().unwrap().iter().map(Vec::len).sum();
    assert_eq!(loaded, 100, "each key was loaded once");
}

#[tokio::test]
async fn a_batch_joins_a_single_load_that_is_under_way() {
    let cache = Cache::in_process(64 << 20);
    let go = Arc::new(tokio::sync::Notify::new());
    let single = {
        let (cache, go) = (cache.clone(), Arc::clone(&go));
        tokio::spawn(async move {
            let loader = move || async move {
                go.notified().await;
                Ok::<_, Failed>(Some(7_u32))
            };
            cache
                .get_or_load_optional(&key("/p/7"), loader)
                .await
                .unwrap()
                .value
        })
    };
    until("the load began", || cache.counts().loads == 1).await;
    let batch = {
        let cache = cache.clone();
        tokio::spawn(async move { load(&cache, &[7], &Arc::default()).await })
    };
    until("the batch waits", || cache.counts().joined == 1).await;
    go.notify_one();
    assert_eq!(single.await.unwrap(), Some(7));
    assert_eq!(batch.await.unwrap(), [(Some(7), Outcome::Miss)]);
}

#[tokio::test]
async fn with_the_policy_off_all_is_loaded_and_nothing_stored() {
    let (cache, governor, _) = steered();
    let asked = Arc::default();
    load(&cache, &[1], &asked).await;
    governor.set(&PolicyPatch {
        mode: Some(Mode::Off),
        ..PolicyPatch::default()
    });
    let answers = load(&cache, &[1, 2], &asked).await;
    assert_eq!(
        answers,
        [(Some(1), Outcome::Bypass), (Some(2), Outcome::Bypass)]
    );
    governor.set(&PolicyPatch::default());
    assert_eq!(cache.get_many::<u32>(&keys(&[1, 2])).await, [Some(1), None]);
}
