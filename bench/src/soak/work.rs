//! What the tasks of a soak do: mostly lookups with loads, some sets, deletes, batches and clears; and every value is
//! looked at.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use larder_bench_load::{Key, Random, keys, requests};
use larder_core::{Cache, Outcome, Pattern, Skip, Written};

const KEYS: usize = 200_000;
/// The order in which they are asked for, over and over.
const REQUESTS: usize = 1 << 20;
const BATCH: usize = 20;
/// Most values are shorter than this, in bytes; one in fifty is as long as [`LONG`].
const SHORT: u64 = 4 << 10;
const LONG: u64 = 64 << 10;
const TTL_SECONDS: u64 = 60;
/// How long ended tasks are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all tasks share.
pub(crate) struct Work {
    cache: Cache,
    keys: Vec<Key>,
    numbers: HashMap<Key, u32>,
    requests: Vec<u32>,
    end: Instant,
    operations: AtomicU64,
    hits: AtomicU64,
    lookups: AtomicU64,
    errors: AtomicU64,
    ended: AtomicUsize,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) operations: u64,
    pub(crate) errors: u64,
    hits: u64,
    lookups: u64,
}

impl Totals {
    pub(crate) fn hit_percent(&self) -> f64 {
        self.hits as f64 * 100.0 / self.lookups.max(1) as f64
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} operations, {:.0} % hits, {} errors",
            self.operations,
            self.hit_percent(),
            self.errors
        )
    }
}

impl Work {
    pub(crate) fn new(cache: Cache, end: Instant) -> anyhow::Result<Self> {
        let keys = keys(KEYS).map_err(anyhow::Error::from_boxed)?;
        let numbers = keys.iter().cloned().zip(0..);
        Ok(Self {
            cache,
            numbers: numbers.collect(),
            keys,
            requests: requests(KEYS, REQUESTS),
            end,
            operations: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            lookups: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            ended: AtomicUsize::new(0),
        })
    }

    pub(crate) fn totals(&self) -> Totals {
        let counts = self.cache.counts();
        let failed = counts.store_errors + counts.undecodable + counts.load_errors;
        Totals {
            operations: self.operations.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed) + failed,
            hits: self.hits.load(Ordering::Relaxed),
            lookups: self.lookups.load(Ordering::Relaxed),
        }
    }

    /// Waits until all tasks have ended; one that hangs is an error.
    pub(crate) async fn ended(&self, tasks: usize) -> anyhow::Result<()> {
        let begin = Instant::now();
        while self.ended.load(Ordering::Relaxed) < tasks {
            anyhow::ensure!(begin.elapsed() < PATIENCE, "a task hangs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// One task's part, until the end.
    pub(crate) async fn go_on(self: Arc<Self>, task: usize) {
        let mut random = Random::new(task as u64 * 2 + 1);
        let order = self.requests.iter().cycle().skip(task * 10_007);
        for number in order {
            if Instant::now() >= self.end {
                break;
            }
            let is_right = self.step(*number, &mut random).await;
            self.operations.fetch_add(1, Ordering::Relaxed);
            if !is_right {
                self.errors.fetch_add(1, Ordering::Relaxed);
            }
            // What is answered at once would keep the others waiting.
            tokio::task::consume_budget().await;
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// One operation; whether it did what it should.
    async fn step(&self, number: u32, random: &mut Random) -> bool {
        let key = &self.keys[number as usize];
        match random.number() >> 44 {
            // Of 1,048,576.
            0..50_000 => {
                let ttl = Duration::from_secs(1 + random.number() % TTL_SECONDS);
                is_written(&self.cache.set(key, &value(number), ttl).await)
            }
            50_000..80_000 => self.cache.delete(key).await.is_ok(),
            80_000..90_000 => self.batch(number).await,
            90_000..90_010 => {
                // Nothing of it is there: what is looked at is the walk.
                let pattern = Pattern::parse("cache:bench:/none/*");
                match pattern {
                    Ok(pattern) => self.cache.clear(&pattern).await.is_ok(),
                    Err(_) => false,
                }
            }
            _ => self.look_up(key, number).await,
        }
    }

    async fn look_up(&self, key: &Key, number: u32) -> bool {
        let load = move || async move { Ok::<_, Infallible>(value(number)) };
        let Ok(answer) = self.cache.get_or_load(key, load).await else {
            return false;
        };
        self.lookups.fetch_add(1, Ordering::Relaxed);
        if answer.outcome == Outcome::Hit {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        answer.value == value(number)
    }

    async fn batch(&self, number: u32) -> bool {
        let first = number as usize;
        let asked: Vec<Key> = (first..first + BATCH)
            .map(|at| self.keys[at % KEYS].clone())
            .collect();
        let numbers: HashMap<Key, u32> = asked
            .iter()
            .filter_map(|key| Some((key.clone(), *self.numbers.get(key)?)))
            .collect();
        let load = |missing: Vec<Key>| async move {
            let loaded = missing.into_iter().filter_map(|key| {
                let value = value(*numbers.get(&key)?);
                Some((key, value))
            });
            Ok::<HashMap<Key, String>, Infallible>(loaded.collect())
        };
        let Ok(answers) = self.cache.get_or_load_many(&asked, load).await else {
            return false;
        };
        std::iter::zip(&asked, answers).all(|(key, answer)| {
            let number = self.numbers.get(key).copied();
            answer.value == number.map(value)
        })
    }
}

/// A load that was overtaken is refused, as it should be.
fn is_written(written: &Written) -> bool {
    match written {
        Written::Stored | Written::Refused => true,
        Written::Skipped(skip) => !matches!(skip, Skip::Store(_)),
        _ => false,
    }
}

/// What is stored under a key: it says whose it is.
fn value(number: u32) -> String {
    let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let length = if mixed % 50 == 0 { LONG } else { mixed % SHORT };
    let mut value = format!("{number}:");
    value.extend(std::iter::repeat_n('x', length as usize));
    value
}
