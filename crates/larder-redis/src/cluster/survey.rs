//! Who belongs to a Cluster and owns which slot: asked at start, whenever a node hints that it changed, and now and then.
//!
//! Those are asked that we know already: masters with slots, else the nodes that the URL names, and replicas. All that
//! they tell is put together ([`Topology::agreed`]); only hosts that belong by that get a connection, and our password.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::join_all;
use larder_core::StoreError;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use crate::changes::Changes;
use crate::cluster::map::Map;
use crate::cluster::topology::{Topology, View};
use crate::command::{Command, Expect};
use crate::node::Node;
use crate::options::Options;
use crate::probe::Purpose;
use crate::url::RedisUrl;
use crate::url::hosts::Host;

/// So long after one survey the next may begin.
const PAUSE: Duration = Duration::from_millis(100);
/// With no hint at all, one is made so often.
const PERIOD: Duration = Duration::from_secs(10);
/// So many masters are asked, unless all must be.
const TELLERS: usize = 5;
/// So many others are asked when no master answers.
const STRANGERS: usize = 16;

const NODES: &[&[u8]] = &[b"CLUSTER", b"NODES"];
const SLOTS: &[&[u8]] = &[b"CLUSTER", b"SLOTS"];

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tellers {
    Some,
    /// Every master with slots, or it is an error: each tells for itself alone which slots are on their way.
    All,
}

/// Keeps the map of a Cluster.
pub(crate) struct Surveyor {
    shared: Arc<Shared>,
    task: Option<AbortHandle>,
}

struct Shared {
    url: RedisUrl,
    seeds: Vec<Host>,
    options: Options,
    changes: Arc<Changes>,
    map: ArcSwapOption<Map>,
    /// Why there is none.
    why: Mutex<String>,
    /// One survey at a time. Nodes that are asked while no master answers.
    strangers: tokio::sync::Mutex<HashMap<Host, Node>>,
    /// How many surveys were asked for; told by `wake`.
    asked: AtomicU64,
    wake: Notify,
    /// Up to which number they are served.
    served: watch::Sender<u64>,
}

impl Surveyor {
    pub(crate) fn start(
        url: RedisUrl,
        seeds: Vec<Host>,
        options: Options,
        changes: Arc<Changes>,
    ) -> Self {
        let shared = Arc::new(Shared {
            url,
            seeds,
            options,
            changes,
            map: ArcSwapOption::empty(),
            why: Mutex::new("it has not been reached yet".to_owned()),
            strangers: tokio::sync::Mutex::default(),
            asked: AtomicU64::new(1),
            wake: Notify::new(),
            served: watch::Sender::new(0),
        });
        let task = match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let task = runtime.spawn(keep_up(Arc::clone(&shared)));
                Some(task.abort_handle())
            }
            Err(_) => {
                let why = "there is no Tokio runtime: connect inside of one";
                tracing::warn!(server = %shared.url, why, "store away: requests go on without it");
                shared.note(why);
                // There is nothing to wait for.
                shared.served.send_replace(1);
                None
            }
        };
        Self { shared, task }
    }

    pub(crate) fn url(&self) -> &RedisUrl {
        &self.shared.url
    }

    /// The map as it is known.
    pub(crate) fn map(&self) -> Option<Arc<Map>> {
        self.shared.map.load_full()
    }

    /// The map. Only the very first survey is waited for.
    pub(crate) async fn first_map(&self, deadline: Instant) -> Result<Arc<Map>, StoreError> {
        if let Some(map) = self.map() {
            return Ok(map);
        }
        self.wait_until_served(1, deadline).await;
        self.map().ok_or_else(|| {
            self.request();
            self.shared.away()
        })
    }

    /// Asks for a survey, and does not wait for it.
    pub(crate) fn request(&self) -> u64 {
        let number = self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.wake.notify_one();
        number
    }

    /// Waits for a survey that begins after this call.
    pub(crate) async fn surveyed(&self, deadline: Instant) {
        let number = self.request();
        self.wait_until_served(number, deadline).await;
    }

    async fn wait_until_served(&self, number: u64, deadline: Instant) {
        let mut served = self.shared.served.subscribe();
        let served = served.wait_for(|served| *served >= number);
        // Late or not: what is there now counts.
        let _ = timeout_at(deadline, served).await;
    }

    /// Asks every master that owns slots, now.
    pub(crate) async fn survey_all(&self) -> Result<Arc<Map>, StoreError> {
        self.first_map(Instant::now() + self.shared.options.deadline)
            .await?;
        self.shared.survey(Tellers::All).await
    }

    pub(crate) fn close(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.shared.note("it was closed");
        self.shared.served.send_replace(u64::MAX);
        if let Some(map) = self.shared.map.swap(None) {
            for node in map.nodes() {
                node.close();
            }
        }
    }
}

impl Drop for Surveyor {
    fn drop(&mut self) {
        self.close();
    }
}

