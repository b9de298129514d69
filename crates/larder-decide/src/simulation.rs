//! Requests in virtual time, answered as an engine decides that they are, by one or many instances whose windows may come
//! late, twice or never. Deterministic: the same requests give the same figures.

mod fixed;
mod trial;
pub mod workload;

use std::collections::HashMap;
use std::time::Duration;

use larder_model::{Checked, Outcome, PER_SECOND, Window};

use crate::engine::{Arrived, Engine};
use crate::figures::Limits;
use crate::key_log::KeyLog;
use crate::record::Record;
use crate::seen::Seen;

use fixed::Entry;
pub use fixed::{Fixed, Tally};
pub use trial::{GhostError, Trial};

/// Instances report this often, in milliseconds.
const WINDOW_MS: u64 = 5_000;
/// The engine ticks this often.
const TICK_MS: u64 = 10_000;
/// So long after a decision the instances act on it.
const POLL_MS: u64 = 5_000;
/// The engine's state is saved this often.
const SAVE_MS: u64 = 60_000;
/// After a day without a request an engine measures anew, whatever was before: what is longer than this is passed over.
const IDLE_MS: u64 = 25 * 3_600_000;

/// A request, and what the origin answers, or would answer, now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// When, in milliseconds; never earlier than the one before.
    pub at_ms: u64,
    /// The key's hash.
    pub key: u32,
    /// What the origin answers: two answers with the same number are the same.
    pub body: u32,
    /// How long the origin takes, in milliseconds.
    pub latency_ms: f64,
    /// Whether the origin fails.
    pub is_error: bool,
}

/// What goes wrong. The shares are of windows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Windows that never arrive.
    pub lost: f64,
    /// Windows that arrive twice.
    pub doubled: f64,
    /// Windows that arrive up to `late_ms` later.
    pub late: f64,
    /// How late, at most.
    pub late_ms: u64,
    /// The engine's process is killed this often, in milliseconds; 0: never. It goes on from what it saved last.
    pub restart_ms: u64,
    /// An instance is replaced this often; 0: never.
    pub replace_ms: u64,
}

/// How a simulation runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    /// What the policy leaves to the engine.
    pub limits: Limits,
    /// How many instances answer.
    pub instances: usize,
    /// Whether they share one store; else each has its own.
    pub is_shared: bool,
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            instances: 1,
            is_shared: true,
            faults: Faults::default(),
        }
    }
}

/// One that answers requests and reports windows.
struct Instance {
    store: u32,
    name: String,
    boot: u64,
    sequence: u64,
    window: Window,
    keys: KeyLog,
    began_ms: u64,
}

/// What instances go by.
#[derive(Debug, Clone, Copy, Default)]
struct InForce {
    is_on: bool,
    ttl_ms: u64,
    check_share: f64,
    key_share: f64,
}

/// A run of an engine over requests.
pub struct Simulation {
    setup: Setup,
    engine: Engine,
    saved: Vec<u8>,
    instances: Vec<Instance>,
    entries: HashMap<(u32, u32), Entry>,
    inbox: Vec<(u64, Arrived)>,
    seen: HashMap<String, Seen>,
    in_force: InForce,
    decided: Option<(u64, InForce)>,
    tally: Tally,
    origin_rate: f64,
    news: Vec<Record>,
    last: Option<Record>,
    random: u64,
    next_window_ms: u64,
    next_tick_ms: u64,
    began_ms: u64,
    /// When something last happened.
    active_ms: u64,
}

impl Simulation {
    /// From this time on.
    #[must_use]
    pub fn new(setup: Setup, now_ms: u64) -> Self {
        let engine = Engine::new(now_ms);
        let instance = |index: usize| Instance {
            store: if setup.is_shared { 0 } else { index as u32 },
            name: format!("i-{index}"),
            boot: 1,
            sequence: 0,
            window: Window::default(),
            keys: KeyLog::new(0),
            began_ms: now_ms,
        };
        Self {
            setup,
            saved: engine.to_bytes(),
            engine,
            instances: (0..setup.instances.max(1)).map(instance).collect(),
            entries: HashMap::new(),
            inbox: Vec::new(),
            seen: HashMap::new(),
            in_force: InForce {
                key_share: 1.0,
                ..InForce::default()
            },
            decided: None,
            tally: Tally::default(),
            origin_rate: 0.0,
            news: Vec::new(),
            last: None,
            random: 0x9e37_79b9_7f4a_7c15,
            next_window_ms: now_ms + WINDOW_MS,
            next_tick_ms: now_ms + TICK_MS,
            began_ms: now_ms,
            active_ms: now_ms,
        }
    }

