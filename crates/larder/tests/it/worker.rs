//! A process of a service: a cache as a service has it, that does what a test says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder::{
    Cache, EmbeddedStore, Endpoint, Key, Method, Pattern, Policy, PolicyPatch, RedisStore,
    RedisUrl, Settings, Store, Tag,
};
use larder_testing::process::{PATIENCE, Process, in_role, listen, role, say};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::origin::{Nanos, Origin, now};

const SERVICE: &str = "shop";
const SETUP: &str = "LARDER_TEST_SETUP";

/// What all processes of a test have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) policy: PolicyPatch,
    pub(crate) load_ms: u64,
    /// `None`: the embedded store, in the test's folder.
    pub(crate) redis_url: Option<String>,
    /// Whether the store is waited for, however busy the machine is: what is shown is not about its deadlines.
    pub(crate) is_patient: bool,
    /// Whether entries of another life of the server are kept.
    pub(crate) is_keeping: bool,
    /// Whether nothing is loaded before its end.
    pub(crate) in_foreground: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// So many tasks look an endpoint up at the same time: answered with what they saw.
    Look { endpoint: String, tasks: usize },
    /// Waits until an endpoint has no entry.
    Expire { endpoint: String },
    /// So many tasks look an endpoint up, again and again for so long: answered with what they saw.
    Keep {
        endpoint: String,
        tasks: usize,
        every_ms: u64,
        for_ms: u64,
    },
    /// Looks up so many endpoints a second, each once: answered with [`Cost`]s.
    Pace { per_second: u32, for_ms: u64 },
    /// Begins to look an endpoint up, again and again.
    Watch { endpoint: String },
    /// Answered with what was seen since it was last asked for.
    Watched,
    /// Answered with whether it is done.
    Invalidate(Names),
}

/// What an invalidation names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Names {
    Key(String),
    Pattern(String),
    Tag(String),
    Endpoint(String),
    Service,
    /// A `set` of this endpoint.
    Set(String, String),
}

/// What lookups saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// How often which value; a lookup that failed has its error.
    pub(crate) values: BTreeMap<String, u64>,
    /// How often which outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// What they took, in microseconds.
    pub(crate) micros: Vec<u64>,
}

/// A lookup: when it began, and what it took besides its load, in microseconds; `None` if it failed.
pub(crate) type Cost = (Nanos, Option<u64>);

/// Such a process, seen from its test.
pub(crate) struct Worker(Process);

impl Worker {
    /// Starts one, in the folder of the test.
    pub(crate) fn start(folder: &Path, setup: &Setup) -> Self {
        let mut command = in_role("worker::work", "worker", folder);
        command
            .current_dir(folder)
            .env(SETUP, serde_json::to_string(setup).unwrap());
        let mut process = Process::spawn(command);
        process.expect("ready");
        Self(process)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub(crate) fn tell(&mut self, order: &Order) {
        self.0.tell(&serde_json::to_string(order).unwrap());
    }

    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> T {
        let said = self.0.hear().expect("it answers");
        serde_json::from_str(&said).unwrap()
    }

    pub(crate) fn ask<T: DeserializeOwned>(&mut self, order: &Order) -> T {
        self.tell(order);
        self.hear()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.0.signal(rustix::process::Signal::KILL);
        self.0.wait();
    }
}

impl Seen {
    pub(crate) fn add(&mut self, other: Self) {
        for (value, count) in other.values {
            *self.values.entry(value).or_default() += count;
        }
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        self.micros.extend(other.micros);
    }

    pub(crate) fn count(&self) -> u64 {
        self.values.values().sum()
    }
}

/// What all but one in a hundred stay below.
pub(crate) fn p99(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() * 99 / 100]
}

#[test]
fn work() {
    let Some(folder) = role("worker") else {
        return;
    };
    let setup = std::env::var(SETUP).unwrap();
    let setup: Setup = serde_json::from_str(&setup).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let cache = cache(&folder, &setup);
    let at_work = Arc::new(AtWork {
        asked: match setup.in_foreground {
            true => cache.in_foreground(),
            false => (*cache).clone(),
        },
        cache,
        origin: Origin::in_folder(&folder),
        load: Duration::from_millis(setup.load_ms),
        watched: Mutex::default(),
    });
    say("ready");
    loop {
        let order = serde_json::from_str(&listen()).unwrap();
        let said = runtime.block_on(Arc::clone(&at_work).obey(order));
        say(&said);
    }
}

fn cache(folder: &Path, setup: &Setup) -> Cache {
    let environment = |name: &str| match name {
        "REDIS_URL" => setup.redis_url.clone(),
        "LARDER_AFTER_FAILOVER" if setup.is_keeping => Some("keep".to_owned()),
        "LARDER_DIR" => Some(folder.join("larder").display().to_string()),
        _ => None,
    };
    let settings = Settings::read(environment, folder).unwrap();
    let mut builder = Cache::builder(SERVICE, settings).unwrap();
    if setup.is_patient {
        builder = builder.store(match &setup.redis_url {
            Some(url) => patient_redis(url),
            None => patient_folder(&folder.join("larder/store")),
        });
    }
    let policy = setup.policy.apply(&Policy::default()).unwrap();
    builder.default_policy(policy).build().unwrap()
}

