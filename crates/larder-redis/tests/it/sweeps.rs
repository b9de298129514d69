//! What a sweep removes, when, and what it leaves: plain entries of another life of their server, and nothing else.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use larder_core::{Key, Store as _, Ttl};
use larder_redis::Options;
use larder_testing::redis::{RedisServer, wait_until};

use crate::rights::LEAST;
use crate::scripted::{bulk, only_node};
use crate::{connect_patiently, connect_with, key, until_found, until_kept};

/// A plain entry, as another program writes it, and the text of a framed one, which no such program writes.
const PLAIN: &str = "cache:svc:/plain";
const FRAMED: &str = "cache:svc:/framed";
/// What the one who sweeps holds.
const LEASE: &str = "larder:lease:{cache:svc:sweep}";

/// A server that has a plain and a framed entry from the life before.
fn restarted(arguments: &[&str]) -> RedisServer {
    let mut server = RedisServer::start_with(arguments);
    let fill = "redis.call('SET', KEYS[1], '1') redis.call('SET', KEYS[2], '\\193\\1\\0\\0')";
    server.cli(&["EVAL", fill, "2", PLAIN, FRAMED]);
    assert_eq!(server.cli(&["SAVE"]), "OK");
    server.kill();
    server.restart();
    server
}

fn wait_for(what: &str, is_so: impl FnMut() -> bool) {
    tokio::task::block_in_place(|| wait_until(what, is_so));
}

/// What a replica took from its master may have been deleted there since; also where it does not know any more that it was
/// one: it was told of all keys one by one, was promoted, and had no replica for a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_forgotten_its_master_is_swept() {
    let master = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let (port, taken) = (master.port().to_string(), key("/a"));
    let arguments = ["--replicaof", "127.0.0.1", &port, "--repl-backlog-ttl", "1"];
    let server = RedisServer::start_with(&arguments);
    tokio::task::block_in_place(|| {
        wait_until("the replica is in step", || server.is_in_sync());
        master.cli(&["SET", taken.as_str(), "1", "EX", "60"]);
        wait_until("it has the key", || server.cli(&["DBSIZE"]) == "1");
        assert_eq!(server.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        let tells = |section: &str, what: &str| server.cli(&["INFO", section]).contains(what);
        wait_until("it has forgotten its master", || {
            tells("replication", "repl_backlog_active:0")
                && tells("replication", &format!("master_replid2:{:040}", 0))
        });
        assert!(tells("persistence", "rdb_last_load_keys_loaded:0"));
    });
    let store = connect_patiently(&server.url());
    assert_eq!(store.get(&taken, Ttl::MAX).await, Ok(None));
    wait_for("it is swept", || {
        server.cli(&["EXISTS", taken.as_str()]) == "0"
    });
}

/// A server that does not let anybody look whether an entry is framed is not swept at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_framed_is_not_removed() {
    let rules = LEAST.replace("+getrange ", "");
    let mut arguments = vec!["--user", "app", "on", ">pass"];
    arguments.extend(rules.split(' '));
    let server = restarted(&arguments);
    let store = connect_patiently(&format!("redis://app:pass@127.0.0.1:{}", server.port()));
    assert_eq!(store.get(&key("/plain"), Ttl::MAX).await, Ok(None));
    wait_for("it was tried to look", || {
        let stats = server.cli(&["INFO", "commandstats"]);
        let line = stats.lines().find(|line| line.contains("getrange"));
        line.is_some_and(|line| !line.contains("rejected_calls=0"))
    });
    wait_for("the sweep is over", || {
        server.cli(&["EXISTS", LEASE]) == "0"
    });
    assert_eq!(server.cli(&["EXISTS", PLAIN, FRAMED]), "2");
    assert_eq!(store.get(&key("/plain"), Ttl::MAX).await, Ok(None));
}

