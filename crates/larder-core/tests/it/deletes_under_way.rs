//! What boards while a delete is under way may have found the old value: who begins after the delete must not join it.

use larder_core::{Cache, Key, Pattern};
use larder_testing::slow::Slow;
use tokio::task::JoinHandle;

use crate::{Failed, key, until};

fn load(cache: &Cache, key: &Key, value: &'static str) -> JoinHandle<String> {
    let (cache, key) = (cache.clone(), key.clone());
    tokio::spawn(async move {
        let loader = move || async move { Ok::<_, Failed>(value.to_owned()) };
        cache.get_or_load(&key, loader).await.unwrap().value
    })
}

async fn nobody_joins_what_boarded_during<D>(delete: impl FnOnce(Cache, Key) -> JoinHandle<D>) {
    let slow = Slow::new();
    let cache = slow.cache();
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
    slow.reads.let_go();
    slow.reads.holds(2).await;
    slow.deletes.let_go();
    deleted.await.unwrap();

    let late = load(&cache, &key, "new");
    let joined = cache.counts().joined;
    until("the late one has joined or has its answer", || {
        cache.counts().joined > joined || late.is_finished()
    })
    .await;
    slow.reads.let_go();
    assert_eq!(early.await.unwrap(), "old", "it began before the delete");
    assert_eq!(late.await.unwrap(), "new", "it began after the delete");
}

#[tokio::test]
async fn nobody_joins_what_boarded_during_a_delete() {
    nobody_joins_what_boarded_during(|cache, key| {
        tokio::spawn(async move { cache.delete(&key).await.entries() })
    })
    .await;
}

#[tokio::test]
async fn nobody_joins_what_boarded_during_a_clear() {
    nobody_joins_what_boarded_during(|cache, _key| {
        tokio::spawn(async move {
            let pattern = Pattern::parse("cache:svc:*").unwrap();
            cache.clear(&pattern).await.entries()
        })
    })
    .await;
}
