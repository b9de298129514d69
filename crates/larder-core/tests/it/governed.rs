//! The policy comes from the governor at every call, also where code knows nothing of it.

use std::time::Duration;

use larder_core::{
    Cache, Event, Mode, Outcome, PolicyPatch, RequestScope, Skip, Store, Ttl, Written,
};

use crate::{Failed, key, steered};

async fn load(cache: &Cache, endpoint: &str) -> Outcome {
    let loader = || async { Ok::<_, Failed>(1_u32) };
    cache
        .get_or_load(&key(endpoint), loader)
        .await
        .unwrap()
        .outcome
}

#[tokio::test]
async fn a_policy_that_is_off_stops_reading_and_filling_but_not_invalidating() {
    let (cache, governor, store) = steered();
    assert_eq!(load(&cache, "/a").await, Outcome::Miss);
    assert_eq!(load(&cache, "/a").await, Outcome::Hit);
    governor.set(&PolicyPatch {
        mode: Some(Mode::Off),
        ..PolicyPatch::default()
    });
    assert_eq!(load(&cache, "/a").await, Outcome::Bypass);
    assert_eq!(load(&cache, "/b").await, Outcome::Bypass);
    assert_eq!(cache.get::<u32>(&key("/a")).await, None);
    assert_eq!(
        cache.set(&key("/c"), &1, Duration::from_secs(9)).await,
        Written::Skipped(Skip::PolicyOff)
    );
    assert_eq!(store.stats().await.unwrap().entries, Some(1));
    assert_eq!(cache.delete(&key("/a")).await.entries(), 1);
    governor.set(&PolicyPatch::default());
    assert_eq!(
        load(&cache, "/a").await,
        Outcome::Miss,
        "what was deleted while off is gone"
    );
}

#[tokio::test]
async fn the_next_entry_has_the_new_ttl_and_an_old_one_lives_no_longer_than_it() {
    let (cache, governor, store) = steered();
    let ttl_of = async |endpoint: &str| {
        let stored = store.get(&key(endpoint), Ttl::MAX).await.unwrap().unwrap();
        stored.ttl.unwrap().as_secs_f64()
    };
    load(&cache, "/old").await;
    governor.set(&PolicyPatch {
        ttl_seconds: Some(60.0),
        jitter: Some(0.0),
        ..PolicyPatch::default()
    });
    load(&cache, "/new").await;
    assert!((59.0..=60.0).contains(&ttl_of("/new").await));
    assert!(ttl_of("/old").await > 200.0);
    assert_eq!(load(&cache, "/old").await, Outcome::Hit);
    assert!(ttl_of("/old").await <= 60.0);
}

#[tokio::test]
async fn jitter_only_shortens_and_by_no_more_than_its_share() {
    let (cache, governor, store) = steered();
    governor.set(&PolicyPatch {
        ttl_seconds: Some(1_000.0),
        jitter: Some(0.5),
        ..PolicyPatch::default()
    });
    let mut ttls = Vec::new();
    for index in 0..200 {
        let endpoint = format!("/{index}");
        load(&cache, &endpoint).await;
        let stored = store.get(&key(&endpoint), Ttl::MAX).await.unwrap().unwrap();
        ttls.push(stored.ttl.unwrap().as_secs_f64());
    }
    assert!(
        ttls.iter().all(|ttl| (499.0..=1_000.0).contains(ttl)),
        "{ttls:?}"
    );
    assert!(ttls.iter().any(|ttl| *ttl < 700.0) && ttls.iter().any(|ttl| *ttl > 800.0));
}

#[tokio::test]
async fn absent_answers_have_a_ttl_of_their_own() {
    let (cache, governor, store) = steered();
    let find = async |endpoint: &str| {
        let loader = || async { Ok::<Option<u32>, Failed>(None) };
        cache
            .get_or_load_optional(&key(endpoint), loader)
            .await
            .unwrap()
    };
    assert_eq!(find("/none").await.value, None);
    assert_eq!(
        find("/none").await.outcome,
        Outcome::Miss,
        "not cached unless asked for"
    );
    governor.set(&PolicyPatch {
        negative_ttl_seconds: Some(10.0),
        jitter: Some(0.0),
        ..PolicyPatch::default()
    });
    assert_eq!(find("/none-either").await.outcome, Outcome::Miss);
    assert_eq!(find("/none-either").await.outcome, Outcome::Hit);
    let stored = store
        .get(&key("/none-either"), Ttl::MAX)
        .await
        .unwrap()
        .unwrap();
    assert!((9.0..=10.0).contains(&stored.ttl.unwrap().as_secs_f64()));
}

#[tokio::test]
async fn a_value_over_the_limit_is_handed_out_but_not_stored() {
    let (cache, governor, store) = steered();
    governor.set(&PolicyPatch {
        max_value_bytes: Some(100),
        ..PolicyPatch::default()
    });
    let loader = || async { Ok::<_, Failed>("x".repeat(200)) };
    assert_eq!(
        cache
            .get_or_load(&key("/big"), loader)
            .await
            .unwrap()
            .value
            .len(),
        200
    );
    let set = cache
        .set(&key("/big"), &"x".repeat(200), Duration::from_secs(9))
        .await;
    assert_eq!(set, Written::Skipped(Skip::TooLarge));
    assert_eq!(store.stats().await.unwrap().entries, Some(0));
    assert_eq!(cache.counts().too_large, 2);
}

#[tokio::test]
async fn what_belongs_to_a_request_is_left_to_it() {
    let (cache, governor, _) = steered();
    let lookups = async {
        load(&cache, "/page").await;
        load(&cache, "/part").await;
    };
    let mut lookups = std::pin::pin!(RequestScope::around(Some(key("/page")), lookups));
    lookups.as_mut().await;
    let noted = lookups.take_value().and_then(|scope| scope.noted());
    assert!(matches!(
        noted,
        Some(Event {
            outcome: Outcome::Miss,
            latency: Some(_),
            ..
        })
    ));
    assert!(governor.events(&key("/page")).is_empty());
    assert_eq!(governor.events(&key("/part")).len(), 1);
}
