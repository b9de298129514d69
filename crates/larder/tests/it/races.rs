//! Every key is read and written at the same time, by who keeps what it reads: none stays stale after the last write was
//! acknowledged. `bench/` shows how many a cache loses here that fills itself behind its invalidations.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder::{Cache, DEFAULT_TTL, Key, PolicyPatch};
use larder_testing::redis::RedisServer;
use tokio::task::JoinSet;

use crate::{among_others, cache, until_connected};

const RUNS: usize = 3;
const KEYS: usize = 2_560;
const TASKS: usize = 128;
/// The mark is 50 ms, for a push that comes late; what loses the race is stale until it expires.
const LATE: Duration = Duration::from_millis(500);

/// One who reads, and another who writes.
#[derive(Clone)]
struct Race {
    reader: Cache,
    writer: Cache,
    keys: Arc<[Key]>,
}

impl Race {
    /// Writes a value to every key, and reads it meanwhile.
    async fn run(&self, value: &'static str) {
        let mut all = JoinSet::new();
        for task in 0..TASKS {
            let own = self.clone();
            all.spawn(async move {
                for key in own.keys.iter().skip(task).step_by(TASKS) {
                    let read = || own.reader.get::<String>(key);
                    let write = own.writer.set(key, value, DEFAULT_TTL);
                    let (_, _, written) = tokio::join!(read(), read(), write);
                    assert!(written.is_stored(), "{written}");
                }
            });
        }
        all.join_all().await;
    }

    async fn until_fresh(&self, value: &str) {
        let written = Instant::now();
        loop {
            let stale = self.stale(value).await;
            if stale == 0 {
                return;
            }
            assert!(written.elapsed() < LATE, "{stale} stay stale");
            tokio::task::yield_now().await;
        }
    }

    async fn stale(&self, value: &str) -> usize {
        let mut stale = 0;
        for key in &*self.keys {
            let found = self.reader.get::<String>(key).await;
            stale += usize::from(found.as_deref() != Some(value));
        }
        stale
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_stale_after_reads_and_writes_at_the_same_time() {
    let _room = among_others();
    let redis = RedisServer::start();
    let cache = || cache(&redis.url(), &PolicyPatch::default());
    let writer = cache();
    until_connected(&writer).await;
    let keys = (0..KEYS).map(|number| writer.key(&format!("/{number}")).unwrap());
    let race = Race {
        reader: cache(),
        keys: keys.collect(),
        writer,
    };
    for _ in 0..RUNS {
        for value in ["old", "new"] {
            race.run(value).await;
            race.until_fresh(value).await;
        }
    }
    // What was read came from its own memory, where it would have been stale.
    let near = race.reader.counts().hits_near;
    race.stale("new").await;
    let near = race.reader.counts().hits_near - near;
    assert!(near > KEYS as u64 / 2, "{near}");
}
