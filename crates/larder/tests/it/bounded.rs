//! What a process keeps takes no more of its memory than `LARDER_L1_BYTES`, all told.

use std::time::Duration;

use larder::{Cache, JournalSetting, Key, Settings};
use larder_testing::alone::{is_alone, resident};
use larder_testing::redis::RedisServer;

use crate::{among_others, until_connected, worker};

const L1_BYTES: u64 = 16 << 20;
/// The L1 has room for their keys and values alone, and not for what they cost beside, too.
const ENTRIES: usize = 50_000;
const VALUE_BYTES: usize = 200;
const AT_ONCE: usize = 500;
const TTL: Duration = Duration::from_secs(300);

fn cache(redis: &RedisServer, l1_bytes: u64) -> Cache {
    let folder = tempfile::tempdir().unwrap();
    let l1_bytes = |name: &str| (name == "LARDER_L1_BYTES").then(|| l1_bytes.to_string());
    let mut settings = Settings::read(l1_bytes, folder.path()).unwrap();
    settings.journal = JournalSetting::Off;
    let builder = Cache::builder("shop", settings).unwrap();
    let builder = builder.store(worker::patient_redis(&redis.url()));
    builder.build().unwrap()
}

/// Keys of their own each time: else the L1 would have those of the caller, for nothing.
fn keys(cache: &Cache) -> impl Iterator<Item = Vec<Key>> {
    let batches = (0..ENTRIES).step_by(AT_ONCE);
    batches.map(|first| {
        let numbers = first..first + AT_ONCE;
        let keys = numbers.map(|number| cache.key(&format!("/product?n={number}")).unwrap());
        keys.collect()
    })
}

async fn read_all(cache: &Cache) {
    for keys in keys(cache) {
        let found = cache.get_many::<String>(&keys).await;
        assert!(found.iter().all(Option::is_some));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_small_values_is_counted_whole() {
    let room = among_others();
    if !is_alone("bounded::what_is_kept_of_small_values_is_counted_whole") {
        return;
    }
    drop(room);
    let redis = RedisServer::start();
    let keeps = cache(&redis, L1_BYTES);
    until_connected(&keeps).await;
    for keys in keys(&keeps) {
        let values = keys.into_iter().map(|key| (key, "v".repeat(VALUE_BYTES)));
        let values: Vec<(Key, String)> = values.collect();
        let written = keeps.set_many(&values, TTL).await;
        assert!(written.iter().all(|written| written.is_stored()));
    }
    // What reading takes beside: buffers, and whatever the allocator does not give back.
    let keeps_nothing = cache(&redis, 0);
    until_connected(&keeps_nothing).await;
    read_all(&keeps_nothing).await;
    let before = resident();
    for _ in 0..3 {
        read_all(&keeps).await;
    }
    let kept = resident().saturating_sub(before);
    assert!(kept > L1_BYTES / 2, "only {kept} bytes are kept");
    assert!(kept < L1_BYTES, "{kept} bytes are kept");
}
