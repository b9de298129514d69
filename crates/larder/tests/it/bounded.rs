//! What a process keeps takes no more of its memory than `LARDER_L1_BYTES`, all told.

use std::time::Duration;

use larder::{Cache, Key, Settings};
use larder_testing::alone::{is_alone, resident};
use larder_testing::redis::RedisServer;

use crate::until_connected;

const L1_BYTES: u64 = 16 << 20;
/// The L1 has room for their keys and values alone, and not for what they cost beside, too.
const ENTRIES: usize = 50_000;
const VALUE_BYTES: usize = 200;
const AT_ONCE: usize = 500;
const TTL: Duration = Duration::from_secs(300);

fn cache(redis: &RedisServer, l1_bytes: u64) -> Cache {
    let folder = tempfile::tempdir().unwrap();
    let variable = |name: &str| match name {
        "REDIS_URL" => Some(redis.url()),
        "LARDER_L1_BYTES" => Some(l1_bytes.to_string()),
        "LARDER_JOURNAL" => Some("off".to_owned()),
        _ => None,
    };
    let settings = Settings::read(variable, folder.path()).unwrap();
    Cache::builder("shop", settings).unwrap().build().unwrap()
}

async fn read_all(cache: &Cache, keys: &[Key]) {
    for keys in keys.chunks(AT_ONCE) {
        let found = cache.get_many::<String>(keys).await;
        assert!(found.iter().all(Option::is_some));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_small_values_is_counted_whole() {
    if !is_alone("bounded::what_is_kept_of_small_values_is_counted_whole") {
        return;
    }
    let redis = RedisServer::start();
    let keeps = cache(&redis, L1_BYTES);
    until_connected(&keeps).await;
    let keys = (0..ENTRIES).map(|number| keeps.key(&format!("/product?n={number}")).unwrap());
    let keys: Vec<Key> = keys.collect();
    for keys in keys.chunks(AT_ONCE) {
        let values: Vec<(Key, String)> = keys
            .iter()
            .map(|key| (key.clone(), "v".repeat(VALUE_BYTES)))
            .collect();
        let written = keeps.set_many(&values, TTL).await;
        assert!(written.iter().all(|written| written.is_stored()));
    }
    // What reading takes beside: buffers, and whatever the allocator does not give back.
    let keeps_nothing = cache(&redis, 0);
    until_connected(&keeps_nothing).await;
    read_all(&keeps_nothing, &keys).await;
    let before = resident();
    for _ in 0..3 {
        read_all(&keeps, &keys).await;
    }
    let kept = resident().saturating_sub(before);
    assert!(kept > L1_BYTES / 2, "only {kept} bytes are kept");
    assert!(kept < L1_BYTES, "{kept} bytes are kept");
}
