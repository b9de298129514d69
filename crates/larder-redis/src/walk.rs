//! Walks over all entries: clears, scans, figures. Server by server, with `SCAN`, never `KEYS`.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_core::mutants::{Guard, is_off};
use larder_core::{
    ClearMode, Cursor, Deleted, Key, Page, Pattern, ScannedEntry, StoreError, StoreStats,
};

use crate::cluster::topology::Moves;
use crate::command::{Command, Expect};
use crate::lease::lease_key;
use crate::node::Node;
use crate::probe::shown_bytes;
use crate::resp::Value;
use crate::servers::Walk;
use crate::store::{BATCH, RedisStore};

/// How many keys a server looks at for one answer to `SCAN`.
const SCAN_COUNT: &[u8] = b"1000";
/// So often a clear begins anew when servers changed under it.
const ROUNDS: u32 = 6;
/// So long it waits before that, at first; each time twice as long. A failover takes seconds.
const PAUSE: Duration = Duration::from_millis(100);

/// What a clear met.
struct Tally {
    mode: ClearMode,
    deleted: u64,
    /// A scan may meet a key twice: deleted ones it can't, counted ones must not count twice.
    counted: HashSet<u64>,
    hasher: RandomState,
}

impl Tally {
    fn new(mode: ClearMode) -> Self {
        Self {
            mode,
            deleted: 0,
            counted: HashSet::new(),
            hasher: RandomState::new(),
        }
    }
}

/// Why a clear, or a part of it, is not through.
enum Unfinished {
    /// Keys may have moved to where it had already been.
    Moved(Moves),
    Failed(StoreError),
}

