//! The engine of one endpoint: windows in, a decision and its record out. It knows no clock, and the same windows give the
//! same records, bit for bit.

use std::collections::BTreeMap;

use larder_model::{Evidence, Window};
use serde::{Deserialize, Serialize};

use crate::change::Changes;
use crate::figures::{Figures, Limits, Standing};
use crate::ghost::{Ghost, TTLS};
use crate::latency::Latency;
use crate::record::{Record, VERSION};
use crate::rule::decide;
use crate::tick::{Seen, StoreTick, in_ghost_time};

/// More stores than this of one endpoint are not told apart: their windows only count.
const MOST_STORES: usize = 8;
/// A window that comes later than this, in milliseconds, tells nothing about now.
const LATE_MS: u64 = 60_000;
/// A tick stands for no more time than this, in seconds: while nobody ticked, nothing was seen.
const LONGEST_TICK: f64 = 60.0;
/// What was counted loses half its weight in this time, in seconds, once it spans longer than `FIRST`.
const HALF_LIFE: f64 = 420.0;
const FIRST: f64 = 600.0;
/// Without a request for so long, in seconds, everything is measured anew: 24 h.
const FORGET_AFTER: f64 = 86_400.0;
/// How long a hit takes until one was measured, in milliseconds.
const HIT_MS: f64 = 0.5;
/// Real hits are compared with the ghost's from so many lookups on.
const COMPARED: f64 = 200.0;
/// While caching is off, what real hits fell short of the ghost's loses half its weight in this time, in seconds.
const RHO_HALF_LIFE: f64 = 3_600.0;
/// Checks a second that are wanted; the least and the most share of hits; and the most while there is suspicion.
const CHECKS_PER_SECOND: f64 = 0.1;
const CHECK_SHARE: (f64, f64) = (0.001, 0.02);
const SUSPICIOUS_SHARE: f64 = 0.05;
/// The suspicion from which on more is checked.
const SUSPICIOUS: f64 = 1.5;

/// A window as it arrived, with its times by the clock of whoever ticks, in milliseconds.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Which store the instance shares; windows of one store have one ghost.
    pub store: u32,
    /// Who measured, in which run, and which of its windows.
    pub id: (String, u64, u64),
    /// When it began.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// What was counted.
    pub window: Window,
    /// Its keys; `None` where nobody told them.
    pub evidence: Option<Evidence>,
    /// Whether the store failed meanwhile: then its hits say nothing about how many there could be.
    pub has_store_failed: bool,
}

impl Arrived {
    /// Keeps what was invalidated, of a window that is too late to tell more; whether there is any.
    fn keep_erased(&mut self) -> bool {
        self.window = Window::default();
        self.evidence = self.evidence.take().map(Evidence::into_erased);
        self.evidence.as_ref().is_some_and(Evidence::has_erased)
    }
}

/// Sums over requests, which fade together.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Traffic {
    seconds: f64,
    requests: f64,
    with_keys: f64,
    untold: f64,
    hits: f64,
    hit_ms: f64,
}

/// Real hits beside the ghost's, while caching is on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Compared {
    lookups: f64,
    hits: f64,
    ghost_hits: f64,
}

/// The engine of one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    version: u32,
    /// The ghost's zero, in milliseconds.
    epoch_ms: u64,
    ticked_ms: u64,
    tick: u64,
    asked_ms: u64,
    answered_ms: u64,
    traffic: Traffic,
    compared: Compared,
    rho: f64,
    ghosts: BTreeMap<u32, Ghost>,
    latency: Latency,
    changes: Changes,
    /// The longest TTL that the budget allowed at the last tick, in seconds.
    tried_ttl: Option<f64>,
    standing: Standing,
    /// When it went on from a decision whose evidence is lost.
    resumed_ms: Option<u64>,
}

