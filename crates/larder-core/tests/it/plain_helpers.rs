//! The plain operations: falsy values are values, nothing is an error.

use std::time::Duration;

use larder_core::{Cache, InProcess, Json, Pattern, Skip, Written};
use serde_json::{Value, json};

use crate::key;

const TTL: Duration = Duration::from_secs(300);

#[tokio::test]
async fn the_in_process_store_keeps_the_contract_of_a_store() {
    larder_testing::contract::run(async || std::sync::Arc::new(InProcess::new(64 << 20)) as _)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_the_process_passes_the_contract_of_leases() {
    let store: std::sync::Arc<dyn larder_core::Store> =
        std::sync::Arc::new(InProcess::new(64 << 20));
    larder_testing::contract::run_leases(|| {
        let store = std::sync::Arc::clone(&store);
        async move { store }
    })
    .await;
}

#[tokio::test]
async fn zero_empty_false_and_null_are_values() {
    let cache = Cache::in_process(64 << 20);
    for value in [
        json!(0),
        json!(""),
        json!(false),
        json!(null),
        json!([]),
        json!({}),
    ] {
        assert!(cache.set(&key("/v"), &value, TTL).await.is_stored());
        assert_eq!(cache.get::<Value>(&key("/v")).await, Some(value));
    }
    assert_eq!(cache.get::<Value>(&key("/absent")).await, None);
}

#[tokio::test]
async fn a_ttl_of_zero_stores_nothing() {
    let cache = Cache::in_process(64 << 20);
    let written = cache.set(&key("/v"), &1, Duration::ZERO).await;
    assert_eq!(written, Written::Skipped(Skip::NoTtl));
    assert_eq!(cache.get::<Value>(&key("/v")).await, None);
}

#[tokio::test]
async fn what_can_not_be_json_is_skipped() {
    let cache = Cache::in_process(64 << 20);
    let odd = std::collections::HashMap::from([((1, 2), 3)]);
    let written = cache.set(&key("/v"), &odd, TTL).await;
    assert_eq!(written, Written::Skipped(Skip::NotSerialisable));
}

#[tokio::test]
async fn clear_answers_how_many() {
    let cache = Cache::in_process(64 << 20);
    for endpoint in ["/p/1", "/p/2", "/q"] {
        assert!(cache.set(&key(endpoint), &1, TTL).await.is_stored());
    }
    let pattern = Pattern::parse("cache:svc:/p/*").unwrap();
    assert_eq!(cache.count(&pattern).await.unwrap().entries, 2);
    assert_eq!(cache.clear(&pattern).await.entries(), 2);
    assert_eq!(cache.clear(&pattern).await.entries(), 0);
    assert_eq!(cache.get::<u32>(&key("/q")).await, Some(1));
}

#[tokio::test]
async fn json_is_handed_out_as_it_was_stored() {
    let cache = Cache::in_process(64 << 20);
    let text = Json::parse(bytes::Bytes::from_static(b"[ 1,\t2 ]")).unwrap();
    assert!(
        cache
            .set_json(&key("/v"), text.clone(), TTL)
            .await
            .is_stored()
    );
    assert_eq!(cache.get_json(&key("/v")).await, Some(text));
}

fn two_handles() -> [std::sync::Arc<dyn larder_core::Store>; 2] {
    let store = std::sync::Arc::new(InProcess::new(64 << 20));
    [std::sync::Arc::clone(&store) as _, store]
}

#[test]
fn the_store_in_the_process_answers_what_a_simple_model_says() {
    larder_testing::machine::run(512, file!(), two_handles);
}

#[test]
fn each_rule_of_that_model_is_needed() {
    for rule in larder_testing::machine::Rule::ALL {
        let is_noticed = larder_testing::machine::notices(rule, two_handles);
        assert!(is_noticed, "{rule:?} is not needed");
    }
}
