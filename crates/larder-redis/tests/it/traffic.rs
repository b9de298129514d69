//! Requests to a cache without end, while servers die and slots move: what fails, and what comes back from the dead.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder_core::{Cache, Key, Pattern, Service};
use larder_redis::RedisStore;
use tokio::task::{JoinHandle, JoinSet};

const PER_SECOND: u32 = 500;
const QUERY: Duration = Duration::from_millis(50);
/// So many requests later a key is asked for again.
const AGAIN: usize = 75;
const DELETE_EVERY: Duration = Duration::from_millis(10);
const CLEAR_EVERY: Duration = Duration::from_millis(400);

/// The truth, and what may be answered of it.
struct Scene {
    cache: Cache,
    keys: Vec<Key>,
    /// What a load finds.
    truth: Vec<AtomicU64>,
    /// The oldest that a lookup may answer that begins now, and when that came to be.
    least: Vec<Mutex<(u64, Instant)>>,
    is_over: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    hits: AtomicU64,
    unconfirmed: AtomicU64,
    cleared: AtomicU64,
    back: Mutex<Vec<Back>>,
}

/// Requests, deletes and clears that go on until they are ended.
pub(crate) struct Traffic {
    scene: Arc<Scene>,
    tasks: Vec<JoinHandle<()>>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) hits: u64,
    /// Deletes and clears that were an error.
    pub(crate) unconfirmed: u64,
    /// Clears that were done.
    pub(crate) cleared: u64,
    pub(crate) back: Vec<Back>,
}

/// An old value that came back.
#[derive(Debug)]
pub(crate) struct Back {
    pub(crate) deleted: Instant,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} failed, {} hits; {} clears done, {} deletes and clears unconfirmed; {} times an old value came back",
            self.requests,
            self.failed,
            self.hits,
            self.cleared,
            self.unconfirmed,
            self.back.len()
        )
    }
}

impl Traffic {
    /// Begins. Keys are cleared in groups, by the first part of their paths: one of `groups` at a time.
    pub(crate) fn start(store: Arc<RedisStore>, keys: Vec<Key>, groups: Vec<String>) -> Self {
        let cache = Cache::builder(Service::new("svc").unwrap()).store(store);
        let scene = Arc::new(Scene {
            cache: cache.build(),
            truth: keys.iter().map(|_| AtomicU64::new(1)).collect(),
            least: keys
                .iter()
                .map(|_| Mutex::new((0, Instant::now())))
                .collect(),
            keys,
            is_over: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            unconfirmed: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            back: Mutex::default(),
        });
        let mut tasks = vec![
            tokio::spawn(ask(Arc::clone(&scene))),
            tokio::spawn(delete(Arc::clone(&scene))),
        ];
        if !groups.is_empty() {
            tasks.push(tokio::spawn(clear(Arc::clone(&scene), groups)));
        }
        Self { scene, tasks }
    }

    /// Lets it go on for so many more requests.
    pub(crate) async fn more(&self, requests: u64) {
        let goal = self.scene.requests.load(Ordering::SeqCst) + requests;
        while self.scene.requests.load(Ordering::SeqCst) < goal {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn end(self) -> Outcome {
        self.scene.is_over.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let load = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Outcome {
            requests: load(&self.scene.requests),
            failed: load(&self.scene.failed),
            hits: load(&self.scene.hits),
            unconfirmed: load(&self.scene.unconfirmed),
            cleared: load(&self.scene.cleared),
            back: std::mem::take(&mut self.scene.back.lock().unwrap()),
        }
    }
}

impl Scene {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    async fn look_up(self: Arc<Self>, index: usize) {
        let (least, deleted) = *self.least[index].lock().unwrap();
        let scene = Arc::clone(&self);
        let load = move || async move {
            let found = scene.truth[index].load(Ordering::SeqCst);
            tokio::time::sleep(QUERY).await;
            Ok::<_, Infallible>(found)
        };
        let Ok(answer) = self.cache.get_or_load(&self.keys[index], load).await else {
            self.failed.fetch_add(1, Ordering::SeqCst);
            return;
        };
        let is_hit = answer.outcome.is_cached();
        self.hits.fetch_add(u64::from(is_hit), Ordering::SeqCst);
        if answer.value < least {
            self.back.lock().unwrap().push(Back { deleted });
        }
    }

    /// Changes the truth, and says which of it an answer must know once `invalidated` is done.
    async fn invalidate(&self, indices: &[usize], invalidated: impl Future<Output = bool>) -> bool {
        let change = |index: &usize| self.truth[*index].fetch_add(1, Ordering::SeqCst) + 1;
        let truths: Vec<u64> = indices.iter().map(change).collect();
        let is_done = invalidated.await;
        if is_done {
            for (index, truth) in std::iter::zip(indices, truths) {
                let mut least = self.least[*index].lock().unwrap();
                if least.0 < truth {
                    *least = (truth, Instant::now());
                }
            }
        } else {
            self.unconfirmed.fetch_add(1, Ordering::SeqCst);
        }
        is_done
    }
}

async fn ask(scene: Arc<Scene>) {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / PER_SECOND);
    let mut lookups = JoinSet::new();
    for number in 0_usize.. {
        if scene.is_over() {
            break;
        }
        pace.tick().await;
        // Every key in its turn, and again a little later: a hit, where there is a cache.
        let turn = if number % 2 == 0 {
            number
        } else {
            number.saturating_sub(AGAIN)
        };
        lookups.spawn(Arc::clone(&scene).look_up(turn / 2 % scene.keys.len()));
        scene.requests.fetch_add(1, Ordering::SeqCst);
        while lookups.try_join_next().is_some_and(|ended| ended.is_ok()) {}
    }
    lookups.join_all().await;
}

async fn delete(scene: Arc<Scene>) {
    let mut index = 0;
    while !scene.is_over() {
        tokio::time::sleep(DELETE_EVERY).await;
        // No short cycle: a prime, and more than there are keys.
        index = (index + 7_919) % scene.keys.len();
        let deleted = async { scene.cache.delete(&scene.keys[index]).await.is_done() };
        scene.invalidate(&[index], deleted).await;
    }
}

async fn clear(scene: Arc<Scene>, groups: Vec<String>) {
    for group in groups.iter().cycle() {
        tokio::time::sleep(CLEAR_EVERY).await;
        if scene.is_over() {
            return;
        }
        let begin = format!("cache:svc:{group}/");
        let keys = scene.keys.iter().enumerate();
        let keys = keys.filter(|(_, key)| key.as_str().starts_with(&begin));
        let indices: Vec<usize> = keys.map(|(index, _)| index).collect();
        let pattern = Pattern::parse(&format!("{begin}*")).unwrap();
        let cleared = async { scene.cache.clear(&pattern).await.is_done() };
        let is_cleared = scene.invalidate(&indices, cleared).await;
        scene
            .cleared
            .fetch_add(u64::from(is_cleared), Ordering::SeqCst);
    }
}
