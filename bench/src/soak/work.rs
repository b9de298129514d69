//! What the tasks of a soak do: mostly lookups with loads, some sets, deletes, batches and clears; and every value is
//! looked at.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use larder_bench_load::{Key, Random, keys, requests};
use larder_core::{Cache, Counts, Outcome, Pattern, Written};

const KEYS: usize = 200_000;
/// The order in which they are asked for, over and over.
const REQUESTS: usize = 1 << 20;
const BATCH: usize = 20;
/// Most values are shorter than this, in bytes; one in fifty is as long as [`LONG`].
const SHORT: u64 = 4 << 10;
const LONG: u64 = 64 << 10;
const TTL_SECONDS: u64 = 60;
/// So many failures are told; all are counted.
const TOLD: usize = 10;
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
    /// The first failures, for people.
    told: Mutex<Vec<String>>,
    ended: AtomicUsize,
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) operations: u64,
    pub(crate) errors: u64,
    hits: u64,
    lookups: u64,
    /// The part of the errors that callers don't get to see.
    swallowed: Counts,
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
        )?;
        if self.errors == 0 {
            return Ok(());
        }
        let Counts {
            store_errors,
            undecodable,
            load_errors,
            ..
        } = self.swallowed;
        write!(
            f,
            " (of the store {store_errors}, undecodable {undecodable}, of loads {load_errors})"
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
            told: Mutex::new(Vec::new()),
            ended: AtomicUsize::new(0),
        })
    }

    pub(crate) fn totals(&self) -> Totals {
        let swallowed = self.cache.counts();
        let failed = swallowed.store_errors + swallowed.undecodable + swallowed.load_errors;
        Totals {
            operations: self.operations.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed) + failed,
            hits: self.hits.load(Ordering::Relaxed),
            lookups: self.lookups.load(Ordering::Relaxed),
            swallowed,
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
            if let Err(failure) = self.step(*number, &mut random).await {
                self.note(failure);
            }
            self.operations.fetch_add(1, Ordering::Relaxed);
            // What is answered at once would keep the others waiting.
            tokio::task::consume_budget().await;
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, failure: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD {
            eprintln!("{failure}");
            told.push(failure);
        }
    }

    /// One operation, or how it failed.
    async fn step(&self, number: u32, random: &mut Random) -> Result<(), String> {
        let key = &self.keys[number as usize];
        // Of 1,048,576.
        match random.number() >> 44 {
            0..50_000 => {
                let ttl = Duration::from_secs(1 + random.number() % TTL_SECONDS);
                match self.cache.set(key, &value(number), ttl).await {
                    // A load that was overtaken is refused, as it should be.
                    Written::Stored | Written::Refused => Ok(()),
                    written => Err(format!("set {key}: {written}")),
                }
            }
            50_000..80_000 => match self.cache.delete(key).await {
                done if done.is_done() => Ok(()),
                pending => Err(format!("delete {key}: {pending}")),
            },
            80_000..90_000 => self.batch(number).await,
            90_000..90_010 => self.clear().await,
            _ => self.look_up(key, number).await,
        }
    }

    /// Nothing of it is there: what is looked at is the walk.
    async fn clear(&self) -> Result<(), String> {
        let pattern = Pattern::parse("cache:bench:/none/*").map_err(|error| error.to_string())?;
        match self.cache.clear(&pattern).await {
            done if done.is_done() => Ok(()),
            pending => Err(format!("clear: {pending}")),
        }
    }

    async fn look_up(&self, key: &Key, number: u32) -> Result<(), String> {
        let load = move || async move { Ok::<_, Infallible>(value(number)) };
        let answer = self.cache.get_or_load(key, load).await;
        let answer = answer.map_err(|error| format!("look up {key}: {error}"))?;
        self.lookups.fetch_add(1, Ordering::Relaxed);
        if answer.outcome == Outcome::Hit {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        if answer.value == value(number) {
            Ok(())
        } else {
            Err(format!("look up {key}: another key's value, or a cut one"))
        }
    }

    async fn batch(&self, number: u32) -> Result<(), String> {
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
        let answers = self.cache.get_or_load_many(&asked, load).await;
        let answers = answers.map_err(|error| format!("batch from {number}: {error}"))?;
        let is_right = std::iter::zip(&asked, answers).all(|(key, answer)| {
            let number = self.numbers.get(key).copied();
            answer.value == number.map(value)
        });
        if is_right {
            Ok(())
        } else {
            Err(format!(
                "batch from {number}: another key's value, or a cut one"
            ))
        }
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
