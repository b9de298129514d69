//! Two caches over one store are to each other what two processes are.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{
    Cache, FixedGovernor, InProcess, Key, Looked, Outcome, Policy, PolicyPatch, Service, Store,
    Tag, Written,
};
use tokio::sync::Semaphore;

use crate::{Calls, Failed, key, policy, until};

const TTL: Duration = Duration::from_secs(300);

/// Two caches, and the store that they share.
fn two(patch: &PolicyPatch) -> (Cache, Cache, Arc<InProcess>) {
    let store = Arc::new(InProcess::new(64 << 20));
    let cache = |policy: Policy| {
        Cache::builder(Service::new("svc").unwrap())
            .store(Arc::clone(&store) as Arc<dyn Store>)
            .governor(Arc::new(FixedGovernor::new(policy)))
            .build()
    };
    let policy = policy(patch);
    (cache(policy.clone()), cache(policy), store)
}

/// A load that says when it was called, and ends when it may.
fn load(
    cache: &Cache,
    key: &Key,
    calls: &Calls,
    go: &Arc<Semaphore>,
    value: &'static str,
) -> tokio::task::JoinHandle<String> {
    let (cache, key, calls, go) = (cache.clone(), key.clone(), calls.clone(), Arc::clone(go));
    tokio::spawn(async move {
        let loader = move || async move {
            calls.add();
            go.acquire().await.unwrap().forget();
            Ok::<_, Failed>(value.to_owned())
        };
        cache.get_or_load(&key, loader).await.unwrap().value
    })
}

fn go(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count))
}

#[tokio::test]
async fn one_loads_and_the_other_waits_for_it() {
    let (one, other, _) = two(&PolicyPatch::default());
    let (calls, may_end) = (Calls::default(), go(0));
    let first = load(&one, &key("/a"), &calls, &may_end, "first");
    until("it loads", || calls.count() == 1).await;
    let second = load(&other, &key("/a"), &calls, &may_end, "second");
    until("the other waits", || other.counts().lease_waits == 1).await;
    may_end.add_permits(1);
    assert_eq!(first.await.unwrap(), "first");
    assert_eq!(second.await.unwrap(), "first");
    assert_eq!(calls.count(), 1);
}

#[tokio::test]
async fn who_joined_a_load_before_anothers_delete_and_who_after() {
    let (one, other, _) = two(&PolicyPatch::default());
    let (calls, may_end) = (Calls::default(), go(0));
    let pilot = load(&one, &key("/a"), &calls, &may_end, "old");
    until("it loads", || calls.count() == 1).await;
    // Nothing is there yet, so nothing but the lease tells of it.
    assert!(other.delete(&key("/a")).await.is_done());
    let late = load(&one, &key("/a"), &calls, &may_end, "new");
    until("it joined", || one.counts().joined == 1).await;
    may_end.add_permits(2);
    assert_eq!(pilot.await.unwrap(), "old", "it asked before the delete");
    assert_eq!(late.await.unwrap(), "new", "it asked after the delete");
    assert_eq!((calls.count(), one.counts().refused), (2, 1));
    assert_eq!(
        other.get::<String>(&key("/a")).await.as_deref(),
        Some("new")
    );
}

#[tokio::test]
async fn who_joined_a_load_after_another_invalidated_its_tag_gets_a_new_one() {
    let tag = Tag::new("t").unwrap();
    let (one, other, _) = two(&PolicyPatch {
        tags: Some(vec![tag.clone()]),
        ..PolicyPatch::default()
    });
    let (calls, may_end) = (Calls::default(), go(0));
    let pilot = load(&one, &key("/a"), &calls, &may_end, "old");
    until("it loads", || calls.count() == 1).await;
    let early = load(&one, &key("/a"), &calls, &may_end, "early");
    until("it joined", || one.counts().joined == 1).await;
    // The lease holds, and the fill is taken: its entry is dead at once.
    assert!(other.invalidate_tag(&tag).await.is_done());
    let late = load(&one, &key("/a"), &calls, &may_end, "new");
    until("it joined", || one.counts().joined == 2).await;
    may_end.add_permits(2);
    assert_eq!(pilot.await.unwrap(), "old", "it asked before");
    assert_ne!(late.await.unwrap(), "old", "it asked after");
    early.await.unwrap();
    assert_eq!(calls.count(), 2, "they share one new load");
}