    /// Answers a request; whether the origin was called for it.
    pub fn step(&mut self, request: &Request) -> bool {
        self.advance(request.at_ms);
        self.active_ms = request.at_ms;
        let at = (self.chance() * self.instances.len() as f64) as usize;
        let now = self.log_time(request.at_ms);
        let key = (self.instances[at].store, request.key);
        self.tally.requests += 1;
        self.tally.without_ms += request.latency_ms;
        self.instances[at].keys.saw(request.key, now);
        let entry = self.entries.get(&key).copied().filter(|entry| {
            self.in_force.is_on && request.at_ms < entry.filled_ms + self.in_force.ttl_ms
        });
        let Some(entry) = entry else {
            self.call(at, request, None);
            return true;
        };
        self.tally.hits += 1;
        self.tally.stale += u64::from(entry.body != request.body);
        self.instances[at]
            .window
            .count(Outcome::Hit, None, false, 0);
        if self.in_force.check_share > self.chance() && !request.is_error {
            self.call(at, request, Some(entry));
        }
        false
    }

    /// Invalidates a key, or everything (`None`), by one of the instances.
    pub fn invalidate(&mut self, now_ms: u64, key: Option<u32>) {
        self.advance(now_ms);
        self.active_ms = now_ms;
        self.entries
            .retain(|(_, other), _| key.is_some_and(|key| key != *other));
        let at = (self.chance() * self.instances.len() as f64) as usize;
        self.instances[at].keys.erased(key);
    }

    /// Lets time pass.
    pub fn advance(&mut self, now_ms: u64) {
        let idle_ms = self.active_ms.saturating_add(IDLE_MS);
        if now_ms > idle_ms {
            self.pass(idle_ms);
            self.pass_over(now_ms - idle_ms);
        }
        self.pass(now_ms);
    }

    /// Moves everything that is due by nearly so long. Whole minutes keep windows, ticks and what is saved in step.
    fn pass_over(&mut self, ms: u64) {
        let whole_ms = ms.saturating_sub(SAVE_MS) / SAVE_MS * SAVE_MS;
        self.next_window_ms += whole_ms;
        self.next_tick_ms += whole_ms;
        self.active_ms += whole_ms;
        for instance in &mut self.instances {
            instance.began_ms += whole_ms;
        }
    }

    fn pass(&mut self, now_ms: u64) {
        loop {
            let next = self.next_window_ms.min(self.next_tick_ms);
            let decided_ms = self.decided.as_ref().map_or(u64::MAX, |(at, _)| *at);
            if next.min(decided_ms) > now_ms {
                return;
            }
            if decided_ms <= next {
                self.in_force = self.decided.take().map_or(self.in_force, |(_, it)| it);
            } else if self.next_window_ms <= self.next_tick_ms {
                self.report();
                self.next_window_ms += WINDOW_MS;
            } else {
                self.tick();
                self.next_tick_ms += TICK_MS;
            }
        }
    }

