//! Judges what processes saw against the contract: no lookup that begins after an invalidation returned gives a value whose load
//! began before its call (C1, C2, C3), and none gives one whose time is over (C4).

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::event::{Event, What};
use crate::instant::{Nanos, millis, nanos};
use crate::keys::{self, KEYS, Kind};

/// What one process saw.
pub(crate) struct Witness {
    /// Which worker it was; one that was started anew has the same.
    pub(crate) worker: usize,
    pub(crate) has_l1: bool,
    pub(crate) events: Vec<Event>,
    /// When it was killed, if it was.
    pub(crate) killed: Option<Nanos>,
    /// From when to when it was stopped.
    pub(crate) stops: Vec<(Nanos, Nanos)>,
}

impl Witness {
    /// What programs did that are not Larder's.
    pub(crate) fn outside(events: Vec<Event>) -> Self {
        Self {
            worker: usize::MAX,
            has_l1: false,
            events,
            killed: None,
            stops: Vec::new(),
        }
    }

    /// When a wait of others for this process is over: what it could not use, since it had no processor, does not count, as
    /// long as that is no longer than a reader may be stopped.
    fn wait_until(&self, since: Nanos, wait: Nanos) -> Nanos {
        let mut until = since.saturating_add(wait);
        let stalls = self.events.iter();
        for stall in stalls.filter(|event| event.what == What::Stalled) {
            let (begin, end) = (stall.begin.max(since), stall.end);
            if begin < until {
                until = until.saturating_add(end.saturating_sub(begin));
            }
        }
        until.min(since.saturating_add(wait.max(LONGEST_STALL)))
    }

    /// From when on it could notice what happened then.
    fn could_notice(&self, at: Nanos) -> Nanos {
        let stop = self
            .stops
            .iter()
            .find(|(begin, end)| *begin <= at && at < *end);
        stop.map_or(at, |(_, end)| *end)
    }
}

/// For how long another process than the one that invalidated may see what was before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// What it reads from the store.
    pub(crate) store: Nanos,
    /// What it keeps itself: the L1, and versions.
    pub(crate) near: Nanos,
    /// How long a fill may be on its way: a value's time begins when it is stored.
    pub(crate) fill: Nanos,
    /// How long it takes until what a process left that was killed is taken over and told to the store, if that is judged.
    pub(crate) adoption: Option<Nanos>,
}

/// What must not be returned any more, from a time on.
#[derive(Debug, Clone, Copy)]
struct Duty {
    due: Nanos,
    /// A load that began before this.
    call: Nanos,
    by: What,
}

/// A read that broke the contract.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) worker: usize,
    pub(crate) key: String,
    /// How the lookup ended, and what forbade that.
    pub(crate) what: String,
    /// How long after it was forbidden the lookup began.
    pub(crate) late_ms: f64,
    /// When it began, from the beginning of the round.
    pub(crate) at_ms: f64,
}

/// What came of a round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    pub(crate) reads: u64,
    pub(crate) cached: u64,
    pub(crate) invalidations: u64,
    pub(crate) pending: u64,
    pub(crate) violations: Vec<Violation>,
    pub(crate) failed: u64,
    pub(crate) loads: u64,
    pub(crate) least_loads: u64,
    /// Of each lookup.
    pub(crate) took: Vec<Nanos>,
    /// For how long others than the one that invalidated saw what was before, of each invalidation that they could have noticed.
    pub(crate) stale: Vec<Nanos>,
    /// From the end of each fault until all processes had hits again.
    pub(crate) recovery: Vec<Nanos>,
}

/// So many violations are looked for in a round.
const SHOWN: usize = 1_000;
/// An invalidation is counted as one that another process could have noticed if that read the key within this time.
const NOTICED: Nanos = millis(20);
/// For how long a reader that was stopped may see what was before.
const LONGEST_STALL: Nanos = millis(2_010);
/// Longer than this nobody may see what was before.
const LONGEST: Nanos = millis(4_000);

