//! Sweeps: after a restart or a failover the plain entries of a service are removed, server by server, for they may be such as
//! had been deleted. Of all processes one does it; the others wait for its note. Until then plain entries are not read:
//! see `crate::lives`.
//!
//! What is filled meanwhile may be removed with them, which is a miss; framed entries stay, since they say of which life
//! they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::StoreError;
use tokio::task::AbortHandle;

use crate::changes::Changes;
use crate::cluster::map::Map;
use crate::cluster::topology::Moves;
use crate::command::{Command, Expect};
use crate::connection::Connection;
use crate::lease::lease_key;
use crate::node::Node;
use crate::note::Note;
use crate::probe::shown_bytes;
use crate::resp::Value;
use crate::scripts::{self, Call, Script};
use crate::servers::{Outcome, Servers};
use crate::store::random_hex;
use crate::walk::{scan_step, steps_of_a_scan};

/// So long one process alone sweeps, unless it says again that it does; in milliseconds.
const LEASE_MILLIS: &[u8] = b"3000";
/// So often it is looked whether another one is through.
const PAUSE: Duration = Duration::from_millis(50);
/// So long after a failure it is tried again; where the server refuses, twice as long after each further one, up to this.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So many entries are removed together: requests of this process wait behind them.
const TOGETHER: usize = 100;
/// So often a sweep begins anew when slots moved under it, until the next pass.
const ROUNDS: usize = 4;

/// The task that sweeps, until it is dropped.
pub(crate) struct Sweeping(Option<AbortHandle>);

impl Sweeping {
    /// Begins to sweep what is to be swept, or only to look for what is, unless entries of other lives are kept.
    pub(crate) fn start(servers: &Arc<Servers>, changes: &Arc<Changes>, sweeps: bool) -> Self {
        let runtime = tokio::runtime::Handle::try_current();
        let (false, Ok(runtime)) = (changes.lives.is_kept(), runtime) else {
            return Self(None);
        };
        let sweeper = Sweeper {
            servers: Arc::clone(servers),
            changes: Arc::clone(changes),
            sweeps,
            met: BTreeMap::new(),
        };
        Self(Some(runtime.spawn(sweeper.keep_up()).abort_handle()))
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

struct Sweeper {
    servers: Arc<Servers>,
    changes: Arc<Changes>,
    /// Whether it changes anything.
    sweeps: bool,
    /// What was known of the Cluster when a service was first found unswept: its entries may have moved since.
    met: BTreeMap<Box<str>, Option<Arc<Map>>>,
}

/// A server that may have plain entries of another life of a service.
struct Unswept {
    node: Arc<Node>,
    connection: Arc<Connection>,
    service: Box<str>,
}

impl Unswept {
    fn link(&self) -> u64 {
        self.connection.link().id
    }

    fn note(&self) -> Note {
        Note::of(self.connection.life(), &self.service)
    }

    async fn ask(&self, words: &[&[u8]]) -> Outcome {
        let command = Command::new(words, Expect::Text).only_over(Some(self.link()));
        self.node.ask_one(command).await
    }

    /// Whether the server has a note that it was swept. One that does not answer is not swept for that.
    async fn is_noted(&self) -> Result<bool, StoreError> {
        match self.ask(&self.note().question()).await? {
            Some(answer) => Ok(matches!(answer, Value::Text(_))),
            None => Err(StoreError::Away("it was connected to anew".to_owned())),
        }
    }
}

impl Sweeper {
    async fn keep_up(mut self) {
        let changes = Arc::clone(&self.changes);
        let lives = &changes.lives;
        let mut failures = 0;
        loop {
            let asked = lives.asked();
            match self.pass().await {
                Ok(true) => {
                    failures = 0;
                    lives.serve(asked);
                    lives.woken().await;
                }
                Ok(false) if self.sweeps => tokio::time::sleep(PAUSE).await,
                Ok(false) => {
                    // Nobody need wait for others.
                    lives.serve(asked);
                    let _ = tokio::time::timeout(PAUSE_AFTER_FAILURE, lives.woken()).await;
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "plain entries of another life of the server could not all be removed yet: until then those of their service are not read");
                    }
                    let doublings = match error {
                        StoreError::Refused(_) => failures.min(6),
                        _ => 0,
                    };
                    let pause = PAUSE_AFTER_FAILURE * (1 << doublings);
                    failures += 1;
                    // A server that was connected to anew is looked at at once.
                    let _ = tokio::time::timeout(pause.min(LONGEST_PAUSE), lives.woken()).await;
                }
            }
        }
    }