impl RedisStore {
    pub(crate) async fn clear_all(
        &self,
        pattern: &Pattern,
        mode: ClearMode,
    ) -> Result<Deleted, StoreError> {
        let mut tally = Tally::new(mode);
        let mut moves = Moves::new();
        let mut why = String::new();
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE * (1 << round)).await;
            }
            match self.clear_once(pattern, &moves, &mut tally).await {
                Ok(()) => {
                    return Ok(Deleted {
                        entries: tally.deleted + tally.counted.len() as u64,
                    });
                }
                Err(Unfinished::Failed(error)) => {
                    if !(self.servers.can_change() && self.servers.is_any_there()) {
                        return Err(error);
                    }
                    why = error.to_string();
                }
                Err(Unfinished::Moved(moved)) => {
                    "slots moved under it".clone_into(&mut why);
                    moves = moved;
                }
            }
        }
        Err(StoreError::Refused(format!(
            "not all entries were met, in {ROUNDS} rounds: {why}; what is left stays until it is cleared again"
        )))
    }

    async fn clear_once(
        &self,
        pattern: &Pattern,
        moves: &Moves,
        tally: &mut Tally,
    ) -> Result<(), Unfinished> {
        let walk = self.servers.begin_walk(moves).await;
        let walk: Walk = walk.map_err(Unfinished::Failed)?;
        for node in &walk.nodes {
            if is_off(Guard::ClearFollowsMoves) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let cleared = self.clear_node(node, pattern, tally).await;
            cleared.map_err(Unfinished::Failed)?;
        }
        if is_off(Guard::ClearFollowsMoves) {
            return Ok(());
        }
        let missed = self.servers.missed_by(&walk).await;
        match missed.map_err(Unfinished::Failed)? {
            Some(moves) => Err(Unfinished::Moved(moves)),
            None => Ok(()),
        }
    }

    /// Leases first: then no load that began before fills behind the walk over the entries.
    async fn clear_node(
        &self,
        node: &Arc<Node>,
        pattern: &Pattern,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        if tally.mode == ClearMode::Delete && !is_off(Guard::ClearEndsLeases) {
            let leases = lease_key(pattern.as_str());
            let mut ended = Tally::new(ClearMode::Delete);
            self.walk_node(node, &leases, &mut ended).await?;
        }
        self.walk_node(node, pattern.as_str(), tally).await
    }

    async fn walk_node(
        &self,
        node: &Arc<Node>,
        pattern: &str,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let mut cursor = Bytes::from_static(b"0");
        // Its answer: the process that gave it has been met.
        let steps = steps_of_a_scan(node).await?;
        let process = node.run_id();
        for _ in 0..steps {
            let (keys, next) = scan_step(node, &cursor, pattern.as_bytes(), None).await?;
            if node.run_id() != process {
                return Err(StoreError::Refused(format!(
                    "{} was started again under it",
                    node.url()
                )));
            }
            match tally.mode {
                ClearMode::Delete if !keys.is_empty() => {
                    tally.deleted += self.unlink_all(keys.iter().map(|key| &key[..])).await?;
                }
                ClearMode::Delete => {}
                ClearMode::DryRun => {
                    let hashes = keys.iter().map(|key| tally.hasher.hash_one(key));
                    tally.counted.extend(hashes);
                }
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
        Err(StoreError::Refused(
            "SCAN came to no end: not all entries were met".to_owned(),
        ))
    }

    pub(crate) async fn page(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let nodes = self.servers.all().await?;
        let is_only = !self.servers.can_change();
        let place = match &after {
            Some(cursor) => Place::read(&cursor.0, &nodes, is_only)?,
            None => Place::first(&nodes, is_only)?,
        };
        let pattern = pattern.map_or("cache:*", Pattern::as_str);
        let step = scan_step(
            place.node,
            place.cursor.as_bytes(),
            pattern.as_bytes(),
            None,
        )
        .await;
        let (keys, next) = step.inspect_err(|_| self.servers.doubt())?;
        let keys: Vec<Key> = keys
            .iter()
            .filter_map(|key| Key::parse(std::str::from_utf8(key).ok()?).ok())
            .collect();
        let mut entries = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            entries.extend(self.describe(keys).await?);
        }
        let next = match next == "0" {
            false => Some(place.cursor(&String::from_utf8_lossy(&next))),
            true => place.behind(&nodes),
        };
        Ok(Page { entries, next })
    }

    /// How long entries live and how large they are.
    async fn describe(&self, keys: &[Key]) -> Result<Vec<ScannedEntry>, StoreError> {
        let asked: Vec<[[&[u8]; 2]; 2]> = keys
            .iter()
            .map(|key| {
                let key = key.as_str().as_bytes();
                [[&b"PTTL"[..], key], [&b"STRLEN"[..], key]]
            })
            .collect();
        let commands: Vec<Command<'_>> = asked
            .iter()
            .flatten()
            .map(|command| Command::new(command, Expect::Integer))
            .collect();
        let values = self.servers.ask(&commands).await;
        let values = values.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut entries = Vec::with_capacity(keys.len());
        for (key, told) in std::iter::zip(keys, values.chunks(2)) {
            let number = |value: Option<&Option<Value>>| match value {
                Some(Some(Value::Integer(number))) => Some(*number),
                // A missing right, or a value of another type.
                _ => None,
            };
            let ttl = number(told.first());
            // It ended in between.
            if ttl == Some(-2) {
                continue;
            }
            let millis = ttl.and_then(|ttl| u64::try_from(ttl).ok());
            entries.push(ScannedEntry {
                key: key.clone(),
                ttl: millis.map(Duration::from_millis),
                bytes: number(told.get(1)).and_then(|bytes| u64::try_from(bytes).ok()),
            });
        }
        Ok(entries)
    }

    /// The figures of all servers together.
    pub(crate) async fn read_stats(&self) -> Result<StoreStats, StoreError> {
        let mut all: Option<StoreStats> = None;
        for node in self.servers.all().await? {
            let one = stats_of(&node).await;
            let one = one.inspect_err(|_| self.servers.doubt())?;
            all = Some(match all {
                Some(all) => sum(&all, &one),
                None => one,
            });
        }
        Ok(all.unwrap_or_default())
    }
}

/// Where a scan stands. Written as `cursor` for one server, which is always the same; as `cursor@process@server` where
/// there can be others: the cursors of one mean nothing to another.
struct Place<'a> {
    node: &'a Arc<Node>,
    is_only: bool,
    cursor: String,
}

impl<'a> Place<'a> {
    fn first(nodes: &'a [Arc<Node>], is_only: bool) -> Result<Self, StoreError> {
        let away = || StoreError::Away("no server has entries".to_owned());
        Ok(Self {
            node: nodes.first().ok_or_else(away)?,
            is_only,
            cursor: "0".to_owned(),
        })
    }

    fn read(text: &str, nodes: &'a [Arc<Node>], is_only: bool) -> Result<Self, StoreError> {
        let mut parts = text.splitn(3, '@');
        let (cursor, process) = (parts.next().unwrap_or_default(), parts.next());
        let server = parts.next().unwrap_or_default();
        let is_it = |node: &&Arc<Node>| match process {
            None => is_only,
            Some("") => node.url().to_string() == server,
            Some(process) => node.url().to_string() == server && node.run_id() == process,
        };
        let anew = || {
            let server = larder_model::escape(server);
            StoreError::Refused(format!(
                "the server of this scan ({server}) has left or was started again: begin the scan anew"
            ))
        };
        Ok(Self {
            node: nodes.iter().find(is_it).ok_or_else(anew)?,
            is_only,
            cursor: cursor.to_owned(),
        })
    }