impl Engine {
    /// Nothing known yet.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            version: VERSION,
            epoch_ms: now_ms,
            ticked_ms: now_ms,
            tick: 0,
            asked_ms: now_ms,
            answered_ms: now_ms,
            traffic: Traffic::default(),
            compared: Compared::default(),
            rho: 1.0,
            ghosts: BTreeMap::new(),
            latency: Latency::default(),
            changes: Changes::default(),
            tried_ttl: None,
            standing: Standing::default(),
            resumed_ms: None,
        }
    }

    /// A new engine that goes on from what was decided before: what it was decided from is lost.
    #[must_use]
    pub fn resume(now_ms: u64, standing: Standing) -> Self {
        Self {
            standing,
            resumed_ms: Some(now_ms),
            ..Self::new(now_ms)
        }
    }

    /// What has been decided.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Of the keys that are not hot, the share that is to be recorded.
    #[must_use]
    pub fn key_share(&self) -> f64 {
        self.ghosts
            .values()
            .map(|ghost| ghost.share)
            .fold(1.0, f64::min)
    }

    /// The share of hits to be checked against the origin.
    #[must_use]
    pub fn check_share(&self) -> f64 {
        if !self.standing.is_on {
            return 0.0;
        }
        let hits = self.lambda() * self.hit_ratio_in_force();
        let wanted = CHECKS_PER_SECOND / hits.max(f64::MIN_POSITIVE);
        let share = wanted.clamp(CHECK_SHARE.0, CHECK_SHARE.1);
        match self.changes.suspicion() > SUSPICIOUS {
            true => (5.0 * share).min(SUSPICIOUS_SHARE),
            false => share,
        }
    }

    /// The state, to be kept.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing in it can't be written.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// What [`Engine::to_bytes`] wrote; `None` if it is no state, or that of another version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let engine: Self = postcard::from_bytes(bytes).ok()?;
        (engine.version == VERSION).then_some(engine)
    }

    /// Takes in what arrived since the last tick, and decides.
    pub fn tick(&mut self, now_ms: u64, mut windows: Vec<Arrived>, limits: &Limits) -> Record {
        let seconds = (now_ms.saturating_sub(self.ticked_ms) as f64 / 1_000.0).min(LONGEST_TICK);
        if now_ms.saturating_sub(self.asked_ms) as f64 / 1_000.0 > FORGET_AFTER {
            *self = Self {
                tick: self.tick,
                ..Self::resume(now_ms, self.standing)
            };
        }
        self.ticked_ms = now_ms;
        self.tick += 1;
        windows.retain_mut(|window| {
            window.ended_ms.saturating_add(LATE_MS) >= now_ms || window.keep_erased()
        });
        windows.sort_by(|a, b| (a.store, a.began_ms, &a.id).cmp(&(b.store, b.began_ms, &b.id)));
        self.fade(seconds);
        let sum = self.count(&windows, now_ms);
        let seen = self.look_at_keys(&windows, now_ms, limits);
        let has_tripped = self.weigh(&seen, limits);
        let rate = self.changes.rate();
        for (age, has_changed) in &seen.checks {
            self.changes.check(*age, *has_changed, rate);
        }
        self.compare(&windows, seconds, limits);
        let figures = self.figures(now_ms, &sum, has_tripped);
        self.tried_ttl = Some(figures.change.longest_ttl(limits.budget)).filter(|ttl| *ttl > 0.0);
        let before = self.standing;
        let (after, code) = decide(&figures, &before, limits);
        if after.is_on != before.is_on {
            self.compared = Compared::default();
        }
        self.standing = after;
        Record {
            version: VERSION,
            tick: self.tick,
            windows: windows.len() as u32,
            limits: *limits,
            figures,
            before,
            after,
            code,
        }
    }

    fn fade(&mut self, seconds: f64) {
        if self.traffic.seconds > FIRST {
            let factor = (-seconds / HALF_LIFE).exp2();
            let traffic = &mut self.traffic;
            for sum in [
                &mut traffic.seconds,
                &mut traffic.requests,
                &mut traffic.with_keys,
                &mut traffic.untold,
                &mut traffic.hits,
                &mut traffic.hit_ms,
            ] {
                *sum *= factor;
            }
        }
        if self.compared.lookups > COMPARED * 1.5 {
            let factor = (-seconds / HALF_LIFE).exp2();
            self.compared.lookups *= factor;
            self.compared.hits *= factor;
            self.compared.ghost_hits *= factor;
        }
        self.traffic.seconds += seconds;
        self.ghosts
            .values_mut()
            .for_each(|ghost| ghost.fade(seconds));
        self.latency.fade(seconds);
        self.changes.fade(seconds);
    }

    fn count(&mut self, windows: &[Arrived], now_ms: u64) -> Window {
        let mut sum = Window::default();
        for arrived in windows {
            sum.merge(&arrived.window);
            self.latency.take(&arrived.window);
            match &arrived.evidence {
                Some(evidence) => {
                    self.traffic.with_keys +=
                        evidence.hot_requests as f64 + evidence.cold_requests as f64;
                }
                None => self.traffic.untold += arrived.window.requests() as f64,
            }
        }
        self.traffic.requests += sum.requests() as f64;
        self.traffic.hits += sum.hits as f64;
        self.traffic.hit_ms += sum.hit_ms_sum;
        if sum.requests() > 0 {
            self.asked_ms = now_ms;
        }
        if sum.origin_count > 0 {
            self.answered_ms = now_ms;
        }
        sum
    }

    /// Shows the keys to their stores' ghosts.
    fn look_at_keys(&mut self, windows: &[Arrived], now_ms: u64, limits: &Limits) -> Seen {
        let mut seen = Seen::default();
        let is_cached = self.standing.is_on && limits.is_applied;
        let tried_ttl = self.tried_ttl;
        let epoch_ms = self.epoch_ms;
        let now = in_ghost_time(now_ms, epoch_ms);
        for of_store in windows.chunk_by(|a, b| a.store == b.store) {
            let store = of_store[0].store;
            // A store too many has no ghost that lasts; what was checked of it counts.
            let mut passing = Ghost::default();
            let is_known = self.ghosts.contains_key(&store) || self.ghosts.len() < MOST_STORES;
            let ghost = match is_known {
                true => self.ghosts.entry(store).or_default(),
                false => &mut passing,
            };
            for evidence in of_store
                .iter()
                .filter_map(|arrived| arrived.evidence.as_ref())
            {
                ghost.count(evidence.hot_requests as f64, evidence.cold_requests as f64);
                ghost.narrow(evidence.share);
            }
            let weigh = |gap: f64, hits: f64| match is_cached {
                true => hits,
                false if tried_ttl.is_some_and(|ttl| gap > ttl) => 0.0,
                false => 1.0,
            };
            StoreTick::gather(of_store, epoch_ms).show(ghost, now, &mut seen, weigh);
            ghost.prune(now);
        }
        // Only beside others: what one store taught is not lost over a night.
        if !windows.is_empty() {
            self.ghosts.retain(|_, ghost| ghost.is_in_use(now));
        }
        seen
    }

    fn weigh(&mut self, seen: &Seen, limits: &Limits) -> bool {
        for one in &seen.answers {
            self.changes.observe(one);
        }
        let is_cached = self.standing.is_on && limits.is_applied;
        is_cached
            && self
                .changes
                .suspect(&seen.answers, self.standing.ttl, limits.budget)
    }

    /// Compares real hits with the ghost's, once the store has filled.
    fn compare(&mut self, windows: &[Arrived], seconds: f64, limits: &Limits) {
        let standing = &self.standing;
        let since = self.ticked_ms as f64 / 1_000.0 - standing.changed_at.max(standing.ttl_at);
        if !standing.is_on {
            // Why real hits fell short may be over: a store that was away would else keep it off for ever.
            self.rho = 1.0 - (1.0 - self.rho) * (-seconds / RHO_HALF_LIFE).exp2();
        }
        if !standing.is_on || !limits.is_applied || since < standing.ttl.min(FIRST) {
            return;
        }
        let told = windows.iter().filter(|arrived| !arrived.has_store_failed);
        let (hits, lookups) = told.fold((0, 0), |(hits, lookups), arrived| {
            let window = &arrived.window;
            // A load that failed fills nothing.
            let filled = window.misses.saturating_sub(window.errors);
            (hits + window.hits, lookups + window.hits + filled)
        });
        let (hits, lookups) = (hits as f64, lookups as f64);
        self.compared.lookups += lookups;
        self.compared.hits += hits;
        self.compared.ghost_hits += lookups * self.ghost_figures().ghost_ratio(standing.ttl);
        if self.compared.lookups >= COMPARED && self.compared.ghost_hits > 0.0 {
            self.rho = (self.compared.hits / self.compared.ghost_hits).clamp(0.05, 1.0);
        }
    }

    fn lambda(&self) -> f64 {
        let traffic = &self.traffic;
        let lookups = if traffic.with_keys > 0.0 {
            traffic.with_keys
        } else {
            traffic.requests
        };
        lookups / traffic.seconds.max(1.0)
    }

    fn hit_ratio_in_force(&self) -> f64 {
        match self.compared.lookups >= COMPARED {
            true => self.compared.hits / self.compared.lookups,
            false => self.ghost_figures().hit_ratio(self.standing.ttl),
        }
    }

    /// The figures that come of the ghosts alone.
    fn ghost_figures(&self) -> Figures {
        let lookups: f64 = self.ghosts.values().map(Ghost::requests).sum();
        let mut hits = [0.0; TTLS.len()];
        for ghost in self.ghosts.values() {
            hits.iter_mut()
                .zip(ghost.hits())
                .for_each(|(sum, hits)| *sum += hits);
        }
        Figures {
            lookups,
            ghost: hits.map(|hits| if lookups > 0.0 { hits / lookups } else { 0.0 }),
            rho: self.rho,
            key_share: self.key_share(),
            ..Figures::default()
        }
    }

    fn figures(&self, now_ms: u64, sum: &Window, has_tripped: bool) -> Figures {
        let traffic = &self.traffic;
        let calls = sum.misses + sum.bypasses + sum.refreshes;
        let lookups = self.compared.lookups;
        Figures {
            now: now_ms as f64 / 1_000.0,
            lambda: self.lambda(),
            requests: [traffic.requests, traffic.with_keys],
            untold: traffic.untold,
            origin: self.latency.bounds(),
            hit_ms: match traffic.hits >= 1.0 && traffic.hit_ms > 0.0 {
                true => traffic.hit_ms / traffic.hits,
                false => HIT_MS,
            },
            change: self.changes.figures(has_tripped),
            measured: [
                if lookups > 0.0 {
                    self.compared.hits / lookups
                } else {
                    0.0
                },
                lookups,
            ],
            calls: [calls as f64, sum.errors as f64],
            answered_at: self.answered_ms as f64 / 1_000.0,
            is_resumed: self
                .resumed_ms
                .is_some_and(|at| now_ms.saturating_sub(at) as f64 / 1_000.0 < FORGET_AFTER),
            ..self.ghost_figures()
        }
    }
}