pub(crate) fn judge(witnesses: &[Witness], bounds: Bounds, fault_ends: &[Nanos]) -> Verdict {
    let mut verdict = Verdict::default();
    let begin = witnesses.iter().flat_map(|one| one.events.first());
    let begin = begin.map(|event| event.begin).min().unwrap_or(0);
    for event in witnesses.iter().flat_map(|one| &one.events) {
        verdict.count(event);
    }
    let by_key: Vec<Vec<Vec<Event>>> = witnesses.iter().map(reads_by_key).collect();
    let sets = Sets::of(witnesses);
    for key in 0..KEYS {
        let duties = Duties::of(witnesses, key);
        for (reader, witness) in witnesses.iter().enumerate() {
            let due = duties.for_reader(witnesses, reader, key, bounds);
            let of_sets = sets.read_by(witness, key);
            for event in by_key[reader][key].iter().chain(&of_sets) {
                // To say what is wrong with each takes longer than a round where all are wrong.
                if verdict.violations.len() >= SHOWN {
                    break;
                }
                let found = broken(event, key, &due, bounds);
                let Some((rule, by, since)) = found else {
                    continue;
                };
                verdict.violations.push(Violation {
                    rule,
                    worker: witness.worker,
                    key: keys::endpoint_of(key),
                    what: format!("{:?} after {by}", event.what),
                    late_ms: in_millis(event.begin.saturating_sub(since)),
                    at_ms: in_millis(event.begin.saturating_sub(begin)),
                });
            }
            if witness.has_l1 {
                let of_reader = (reader, witness);
                duties.staleness(of_reader, key, &by_key[reader][key], &mut verdict.stale);
            }
        }
        verdict.least_loads += least_loads(&duties, &by_key, key);
    }
    verdict.recovery = fault_ends
        .iter()
        .filter_map(|end| recovery(witnesses, *end))
        .collect();
    verdict
}

impl Verdict {
    fn count(&mut self, event: &Event) {
        if event.what.is_lookup() {
            self.reads += 1;
            self.took.push(event.end.saturating_sub(event.begin));
        }
        match event.what {
            What::Hit | What::Stale => self.cached += 1,
            What::Failed => self.failed += 1,
            What::Load => self.loads += 1,
            _ => {}
        }
        if event.what.is_obligation() && event.what != What::Stored {
            self.invalidations += 1;
            self.pending += u64::from(event.what.is_pending());
        }
    }

    /// Adds another round.
    pub(crate) fn add(&mut self, other: Self) {
        self.reads += other.reads;
        self.cached += other.cached;
        self.invalidations += other.invalidations;
        self.pending += other.pending;
        self.violations.extend(other.violations);
        self.failed += other.failed;
        self.loads += other.loads;
        self.least_loads += other.least_loads;
        self.took.extend(other.took);
        self.stale.extend(other.stale);
        self.recovery.extend(other.recovery);
    }
}

pub(crate) fn in_millis(time: Nanos) -> f64 {
    time as f64 / 1e6
}

/// The lookups of a process that returned a load's value, of each key.
fn reads_by_key(witness: &Witness) -> Vec<Vec<Event>> {
    let mut all = vec![Vec::new(); KEYS];
    let reads = witness.events.iter().filter(|event| event.what.is_read());
    for event in reads {
        if let Some(of_key) = all.get_mut(event.subject as usize) {
            of_key.push(*event);
        }
    }
    for of_key in &mut all {
        of_key.sort_by_key(|event| event.begin);
    }
    all
}

/// When each `set` that is known to have been done had ended, by its key and its beginning. A value is the word of who set it,
/// and so it counts until something else is said after that.
struct Sets(HashMap<(u32, Nanos), Nanos>);

impl Sets {
    fn of(witnesses: &[Witness]) -> Self {
        let all = witnesses.iter().flat_map(|one| &one.events);
        let done = all.filter(|event| event.what == What::Stored);
        Self(
            done.map(|event| ((event.subject, event.begin), event.end))
                .collect(),
        )
    }

    /// The lookups of a process that returned what such a `set` stored, as if that had been loaded when it ended.
    fn read_by(&self, witness: &Witness, key: usize) -> Vec<Event> {
        let reads = witness.events.iter();
        let reads = reads.filter(|event| event.what == What::Set && event.subject as usize == key);
        let known = reads.filter_map(|event| {
            let load_begin = *self.0.get(&(event.subject, event.load_begin))?;
            Some(Event {
                load_begin,
                ..*event
            })
        });
        known.collect()
    }
}

/// What was invalidated of one key, by whom.
struct Duties(Vec<(usize, Event)>);

/// What one reader must not return, by when that is due; each with the latest call until then.
struct Due(Vec<Duty>);

impl Duties {
    fn of(witnesses: &[Witness], key: usize) -> Self {
        let mut all = Vec::new();
        for (by, witness) in witnesses.iter().enumerate() {
            let own = witness.events.iter().filter(|event| event.names(key, true));
            all.extend(own.map(|event| (by, *event)));
        }
        Self(all)
    }

    fn for_reader(&self, all: &[Witness], reader: usize, key: usize, bounds: Bounds) -> Due {
        let Some(witness) = all.get(reader) else {
            return Due(Vec::new());
        };
        let started = witness.events.first().map_or(0, |event| event.end);
        let due = self.0.iter().filter_map(|(by, event)| {
            let wait = if *by == reader {
                0
            } else if event.what.is_pending() {
                // A worker that was started anew has adopted what is pending.
                let is_heir = all[*by].worker == witness.worker && event.end < started;
                let adopted =
                    || Some(all[*by].killed?.saturating_sub(event.end) + bounds.adoption?);
                match is_heir {
                    true => 0,
                    false => adopted()?,
                }
            } else if !event.names(key, false) {
                return None;
            } else if witness.has_l1 || event.what.is_by_version() {
                bounds.near
            } else {
                bounds.store
            };
            let due = match wait {
                0 => event.end,
                wait => witness.wait_until(event.end, wait),
            };
            Some(Duty {
                due,
                call: event.begin,
                by: event.what,
            })
        });
        Due::sorted(due.collect())
    }

