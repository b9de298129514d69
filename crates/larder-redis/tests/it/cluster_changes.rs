//! A Cluster's masters die and are replaced, while requests go on: none fails, nothing that was deleted comes back but what
//! the Cluster itself lost, and the cache works again soon.

use std::time::{Duration, Instant};

use larder_core::{Key, Store as _, StoreError, Ttl};
use larder_testing::redis::{RedisCluster, wait_until};

use crate::traffic::{Back, Traffic};
use crate::{connect, connect_patiently, entry, key, until_kept};

/// The mark is 1 s.
const BACK: Duration = Duration::from_secs(10);
/// What a master acknowledged so long before it died may not have reached its replica.
const LOST: Duration = Duration::from_secs(1);

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|index| key(&format!("/{index}"))).collect()
}

/// A key of a master's slots, for which there are no other requests.
fn key_of(cluster: &RedisCluster, master: usize) -> Key {
    let keys: Vec<Key> = (0..50)
        .map(|index| key(&format!("/probe/{index}")))
        .collect();
    let slots = cluster.slots_of_keys(keys.iter().map(Key::as_str));
    let of_master = slots
        .iter()
        .position(|slot| cluster.slots_of(master).contains(slot));
    keys[of_master.unwrap()].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_has_a_successor_and_no_request_fails() {
    let mut cluster = RedisCluster::start();
    let probe = key_of(&cluster, 0);
    let store = connect(&cluster.url());
    until_kept(&store, &probe).await;
    let traffic = Traffic::start(store.clone(), keys(100), Vec::new());
    traffic.more(500).await;
    let killed = Instant::now();
    cluster.nodes[0].kill();
    cluster.watch_closely();
    // The fault: nobody answers for the dead master's slots, and no other node takes them at once.
    let bare = cluster.nodes[1].cli(&["GET", probe.as_str()]);
    assert!(bare.starts_with("MOVED") || bare.contains("DOWN"), "{bare}");
    tokio::task::block_in_place(|| {
        wait_until("the replica takes over", || cluster.is_master(3));
    });
    let elected = killed.elapsed();
    let back = until_kept(&store, &probe).await;
    traffic.more(500).await;
    let outcome = traffic.end().await;
    println!("killed -9: elected after {elected:?}, in use {back:?} later; {outcome}");
    assert_eq!(outcome.failed, 0);
    assert!(back < BACK, "{back:?}");
    let lost = |back: &Back| back.deleted <= killed + LOST && killed <= back.deleted + LOST;
    assert!(
        outcome.back.iter().all(lost),
        "{killed:?}: {:?}",
        outcome.back
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_failover_loses_nothing_and_no_request_fails() {
    let cluster = RedisCluster::start();
    let probe = key_of(&cluster, 1);
    // Else the nodes tell each other too seldom for it.
    cluster.watch_closely();
    let store = connect(&cluster.url());
    until_kept(&store, &probe).await;
    let traffic = Traffic::start(store.clone(), keys(100), Vec::new());
    traffic.more(500).await;
    // There, and back again.
    for (replica, master) in [(4, 1), (1, 4)] {
        assert_eq!(cluster.nodes[replica].cli(&["CLUSTER", "FAILOVER"]), "OK");
        tokio::task::block_in_place(|| {
            wait_until("the replica takes over", || {
                cluster.is_master(replica) && !cluster.is_master(master)
            });
        });
        let back = until_kept(&store, &probe).await;
        println!("CLUSTER FAILOVER: in use {back:?} later");
        assert!(back < BACK, "{back:?}");
        traffic.more(500).await;
        tokio::task::block_in_place(|| {
            wait_until("it has all data", || cluster.nodes[master].is_in_sync());
        });
    }
    let outcome = traffic.end().await;
    println!("{outcome}");
    assert_eq!((outcome.failed, outcome.back.len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_master_has_is_read_while_one_is_away() {
    let mut cluster = RedisCluster::start();
    let store = connect_patiently(&cluster.url());
    let of = [0, 1, 2].map(|master| key_of(&cluster, master));
    for key in &of {
        until_kept(&store, key).await;
    }
    // Without its replica nobody takes over.
    cluster.nodes[3].kill();
    cluster.nodes[0].kill();
    let begin = Instant::now();
    loop {
        let found = store.get_many(&of, Ttl::MAX).await.unwrap();
        let found: Vec<bool> = found.iter().map(Option::is_some).collect();
        if found == [false, true, true] {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{found:?}");
    }
    let written = store.set_many(of.iter().map(|key| entry(key, "2")).collect());
    let written: Vec<bool> = written
        .await
        .unwrap()
        .iter()
        .map(|one| one.is_stored())
        .collect();
    assert_eq!(written, [false, true, true]);
    // What can't be confirmed is an error, and what can be deleted is.
    assert!(store.delete(&of).await.is_err());
    assert_eq!(cluster.nodes[1].cli(&["EXISTS", of[1].as_str()]), "0");
    let pattern = larder_core::Pattern::parse("cache:svc:*").unwrap();
    let cleared = store.clear(&pattern, larder_core::ClearMode::Delete).await;
    let Err(StoreError::Refused(why)) = cleared else {
        panic!("{cleared:?}");
    };
    assert!(why.contains("not all entries were met"), "{why}");
}

/// Slots are reckoned as the Cluster does: no node ever has to send us on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_goes_straight_to_its_master() {
    let cluster = RedisCluster::start();
    let store = connect_patiently(&cluster.url());
    let keys = keys(1_000);
    let written = store.set_many(keys.iter().map(|key| entry(key, "1")).collect());
    assert!(written.await.unwrap().iter().all(|one| one.is_stored()));
    let found = store.get_many(&keys, Ttl::MAX).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    assert_eq!(store.delete(&keys).await.unwrap().entries, 1_000);
    for node in &cluster.nodes[..3] {
        let errors = node.cli(&["INFO", "errorstats"]);
        assert!(!errors.contains("MOVED"), "{errors}");
        let commands = node.cli(&["INFO", "commandstats"]);
        assert!(commands.contains("cmdstat_setex"), "{commands}");
    }
}

/// A Cluster that is gone altogether is waited for no longer than one server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clear_does_not_wait_for_a_cluster_that_is_gone() {
    let mut cluster = RedisCluster::start_with(1, &[]);
    let (store, key) = (connect(&cluster.url()), key("/a"));
    until_kept(&store, &key).await;
    for node in &mut cluster.nodes {
        node.kill();
    }
    while store.get(&key, Ttl::MAX).await.is_ok() {}
    let begin = Instant::now();
    let pattern = larder_core::Pattern::parse("cache:svc:*").unwrap();
    let cleared = store.clear(&pattern, larder_core::ClearMode::Delete).await;
    assert!(cleared.is_err(), "{cleared:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_not_taken_for_one_server_nor_one_server_for_a_cluster() {
    let cluster = RedisCluster::start_with(1, &[]);
    let url = cluster.nodes[0].url();
    let as_one = connect_patiently(&url)
        .get(&key("/a"), Ttl::MAX)
        .await
        .unwrap_err();
    assert!(as_one.to_string().contains("redis+cluster://"), "{as_one}");
    let server = larder_testing::redis::RedisServer::start();
    let as_cluster = connect_patiently(&server.url().replace("redis://", "redis+cluster://"));
    let as_cluster = as_cluster.get(&key("/a"), Ttl::MAX).await.unwrap_err();
    assert!(
        as_cluster.to_string().contains("no node of a Cluster"),
        "{as_cluster}"
    );
    let as_sentinel = server.url().replace("redis://", "redis+sentinel://") + "/mymaster";
    let as_sentinel = connect_patiently(&as_sentinel)
        .get(&key("/a"), Ttl::MAX)
        .await
        .unwrap_err();
    assert!(
        as_sentinel.to_string().contains("no Sentinel"),
        "{as_sentinel}"
    );
}
