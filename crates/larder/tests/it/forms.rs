//! What the L1 keeps of a lookup in one form is read in another.

use std::convert::Infallible;
use std::time::Instant;

use larder::{Cache, Key, PolicyPatch};
use larder_testing::process::PATIENCE;
use larder_testing::redis::RedisServer;
use serde_json::{Value, json};

/// What a lookup gives that the L1 answers.
async fn near<T>(cache: &Cache, read: impl AsyncFn() -> T) -> T {
    let begin = Instant::now();
    loop {
        let before = cache.counts().hits_near;
        let found = read().await;
        if cache.counts().hits_near > before {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "the L1 has nothing");
    }
}

async fn value(cache: &Cache, key: &Key) -> Value {
    let load = || async { Ok::<_, Infallible>(Value::Null) };
    cache.get_or_load(key, load).await.unwrap().value
}

async fn numbers(cache: &Cache, key: &Key) -> Vec<u32> {
    let load = || async { Ok::<_, Infallible>(Vec::new()) };
    cache.get_or_load(key, load).await.unwrap().value
}

async fn text(cache: &Cache, key: &Key) -> String {
    let load = || async { Ok::<_, Infallible>(Value::Null) };
    let text = cache.get_or_load_json(key, load).await.unwrap().value;
    String::from_utf8(text.into_bytes().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_in_one_form_is_read_in_another() {
    let _room = crate::among_others();
    let redis = RedisServer::start();
    let cache = crate::cache(&redis.url(), &PolicyPatch::default());
    crate::until_connected(&cache).await;
    let put = |path: &str, text: &str| {
        let key = cache.key(path).unwrap();
        redis.cli(&["SET", key.as_str(), text, "EX", "300"]);
        key
    };

    // As text first, checked once; then as values of two types, and as what nobody decoded.
    let key = put("/text", "[1, 2]");
    let is_near = async || text(&cache, &key).await;
    assert_eq!(near(&cache, is_near).await, "[1, 2]");
    let is_near = async || value(&cache, &key).await;
    assert_eq!(near(&cache, is_near).await, json!([1, 2]));
    let is_near = async || numbers(&cache, &key).await;
    assert_eq!(near(&cache, is_near).await, [1, 2]);
    let is_near = async || cache.get::<Vec<u32>>(&key).await;
    assert_eq!(near(&cache, is_near).await, Some(vec![1, 2]));

    // As a value of one type first, then of another, then as text.
    let key = put("/value", "[3]");
    let is_near = async || value(&cache, &key).await;
    assert_eq!(near(&cache, is_near).await, json!([3]));
    let is_near = async || numbers(&cache, &key).await;
    assert_eq!(near(&cache, is_near).await, [3]);
    let is_near = async || text(&cache, &key).await;
    assert_eq!(near(&cache, is_near).await, "[3]");

    // What is no JSON is none in any form, however often it is asked for.
    let key = put("/no-json", "[1,");
    for _ in 0..3 {
        let is_near = async || cache.get_json(&key).await.is_none();
        assert!(near(&cache, is_near).await);
        let is_near = async || cache.get::<Value>(&key).await.is_none();
        assert!(near(&cache, is_near).await);
    }
}
