//! What was invalidated lately: kept for those who follow a service, who were away, and who ask what came of it.
//!
//! Each invalidation is an entry of the audit trail, and that entry's number is its place in the order. Of each service the
//! latest are kept in memory, and read from the trail at the start. A client that comes back says up to where it knows them:
//! it is told the rest, or, where more was missed than is kept, to invalidate everything of the service.

mod feed;
mod outcome;
mod record;
mod work;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::{Service, Target};
use larder_model::api::{InvalidationPosition, MissedInvalidation, MissedInvalidations};
use tokio::sync::watch;

use crate::audit::{Entry, Row};
use crate::cause::Cause;
use crate::database::Database;
use crate::pace::PerService;
pub(crate) use feed::Feed;
pub(crate) use outcome::dry_run;
pub(crate) use record::Record;
pub(crate) use work::{Asked, NotDone, invalidate, outcome_within};

/// Invalidations of no more services are kept.
const MAX_SERVICES: usize = 1_000;
/// So many pages of the trail are read at the start, of so many entries each.
const PAGES: usize = 10;
const PAGE: u32 = 500;
/// What an invalidation is called in the trail.
pub(crate) const INVALIDATED: &str = "invalidated";

/// How many invalidations there may be, and how many are kept.
#[derive(Debug, Clone)]
pub struct InvalidationLimits {
    /// So many of each service are kept for clients that were away. Default: 128.
    pub kept: usize,
    /// So many of each service are done in a minute, and so many tried. Default: 60.
    pub per_minute: u32,
}

impl Default for InvalidationLimits {
    fn default() -> Self {
        Self {
            kept: 128,
            per_minute: 60,
        }
    }
}

/// What was invalidated lately.
pub(crate) struct Invalidations {
    limits: InvalidationLimits,
    database: Database,
    /// Up to this number of the trail, what other replicas wrote is known, too. Where there can be none it counts for nothing.
    known: AtomicU64,
    /// Of what is up to this number in the trail, not all is known.
    floor: u64,
    rings: Mutex<HashMap<Service, Ring>>,
    /// Who follows a service looks again when this changes.
    heads: Mutex<HashMap<Service, watch::Sender<u64>>>,
    /// Who waits for the end of an invalidation looks again when this changes.
    changed: watch::Sender<()>,
    /// Of several that are asked for, one is looked for and noted at a time: one that is asked for twice is done once.
    turn: tokio::sync::Mutex<()>,
    pub(crate) done: PerService,
    pub(crate) tried: PerService,
}

/// A service's invalidations, oldest first.
struct Ring {
    records: VecDeque<Arc<Record>>,
    /// What is up to this number is not kept.
    floor: u64,
}

impl Invalidations {
    /// Those that the trail tells of.
    pub(crate) async fn open(
        database: &Database,
        limits: InvalidationLimits,
    ) -> Result<Self, sqlx::Error> {
        let known = database.audit_head_now().await?.sequence;
        let (rows, floor) = read_trail(database, known).await?;
        let invalidations = Self {
            turn: tokio::sync::Mutex::default(),
            done: PerService::new(limits.per_minute),
            tried: PerService::new(limits.per_minute),
            limits,
            database: database.clone(),
            known: AtomicU64::new(known),
            floor,
            rings: Mutex::default(),
            heads: Mutex::default(),
            changed: watch::Sender::default(),
        };
        for row in rows.iter().rev() {
            if let Some(record) = Record::of_trail(row) {
                record.tell(database.id(), None);
                invalidations.keep(Arc::new(record));
            }
        }
        Ok(invalidations)
    }

    /// Where a number of the trail is, for clients.
    pub(crate) fn position(&self, sequence: u64) -> String {
        position(self.database.id(), sequence)
    }

    /// The number of a position of this database; `None` if it is none.
    pub(crate) fn number(&self, position: &str) -> Option<u64> {
        let (database, number) = position.rsplit_once('.')?;
        let number = number.parse().ok()?;
        (database == self.database.id()).then_some(number)
    }

    /// Whether one more service can be kept.
    pub(crate) fn has_room_for(&self, service: &Service) -> bool {
        let rings = self.rings();
        rings.contains_key(service) || rings.len() < MAX_SERVICES
    }

