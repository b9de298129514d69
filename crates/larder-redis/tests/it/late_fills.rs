//! No load fills late: whatever kept its lease, its grant or its fill from arriving in time.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use larder_core::{Acquired, FillRight, Guard, Key, Lease, Store as _, Stored, Ttl, Written};
use larder_redis::RedisStore;
use larder_testing::redis::RedisServer;

use crate::{connect, connect_patiently, entry, key, store_in, until_found};

const TIME: Duration = Duration::from_secs(60);

async fn acquire(store: &RedisStore, key: &Key) -> Acquired {
    let keys = std::slice::from_ref(key);
    store.acquire(keys, TIME).await.unwrap().remove(0)
}

async fn granted(store: &RedisStore, key: &Key) -> (Lease, Option<Stored>) {
    match acquire(store, key).await {
        Acquired::Granted { lease, found } => (lease, found),
        other => panic!("{key}: {other:?}"),
    }
}

async fn fill(store: &RedisStore, lease: &Lease, value: &str) -> Written {
    let mut entry = entry(&lease.key, value);
    entry.guard = Guard::Lease(FillRight::new(), lease.clone());
    store.set(entry).await.unwrap()
}

fn lease_key(key: &Key) -> String {
    format!("larder:lease:{{{key}}}")
}

/// H1: the request for a lease waits, the delete comes before it, and the grant after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_comes_late_gives_no_right() {
    let server = RedisServer::start();
    let (store, key) = (connect(&server.url()), key("/a"));
    let lease = lease_key(&key);
    store_in(&store, &key, "1").await;
    server.pause();
    // The naive form: it does not wait for the answer, loads, and fills with its token later.
    let mut naive = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    write!(naive, "SET {lease} naive NX PX 60000\r\n").unwrap();
    let asked = store.acquire(std::slice::from_ref(&key), TIME).await;
    assert!(asked.unwrap_err().may_have_happened());
    server.resume();
    until_found(&store, &key).await;
    let begin = Instant::now();
    while server.cli(&["EXISTS", &lease]) != "1" {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    // The fault bites: a lease that nobody knows to have, and that would let a fill through.
    let held = acquire(&store, &key).await;
    assert!(!matches!(held, Acquired::Granted { .. }), "{held:?}");
}