/// Surveys, until it is stopped.
async fn keep_up(shared: Arc<Shared>) {
    let mut is_away = false;
    loop {
        let asked = shared.asked.load(Ordering::SeqCst);
        let surveyed = shared.survey(Tellers::Some).await;
        let server = &shared.url;
        match &surveyed {
            Ok(_) if is_away => tracing::info!(%server, "the Cluster tells its nodes again"),
            Err(error) if !is_away => {
                tracing::warn!(%server, %error, "the Cluster does not tell its nodes");
            }
            _ => {}
        }
        is_away = surveyed.is_err();
        shared.served.send_replace(asked);
        tokio::time::sleep(PAUSE).await;
        let pause = if is_away { PAUSE } else { PERIOD };
        let _ = tokio::time::timeout(pause, shared.wake.notified()).await;
    }
}

impl Shared {
    fn note(&self, why: &str) {
        let mut noted = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone_into(&mut noted);
    }

    fn away(&self) -> StoreError {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        StoreError::Away(format!("{}: {why}", self.url))
    }

    async fn survey(&self, tellers: Tellers) -> Result<Arc<Map>, StoreError> {
        let mut strangers = self.strangers.lock().await;
        let known = self.map.load_full();
        let mut views = Vec::new();
        if let Some(known) = &known {
            let mut owning = known.owning();
            if tellers == Tellers::Some {
                // Those that are away answer at once, but nothing.
                owning.retain(|node| node.is_connected());
                owning.truncate(TELLERS);
            }
            let told = join_all(owning.iter().map(|node| tell(node))).await;
            for view in told {
                match view {
                    Ok(view) => views.push(view),
                    Err(error) if tellers == Tellers::All => return Err(error),
                    Err(_) => {}
                }
            }
        }
        if views.is_empty() {
            views = self.ask_strangers(&mut strangers, known.as_deref()).await?;
        }
        let is_known = |host: &Host| {
            let of_map = known.as_ref().is_some_and(|map| map.place(host).is_some());
            of_map || self.seeds.contains(host)
        };
        let topology = Topology::agreed(&views, is_known);
        // Who tells that nobody owns anything is new, or was removed.
        if topology.owning().is_empty() {
            let why = "nobody has slots in the Cluster of the nodes that answer";
            self.note(why);
            return Err(self.away());
        }
        strangers.clear();
        Ok(self.install(topology, known.as_deref()))
    }

    fn install(&self, topology: Topology, known: Option<&Map>) -> Arc<Map> {
        let hosts = |topology: &Topology| -> Vec<Host> {
            let masters = topology.masters.iter();
            masters.map(|master| master.host.clone()).collect()
        };
        let now = hosts(&topology);
        if known.is_none_or(|known| hosts(&known.topology) != now) {
            let masters: Vec<String> = now.iter().map(Host::to_string).collect();
            let masters = masters.join(" ");
            tracing::info!(server = %self.url, masters, "the masters of the Cluster");
        }
        let map = Arc::new(Map::new(topology, |host| {
            let node = known.and_then(|known| known.node(host));
            node.unwrap_or_else(|| {
                let url = self.url.of_server(host);
                let source = self.changes.source();
                let options = self.options.clone();
                Arc::new(Node::start(url, Purpose::Slots, options, source))
            })
        }));
        self.map.store(Some(Arc::clone(&map)));
        if let Some(known) = known {
            // The owners before tell nothing more of their keys.
            let moved = map.topology.moved_since(&known.topology);
            moved.for_each(|slot| self.changes.count_slot(slot));
        }
        map
    }

    /// Asks whom the URL names, and replicas that are known. They stay connected until one of them has told.
    async fn ask_strangers(
        &self,
        strangers: &mut HashMap<Host, Node>,
        known: Option<&Map>,
    ) -> Result<Vec<View>, StoreError> {
        let replicas = known.map_or(&[][..], |known| &known.topology.replicas);
        for host in self.seeds.iter().chain(replicas).take(STRANGERS) {
            strangers.entry(host.clone()).or_insert_with(|| {
                let url = self.url.of_server(host);
                Node::start(url, Purpose::Members, self.options.clone(), None)
            });
        }
        let told = join_all(strangers.values().map(tell)).await;
        let mut views = Vec::new();
        for view in told {
            match view {
                Ok(view) => views.push(view),
                Err(StoreError::Away(why)) => self.note(&why),
                Err(error) => self.note(&error.to_string()),
            }
        }
        match views.is_empty() {
            true => Err(self.away()),
            false => Ok(views),
        }
    }
}

/// What a node tells.
async fn tell(node: &Node) -> Result<View, StoreError> {
    let asked = [
        Command::new(NODES, Expect::Text),
        Command::new(SLOTS, Expect::Array),
    ];
    let values = node.ask(&asked).await?;
    let odd = || {
        let url = node.url();
        StoreError::Refused(format!(
            "{url} tells nothing of its Cluster: allow CLUSTER NODES and CLUSTER SLOTS"
        ))
    };
    match (&values[..], node.url().host()) {
        ([Some(nodes), Some(slots)], Some(teller)) => {
            View::read(nodes, slots, &teller).ok_or_else(odd)
        }
        _ => Err(odd()),
    }
}