    /// Keeps one more, in the place of the oldest of its service. Those who follow the service are told once the record is.
    pub(crate) fn keep(&self, record: Arc<Record>) {
        let mut rings = self.rings();
        let ring = rings.entry(record.service.clone());
        let ring = ring.or_insert_with(|| Ring {
            records: VecDeque::new(),
            floor: self.floor,
        });
        // Another replica's may be heard of behind one of this one's own.
        let place = ring
            .records
            .partition_point(|one| one.sequence < record.sequence);
        let there = ring.records.get_mut(place);
        if let Some(there) = there.filter(|one| one.sequence == record.sequence) {
            // What this replica does itself it knows more of than the trail, from which it may have heard of it first; it is told
            // when it is done.
            if !record.is_told() {
                *there = record;
            }
            return;
        }
        if record.sequence <= ring.floor {
            return;
        }
        ring.records.insert(place, record);
        while ring.records.len() > self.limits.kept.max(1) {
            if let Some(oldest) = ring.records.pop_front() {
                ring.floor = ring.floor.max(oldest.sequence);
            }
        }
    }

    /// The invalidation with this name.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Record>> {
        let rings = self.rings();
        let mut all = rings.values().flat_map(|ring| ring.records.iter().rev());
        all.find(|record| record.id == id).cloned()
    }

    /// The latest, newest first, of those services that are meant.
    pub(crate) fn latest(
        &self,
        is_meant: impl Fn(&Service) -> bool,
        most: usize,
    ) -> Vec<Arc<Record>> {
        let rings = self.rings();
        let wanted = rings.iter().filter(|(service, _)| is_meant(service));
        let mut latest: Vec<Arc<Record>> = wanted
            .flat_map(|(_, ring)| ring.records.iter().rev().take(most).cloned())
            .collect();
        latest.sort_by_key(|record| std::cmp::Reverse(record.sequence));
        latest.truncate(most);
        latest
    }

    /// Those of which an invalidation is kept.
    pub(crate) fn services(&self) -> Vec<Service> {
        self.rings().keys().cloned().collect()
    }

    /// Whether a record is still kept.
    pub(crate) fn keeps(&self, record: &Record) -> bool {
        let rings = self.rings();
        let ring = rings.get(&record.service);
        ring.is_some_and(|ring| record.sequence > ring.floor)
    }

    /// Says that something was done, or heard of.
    pub(crate) fn poke(&self) {
        self.changed.send_replace(());
    }

    /// Who waits for that.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Tells those who follow the service of a record, once what came before it is told.
    fn tell(&self, record: &Record, done_in: Option<String>) {
        if record.tell(self.database.id(), done_in) {
            self.wake(&record.service);
        }
    }

    /// Those who follow a service look again.
    fn wake(&self, service: &Service) {
        if let Some(head) = self.heads().get(service) {
            head.send_modify(|times| *times = times.wrapping_add(1));
        }
    }

    /// Takes over what other replicas wrote into the trail.
    pub(crate) async fn catch_up(&self) -> Result<(), sqlx::Error> {
        if !self.database.is_shared() {
            return Ok(());
        }
        loop {
            let from = self.known.load(Ordering::Acquire);
            let rows = self.database.audit_after(from).await?;
            let Some(last) = rows.last().map(|row| row.sequence) else {
                return Ok(());
            };
            let mut of = HashSet::new();
            for row in rows.iter().filter(|row| row.action == INVALIDATED) {
                if let Some(record) = Record::of_trail(row) {
                    record.tell(self.database.id(), None);
                    of.insert(record.service.clone());
                    self.keep(Arc::new(record));
                }
            }
            self.known.fetch_max(last, Ordering::AcqRel);
            of.iter().for_each(|service| self.wake(service));
        }
    }

    /// Takes over what other replicas wrote, if one who comes back knows of more than this one.
    pub(crate) async fn catch_up_with(&self, position: Option<&str>) {
        let number = position.and_then(|position| self.number(position));
        if number.is_some_and(|number| number > self.known.load(Ordering::Acquire))
            && let Err(error) = self.catch_up().await
        {
            tracing::debug!(%error, "what other replicas invalidated is heard of later");
        }
    }

    /// Up to which number nothing is missing here; `head` is where the trail ends as far as is known.
    fn limit(&self, head: u64) -> u64 {
        match self.database.is_shared() {
            true => self.known.load(Ordering::Acquire),
            false => head,
        }
    }

    fn rings(&self) -> MutexGuard<'_, HashMap<Service, Ring>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heads(&self) -> MutexGuard<'_, HashMap<Service, watch::Sender<u64>>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the trail is told of an invalidation.