#[tokio::test]
async fn anothers_set_wins_over_a_load_that_began_before_it() {
    let (one, other, _) = two(&PolicyPatch::default());
    let (calls, may_end) = (Calls::default(), go(0));
    let loading = load(&one, &key("/a"), &calls, &may_end, "old");
    until("it loads", || calls.count() == 1).await;
    assert!(other.set(&key("/a"), "set", TTL).await.is_stored());
    may_end.add_permits(1);
    loading.await.unwrap();
    assert_eq!(one.get::<String>(&key("/a")).await.as_deref(), Some("set"));
}

#[tokio::test]
async fn what_is_not_stored_does_not_make_others_wait_in_a_row() {
    let (one, other, _) = two(&PolicyPatch {
        ttl_seconds: Some(0.0),
        ..PolicyPatch::default()
    });
    let (calls, may_end) = (Calls::default(), go(0));
    let first = load(&one, &key("/a"), &calls, &may_end, "first");
    until("it loads", || calls.count() == 1).await;
    let second = load(&other, &key("/a"), &calls, &may_end, "second");
    until("the other waits", || other.counts().lease_waits == 1).await;
    may_end.add_permits(1);
    assert_eq!(first.await.unwrap(), "first");
    until("the other loads at once", || calls.count() == 2).await;
    may_end.add_permits(1);
    assert_eq!(second.await.unwrap(), "second");
}

#[tokio::test]
async fn a_token_fills_what_nothing_invalidated_since() {
    let (one, other, _) = two(&PolicyPatch::default());
    let token = |looked: Looked<String>| match looked {
        Looked::Miss(token) => token,
        Looked::Hit(value) => panic!("{value}"),
    };
    let ours = token(one.get_or_token(&key("/a")).await);
    let theirs = token(other.get_or_token(&key("/a")).await);
    assert_eq!(
        other.set_if(theirs, "theirs", TTL).await,
        Written::Refused,
        "one at a time"
    );
    assert_eq!(one.set_if(ours, "ours", TTL).await, Written::Stored);
    assert!(
        matches!(one.get_or_token::<String>(&key("/a")).await, Looked::Hit(value) if value == "ours")
    );

    let ours = token(one.get_or_token(&key("/b")).await);
    assert!(other.delete(&key("/b")).await.is_done());
    assert_eq!(one.set_if(ours, "old", TTL).await, Written::Refused);
    assert_eq!(other.get::<String>(&key("/b")).await, None);
}

