//! A server that is refused, paused, killed: no operation costs more than its deadline, soon none costs anything, and
//! the server is used again when it is back. Each test first shows that the fault bites a client that waits.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use larder_core::{Key, Store as _, StoreError, Ttl};
use larder_redis::RedisStore;
use larder_testing::redis::RedisServer;

use crate::{connect, entry, key, until_found};

/// The deadline is 100 ms; the rest is for a machine that is busy.
const DEADLINE: Duration = Duration::from_millis(350);
/// The mark is 1 ms.
const AT_ONCE: Duration = Duration::from_millis(10);
/// The mark is 1 s.
const BACK: Duration = Duration::from_secs(5);

/// Whether a client without time-outs is answered within a second.
fn answers_a_bare_client(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    matches!(stream.read(&mut [0; 64]), Ok(count) if count > 0)
}

async fn get(store: &RedisStore, key: &Key) -> (Result<bool, StoreError>, Duration) {
    let begin = Instant::now();
    let found = store.get(key, Ttl::MAX).await;
    (found.map(|found| found.is_some()), begin.elapsed())
}

/// Reads until the breaker has opened: each read within its deadline; then shows that reads cost nothing.
async fn opens(store: &RedisStore, key: &Key) {
    let begin = Instant::now();
    loop {
        let (answer, took) = get(store, key).await;
        assert!(took < DEADLINE, "{took:?}");
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "the breaker does not open"
        );
        if matches!(answer, Err(StoreError::Away(_))) {
            break;
        }
    }
    let mut times = Vec::new();
    for _ in 0..200 {
        let (answer, took) = get(store, key).await;
        assert!(answer.is_err());
        times.push(took);
    }
    times.sort();
    assert!(times[197] < AT_ONCE, "{:?}", times[197]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_costs_the_deadline_then_nothing_and_is_back_when_it_goes_on() {
    let server = RedisServer::start();
    let (store, key) = (connect(&server.url()), key("/a"));
    assert!(store.set(entry(&key, "1")).await.unwrap().is_stored());
    for _ in 0..3 {
        assert!(answers_a_bare_client(server.port()));
        server.pause();
        assert!(!answers_a_bare_client(server.port()), "the fault bites");
        opens(&store, &key).await;
        server.resume();
        let took = until_found(&store, &key).await;
        assert!(took < BACK, "{took:?}");
    }
    // No connection was left behind: ours, and the one that asks.
    let clients = server.cli(&["CLIENT", "LIST"]);
    assert!(clients.lines().count() <= 2, "{clients}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_costs_nothing_and_is_used_when_it_is_back() {
    let mut server = RedisServer::start();
    let (store, key) = (connect(&server.url()), key("/a"));
    assert!(store.set(entry(&key, "1")).await.unwrap().is_stored());
    for _ in 0..3 {
        server.kill();
        assert!(!answers_a_bare_client(server.port()), "the fault bites");
        opens(&store, &key).await;
        server.restart();
        server.cli(&["SET", key.as_str(), "2", "EX", "60"]);
        let took = until_found(&store, &key).await;
        assert!(took < BACK, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_starts_without_its_server_and_uses_it_when_it_comes() {
    let mut server = RedisServer::start();
    server.kill();
    let (store, key) = (connect(&server.url()), key("/a"));
    opens(&store, &key).await;
    server.restart();
    server.cli(&["SET", key.as_str(), "1", "EX", "60"]);
    until_found(&store, &key).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_pay_no_more_than_one() {
    let server = RedisServer::start();
    let (store, key) = (connect(&server.url()), key("/a"));
    assert!(store.set(entry(&key, "1")).await.unwrap().is_stored());
    server.pause();
    let reads: Vec<_> = (0..2_000)
        .map(|_| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { get(&store, &key).await.1 })
        })
        .collect();
    for read in reads {
        let took = read.await.unwrap();
        assert!(took < DEADLINE * 2, "{took:?}");
    }
    server.resume();
    until_found(&store, &key).await;
}

#[tokio::test]
async fn a_write_that_may_have_happened_is_said_to_be_unknown() {
    let server = RedisServer::start();
    let (store, key) = (connect(&server.url()), key("/a"));
    assert!(store.set(entry(&key, "1")).await.unwrap().is_stored());
    server.pause();
    let error = store.set(entry(&key, "2")).await.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    let error = store.delete(&[key]).await.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    server.resume();
}