fn entry(service: &Service, target: &Target, id: &str, cause: &Cause) -> Entry {
    let (what, name) = (target.what(), target.name());
    let named = name.map_or_else(|| "all of it".to_owned(), |name| format!("{what} {name}"));
    Entry {
        cause: cause.clone(),
        action: INVALIDATED,
        service: Some(service.as_str().to_owned()),
        target: Some(named),
        before: None,
        after: Some(serde_json::json!({ "id": id, "what": what, "name": name })),
    }
}

fn position(database_id: &str, sequence: u64) -> String {
    format!("{database_id}.{sequence}")
}

/// The latest invalidations of the trail up to an entry, newest first, and up to which number there may be more.
async fn read_trail(database: &Database, last: u64) -> Result<(Vec<Row>, u64), sqlx::Error> {
    let (mut all, mut before) = (Vec::new(), last.saturating_add(1));
    for _ in 0..PAGES {
        let rows = database.audit_before(before, None, PAGE).await?;
        let is_last = rows.len() < PAGE as usize;
        if let Some(oldest) = rows.last() {
            before = oldest.sequence;
        }
        all.extend(rows.into_iter().filter(|row| row.action == INVALIDATED));
        if is_last {
            return Ok((all, 0));
        }
    }
    Ok((all, before.saturating_sub(1)))
}

impl Ring {
    /// What was told behind a number, in order, up to another; nothing behind what is not told yet.
    fn after(&self, cursor: u64, limit: u64) -> impl Iterator<Item = &Arc<Record>> {
        let from = self.records.partition_point(|one| one.sequence <= cursor);
        let behind = self.records.range(from..);
        behind.take_while(move |record| record.is_told() && record.sequence <= limit)
    }
}

impl Invalidations {
    /// Where one stands who begins to follow a service now, or comes back with a position; `head` is where the trail ends.
    fn stand(&self, service: &Service, known: Option<&str>, head: u64) -> (u64, bool) {
        let head = self.limit(head);
        let rings = self.rings();
        let ring = rings.get(service);
        // What is not told yet is still to come.
        let untold = ring.and_then(|ring| ring.records.iter().find(|record| !record.is_told()));
        let now = untold.map_or(head, |record| record.sequence.saturating_sub(1).min(head));
        let Some(known) = known else {
            return (now, false);
        };
        let floor = ring.map_or(self.floor, |ring| ring.floor);
        match self.number(known) {
            Some(number) if (floor..=head).contains(&number) => {
                let has_more = ring.is_some_and(|ring| ring.after(number, head).next().is_some());
                // Where nothing was missed it stands where the service does: what is too old to be kept is none of it.
                (if has_more { number } else { now.max(number) }, false)
            }
            _ => (now, true),
        }
    }

    /// Where the service stands now; `head` is where the trail ends.
    pub(crate) fn now(&self, service: &Service, head: u64) -> String {
        self.position(self.stand(service, None, head).0)
    }

    /// What one has missed who comes back with a position, or where he begins who has none.
    pub(crate) fn missed(
        &self,
        service: &Service,
        known: Option<&str>,
        head: u64,
    ) -> MissedInvalidations {
        let limit = self.limit(u64::MAX);
        let (from, gap) = self.stand(service, known, head);
        let mut cursor = from;
        let mut invalidations = Vec::new();
        let rings = self.rings();
        let ring = rings.get(service).filter(|_| known.is_some() && !gap);
        for record in ring.into_iter().flat_map(|ring| ring.after(from, limit)) {
            cursor = record.sequence;
            invalidations.extend(record.told().map(|told| MissedInvalidation {
                position: self.position(cursor),
                told,
            }));
        }
        MissedInvalidations {
            position: self.position(cursor),
            gap,
            invalidations,
        }
    }

    /// The same, for one who follows.
    pub(crate) fn standing(&self, cursor: u64, gap: bool) -> InvalidationPosition {
        InvalidationPosition {
            position: self.position(cursor),
            gap,
        }
    }
}