#[tokio::test]
async fn a_dropped_token_is_given_back() {
    let (one, other, _) = two(&PolicyPatch::default());
    drop(one.get_or_token::<String>(&key("/a")).await);
    let began = std::time::Instant::now();
    loop {
        if let Looked::Miss(token) = other.get_or_token::<String>(&key("/a")).await
            && other.set_if(token, "1", TTL).await.is_stored()
        {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_batch_loads_its_own_before_it_waits_for_others() {
    let (one, other, _) = two(&PolicyPatch::default());
    let (calls, may_end) = (Calls::default(), go(0));
    let elsewhere = load(&one, &key("/a"), &calls, &may_end, "a of one");
    until("it loads", || calls.count() == 1).await;
    let batch = tokio::spawn({
        let other = other.clone();
        async move {
            let loader = |missing: Vec<Key>| async move {
                let made = missing
                    .into_iter()
                    .map(|key| (key, "of the other".to_owned()));
                Ok::<_, Failed>(made.collect())
            };
            let keys = [key("/a"), key("/b")];
            other
                .get_or_load_many::<String, _, _, _>(&keys, loader)
                .await
        }
    });
    until("the own one is filled", || other.counts().lease_waits == 1).await;
    let b = key("/b");
    let own = one.get_or_load(&b, || async { Err::<String, _>(Failed("called")) });
    assert_eq!(own.await.unwrap().value, "of the other");
    may_end.add_permits(1);
    elsewhere.await.unwrap();
    let answers = batch.await.unwrap().unwrap();
    let values: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.value.unwrap())
        .collect();
    assert_eq!(values, ["a of one", "of the other"]);
}

#[tokio::test]
async fn a_tag_is_invalidated_for_all_and_only_where_it_is() {
    let tagged = |tag: &str| PolicyPatch {
        tags: Some(vec![tag.parse_tag()]),
        ..PolicyPatch::default()
    };
    let (one, other, store) = two(&tagged("products"));
    let untagged = Cache::builder(Service::new("svc").unwrap())
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .governor(Arc::new(FixedGovernor::new(policy(&tagged("users")))))
        .build();
    let load = |cache: &Cache, endpoint: &str, value: u32| {
        let (cache, key) = (cache.clone(), key(endpoint));
        async move {
            let loader = move || async move { Ok::<_, Failed>(value) };
            let answer = cache.get_or_load(&key, loader).await.unwrap();
            (answer.value, answer.outcome)
        }
    };
    assert_eq!(load(&one, "/p", 1).await, (1, Outcome::Miss));
    assert_eq!(load(&untagged, "/u", 1).await, (1, Outcome::Miss));
    assert_eq!(load(&other, "/p", 2).await, (1, Outcome::Hit));
    assert!(
        other
            .invalidate_tag(&"products".parse_tag())
            .await
            .is_done()
    );
    assert_eq!(load(&one, "/p", 2).await, (2, Outcome::Miss));
    assert_eq!(one.counts().dead, 1);
    assert_eq!(
        load(&untagged, "/u", 2).await,
        (1, Outcome::Hit),
        "{:?}",
        untagged.counts()
    );
    // The whole service.
    assert!(one.invalidate_service().await.swept().await.is_done());
    assert_eq!(load(&other, "/p", 3).await, (3, Outcome::Miss));
    assert_eq!(load(&untagged, "/u", 3).await, (3, Outcome::Miss));
}

#[tokio::test]
async fn a_load_that_began_before_its_tag_was_invalidated_is_not_served_after() {
    let (one, other, _) = two(&PolicyPatch {
        tags: Some(vec!["t".parse_tag()]),
        ..PolicyPatch::default()
    });
    let (calls, may_end) = (Calls::default(), go(0));
    let loading = load(&one, &key("/a"), &calls, &may_end, "old");
    until("it loads", || calls.count() == 1).await;
    assert!(other.invalidate_tag(&"t".parse_tag()).await.is_done());
    may_end.add_permits(2);
    loading.await.unwrap();
    let answer = load(&other, &key("/a"), &calls, &may_end, "new")
        .await
        .unwrap();
    assert_eq!(answer, "new");
}

#[tokio::test]
async fn plain_entries_of_an_endpoint_are_not_served_once_it_was_invalidated() {
    let (one, other, _) = two(&PolicyPatch::default());
    for endpoint in ["/products/1", "/products/2?full", "/users/1"] {
        assert!(one.set(&key(endpoint), "old", TTL).await.is_stored());
    }
    let endpoint = "/products/{id}".parse().unwrap();
    let invalidated = one.invalidate_endpoint(&endpoint).await;
    assert_eq!(
        one.get::<String>(&key("/products/1")).await,
        None,
        "at once here"
    );
    assert_eq!(invalidated.swept().await.entries(), 2);
    assert_eq!(other.get::<String>(&key("/products/2?full")).await, None);
    assert!(other.get::<String>(&key("/users/1")).await.is_some());
}

trait ParseTag {
    fn parse_tag(&self) -> larder_core::Tag;
}

impl ParseTag for str {
    fn parse_tag(&self) -> larder_core::Tag {
        larder_core::Tag::new(self).unwrap()
    }
}