    /// Sweeps what it can; whether nothing is left.
    async fn pass(&mut self) -> Result<bool, StoreError> {
        for unswept in self.unswept() {
            match unswept.is_noted().await {
                Ok(true) => self.mark(&unswept),
                Ok(false) if unswept.connection.life().is_first => match self.sweeps {
                    true => self.note(&unswept).await,
                    false => self.mark(&unswept),
                },
                Ok(false) | Err(_) => {}
            }
        }
        let left = self.unswept();
        if !self.sweeps {
            return Ok(left.is_empty());
        }
        let mut services: Vec<&str> = left.iter().map(|unswept| &*unswept.service).collect();
        services.dedup();
        self.met.retain(|service, _| services.contains(&&**service));
        for service in &services {
            let met = self.met.entry((*service).into());
            met.or_insert_with(|| self.servers.map());
        }
        let mut failure = None;
        for service in services {
            let of_service = left.iter().filter(|unswept| *unswept.service == *service);
            let of_service: Vec<&Unswept> = of_service.collect();
            // Of another one this user may perhaps remove all.
            failure = self
                .sweep_alone(service, &of_service)
                .await
                .err()
                .or(failure);
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(self.unswept().is_empty()),
        }
    }

    /// By service. A server that does not tell which life it is in can't be swept once and for all.
    fn unswept(&self) -> Vec<Unswept> {
        let mut all = Vec::new();
        let nodes = self.servers.known();
        for service in self.changes.lives.services() {
            for node in &nodes {
                let Some(connection) = node.current() else {
                    continue;
                };
                let is_swept = self.changes.lives.is_swept(&service, connection.link());
                if !is_swept && connection.life().is_told() {
                    all.push(Unswept {
                        node: Arc::clone(node),
                        connection,
                        service: service.clone(),
                    });
                }
            }
        }
        all
    }

    fn mark(&self, unswept: &Unswept) {
        let lives = &self.changes.lives;
        lives.mark(&unswept.service, unswept.link());
        // It may have been forgotten before; when it is later, it has ended by then.
        if unswept.connection.has_ended() {
            lives.forget(unswept.link());
        }
    }

    /// Tells all other processes, too.
    async fn note(&self, unswept: &Unswept) {
        let note = unswept.note();
        if !matches!(unswept.ask(&note.load()).await, Ok(Some(Value::Text(_)))) {
            // Without it each process sweeps.
            let _ = unswept.ask(&note.run()).await;
        }
        self.mark(unswept);
    }

    /// Sweeps, unless another process does.
    async fn sweep_alone(&self, service: &str, unswept: &[&Unswept]) -> Result<(), StoreError> {
        // No entry has this key; who may use those of the service may use its lease.
        let lease = lease_key(&format!("cache:{service}:sweep"));
        let (_, token) = random_hex();
        let set: [&[u8]; 6] = [
            b"SET",
            lease.as_bytes(),
            token.as_bytes(),
            b"NX",
            b"PX",
            LEASE_MILLIS,
        ];
        let granted = self.servers.ask(&[Command::new(&set, Expect::Text)]).await;
        // Where a full server, say, has no room for it, more than one may sweep.
        if let Some(Value::Null) = granted.into_iter().next().transpose()?.flatten() {
            return Ok(());
        }
        let extend: [&[u8]; 4] = [b"1", lease.as_bytes(), token.as_bytes(), LEASE_MILLIS];
        // The server may have forgotten the script.
        let extend = Script::new(scripts::EXTEND).by_text(&extend);
        let keep = || {
            self.servers.tell(lease.as_bytes(), |node| {
                node.tell(Command::script(&extend, Expect::Integer));
            });
        };
        let swept = self.sweep_rest(service, unswept, keep).await;
        // By its token: it may be another one's by now.
        let release = Call {
            words: vec![b"1", lease.as_bytes(), token.as_bytes(), b""],
            guard: None,
            over: None,
        };
        Script::new(scripts::RELEASE)
            .call(&self.servers, &[release])
            .await;
        swept
    }

