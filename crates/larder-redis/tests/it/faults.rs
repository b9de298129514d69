//! A server that is refused, paused, killed: no operation costs more than its deadline, soon none costs anything, and
//! the server is used again when it is back. Each test first shows that the fault bites a client that waits.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use larder_core::{Key, Store as _, StoreError, Ttl};
use larder_redis::RedisStore;
use larder_testing::redis::RedisServer;
use larder_testing::stalls::Stalls;

use crate::scripted::{INFO, bulk, scripted, server};
use crate::{connect, connect_patiently, entry, key, store_in, until_found};

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
    let (begin, stalls) = (Instant::now(), Stalls::watch());
    let mut longest = Duration::ZERO;
    loop {
        let (answer, took) = get(store, key).await;
        longest = longest.max(took);
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "the breaker does not open"
        );
        if matches!(answer, Err(StoreError::Away(_))) {
            break;
        }
    }
    let stood_still = stalls.end();
    assert!(
        longest < DEADLINE + stood_still,
        "{longest:?} {stood_still:?}"
    );
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
    is_paused(RedisServer::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_valkey_costs_the_deadline_then_nothing_and_is_back_when_it_goes_on() {
    is_paused(RedisServer::start_valkey(&[])).await;
}

async fn is_paused(server: RedisServer) {
    let (store, key) = (connect(&server.url()), key("/a"));
    store_in(&store, &key, "1").await;
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
    is_killed(RedisServer::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_valkey_costs_nothing_and_is_used_when_it_is_back() {
    is_killed(RedisServer::start_valkey(&[])).await;
}

async fn is_killed(mut server: RedisServer) {
    let (store, key) = (connect(&server.url()), key("/a"));
    store_in(&store, &key, "1").await;
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
    store_in(&store, &key, "1").await;
    server.pause();
    let stalls = Stalls::watch();
    let reads: Vec<_> = (0..2_000)
        .map(|_| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { get(&store, &key).await.1 })
        })
        .collect();
    let mut longest = Duration::ZERO;
    for read in reads {
        longest = longest.max(read.await.unwrap());
    }
    let stood_still = stalls.end();
    assert!(
        longest < DEADLINE * 2 + stood_still,
        "{longest:?} {stood_still:?}"
    );
    server.resume();
    until_found(&store, &key).await;
}

/// Its first connection takes a beginning, and then nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_reading_is_left_for_a_new_connection() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let url = server(move |command, stream| match &command[0][..] {
        b"SETEX" if first.swap(false, std::sync::atomic::Ordering::SeqCst) => {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        b"PING" => stream.write_all(&bulk(&command[1])),
        b"GET" => stream.write_all(&bulk(b"1")),
        _ => stream.write_all(b":1000\r\n"),
    });
    let (store, key) = (connect(&url), key("/a"));
    // More than sockets hold: a client that waits for it to be written waits for ever.
    let value = "x".repeat(1 << 20);
    let writes: Vec<_> = (0..32)
        .map(|_| {
            let (store, entry) = (store.clone(), entry(&key, &value));
            tokio::spawn(async move { store.set(entry).await })
        })
        .collect();
    for write in writes {
        assert!(write.await.unwrap().is_err());
    }
    let took = until_found(&store, &key).await;
    assert!(took < BACK, "{took:?}");
}

/// Sockets and tasks are as many after a store's life as before.
#[tokio::test]
async fn nothing_is_left_of_a_store_that_is_gone() {
    let server = RedisServer::start();
    for _ in 0..20 {
        let (store, key) = (connect_patiently(&server.url()), key("/a"));
        assert!(store.set(entry(&key, "1")).await.unwrap().is_stored());
    }
    let begin = Instant::now();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let clients = || {
        server
            .cli(&["CLIENT", "LIST"])
            .matches("name=larder")
            .count()
    };
    while clients() > 0 || tasks() > 0 {
        let left = (clients(), tasks());
        assert!(begin.elapsed() < Duration::from_secs(5), "left: {left:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_write_that_may_have_happened_is_said_to_be_unknown() {
    let server = RedisServer::start();
    let (store, key) = (connect(&server.url()), key("/a"));
    store_in(&store, &key, "1").await;
    server.pause();
    let error = store.set(entry(&key, "2")).await.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    let error = store.delete(&[key]).await.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    server.resume();
}

/// A server that is loading its data greets, but answers nothing else; one behind a slow network greets too late to be
/// of use. A store that took a greeting for good would come and go, time after time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_greets_and_does_no_more_stays_away() {
    type Ping = fn(&mut TcpStream) -> std::io::Result<()>;
    let loading: Ping =
        |stream| stream.write_all(b"-LOADING Redis is loading the dataset in memory\r\n");
    let slow: Ping = |stream| {
        std::thread::sleep(Duration::from_millis(400));
        stream.write_all(b"+late\r\n")
    };
    for (ping, reason) in [(loading, "LOADING"), (slow, "within the deadline")] {
        let pings = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let asked = pings.clone();
        let url = scripted(move |command, stream| match &command[0][..] {
            b"HELLO" => stream.write_all(b"%1\r\n+server\r\n+redis\r\n"),
            b"SELECT" => stream.write_all(b"+OK\r\n"),
            b"INFO" => stream.write_all(&bulk(INFO)),
            b"PING" => {
                asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                ping(stream)
            }
            _ => panic!("a server that is not ready was asked {command:?}"),
        });
        let store = connect(&url);
        let begin = Instant::now();
        while pings.load(std::sync::atomic::Ordering::SeqCst) < 4 {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "it is looked for again"
            );
            match store.get(&key("/a"), Ttl::MAX).await {
                Err(StoreError::Away(why)) => {
                    let is_said = why.contains(reason) || why.contains("not been reached");
                    assert!(is_said, "{why}");
                }
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_full_servers_refusal_to_write_is_counted() {
    let server =
        RedisServer::start_with(&["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"]);
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let cache = larder_core::Cache::builder(larder_core::Service::new("svc").unwrap())
        .store(connect_patiently(&server.url()))
        .build();
    let ttl = Duration::from_secs(60);
    let written = cache.set(&key("/a"), &1, ttl).await;
    assert!(
        matches!(
            &written,
            larder_core::Written::Skipped(larder_core::Skip::Store(_))
        ),
        "{written:?}"
    );
    assert_eq!(cache.counts().store_errors, 1);
    cache.set_many(&[(key("/a"), 1), (key("/b"), 2)], ttl).await;
    assert_eq!(cache.counts().store_errors, 3);
}

/// The connection's number in the server.
fn client_id(server: &RedisServer) -> String {
    let clients = server.cli(&["CLIENT", "LIST"]);
    let ours = clients.lines().find(|line| line.contains("name=larder"));
    let id = ours.and_then(|line| line.split(' ').next());
    id.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_runtime_that_was_blocked_keeps_its_connection() {
    let server = RedisServer::start();
    let (store, key) = (connect(&server.url()), key("/a"));
    store_in(&store, &key, "1").await;
    let before = client_id(&server);
    assert!(before.starts_with("id="), "{before}");
    // The fault: for three seconds nothing else runs on the only thread, with a reply that is due.
    let blocked = async {
        tokio::task::yield_now().await;
        std::thread::sleep(Duration::from_secs(3));
    };
    let _ = tokio::join!(store.get(&key, Ttl::MAX), blocked);
    until_found(&store, &key).await;
    assert_eq!(client_id(&server), before);
}
