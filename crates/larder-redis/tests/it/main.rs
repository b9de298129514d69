//! What the Redis store promises, each promise in a module named after it. Against real servers; where a server must
//! misbehave, against one that a script speaks for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cancelled_reads;
mod cluster_changes;
mod coherence;
mod contract;
mod faults;
mod foreign_entries;
mod held_back;
mod hostile_server;
mod late_fills;
mod learned_addresses;
mod life_untold;
mod log;
mod machine;
mod moving_slots;
mod no_runtime;
mod noted;
mod one_step;
mod other_lives;
mod patterns;
mod rights;
mod said_once;
mod scripted;
mod secrets;
mod sentinel_changes;
mod sentinel_load;
mod shifted_replies;
mod stopped;
mod survey;
mod sweeps;
mod swept_slots;
mod tls;
mod traffic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Guard, Key, NewEntry, Store, Ttl};
use larder_redis::{Options, RedisStore, RedisUrl};

fn key(endpoint: &str) -> Key {
    Key::new("svc", endpoint).unwrap()
}

fn entry(key: &Key, value: &str) -> NewEntry {
    NewEntry {
        key: key.clone(),
        bytes: value.to_owned().into(),
        ttl: Ttl::new(Duration::from_secs(300)).unwrap(),
        guard: Guard::Always,
    }
}

fn connect(url: &str) -> Arc<RedisStore> {
    connect_with(url, Options::default())
}

fn connect_with(url: &str, options: Options) -> Arc<RedisStore> {
    Arc::new(RedisStore::connect(RedisUrl::parse(url).unwrap(), options))
}

/// One for what is not about time: a busy machine is no fault.
fn connect_patiently(url: &str) -> Arc<RedisStore> {
    let options = Options {
        deadline: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(10),
        ..Options::default()
    };
    connect_with(url, options)
}

/// Stores a value, as soon as that can be; answers how long that took.
async fn store_in(store: &RedisStore, key: &Key, value: &str) -> Duration {
    let begin = Instant::now();
    while !store
        .set(entry(key, value))
        .await
        .is_ok_and(|written| written.is_stored())
    {
        assert!(begin.elapsed() < Duration::from_secs(20), "never stored");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begin.elapsed()
}

/// Stores until what is stored is found: what is stored while a server is swept may go with the rest. Answers how long that took.
async fn until_kept(store: &RedisStore, key: &Key) -> Duration {
    let begin = Instant::now();
    loop {
        let written = store.set(entry(key, "1")).await;
        if written.is_ok_and(|written| written.is_stored())
            && matches!(store.get(key, Ttl::MAX).await, Ok(Some(_)))
        {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "never stored");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a read finds the value; answers how long that took.
async fn until_found(store: &RedisStore, key: &Key) -> Duration {
    let begin = Instant::now();
    loop {
        let answer = store.get(key, Ttl::MAX).await;
        if matches!(answer, Ok(Some(_))) {
            return begin.elapsed();
        }
        let is_late = begin.elapsed() > Duration::from_secs(20);
        assert!(!is_late, "never found: {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