/// H6: a server that comes back with an older state has the lease again, and not the delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_outlived_a_delete_gives_no_right() {
    let mut server = RedisServer::start();
    let (store, key) = (connect_patiently(&server.url()), key("/a"));
    let (lease, _) = granted(&store, &key).await;
    assert_eq!(server.cli(&["SAVE"]), "OK");
    store.delete(std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(server.cli(&["EXISTS", &lease_key(&key)]), "0");
    let before = store.incarnation(&key);
    server.kill();
    server.restart();
    let token = server.cli(&["GET", &lease_key(&key)]);
    assert_eq!(token, format!("{:032x}", lease.token), "the fault bites");
    let begin = Instant::now();
    let written = loop {
        let mut late = entry(&key, "old");
        late.guard = Guard::Lease(FillRight::new(), lease.clone());
        match store.set(late).await {
            Ok(written) => break written,
            Err(_) => assert!(begin.elapsed() < Duration::from_secs(20)),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(written, Written::Refused);
    assert_eq!(store.get(&key, Ttl::MAX).await, Ok(None));
    assert!(before != 0 && store.incarnation(&key) != before);
    // It is given back: nobody waits for its end.
    let begin = Instant::now();
    while !matches!(acquire(&store, &key).await, Acquired::Granted { .. }) {
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_bound_to_its_connection() {
    let server = RedisServer::start();
    let (store, key, other) = (connect_patiently(&server.url()), key("/a"), key("/b"));
    assert!(store.set(entry(&other, "1")).await.unwrap().is_stored());
    let (lease, _) = granted(&store, &key).await;
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let begin = Instant::now();
    loop {
        match store.extend(std::slice::from_ref(&lease), TIME).await {
            Ok(extended) if extended == [false] => break,
            _ => assert!(begin.elapsed() < Duration::from_secs(10)),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(fill(&store, &lease, "late").await, Written::Refused);
}

/// H4b: another program's word stands above a load that began before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_programs_word_is_not_overwritten() {
    let server = RedisServer::start();
    let store = connect_patiently(&server.url());
    let name = |key: &Key| key.as_str().to_owned();
    // Nothing was there, and then something is; something was, and then is something else, or nothing.
    for (index, (before, change)) in [(None, Some("2")), (Some("1"), Some("2")), (Some("1"), None)]
        .into_iter()
        .enumerate()
    {
        let key = key(&format!("/{index}"));
        if let Some(before) = before {
            assert!(store.set(entry(&key, before)).await.unwrap().is_stored());
        }
        let (lease, found) = granted(&store, &key).await;
        assert_eq!(found.is_some(), before.is_some());
        match change {
            Some(value) => server.cli(&["SET", &name(&key), value, "EX", "60"]),
            None => server.cli(&["DEL", &name(&key)]),
        };
        let token = format!("{:032x}", lease.token);
        assert_eq!(
            server.cli(&["GET", &lease_key(&key)]),
            token,
            "the fault bites"
        );
        assert_eq!(fill(&store, &lease, "late").await, Written::Superseded);
        let now = store.get(&key, Ttl::MAX).await.unwrap();
        let now = now.map(|stored| stored.bytes);
        assert_eq!(now.as_deref(), change.map(str::as_bytes));
        // The lease is over.
        let (next, _) = granted(&store, &key).await;
        assert_eq!(fill(&store, &next, "next").await, Written::Stored);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_came_to_its_own_end_is_no_change() {
    let server = RedisServer::start();
    let (store, key) = (connect_patiently(&server.url()), key("/a"));
    store_in(&store, &key, "0").await;
    let begin = Instant::now();
    // Again, where it came to its end before it was seen.
    let (lease, seen) = loop {
        server.cli(&["SET", key.as_str(), "1", "PX", "300"]);
        let (lease, found) = granted(&store, &key).await;
        if found.is_some() {
            break (lease, Instant::now());
        }
        assert_eq!(fill(&store, &lease, "1").await, Written::Stored);
        assert!(begin.elapsed() < Duration::from_secs(20), "never found");
    };
    while seen.elapsed() < Duration::from_millis(320)
        || store.get(&key, Ttl::MAX).await.unwrap().is_some()
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fill(&store, &lease, "2").await, Written::Stored);
    // Nor is what could not be read: it is as good as nothing.
    server.cli(&["DEL", key.as_str()]);
    server.cli(&["RPUSH", key.as_str(), "1"]);
    let (lease, found) = granted(&store, &key).await;
    assert_eq!(found, None);
    assert_eq!(fill(&store, &lease, "3").await, Written::Stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_the_scripts_is_told_them_again() {
    let server = RedisServer::start();
    let store = connect_patiently(&server.url());
    for index in 0..3 {
        let key = key(&format!("/{index}"));
        let (lease, _) = granted(&store, &key).await;
        server.cli(&["SCRIPT", "FLUSH"]);
        assert_eq!(fill(&store, &lease, "1").await, Written::Stored);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_is_what_other_programs_read_and_see() {
    let server = RedisServer::start();
    let store = connect_patiently(&server.url());
    let (plain, framed) = (key("/plain"), key("/framed"));
    let monitor = server.monitor();
    for (key, value) in [(&plain, "[1]"), (&framed, "\u{fe}x")] {
        let (lease, _) = granted(&store, key).await;
        assert_eq!(fill(&store, &lease, value).await, Written::Stored);
    }
    server.cli(&["ECHO", "the-end"]);
    let seen = monitor.until("the-end");
    assert!(
        seen.contains("lua] \"SETEX\" \"cache:svc:/plain\" \"300\" \"[1]\""),
        "{seen}"
    );
    assert!(
        seen.contains("lua] \"PSETEX\" \"cache:svc:/framed\" \"300000\""),
        "{seen}"
    );
    assert_eq!(server.cli(&["GET", plain.as_str()]), "[1]");
    assert_eq!(server.cli(&["--scan", "--pattern", "larder:*"]), "");
}