    /// Sweeps what no other process has swept before this one had the lease.
    async fn sweep_rest(
        &self,
        service: &str,
        unswept: &[&Unswept],
        keep: impl Fn(),
    ) -> Result<(), StoreError> {
        let mut left = Vec::new();
        for unswept in unswept {
            match unswept.is_noted().await? {
                true => self.mark(unswept),
                false => left.push(*unswept),
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        self.sweep(service, &left, keep).await
    }

    /// Sweeps servers. Where slots moved since they were found unswept, all of them: an entry may have gone to where it was not
    /// looked for.
    async fn sweep(
        &self,
        service: &str,
        unswept: &[&Unswept],
        keep: impl Fn(),
    ) -> Result<(), StoreError> {
        let mut moves = Moves::new();
        let mut removed = 0;
        for round in 0..ROUNDS {
            let walk = self.servers.begin_walk(&moves).await?;
            for node in &walk.nodes {
                let of_node = unswept.iter().find(|one| Arc::ptr_eq(&one.node, node));
                if round > 0 || of_node.is_some() {
                    let over = of_node.map(|one| one.link());
                    removed += sweep_node(node, over, service, &keep).await?;
                }
            }
            let moved = match round {
                0 => {
                    let met = self.met.get(service).and_then(Option::as_deref);
                    Some(self.servers.moved_since(met).await?).filter(|moved| !moved.is_empty())
                }
                _ => self.servers.missed_by(&walk).await?,
            };
            match moved {
                Some(moved) => moves = moved,
                None => {
                    let is_met = |one: &&&Unswept| {
                        walk.nodes.iter().any(|node| Arc::ptr_eq(node, &one.node))
                    };
                    for unswept in unswept.iter().filter(is_met) {
                        self.note(unswept).await;
                    }
                    tracing::info!(
                        service,
                        removed,
                        "plain entries of another life of the server were removed"
                    );
                    return Ok(());
                }
            }
        }
        Err(StoreError::Refused(
            "slots moved under the sweep".to_owned(),
        ))
    }
}

/// Removes the plain entries of a service from a server, over one connection if that is the one; how many.
async fn sweep_node(
    node: &Node,
    over: Option<u64>,
    service: &str,
    keep: &impl Fn(),
) -> Result<u64, StoreError> {
    let pattern = format!("cache:{service}:*");
    let mut cursor = Bytes::from_static(b"0");
    let mut removed = 0;
    for _ in 0..steps_of_a_scan(node).await? {
        keep();
        let (keys, next) = scan_step(node, &cursor, pattern.as_bytes(), over).await?;
        for keys in keys.chunks(TOGETHER) {
            keep();
            removed += remove_plain(node, over, keys).await?;
        }
        if next == "0" {
            return Ok(removed);
        }
        cursor = next;
    }
    Err(StoreError::Refused("SCAN came to no end".to_owned()))
}

async fn remove_plain(node: &Node, over: Option<u64>, keys: &[Bytes]) -> Result<u64, StoreError> {
    let firsts: Vec<[&[u8]; 4]> = keys
        .iter()
        .map(|key| [&b"GETRANGE"[..], key, b"0", b"0"])
        .collect();
    let commands = firsts.iter().map(|words| Command::new(words, Expect::Text));
    let firsts = ask_all(node, over, commands.collect()).await?;
    let mut unlinks: Vec<[&[u8]; 2]> = Vec::with_capacity(keys.len());
    for (key, first) in std::iter::zip(keys, &firsts) {
        match first {
            Value::Text(first) if larder_core::is_framed(first) => {}
            // It is on its way to another server, or there; or no text is read from it.
            Value::Error(error) if is_moved(error) || error.starts_with(b"WRONGTYPE") => {}
            // What it is can't be told: it may be a framed one.
            Value::Error(error) => return Err(StoreError::Refused(shown_bytes(error))),
            _ => unlinks.push([b"UNLINK", key]),
        }
    }
    let commands = unlinks
        .iter()
        .map(|words| Command::new(words, Expect::Integer));
    let mut removed = 0;
    for answer in ask_all(node, over, commands.collect()).await? {
        match answer {
            Value::Integer(count) => removed += u64::try_from(count).unwrap_or(0),
            Value::Error(error) if is_moved(&error) => {}
            Value::Error(error) => return Err(StoreError::Refused(shown_bytes(&error))),
            _ => {}
        }
    }
    Ok(removed)
}

/// Whether a key is on its way to another server, or there: what moved is looked for.
fn is_moved(error: &[u8]) -> bool {
    error.starts_with(b"MOVED") || error.starts_with(b"ASK")
}

async fn ask_all(
    node: &Node,
    over: Option<u64>,
    commands: Vec<Command<'_>>,
) -> Result<Vec<Value>, StoreError> {
    let commands: Vec<Command<'_>> = commands
        .into_iter()
        .map(|command| command.only_over(over))
        .collect();
    let answers = node.ask(&commands).await?;
    let answers: Option<Vec<Value>> = answers.into_iter().collect();
    answers.ok_or_else(|| StoreError::Away("it was connected to anew".to_owned()))
}
