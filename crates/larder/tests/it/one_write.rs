//! What an operation costs in commands, as the server sees them: all entries of a service are invalidated by one, and a miss
//! costs two more than the bare read and write.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use larder::{Key, PolicyPatch, Tag};
use larder_testing::redis::{Monitor, RedisServer};

use crate::{among_others, cache, until_connected};

const ENTRIES: usize = 20_000;
/// So many are loaded at once.
const BATCH: usize = 500;

/// What clients asked between two words, the heartbeat left out: what a script does is no command of a client.
fn asked(redis: &RedisServer, monitor: &Monitor, end: &str) -> Vec<String> {
    redis.cli(&["ECHO", end]);
    let seen = monitor.until(end);
    let is_beat = |line: &str| {
        let line = line.to_lowercase();
        [
            "trackinginfo",
            "\"role\"",
            "\"echo\"",
            "\"info\"",
            "\"ping\"",
            "\"command\"",
        ]
        .iter()
        .any(|beat| line.contains(beat))
    };
    let commands = seen
        .lines()
        .filter(|line| !line.contains(" lua]") && !is_beat(line));
    commands.map(str::to_owned).collect()
}

fn tagged() -> PolicyPatch {
    PolicyPatch {
        tags: Some(vec![Tag::new("tag").unwrap()]),
        ..PolicyPatch::default()
    }
}

// One thread: while the test looks at the server, nothing else of this process runs.
#[tokio::test]
async fn all_framed_entries_of_a_service_are_invalidated_by_one_command() {
    let _room = among_others();
    let redis = RedisServer::start();
    let cache = cache(&redis.url(), &tagged());
    until_connected(&cache).await;
    let keys = (0..ENTRIES).map(|number| cache.key(&format!("/products/{number}")).unwrap());
    let keys: Vec<Key> = keys.collect();
    for keys in keys.chunks(BATCH) {
        let load = |keys: Vec<Key>| async move {
            let values = keys.into_iter().map(|key| (key, "old".to_owned()));
            Ok::<_, Infallible>(values.collect())
        };
        cache.get_or_load_many(keys, load).await.unwrap();
    }
    let stored: usize = redis.cli(&["DBSIZE"]).parse().unwrap();
    assert!(stored > ENTRIES, "{stored}");
    for key in keys.iter().step_by(1_000) {
        assert_eq!(cache.get::<String>(key).await.as_deref(), Some("old"));
    }

    let monitor = redis.monitor();
    let invalidated = cache.invalidate_service().await;
    let commands = asked(&redis, &monitor, "returned");
    assert!(invalidated.is_done(), "{invalidated}");
    assert_eq!(commands.len(), 1, "{commands:?}");
    assert!(commands[0].contains(r#""SET" "larder:"#), "{commands:?}");
    for key in keys.iter().step_by(1_000) {
        assert_eq!(cache.get::<String>(key).await, None, "{key}");
    }
    // What is dead is removed behind it, by what is not to be seen before.
    assert!(invalidated.swept().await.is_done());
    let swept = asked(&redis, &monitor, "swept");
    assert!(swept.iter().any(|line| line.contains(r#""SCAN""#)));
}

/// Of a bare read that finds nothing, and a bare write.
const BARE: f64 = 2.0;
const EXTRA: f64 = 2.0;
const MISSES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_costs_two_round_trips_more_than_a_read_and_a_write() {
    round_trips_of_a_miss(&PolicyPatch::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_of_what_has_tags_too_whether_their_versions_are_known_or_new() {
    round_trips_of_a_miss(&tagged()).await;
}

async fn round_trips_of_a_miss(policy: &PolicyPatch) {
    let _room = among_others();
    let redis = RedisServer::start();
    let counter = RoundTrips::before(redis.port());
    let cache = cache(&counter.url(), policy);
    until_connected(&cache).await;
    let keys = (0..MISSES).map(|number| cache.key(&format!("/{number}")).unwrap());
    let keys: Vec<Key> = keys.collect();
    // The second time versions are known: every path here is an endpoint of its own.
    for time in ["first", "second"] {
        let before = counter.count();
        for key in &keys {
            let load = || async { Ok::<_, Infallible>("value".to_owned()) };
            let answer = cache.get_or_load(key, load).await.unwrap();
            assert!(!answer.outcome.is_cached());
        }
        let each = (counter.count() - before) as f64 / MISSES as f64;
        assert!(each <= BARE + EXTRA, "the {time} time {each} round trips");
        assert!(each >= BARE, "they go through the counter: {each}");
        let last = keys[MISSES - 1].as_str();
        assert_eq!(redis.cli(&["EXISTS", last]), "1");
        assert!(cache.delete_many(&keys).await.is_done());
    }
}

/// A link to a server that counts how often something is asked after an answer.
struct RoundTrips {
    port: u16,
    count: Arc<AtomicUsize>,
}

impl RoundTrips {
    fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let is_answered = Arc::new(AtomicBool::new(true));
                let (asks, answers) = (Arc::clone(&is_answered), is_answered);
                let counted = Arc::clone(&counted);
                forward(&client, &server, move || {
                    let is_new = asks.swap(false, Ordering::SeqCst);
                    counted.fetch_add(usize::from(is_new), Ordering::SeqCst);
                });
                forward(&server, &client, move || {
                    answers.store(true, Ordering::SeqCst)
                });
            }
        });
        Self { port, count }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Forwards what comes, and tells of it first.
fn forward(from: &TcpStream, to: &TcpStream, came: impl Fn() + Send + 'static) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    to.set_nodelay(true).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            came();
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
