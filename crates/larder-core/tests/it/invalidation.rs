//! In this process, `delete`, `clear` and `set` end a running load's right to fill, and nobody joins it any more.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Cache, Key, Pattern};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::{Failed, key, until};

/// A load of `old` that is under way until it is told to go on.
async fn load_under_way(cache: &Cache, key: &Key) -> (JoinHandle<String>, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let loads = cache.counts().loads;
    let load = {
        let (cache, key, go) = (cache.clone(), key.clone(), Arc::clone(&go));
        tokio::spawn(async move {
            let loader = move || async move {
                go.notified().await;
                Ok::<_, Failed>("old".to_owned())
            };
            cache.get_or_load(&key, loader).await.unwrap().value
        })
    };
    until("the load began", || cache.counts().loads > loads).await;
    (load, go)
}

async fn load_new(cache: &Cache, key: &Key) -> String {
    let loader = || async { Ok::<_, Failed>("new".to_owned()) };
    cache.get_or_load(key, loader).await.unwrap().value
}

#[tokio::test]
async fn a_delete_ends_the_right_to_fill() {
    let cache = Cache::in_process(64 << 20);
    let key = key("/products");
    let (load, go) = load_under_way(&cache, &key).await;
    assert!(cache.delete(&key).await.is_done());
    go.notify_one();
    assert_eq!(
        load.await.unwrap(),
        "old",
        "who asked before gets what was then"
    );
    assert_eq!(cache.get::<String>(&key).await, None);
    assert_eq!(cache.counts().refused, 1);
}

#[tokio::test]
async fn a_lookup_after_a_delete_does_not_join_the_load_before_it() {
    let cache = Cache::in_process(64 << 20);
    let key = key("/products");
    let (load, go) = load_under_way(&cache, &key).await;
    assert!(cache.delete(&key).await.is_done());
    assert_eq!(load_new(&cache, &key).await, "new");
    go.notify_one();
    assert_eq!(load.await.unwrap(), "old");
    assert_eq!(cache.get::<String>(&key).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_clear_ends_the_right_to_fill_of_what_it_means_and_of_nothing_else() {
    let cache = Cache::in_process(64 << 20);
    let (meant, other) = (key("/products/1"), key("/users/1"));
    let (load, go) = load_under_way(&cache, &meant).await;
    let (other_load, other_go) = load_under_way(&cache, &other).await;
    let pattern = Pattern::parse("cache:svc:/products/*").unwrap();
    assert!(cache.clear(&pattern).await.is_done());
    go.notify_one();
    other_go.notify_one();
    load.await.unwrap();
    other_load.await.unwrap();
    assert_eq!(cache.get::<String>(&meant).await, None);
    assert_eq!(cache.get::<String>(&other).await.as_deref(), Some("old"));
}

#[tokio::test]
async fn a_set_wins_over_a_load_that_began_before_it() {
    let cache = Cache::in_process(64 << 20);
    let key = key("/products");
    let (load, go) = load_under_way(&cache, &key).await;
    assert!(
        cache
            .set(&key, "set", Duration::from_secs(300))
            .await
            .is_stored()
    );
    go.notify_one();
    load.await.unwrap();
    assert_eq!(cache.get::<String>(&key).await.as_deref(), Some("set"));
}

#[tokio::test]
async fn a_set_that_is_skipped_ends_the_right_to_fill_all_the_same() {
    let cache = Cache::in_process(64 << 20);
    let key = key("/products");
    let (load, go) = load_under_way(&cache, &key).await;
    let too_large = "x".repeat(2 << 20);
    let set = cache.set(&key, &too_large, Duration::from_secs(300)).await;
    assert!(!set.is_stored());
    go.notify_one();
    load.await.unwrap();
    assert_eq!(
        cache.get::<String>(&key).await,
        None,
        "what it loaded is older"
    );
}

/// Every value is the number of the newest truth when its load began: after a delete returned, no lookup may give
/// one from before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_from_before_a_delete_comes_after_it() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let cache = Cache::in_process(64 << 20);
    let key = key("/truth");
    let truth = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (cache, key, truth) = (cache.clone(), key.clone(), Arc::clone(&truth));
            tokio::spawn(async move {
                for _ in 0..3_000 {
                    let truth = Arc::clone(&truth);
                    let loader = move || async move {
                        let value = truth.load(Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        Ok::<_, Failed>(value)
                    };
                    cache.get_or_load(&key, loader).await.unwrap();
                }
            })
        })
        .collect();
    for _ in 0..2_000 {
        let now = truth.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(cache.delete(&key).await.is_done());
        let truth = Arc::clone(&truth);
        let loader = move || async move { Ok::<_, Failed>(truth.load(Ordering::SeqCst)) };
        let found = cache.get_or_load(&key, loader).await.unwrap().value;
        assert!(found >= now, "found {found} after the delete of {now}");
    }
    for reader in readers {
        reader.await.unwrap();
    }
}
