//! What was deleted does not come back, whatever the servers lose: a restart from an old snapshot, a failover before the
//! replica heard of the delete. Shown with plain entries, which can't tell in which life of their server they were taken; the
//! naive form (`keep`) finds them again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Acquired, Key, Store as _, Ttl};
use larder_redis::{AfterFailover, Options, RedisStore};
use larder_testing::redis::{RedisCluster, RedisSentinels, RedisServer, wait_until};

use crate::{connect_patiently, connect_with, entry, key, store_in, until_found};

const PATIENCE: Duration = Duration::from_secs(20);

fn naive(url: &str) -> Arc<RedisStore> {
    let options = Options {
        after_failover: AfterFailover::Keep,
        deadline: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(10),
        ..Options::default()
    };
    connect_with(url, options)
}

async fn delete(store: &RedisStore, key: &Key) {
    let keys = std::slice::from_ref(key);
    assert_eq!(store.delete(keys).await.unwrap().entries, 1);
}

/// Whatever is read of a key until another one is found again, by every way to read, it is nothing.
async fn never_found(store: &RedisStore, key: &Key, other: &Key) {
    let begin = Instant::now();
    let keys = std::slice::from_ref(key);
    loop {
        assert!(!matches!(store.get(key, Ttl::MAX).await, Ok(Some(_))));
        let many = store.get_many(keys, Ttl::MAX).await;
        assert!(!many.is_ok_and(|many| many.iter().any(Option::is_some)));
        if let Ok(acquired) = store.acquire(keys, Duration::from_secs(1)).await {
            let found = match &acquired[0] {
                Acquired::Granted { found, .. }
                | Acquired::Held { found, .. }
                | Acquired::Uncached { found } => found,
            };
            assert_eq!(*found, None);
        }
        let _ = store.set(entry(other, "2")).await;
        if matches!(store.get(other, Ttl::MAX).await, Ok(Some(_))) {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "the cache does not come back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.get(key, Ttl::MAX).await, Ok(None));
}

/// A server that comes back with what was deleted since its snapshot.
async fn restarted_with(server: &mut RedisServer, deleted: &Key) {
    let store = connect_patiently(&server.url());
    store_in(&store, deleted, "1").await;
    assert_eq!(server.cli(&["SAVE"]), "OK");
    delete(&store, deleted).await;
    drop(store);
    server.kill();
    server.restart();
    assert_eq!(server.cli(&["EXISTS", deleted.as_str()]), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_from_an_old_snapshot_brings_nothing_back() {
    let mut server = RedisServer::start();
    let (deleted, other) = (key("/a"), key("/b"));
    restarted_with(&mut server, &deleted).await;
    let found = naive(&server.url()).get(&deleted, Ttl::MAX).await.unwrap();
    assert_eq!(found.unwrap().bytes, "1", "the fault bites");
    // Who deleted it is gone; one who knows nothing of it comes.
    let store = connect_patiently(&server.url());
    never_found(&store, &deleted, &other).await;
    assert_eq!(server.cli(&["EXISTS", deleted.as_str()]), "0");
    // What was stored in this life stays, for who comes next, too.
    store_in(&store, &deleted, "3").await;
    let next = connect_patiently(&server.url());
    let found = next.get(&deleted, Ttl::MAX).await.unwrap();
    assert_eq!(found.unwrap().bytes, "3");
    assert_eq!(server.cli(&["--scan", "--pattern", "larder:*"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_processes_one_sweeps_and_framed_entries_stay() {
    const ENTRIES: usize = 5_000;
    let mut server = RedisServer::start();
    let framed = key("/framed");
    let seeding = connect_patiently(&server.url());
    let keys: Vec<Key> = (0..ENTRIES)
        .map(|index| key(&format!("/{index}")))
        .collect();
    let written = seeding.set_many(keys.iter().map(|key| entry(key, "1")).collect());
    assert!(written.await.unwrap().iter().all(|one| one.is_stored()));
    let mut frame = entry(&framed, "");
    frame.bytes = vec![0xC1, 1, 0, 0].into();
    assert!(seeding.set(frame).await.unwrap().is_stored());
    server.cli(&["SET", "cache:other:/a", "1"]);
    server.cli(&["SAVE"]);
    let stores: Vec<_> = (0..6).map(|_| connect_patiently(&server.url())).collect();
    for store in &stores {
        assert!(store.get(&keys[0], Ttl::MAX).await.unwrap().is_some());
    }
    server.kill();
    server.restart();
    let begin = Instant::now();
    while server.cli(&["DBSIZE"]) != "2" {
        assert!(begin.elapsed() < PATIENCE, "{}", server.cli(&["DBSIZE"]));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for store in &stores {
        store_in(store, &keys[0], "2").await;
        until_found(store, &keys[0]).await;
    }
    // Of another service nothing was asked.
    assert_eq!(
        server.cli(&["EXISTS", framed.as_str(), "cache:other:/a"]),
        "2"
    );
    let stats = server.cli(&["INFO", "commandstats"]);
    let calls = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_unlink:calls="))
        .and_then(|rest| rest.split(',').next()?.parse::<usize>().ok());
    let calls = calls.unwrap();
    assert!((ENTRIES..ENTRIES * 3 / 2).contains(&calls), "{stats}");
}

/// A service that is started again finds its cache warm, and what another program wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_on_is_not_swept() {
    let server = RedisServer::start();
    // Before anybody connects.
    server.cli(&["SET", "cache:svc:/foreign", "[1]", "EX", "60"]);
    for _ in 0..2 {
        let store = connect_patiently(&server.url());
        let found = store.get(&key("/foreign"), Ttl::MAX).await.unwrap();
        assert_eq!(found.unwrap().bytes, "[1]");
    }
    // In one that has a past, from when it was first used on.
    let mut server = RedisServer::start();
    restarted_with(&mut server, &key("/a")).await;
    for round in 0..3 {
        let store = connect_patiently(&server.url());
        let found = store.get(&key("/foreign"), Ttl::MAX).await.unwrap();
        assert_eq!(found.is_some(), round > 0);
        server.cli(&["SET", "cache:svc:/foreign", "[1]", "EX", "60"]);
        let found = store.get(&key("/foreign"), Ttl::MAX).await.unwrap();
        assert_eq!(found.unwrap().bytes, "[1]");
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        until_found(&store, &key("/foreign")).await;
    }
}

/// A user of one service sweeps what is that service's, and needs no more rights than for anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_user_sweeps_its_own() {
    let rules = crate::rights::least_of("svc");
    let mut arguments = vec!["--user", "svc", "on", ">pass"];
    arguments.extend(rules.split(' '));
    let mut server = RedisServer::start_with(&arguments);
    let (deleted, other) = (key("/a"), key("/b"));
    server.cli(&["SET", "cache:svc-b:/a", "1"]);
    restarted_with(&mut server, &deleted).await;
    let store = connect_patiently(&format!("redis://svc:pass@127.0.0.1:{}", server.port()));
    // It may not read this one, nor sweep it: that stands in nobody's way.
    let theirs = Key::new("svc-b", "/a").unwrap();
    assert!(store.get(&theirs, Ttl::MAX).await.is_err());
    never_found(&store, &deleted, &other).await;
    assert_eq!(
        server.cli(&["EXISTS", deleted.as_str(), theirs.as_str()]),
        "1"
    );
}

/// A master keeps its `run_id` when it is demoted and promoted again; also where that is too short to be noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_demoted_is_in_another_life_when_it_is_promoted_again() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let port = other.port().to_string();
    let (store, key) = (connect_patiently(&server.url()), key("/a"));
    store_in(&store, &key, "1").await;
    let before = store.incarnation(&key);
    let id = server.cli(&["INFO", "server"]);
    let run_id = |info: &str| {
        let line = info.lines().find(|line| line.starts_with("run_id:"));
        line.unwrap().to_owned()
    };
    other.pause();
    server.cli(&["REPLICAOF", "127.0.0.1", &port]);
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(run_id(&server.cli(&["INFO", "server"])), run_id(&id));
    assert_eq!(
        server.cli(&["EXISTS", key.as_str()]),
        "1",
        "the fault bites"
    );
    let begin = Instant::now();
    while store.incarnation(&key) == before {
        assert!(begin.elapsed() < Duration::from_secs(5), "not noticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    never_found(&store, &key, &crate::key("/b")).await;
    other.resume();
}

/// Then nothing can be told, and so nothing is read that may have come back; the log says what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_tell_its_life_has_no_entries_but_of_this_connection() {
    let server = RedisServer::start();
    let rules = "ACL SETUSER app on >pw ~* +@all -info";
    let rules: Vec<&str> = rules.split(' ').collect();
    assert_eq!(server.cli(&rules), "OK");
    let url = format!("redis://app:pw@127.0.0.1:{}", server.port());
    let (plain, framed) = (key("/plain"), key("/framed"));
    let (one, other) = (connect_patiently(&url), connect_patiently(&url));
    let mut frame = entry(&framed, "");
    frame.bytes = vec![0xC1, 1, 0, 0].into();
    assert!(one.set(frame).await.unwrap().is_stored());
    store_in(&one, &plain, "1").await;
    for store in [&one, &other] {
        assert_eq!(store.get(&plain, Ttl::MAX).await, Ok(None));
    }
    let incarnation = |stored: Option<larder_core::Stored>| stored.unwrap().incarnation;
    let (of_one, of_other) = (
        incarnation(one.get(&framed, Ttl::MAX).await.unwrap()),
        incarnation(other.get(&framed, Ttl::MAX).await.unwrap()),
    );
    assert!(of_one != 0 && of_other != 0 && of_one != of_other);
    assert_eq!(one.incarnation(&framed), of_one);
    let kept = naive(&url);
    assert!(kept.get(&plain, Ttl::MAX).await.unwrap().is_some());
    assert_eq!(incarnation(kept.get(&framed, Ttl::MAX).await.unwrap()), 0);
}

/// The master acknowledges a delete that its replica never hears of.
async fn lose(store: &RedisStore, deleted: &Key, master: &mut RedisServer, replica: &RedisServer) {
    store_in(store, deleted, "1").await;
    tokio::task::block_in_place(|| {
        wait_until("the replica has it", || {
            replica.cli(&["READONLY"]);
            replica.cli(&["DBSIZE"]) == master.cli(&["DBSIZE"])
        });
    });
    replica.pause();
    // Else the delete would wait for it in its socket.
    master.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    delete(store, deleted).await;
    master.kill();
    replica.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_a_delete_brings_nothing_back() {
    let mut sentinels = RedisSentinels::start();
    let (deleted, other) = (key("/a"), key("/b"));
    let (store, kept) = (connect_patiently(&sentinels.url()), naive(&sentinels.url()));
    let (master, replica) = sentinels.servers.split_at_mut(1);
    lose(&store, &deleted, &mut master[0], &replica[0]).await;
    sentinels.watch_closely();
    drop(store);
    until_found(&kept, &deleted).await;
    assert_eq!(
        sentinels.servers[1].cli(&["EXISTS", deleted.as_str()]),
        "1",
        "the fault bites"
    );
    let store = connect_patiently(&sentinels.url());
    never_found(&store, &deleted, &other).await;
    assert_eq!(kept.get(&deleted, Ttl::MAX).await, Ok(None), "it was swept");
}

/// Those that are connected all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_under_a_connected_process_brings_nothing_back() {
    let mut sentinels = RedisSentinels::start();
    let (deleted, other) = (key("/a"), key("/b"));
    let (store, reader) = (
        connect_patiently(&sentinels.url()),
        connect_patiently(&sentinels.url()),
    );
    let (master, replica) = sentinels.servers.split_at_mut(1);
    store_in(&reader, &deleted, "0").await;
    lose(&store, &deleted, &mut master[0], &replica[0]).await;
    sentinels.watch_closely();
    let ends = Instant::now() + PATIENCE;
    while sentinels.servers[1].cli(&["ROLE"]).starts_with("slave") {
        assert!(Instant::now() < ends);
        assert!(!matches!(reader.get(&deleted, Ttl::MAX).await, Ok(Some(_))));
    }
    never_found(&reader, &deleted, &other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clusters_failover_that_loses_a_delete_brings_nothing_back() {
    let mut cluster = RedisCluster::start();
    let keys: Vec<Key> = (0..50).map(|index| key(&format!("/{index}"))).collect();
    let slots = cluster.slots_of_keys(keys.iter().map(Key::as_str));
    let mut of_master = std::iter::zip(&keys, &slots)
        .filter(|(_, slot)| cluster.slots_of(0).contains(slot))
        .map(|(key, _)| key.clone());
    let (deleted, other) = (of_master.next().unwrap(), of_master.next().unwrap());
    let (store, kept) = (connect_patiently(&cluster.url()), naive(&cluster.url()));
    // What the others have stays.
    let elsewhere =
        std::iter::zip(&keys, &slots).find(|(_, slot)| cluster.slots_of(1).contains(slot));
    let elsewhere = elsewhere.unwrap().0.clone();
    store_in(&store, &elsewhere, "1").await;
    drop(of_master);
    let (masters, replicas) = cluster.nodes.split_at_mut(3);
    lose(&store, &deleted, &mut masters[0], &replicas[0]).await;
    cluster.watch_closely();
    drop(store);
    until_found(&kept, &deleted).await;
    let store = connect_patiently(&cluster.url());
    never_found(&store, &deleted, &other).await;
    assert_eq!(kept.get(&deleted, Ttl::MAX).await, Ok(None), "it was swept");
    assert!(store.get(&elsewhere, Ttl::MAX).await.unwrap().is_some());
}