/// Else an operator's look would empty the cache of services that keep theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_looks_removes_nothing() {
    let server = restarted(&[]);
    let looking = Options {
        deadline: Duration::from_secs(5),
        sweeps: false,
        ..Options::default()
    };
    let looking = connect_with(&server.url(), looking);
    assert_eq!(looking.get(&key("/plain"), Ttl::MAX).await, Ok(None));
    assert!(
        looking
            .get(&key("/framed"), Ttl::MAX)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(server.cli(&["EXISTS", PLAIN, FRAMED]), "2");
    let stats = server.cli(&["INFO", "commandstats"]);
    for word in [
        "cmdstat_unlink",
        "cmdstat_del:",
        "cmdstat_script",
        "cmdstat_set:",
    ] {
        assert!(!stats.contains(word), "{stats}");
    }
    // What a service then stores is seen.
    let service = connect_patiently(&server.url());
    until_kept(&service, &key("/new")).await;
    until_found(&looking, &key("/new")).await;
    assert_eq!(server.cli(&["EXISTS", PLAIN, FRAMED]), "1");
}

/// Another process was through between the look for its note and the lease; also where slots move.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_has_swept_is_not_swept_again() {
    let scans = Arc::new(AtomicU32::new(0));
    let (is_granted, scanned) = (AtomicBool::new(false), Arc::clone(&scans));
    let host = only_node(
        "[7->-other]",
        move |command, stream| match &command[0][..] {
            b"EVALSHA" if command[2] == b"1" => stream.write_all(b":1\r\n"),
            b"EVALSHA" if !is_granted.load(Ordering::SeqCst) => stream.write_all(b"-NOSCRIPT\r\n"),
            b"EVALSHA" => stream.write_all(b"+noted\r\n"),
            b"SET" => {
                is_granted.store(true, Ordering::SeqCst);
                stream.write_all(b"+OK\r\n")
            }
            b"SCAN" => {
                scanned.fetch_add(1, Ordering::SeqCst);
                stream.write_all(b"*2\r\n$1\r\n0\r\n*0\r\n")
            }
            b"GET" => stream.write_all(&bulk(b"1")),
            _ => stream.write_all(b":60000\r\n"),
        },
    );
    let store = connect_patiently(&format!("redis+cluster://{host}"));
    until_found(&store, &key("/a")).await;
    assert_eq!(scans.load(Ordering::SeqCst), 0);
}

/// It takes long where other programs have many keys; and what is another one's by then is left to that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sweeps_keeps_its_lease_while_it_meets_nothing_and_ends_no_other() {
    let mut server = RedisServer::start();
    let fill = "for i = 1, 200000 do redis.call('SET', 'other:' .. i, '1') end";
    server.cli(&["EVAL", fill, "0"]);
    assert_eq!(server.cli(&["SAVE"]), "OK");
    let begin = Instant::now();
    loop {
        server.kill();
        server.restart();
        wait_for("all is loaded", || server.cli(&["DBSIZE"]) == "200000");
        let monitor = server.monitor();
        let store = connect_patiently(&server.url());
        let read = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.get(&key("/a"), Ttl::MAX).await }
        });
        tokio::task::block_in_place(|| monitor.until("\"scan\""));
        let taken = server.cli(&["SET", LEASE, "another's", "PX", "60000", "XX"]);
        let seen = tokio::task::block_in_place(|| monitor.until("\"script\" \"load\""));
        assert_eq!(read.await.unwrap(), Ok(None));
        let count = |word: &str| seen.to_lowercase().matches(word).count();
        let (steps, kept) = (count("\"scan\""), count("\"eval\""));
        assert!(kept >= steps && steps > 10, "{kept} times in {steps} steps");
        // It may have been through before another one could come. The read waited until all was done.
        if taken == "OK" {
            assert_eq!(server.cli(&["GET", LEASE]), "another's");
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "always too late");
    }
}

/// However many services are waited for the first time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_that_are_not_swept_cost_one_deadline_together() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let rules = LEAST.replace("+scan ", "");
    let mut arguments = vec!["--user", "app", "on", ">pass"];
    arguments.extend(rules.split(' '));
    let server = restarted(&arguments);
    let options = Options {
        deadline: DEADLINE,
        ..Options::default()
    };
    let url = format!("redis://app:pass@127.0.0.1:{}", server.port());
    let store = connect_with(&url, options);
    let keys = (0..8).map(|index| Key::new(&format!("svc-{index}"), "/a").unwrap());
    let keys: Vec<Key> = keys.collect();
    let begin = Instant::now();
    let found = store.get_many(&keys, Ttl::MAX).await.unwrap();
    let took = begin.elapsed();
    assert!(found.iter().all(Option::is_none));
    assert!((DEADLINE..4 * DEADLINE).contains(&took), "{took:?}");
}
