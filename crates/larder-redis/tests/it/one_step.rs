//! A `set` stores the entry and ends its lease in one step; where the slot is on its way to another server, in two.

use std::time::Duration;

use larder_core::{Skip, Store as _, StoreError, Ttl, Written};
use larder_redis::Options;
use larder_testing::redis::{RedisCluster, RedisServer};

use crate::rights::LEAST;
use crate::{connect_patiently, connect_with, entry, key, until_kept};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_comes_between_the_end_of_a_lease_and_the_entry() {
    let server = RedisServer::start();
    let (store, key) = (connect_patiently(&server.url()), key("/a"));
    let lease = format!("larder:lease:{{{key}}}");
    server.cli(&["SET", &lease, "token", "PX", "60000"]);
    let monitor = server.monitor();
    assert!(store.set(entry(&key, "1")).await.unwrap().is_stored());
    let seen = monitor.until("\"exec\"");
    let words = seen.lines().filter_map(|line| line.split('"').nth(1));
    let words: Vec<&str> = words.collect();
    let begin = words.iter().position(|word| *word == "MULTI").unwrap();
    assert_eq!(
        words[begin..],
        ["MULTI", "UNLINK", "SETEX", "EXEC"],
        "{seen}"
    );
    assert_eq!(server.cli(&["EXISTS", &lease]), "0");
    assert_eq!(server.cli(&["GET", key.as_str()]), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_on_its_way_is_written_to() {
    let cluster = RedisCluster::start();
    let (store, key) = (connect_patiently(&cluster.url()), key("/a"));
    assert!(store.set(entry(&key, "1")).await.unwrap().is_stored());
    let slot = cluster.slots_of_keys([key.as_str()].into_iter())[0];
    let owner = (0..3).find(|node| cluster.slots_of(*node).contains(&slot));
    let (owner, slot) = (owner.unwrap(), slot.to_string());
    let target = (owner + 1) % 3;
    let (from, to) = (cluster.id(owner), cluster.id(target));
    let of = |node: usize, words: [&str; 2]| {
        let told = cluster.nodes[node].cli(&["CLUSTER", "SETSLOT", &slot, words[0], words[1]]);
        assert_eq!(told, "OK");
    };
    of(target, ["IMPORTING", &from]);
    of(owner, ["MIGRATING", &to]);
    // The fault: of two keys one is there, and the other may be elsewhere.
    let lease = format!("larder:lease:{{{key}}}");
    let both = cluster.nodes[owner].cli(&["UNLINK", &lease, key.as_str()]);
    assert!(both.starts_with("TRYAGAIN"), "{both}");
    for value in ["2", "3"] {
        let written = store.set(entry(&key, value)).await.unwrap();
        assert!(written.is_stored(), "{written:?}");
        let found = store.get(&key, Ttl::MAX).await.unwrap();
        assert_eq!(found.unwrap().bytes, value);
        // The second time with neither at the source.
        let port = cluster.nodes[target].port().to_string();
        let moved = ["MIGRATE", "127.0.0.1", &port, key.as_str(), "0", "5000"];
        cluster.nodes[owner].cli(&moved);
    }
}

/// Where no entry of many can be stored in one step, all are together, and not one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_need_two_steps_take_them_together() {
    let rules = LEAST.replace("+multi +exec ", "");
    let mut arguments = vec!["--user", "app", "on", ">pass"];
    arguments.extend(rules.split(' '));
    let server = RedisServer::start_with(&arguments);
    let store = connect_patiently(&format!("redis://app:pass@127.0.0.1:{}", server.port()));
    assert!(store.set(entry(&key("/a"), "1")).await.unwrap().is_stored());
    // Each batch of commands ends with one.
    let pings = || {
        let stats = server.cli(&["INFO", "commandstats"]);
        let calls = stats.split("cmdstat_ping:calls=").nth(1);
        let calls = calls.and_then(|rest| rest.split(',').next()?.parse::<u32>().ok());
        calls.unwrap()
    };
    let before = pings();
    let keys: Vec<_> = (0..500).map(|index| key(&format!("/{index}"))).collect();
    let entries = keys.iter().map(|key| entry(key, "2")).collect();
    let written = store.set_many(entries).await.unwrap();
    assert!(written.iter().all(|written| written.is_stored()));
    let batches = pings() - before;
    assert!(batches < 100, "{batches}");
    let found = store.get_many(&keys, Ttl::MAX).await.unwrap();
    assert!(found.iter().all(Option::is_some));
}

/// What is sent around the two counts, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_is_as_many_commands_as_are_sent() {
    let server = RedisServer::start();
    let options = Options {
        deadline: Duration::from_secs(5),
        max_in_flight: 15,
        ..Options::default()
    };
    let store = connect_with(&server.url(), options);
    until_kept(&store, &key("/a")).await;
    let of = |count: usize| (0..count).map(|index| entry(&key(&format!("/{index}")), "1"));
    let written = store.set_many(of(4).collect()).await.unwrap();
    let busy = Written::Skipped(Skip::Store(StoreError::Busy));
    assert!(
        written.iter().all(|written| *written == busy),
        "{written:?}"
    );
    // Three have room, once nothing else is under way.
    while !store.set_many(of(3).collect()).await.unwrap()[0].is_stored() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