    /// For how long a reader saw what was before each invalidation of others; the time in which it was stopped does not count.
    fn staleness(
        &self,
        (reader, witness): (usize, &Witness),
        key: usize,
        reads: &[Event],
        stale: &mut Vec<Nanos>,
    ) {
        let others = self.0.iter().filter(|(by, event)| {
            *by != reader && !event.what.is_pending() && event.names(key, false)
        });
        for (_, event) in others {
            let since = witness.could_notice(event.end);
            let first = reads.partition_point(|read| read.begin <= since);
            let after = reads.get(first..).unwrap_or_default();
            let is_noticed = after
                .first()
                .is_some_and(|read| read.begin < since + NOTICED);
            if !is_noticed {
                continue;
            }
            let within = after.iter().take_while(|read| read.begin < since + LONGEST);
            let old = within.filter(|read| read.load_begin < event.begin);
            stale.push(old.last().map_or(0, |read| read.begin - since));
        }
    }
}

impl Due {
    fn sorted(mut due: Vec<Duty>) -> Self {
        due.sort_by_key(|duty| duty.due);
        let mut latest: Option<Duty> = None;
        for duty in &mut due {
            match latest {
                Some(latest) if latest.call > duty.call => {
                    (duty.call, duty.by) = (latest.call, latest.by)
                }
                _ => latest = Some(*duty),
            }
        }
        Self(due)
    }

    /// What a lookup that began then had to heed.
    fn at(&self, begin: Nanos) -> Option<Duty> {
        let count = self.0.partition_point(|duty| duty.due < begin);
        self.0.get(count.checked_sub(1)?).copied()
    }

    /// Since when a value whose load began then must not be returned.
    fn since(&self, load_begin: Nanos) -> Nanos {
        let first = self.0.iter().find(|duty| duty.call > load_begin);
        first.map_or(0, |duty| duty.due)
    }
}

/// Which rule a read breaks, by what, and since when.
fn broken(
    event: &Event,
    key: usize,
    due: &Due,
    bounds: Bounds,
) -> Option<(&'static str, String, Nanos)> {
    if let Some(duty) = due.at(event.begin)
        && event.load_begin < duty.call
    {
        let by = format!("{:?}", duty.by);
        return Some(("C1", by, due.since(event.load_begin)));
    }
    let kind = Kind::of(key);
    let allowed = match event.what {
        What::Hit | What::Set => kind.ttl(),
        What::Stale => kind.ttl() + kind.stale(),
        _ => return None,
    };
    let over = event
        .made
        .saturating_add(nanos(allowed))
        .saturating_add(bounds.fill);
    (event.begin > over).then(|| ("C4", "its time".to_owned(), over))
}

/// How many loads would have been enough for what was looked up, if each begins when it serves most and all know of it at once:
/// a lookup is served by any load that began after what it had to heed, no longer ago than a value lives, and before the lookup
/// ended. So few instants that one lies in each of these intervals.
fn least_loads(duties: &Duties, by_key: &[Vec<Vec<Event>>], key: usize) -> u64 {
    let all = duties.0.iter().map(|(_, event)| Duty {
        due: event.end,
        call: event.begin,
        by: event.what,
    });
    let due = Due::sorted(all.collect());
    let life = nanos(Kind::of(key).ttl() + Kind::of(key).stale());
    let reads = by_key.iter().flat_map(|of| &of[key]);
    let intervals = reads.map(|read| {
        let heeded = due.at(read.begin).map_or(0, |duty| duty.call);
        (read.end, heeded.max(read.begin.saturating_sub(life)))
    });
    let mut intervals: Vec<(Nanos, Nanos)> = intervals.collect();
    intervals.sort_unstable();
    let mut loaded = None;
    let mut count = 0;
    for (end, least) in intervals {
        if loaded.is_none_or(|at| at < least) {
            loaded = Some(end);
            count += 1;
        }
    }
    count
}

/// How long after a fault each process that lived on had a hit again.
fn recovery(witnesses: &[Witness], end: Nanos) -> Option<Nanos> {
    let mut first: BTreeMap<usize, Nanos> = BTreeMap::new();
    for witness in witnesses {
        let hits = witness
            .events
            .iter()
            .filter(|event| event.what == What::Hit && event.begin >= end);
        if let Some(hit) = hits.map(|event| event.begin).min() {
            let known = first.entry(witness.worker).or_insert(hit);
            *known = hit.min(*known);
        }
    }
    first.into_values().max().map(|at| at - end)
}

#[cfg(test)]
mod tests;