    fn cursor(&self, cursor: &str) -> Cursor {
        if self.is_only {
            return Cursor(cursor.to_owned());
        }
        // A scan that begins needs no certain process.
        let process = match cursor {
            "0" => String::new(),
            _ => self.node.run_id(),
        };
        Cursor(format!("{cursor}@{process}@{}", self.node.url()))
    }

    /// The beginning of the next server, by the order of their hosts: others may have come or gone.
    fn behind(&self, nodes: &'a [Arc<Node>]) -> Option<Cursor> {
        let here = self.node.url().host();
        let next = nodes.iter().find(|node| node.url().host() > here)?;
        let place = Self {
            node: next,
            is_only: false,
            cursor: "0".to_owned(),
        };
        Some(place.cursor("0"))
    }
}

/// One command to one server, one reply.
async fn ask(node: &Node, command: Command<'_>) -> Result<Value, StoreError> {
    match node.ask_one(command).await? {
        Some(Value::Error(error)) => Err(StoreError::Refused(shown_bytes(&error))),
        Some(value) => Ok(value),
        None => Err(StoreError::Refused("no reply".to_owned())),
    }
}

/// One step of a `SCAN`, over one connection if that is the one: the keys that it met, and where it goes on.
pub(crate) async fn scan_step(
    node: &Node,
    cursor: &[u8],
    pattern: &[u8],
    over: Option<u64>,
) -> Result<(Vec<Bytes>, Bytes), StoreError> {
    let scan: [&[u8]; 6] = [b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_COUNT];
    let reply = ask(node, Command::new(&scan, Expect::Array).only_over(over)).await?;
    let odd = || StoreError::Refused("SCAN gave an odd answer".to_owned());
    let Value::Array(parts) = reply else {
        return Err(odd());
    };
    let [Value::Text(next), Value::Array(keys)] = &parts[..] else {
        return Err(odd());
    };
    let texts = keys.iter().filter_map(|key| match key {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    });
    Ok((texts.collect(), next.clone()))
}

/// More than a scan of this database takes, even of a table that has shrunk to a hundredth.
pub(crate) async fn steps_of_a_scan(node: &Node) -> Result<u64, StoreError> {
    match ask(node, Command::new(&[b"DBSIZE"], Expect::Integer)).await? {
        Value::Integer(keys) => Ok(10_000 + u64::try_from(keys).unwrap_or(0) / 10),
        _ => Ok(u64::MAX),
    }
}

async fn stats_of(node: &Node) -> Result<StoreStats, StoreError> {
    let info = Command::new(&[b"INFO"], Expect::Text);
    let dbsize = Command::new(&[b"DBSIZE"], Expect::Integer);
    let mut values = node.ask(&[info, dbsize]).await?.into_iter().flatten();
    let info = match values.next() {
        Some(Value::Text(info)) => String::from_utf8_lossy(&info).into_owned(),
        _ => String::new(),
    };
    let field = |name: &str| -> Option<u64> {
        let line = info.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':')?.trim().parse().ok()
    };
    let entries = match values.next() {
        Some(Value::Integer(count)) => u64::try_from(count).ok(),
        _ => None,
    };
    Ok(StoreStats {
        entries,
        used_bytes: field("used_memory"),
        limit_bytes: field("maxmemory").filter(|limit| *limit > 0),
        hits: field("keyspace_hits"),
        misses: field("keyspace_misses"),
        evictions: field("evicted_keys"),
        expired: field("expired_keys"),
        damaged: None,
    })
}

/// Two servers' figures as one's; what one of them does not tell is not known.
fn sum(one: &StoreStats, other: &StoreStats) -> StoreStats {
    let add = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
    StoreStats {
        entries: add(one.entries, other.entries),
        used_bytes: add(one.used_bytes, other.used_bytes),
        limit_bytes: add(one.limit_bytes, other.limit_bytes),
        hits: add(one.hits, other.hits),
        misses: add(one.misses, other.misses),
        evictions: add(one.evictions, other.evictions),
        expired: add(one.expired, other.expired),
        damaged: add(one.damaged, other.damaged),
    }
}
