//! The master that Sentinels name changes, while requests go on; and one that they can't be asked about is not trusted.

use std::time::{Duration, Instant};

use larder_core::{Key, Store as _, StoreError, Ttl};
use larder_testing::redis::{RedisSentinels, RedisServer, wait_until};

use crate::traffic::{Back, Traffic};
use crate::{connect, connect_patiently, entry, key, store_in, until_kept};

/// The mark is 1 s.
const BACK: Duration = Duration::from_secs(10);
/// What a master acknowledged so long before it died may not have reached its replica.
const LOST: Duration = Duration::from_secs(1);

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|index| key(&format!("/{index}"))).collect()
}

/// Waits until most Sentinels name the server as the master.
fn wait_until_named(sentinels: &RedisSentinels, index: usize) {
    let port = sentinels.servers[index].port();
    wait_until("most Sentinels name the new master", || {
        (0..3)
            .filter(|&sentinel| sentinels.master_port(sentinel) == port)
            .count()
            >= 2
            && sentinels.servers[index]
                .cli(&["ROLE"])
                .starts_with("master")
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_has_a_successor_and_no_request_fails() {
    let mut sentinels = RedisSentinels::start();
    let (store, probe) = (connect(&sentinels.url()), key("/probe"));
    store_in(&store, &probe, "1").await;
    let traffic = Traffic::start(store.clone(), keys(100), Vec::new());
    traffic.more(500).await;
    let killed = Instant::now();
    sentinels.servers[0].kill();
    sentinels.watch_closely();
    tokio::task::block_in_place(|| wait_until_named(&sentinels, 1));
    let elected = killed.elapsed();
    let back = store_in(&store, &probe, "1").await;
    traffic.more(500).await;
    let outcome = traffic.end().await;
    println!("killed -9: named after {elected:?}, in use {back:?} later; {outcome}");
    assert_eq!(outcome.failed, 0);
    assert!(back < BACK, "{back:?}");
    let lost = |back: &Back| back.deleted <= killed + LOST && killed <= back.deleted + LOST;
    assert!(outcome.back.iter().all(lost), "{:?}", outcome.back);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_failover_is_followed_and_no_request_fails() {
    let sentinels = RedisSentinels::start();
    let (store, probe) = (connect(&sentinels.url()), key("/probe"));
    store_in(&store, &probe, "1").await;
    let traffic = Traffic::start(store.clone(), keys(100), Vec::new());
    traffic.more(500).await;
    let begun = Instant::now();
    sentinels.fail_over();
    tokio::task::block_in_place(|| wait_until_named(&sentinels, 1));
    let named = Instant::now();
    let new = &sentinels.servers[1];
    let back = loop {
        store_in(&store, &probe, "1").await;
        if new.cli(&["EXISTS", probe.as_str()]) == "1" {
            break named.elapsed();
        }
        assert!(named.elapsed() < BACK, "the old master is still used");
        new.cli(&["DEL", probe.as_str()]);
    };
    traffic.more(500).await;
    let outcome = traffic.end().await;
    println!("SENTINEL FAILOVER: in use {back:?} later; {outcome}");
    assert_eq!(outcome.failed, 0);
    // Unlike CLUSTER FAILOVER, it loses what the old master takes until it knows.
    let lost = |back: &Back| back.deleted >= begun && back.deleted <= named + LOST * 2;
    assert!(outcome.back.iter().all(lost), "{:?}", outcome.back);
}

/// The master is there, and answers all who ask it; but another may have been elected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_no_majority_names_is_not_trusted() {
    let mut sentinels = RedisSentinels::start();
    let (store, key) = (connect_patiently(&sentinels.url()), key("/a"));
    store_in(&store, &key, "1").await;
    sentinels.kill_sentinel(0);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(3) {
        let found = store.get(&key, Ttl::MAX).await;
        assert!(
            matches!(found, Ok(Some(_))),
            "two of three are enough: {found:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sentinels.kill_sentinel(1);
    let begin = Instant::now();
    let why = loop {
        match store.get(&key, Ttl::MAX).await {
            Err(StoreError::Away(why)) => break why,
            other => assert!(matches!(other, Ok(Some(_))), "{other:?}"),
        }
        // 2 s, and a machine that is busy.
        assert!(
            begin.elapsed() < Duration::from_secs(4),
            "it is still trusted"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    println!("not trusted any more after {:?}: {why}", begin.elapsed());
    assert!(
        why.contains("no master is named by 2 of 3 Sentinels"),
        "{why}"
    );
    // The naive form goes on reading.
    assert_eq!(sentinels.servers[0].cli(&["GET", key.as_str()]), "1");
    assert!(matches!(
        store.delete(&[key]).await,
        Err(StoreError::Away(_))
    ));
}

/// The master that took it may be one no more: who uses its successor by then does not know of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_majority_confirms_is_not_done() {
    let mut sentinels = RedisSentinels::start();
    let (store, keys) = (connect_patiently(&sentinels.url()), keys(100));
    store_in(&store, &keys[0], "1").await;
    let begin = Instant::now();
    for key in &keys {
        assert!(store.set(entry(key, "1")).await.unwrap().is_stored());
        assert_eq!(
            store
                .delete(std::slice::from_ref(key))
                .await
                .unwrap()
                .entries,
            1
        );
    }
    println!("100 sets and deletes took {:?}", begin.elapsed());
    let (deleted, kept) = (&keys[0], &keys[1]);
    for key in [deleted, kept] {
        assert!(store.set(entry(key, "1")).await.unwrap().is_stored());
    }
    sentinels.kill_sentinel(0);
    sentinels.kill_sentinel(1);
    let error = store
        .delete(std::slice::from_ref(deleted))
        .await
        .unwrap_err();
    // The master is still trusted, and took it: alone that it does so counts for nothing.
    let found = store.get(kept, Ttl::MAX).await;
    assert!(matches!(found, Ok(Some(_))), "{found:?}");
    assert_eq!(sentinels.servers[0].cli(&["EXISTS", deleted.as_str()]), "0");
    assert!(error.may_have_happened(), "{error}");
    // Nor is a value the one that others see.
    let error = store.set(entry(kept, "2")).await.unwrap_err();
    assert_eq!(sentinels.servers[0].cli(&["GET", kept.as_str()]), "2");
    assert!(error.may_have_happened(), "{error}");
    let service = larder_core::Service::new("svc").unwrap();
    let renewed = store.renew(&service, &[larder_core::VersionName::Service]);
    assert!(renewed.await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_hangs_is_not_waited_for() {
    let sentinels = RedisSentinels::start();
    let (store, key) = (connect_patiently(&sentinels.url()), key("/a"));
    store_in(&store, &key, "1").await;
    sentinels.pause_sentinel(1);
    let begin = Instant::now();
    for _ in 0..10 {
        store.delete(std::slice::from_ref(&key)).await.unwrap();
    }
    // The naive form waits for it until the deadline, of 5 s here.
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_sentinels_do_not_know_is_said() {
    let sentinels = RedisSentinels::start();
    let store = connect_patiently(&sentinels.url().replace("/mymaster", "/other"));
    let error = store
        .get(&key("/a"), Ttl::MAX)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no master called other"), "{error}");
}

/// A master that is made a replica closes no connection, and answers reads: from data that is not its own any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demoted_master_is_not_read() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let (store, key) = (connect_patiently(&server.url()), key("/a"));
    store_in(&store, &key, "1").await;
    // A replica of one that never lets it in keeps its old data.
    other.pause();
    let port = other.port().to_string();
    assert_eq!(server.cli(&["REPLICAOF", "127.0.0.1", &port]), "OK");
    assert_eq!(server.cli(&["GET", key.as_str()]), "1", "the fault bites");
    let begin = Instant::now();
    let error = loop {
        match store.get(&key, Ttl::MAX).await {
            Err(StoreError::Away(why)) if why.contains("name its master") => break why,
            other => assert!(!matches!(other, Ok(None)), "{other:?}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "it is still read");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(
        error.contains("it is a replica: name its master"),
        "{error}"
    );
    // Nobody knows what it missed meanwhile.
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    until_kept(&store, &key).await;
    // A write is refused, and says so.
    server.cli(&["REPLICAOF", "127.0.0.1", &port]);
    let written = store.set(entry(&key, "2")).await;
    assert!(!written.is_ok_and(|written| written.is_stored()));
    let begin = Instant::now();
    while !matches!(store.get(&key, Ttl::MAX).await, Err(StoreError::Away(_))) {
        assert!(begin.elapsed() < Duration::from_secs(5), "it is still read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.resume();
}
