//! Under 200 requests a second, whatever happens to Redis: no request fails, and soon none is slower for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use larder_testing::redis::RedisServer;
use larder_testing::stalls::Stalls;
use tempfile::TempDir;

use crate::running::{Up, request, until};

/// What the query itself takes.
const SLOW: Duration = Duration::from_millis(50);
const THREADS: u32 = 10;
/// Of each thread, so that all of them make 200 a second.
const EVERY: Duration = Duration::from_millis(50);
/// A query, what the store costs, and a busy machine.
const LONG: Duration = Duration::from_millis(1_500);
/// The mark is 1 s.
const BACK: Duration = Duration::from_secs(5);

/// A load of requests, until it is ended.
struct Load {
    is_ended: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    threads: Vec<std::thread::JoinHandle<Vec<Duration>>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (is_ended, answered) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let threads = (0..THREADS)
            .map(|_| {
                let (is_ended, answered) = (Arc::clone(&is_ended), Arc::clone(&answered));
                std::thread::spawn(move || {
                    let mut long = Vec::new();
                    while !is_ended.load(Ordering::Relaxed) {
                        let begin = Instant::now();
                        let (status, body) = request(port, "GET", "/products", None);
                        let took = begin.elapsed();
                        assert_eq!(status, 200, "{body}");
                        long.extend(Some(took).filter(|took| *took >= LONG));
                        answered.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(EVERY.saturating_sub(took));
                    }
                    long
                })
            })
            .collect();
        Self {
            is_ended,
            answered,
            threads,
        }
    }

    /// Waits until so many more were answered.
    fn more(&self, count: u32) {
        let before = self.answered.load(Ordering::Relaxed);
        until("requests are answered", Duration::from_secs(30), || {
            self.answered.load(Ordering::Relaxed) >= before + count
        });
    }

    /// Ends it; what those requests took that took long.
    fn end(self) -> Vec<Duration> {
        self.is_ended.store(true, Ordering::Relaxed);
        let threads = self.threads.into_iter();
        threads
            .flat_map(|thread| thread.join().expect("no request fails"))
            .collect()
    }
}

fn start(redis: &RedisServer) -> (TempDir, Up) {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |command| {
        command
            .env("REDIS_URL", redis.url())
            .env("SLOW_QUERY_MS", SLOW.as_millis().to_string());
    });
    (folder, up)
}

#[test]
fn no_request_fails_when_redis_is_paused_killed_and_restarted() {
    let mut redis = RedisServer::start();
    let (_folder, up) = start(&redis);
    up.get("/products");
    until("it is cached", BACK, || up.is_cached("/products"));
    let load = Load::start(up.port);
    let stalls = Stalls::watch();
    load.more(100);
    for _ in 0..2 {
        redis.pause();
        load.more(100);
        redis.resume();
        until("hits are back", BACK, || up.is_cached("/products"));
        redis.kill();
        load.more(100);
        redis.restart();
        until("hits are back", BACK, || up.is_cached("/products"));
    }
    // Where the machine itself stands still for a moment, a request takes that longer.
    let (long, most) = (load.end(), LONG + stalls.end());
    assert!(long.iter().all(|took| *took < most), "{long:?} {most:?}");
}

#[test]
fn a_service_starts_with_redis_down() {
    let mut redis = RedisServer::start();
    redis.kill();
    let (_folder, up) = start(&redis);
    let load = Load::start(up.port);
    load.more(100);
    redis.restart();
    until("it is used when it comes", BACK, || {
        up.is_cached("/products")
    });
    load.end();
}