/// Over Redis, with a deadline that a busy machine keeps.
pub(crate) fn patient_redis(url: &str) -> Arc<dyn Store> {
    let options = larder_redis::Options {
        deadline: PATIENCE,
        ..larder_redis::Options::default()
    };
    let url = RedisUrl::parse(url).unwrap();
    Arc::new(RedisStore::connect(url, options))
}

fn patient_folder(folder: &Path) -> Arc<dyn Store> {
    let options = larder_embedded::Options {
        deadline: PATIENCE,
        ..larder_embedded::Options::default()
    };
    Arc::new(EmbeddedStore::open(folder, options).unwrap())
}

/// The process itself.
struct AtWork {
    cache: Cache,
    /// The same, for lookups that load.
    asked: larder_core::Cache,
    origin: Origin,
    load: Duration,
    watched: Mutex<Seen>,
}

impl AtWork {
    async fn obey(self: Arc<Self>, order: Order) -> String {
        match order {
            Order::Look { endpoint, tasks } => {
                let mut all = JoinSet::new();
                for _ in 0..tasks {
                    let (own, key) = (Arc::clone(&self), self.key(&endpoint));
                    all.spawn(async move { own.look(&key).await });
                }
                in_words(&all_of(all).await)
            }
            Order::Expire { endpoint } => {
                let key = self.key(&endpoint);
                while self.cache.get::<String>(&key).await.is_some() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                in_words(&())
            }
            Order::Keep {
                endpoint,
                tasks,
                every_ms,
                for_ms,
            } => {
                let (begin, length) = (Instant::now(), Duration::from_millis(for_ms));
                let mut all = JoinSet::new();
                for task in 0..tasks {
                    let (own, key) = (Arc::clone(&self), self.key(&endpoint));
                    // Not all at once.
                    let first = every_ms * 1_000 * task as u64 / tasks as u64;
                    all.spawn(async move {
                        let mut seen = Seen::default();
                        tokio::time::sleep(Duration::from_micros(first)).await;
                        while begin.elapsed() < length {
                            seen.add(own.look(&key).await);
                            tokio::time::sleep(Duration::from_millis(every_ms)).await;
                        }
                        seen
                    });
                }
                in_words(&all_of(all).await)
            }
            Order::Pace { per_second, for_ms } => {
                let length = Duration::from_millis(for_ms);
                in_words(&self.pace(per_second, length).await)
            }
            Order::Watch { endpoint } => {
                let key = self.key(&endpoint);
                tokio::spawn(async move {
                    loop {
                        let seen = self.look(&key).await;
                        self.watched.lock().unwrap().add(seen);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
                in_words(&())
            }
            Order::Watched => in_words(&std::mem::take(&mut *self.watched.lock().unwrap())),
            Order::Invalidate(names) => in_words(&self.invalidate(names).await),
        }
    }

    fn key(&self, endpoint: &str) -> Key {
        self.cache.key(endpoint).unwrap()
    }

    async fn look(&self, key: &Key) -> Seen {
        let (origin, load) = (self.origin.clone(), self.load);
        let begin = Instant::now();
        let answer = self.asked.get_or_load(key, move || origin.load(load)).await;
        let micros = begin.elapsed().as_micros() as u64;
        let (value, outcome) = match answer {
            Ok(answer) => (answer.value, answer.outcome.to_string()),
            Err(error) => (format!("{error:?}"), "failed".to_owned()),
        };
        Seen {
            values: [(value, 1)].into(),
            outcomes: [(outcome, 1)].into(),
            micros: vec![micros],
        }
    }

    async fn pace(self: Arc<Self>, per_second: u32, length: Duration) -> Vec<Cost> {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
        let (begin, load) = (Instant::now(), self.load);
        let mut all = JoinSet::new();
        while begin.elapsed() < length {
            pace.tick().await;
            let (own, key) = (Arc::clone(&self), self.key(&format!("/{}", all.len())));
            all.spawn(async move {
                let query = move || async move {
                    let begin = Instant::now();
                    tokio::time::sleep(load).await;
                    Ok::<_, std::io::Error>(begin.elapsed())
                };
                let (at, begin) = (now(), Instant::now());
                let answer = own.cache.get_or_load(&key, query).await.ok();
                let added = answer.map(|answer| begin.elapsed().saturating_sub(answer.value));
                (at, added.map(|added| added.as_micros() as u64))
            });
        }
        all.join_all().await
    }

    async fn invalidate(&self, names: Names) -> bool {
        let cache = &self.cache;
        let invalidated = match names {
            Names::Key(endpoint) => cache.delete(&self.key(&endpoint)).await,
            Names::Pattern(pattern) => cache.clear(&Pattern::parse(&pattern).unwrap()).await,
            Names::Tag(tag) => cache.invalidate_tag(&Tag::new(&tag).unwrap()).await,
            Names::Endpoint(template) => {
                let endpoint = Endpoint::new(Method::get(), &template).unwrap();
                cache.invalidate_endpoint(&endpoint).await
            }
            Names::Service => cache.invalidate_service().await,
            Names::Set(endpoint, value) => {
                let (key, ttl) = (self.key(&endpoint), Duration::from_secs(300));
                return cache.set(&key, &value, ttl).await.is_stored();
            }
        };
        invalidated.is_done()
    }
}

async fn all_of(tasks: JoinSet<Seen>) -> Seen {
    let mut all = Seen::default();
    for seen in tasks.join_all().await {
        all.add(seen);
    }
    all
}

fn in_words(said: &impl Serialize) -> String {
    serde_json::to_string(said).unwrap()
}