    /// What was counted.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Calls of the origin per second, lately.
    #[must_use]
    pub fn origin_rate(&self) -> f64 {
        self.origin_rate
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The records that were news, oldest first.
    #[must_use]
    pub fn news(&self) -> &[Record] {
        &self.news
    }

    /// The last record.
    #[must_use]
    pub fn last(&self) -> Option<&Record> {
        self.last.as_ref()
    }

    /// Calls the origin: for a request, or to check an entry.
    fn call(&mut self, at: usize, request: &Request, checked: Option<Entry>) {
        let latency = Duration::try_from_secs_f64(request.latency_ms / 1_000.0).unwrap_or_default();
        let now = self.log_time(request.at_ms);
        let instance = &mut self.instances[at];
        self.tally.origin_calls += 1;
        match checked {
            Some(_) => {
                self.tally.checks += 1;
                instance.window.count_refresh(Some(latency));
            }
            None => {
                self.tally.waited_ms += request.latency_ms;
                let outcome = if self.in_force.is_on {
                    Outcome::Miss
                } else {
                    Outcome::Bypass
                };
                instance
                    .window
                    .count(outcome, Some(latency), request.is_error, 0);
            }
        }
        if request.is_error {
            return;
        }
        let check = checked.map(|entry| Checked {
            age: in_log_time(request.at_ms.saturating_sub(entry.filled_ms)),
            has_changed: entry.body != request.body,
        });
        instance
            .keys
            .answered(request.key, request.body as u16, check, now);
        if self.in_force.is_on {
            let entry = Entry {
                filled_ms: request.at_ms,
                body: request.body,
            };
            self.entries.insert((instance.store, request.key), entry);
        }
    }

    /// Every instance reports its window.
    fn report(&mut self) {
        let now_ms = self.next_window_ms;
        let faults = self.setup.faults;
        let now = self.log_time(now_ms);
        for at in 0..self.instances.len() {
            let instance = &mut self.instances[at];
            instance.sequence += 1;
            let arrived = Arrived {
                store: instance.store,
                id: (instance.name.clone(), instance.boot, instance.sequence),
                began_ms: instance.began_ms,
                ended_ms: now_ms,
                window: std::mem::take(&mut instance.window),
                evidence: Some(instance.keys.take(self.in_force.key_share, now)),
                has_store_failed: false,
            };
            instance.began_ms = now_ms;
            if self.chance() < faults.lost {
                continue;
            }
            let late = self.chance() < faults.late;
            let late_ms = if late {
                (self.chance() * faults.late_ms as f64) as u64
            } else {
                0
            };
            if self.chance() < faults.doubled {
                self.inbox.push((now_ms + 2 * late_ms, arrived.clone()));
            }
            self.inbox.push((now_ms + late_ms, arrived));
        }
        if is_due(now_ms - self.began_ms, WINDOW_MS, faults.replace_ms) {
            let at = (self.chance() * self.instances.len() as f64) as usize;
            self.instances[at].boot += 1;
            self.instances[at].sequence = 0;
            self.instances[at].keys = KeyLog::new(now);
        }
    }

    fn tick(&mut self) {
        let now_ms = self.next_tick_ms;
        let inbox = std::mem::take(&mut self.inbox);
        let (here, later): (Vec<_>, Vec<_>) = inbox.into_iter().partition(|(at, _)| *at <= now_ms);
        self.inbox = later;
        let mut windows = Vec::new();
        for (_, arrived) in here {
            let seen = self.seen.entry(arrived.id.0.clone()).or_default();
            if seen.is_new(arrived.id.1, arrived.id.2) {
                windows.push(arrived);
            }
        }
        let calls: u64 = windows
            .iter()
            .map(|arrived| arrived.window.origin_count)
            .sum();
        self.origin_rate = calls as f64 / (TICK_MS as f64 / 1_000.0);
        let record = self.engine.tick(now_ms, windows, &self.setup.limits);
        if self.last.is_none_or(|last| record.is_news_after(&last)) {
            self.news.push(record);
        }
        self.last = Some(record);
        let in_force = InForce {
            is_on: record.is_cached(),
            ttl_ms: (record.after.ttl * 1_000.0) as u64,
            check_share: if record.is_cached() {
                self.engine.check_share()
            } else {
                0.0
            },
            key_share: self.engine.key_share(),
        };
        self.decided = Some((now_ms + POLL_MS, in_force));
        self.save(now_ms);
    }

    fn save(&mut self, now_ms: u64) {
        if is_due(now_ms - self.began_ms, TICK_MS, SAVE_MS) {
            self.saved = self.engine.to_bytes();
        }
        if is_due(
            now_ms - self.began_ms,
            TICK_MS,
            self.setup.faults.restart_ms,
        ) && let Some(engine) = Engine::from_bytes(&self.saved)
        {
            self.engine = engine;
        }
    }

    fn log_time(&self, ms: u64) -> u32 {
        in_log_time(ms.saturating_sub(self.began_ms))
    }

    /// From 0 to below 1 (splitmix64).
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Whether something that happens each `every` is due in this step.
fn is_due(since: u64, step: u64, every: u64) -> bool {
    every > 0 && since / every != since.saturating_sub(step) / every
}

fn in_log_time(ms: u64) -> u32 {
    let ticks = ms.saturating_mul(u64::from(PER_SECOND)) / 1_000;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}
