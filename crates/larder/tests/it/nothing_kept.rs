//! A service that keeps nothing in its processes has no server note its entries: `LARDER_L1_BYTES=0`.

use std::convert::Infallible;
use std::time::Instant;

use larder::{Cache, Key, Policy, PolicyPatch, Settings, Tag};
use larder_testing::process::PATIENCE;
use larder_testing::redis::RedisServer;

use crate::{among_others, until_connected};

const ENTRIES: usize = 50;
/// Those of the service, of the one endpoint, and of the tag.
const VERSIONS: usize = 3;

fn cache(redis: &RedisServer, l1_bytes: &str) -> Cache {
    let folder = tempfile::tempdir().unwrap();
    let variable = |name: &str| match name {
        "REDIS_URL" => Some(redis.url()),
        "LARDER_L1_BYTES" => Some(l1_bytes.to_owned()),
        "LARDER_JOURNAL" => Some("off".to_owned()),
        _ => None,
    };
    let settings = Settings::read(variable, folder.path()).unwrap();
    let policy = PolicyPatch {
        tags: Some(vec![Tag::new("t").unwrap()]),
        ..PolicyPatch::default()
    };
    let policy = policy.apply(&Policy::default()).unwrap();
    let builder = Cache::builder("shop", settings).unwrap();
    builder.default_policy(policy).build().unwrap()
}

/// How many keys the server remembers that somebody wants to hear of.
fn noted(redis: &RedisServer) -> usize {
    let stats = redis.cli(&["INFO", "stats"]);
    let mut lines = stats.lines();
    let told = lines.find_map(|line| line.strip_prefix("tracking_total_keys:"));
    told.unwrap().trim().parse().unwrap()
}

/// Loads entries, and looks them up until so many keys are noted.
async fn look_up(cache: &Cache, redis: &RedisServer, least: usize) {
    until_connected(cache).await;
    let keys = (0..ENTRIES).map(|number| cache.key(&format!("/p?n={number}")).unwrap());
    let keys: Vec<Key> = keys.collect();
    let begin = Instant::now();
    // Once more after that: then all of them were read while the server notes.
    let mut is_last = false;
    while !is_last {
        assert!(begin.elapsed() < PATIENCE, "{} are noted", noted(redis));
        is_last = noted(redis) >= least;
        for key in &keys {
            let load = || async { Ok::<_, Infallible>("value".to_owned()) };
            cache.get_or_load(key, load).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_l1_versions_alone_are_noted() {
    let _room = among_others();
    let redis = RedisServer::start();
    look_up(&cache(&redis, "0"), &redis, VERSIONS).await;
    assert_eq!(noted(&redis), VERSIONS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_entries_are_too() {
    let _room = among_others();
    let redis = RedisServer::start();
    look_up(&cache(&redis, "1048576"), &redis, VERSIONS + ENTRIES).await;
}
