//! What came of a workload: an engine beside fixed TTLs, and its ghost beside the truth.

use super::{Fixed, Request, Setup, Simulation, Tally};
use crate::ghost::{TTLS, Truth};

/// How long an engine may take until it is compared with others.
const LEARNING_MS: u64 = 600_000;
/// How often its ghost is compared with the truth.
const COMPARED_MS: u64 = 600_000;
/// Of fewer requests a hit ratio says nothing.
const ENOUGH: f64 = 100.0;
/// Of shorter TTLs windows of 5 s can't tell the hit ratio.
const FROM_SECONDS: u32 = 5;

/// The TTLs of what an engine is compared with, in seconds; 0 is no cache.
const FIXED_TTLS: [u64; 20] = [
    0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 14, 16, 20, 60, 300, 900, 1_800, 3_600, 86_400,
];

/// How far the hit ratios by the ghost were from what stores with these TTLs had, at 5 s and more.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GhostError {
    /// The mean, over time, of the worst TTL's.
    pub mean: f64,
    /// The worst of any time.
    pub most: f64,
    /// In the end.
    pub last: f64,
    /// How often it was looked at.
    pub times: u32,
}

/// What came of a workload.
pub struct Trial {
    /// The run.
    pub simulation: Simulation,
    /// What was counted after the first ten minutes.
    pub later: Tally,
    /// How long requests would have waited after the first ten minutes with the best fixed TTL within the budget, in
    /// milliseconds.
    pub best_ms: f64,
    /// That TTL, in seconds; 0: no cache.
    pub best_ttl: u64,
    /// The share of requests that would have reached the origin with it, in the whole time.
    pub best_origin_share: f64,
    /// How far the ghost was from the truth.
    pub ghost: GhostError,
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trial")
            .field("later", &self.later)
            .field("best_ttl", &self.best_ttl)
            .field("ghost", &self.ghost)
            .finish_non_exhaustive()
    }
}

impl Trial {
    /// Runs a workload, which begins at 0 ms, to its end.
    #[must_use]
    pub fn of(setup: Setup, workload: impl IntoIterator<Item = Request>) -> Self {
        let mut simulation = Simulation::new(setup, 0);
        let max_ms = (setup.limits.max_ttl * 1_000.0) as u64;
        let mut fixed = FIXED_TTLS.map(|ttl| Fixed::new((ttl * 1_000).min(max_ms)));
        let mut early = Tally::default();
        let mut early_ms = [0.0; FIXED_TTLS.len()];
        let mut compared = Compared::new();
        for request in workload {
            if request.at_ms <= LEARNING_MS {
                early = *simulation.tally();
                early_ms = std::array::from_fn(|at| fixed[at].tally().waited_ms);
            }
            simulation.step(&request);
            for one in &mut fixed {
                one.step(&request);
            }
            compared.step(&request, &simulation);
        }
        let last = compared.look(&simulation).unwrap_or_default();
        let is_within = |at: &usize| fixed[*at].tally().stale_share() <= setup.limits.budget;
        let waited = |at: usize| fixed[at].tally().waited_ms - early_ms[at];
        // Without a cache nothing is stale.
        let best = (0..fixed.len())
            .filter(is_within)
            .min_by(|a, b| waited(*a).total_cmp(&waited(*b)))
            .unwrap_or(0);
        Self {
            later: simulation.tally().since(&early),
            best_ms: waited(best),
            best_ttl: FIXED_TTLS[best].min(max_ms / 1_000),
            best_origin_share: fixed[best].tally().origin_share(),
            ghost: compared.error(last),
            simulation,
        }
    }

    /// What was waited more than with the best fixed TTL within the budget, by what that saves.
    #[must_use]
    pub fn regret(&self) -> f64 {
        (self.later.waited_ms - self.best_ms) / (self.later.without_ms - self.best_ms).max(1.0)
    }

    /// How often it was switched.
    #[must_use]
    pub fn flips(&self) -> u32 {
        self.simulation.engine().standing().flips
    }

    /// How often the TTL moved.
    #[must_use]
    pub fn moves(&self) -> usize {
        let on = self.simulation.news().iter().filter(|one| one.after.is_on);
        let ttls: Vec<f64> = on.map(|one| one.after.ttl).collect();
        ttls.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// The TTL in the end, in seconds.
    #[must_use]
    pub fn ttl(&self) -> f64 {
        self.simulation.engine().standing().ttl
    }

    /// Whether it is cached in the end.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.simulation.engine().standing().is_on
    }

    /// When it was first switched on, in seconds; infinite: never.
    #[must_use]
    pub fn first_on(&self) -> f64 {
        let first = self.simulation.news().iter().find(|one| one.after.is_on);
        first.map_or(f64::INFINITY, |one| one.figures.now)
    }
}

/// The ghost beside stores that have each of its TTLs.
struct Compared {
    fixed: [Fixed; TTLS.len()],
    truth: Truth,
    before_ms: u64,
    next_ms: u64,
    sum: f64,
    most: f64,
    times: u32,
}

impl Compared {
    fn new() -> Self {
        Self {
            fixed: TTLS.map(|ttl| Fixed::new(u64::from(ttl) * 1_000)),
            truth: Truth::default(),
            before_ms: 0,
            next_ms: COMPARED_MS,
            sum: 0.0,
            most: 0.0,
            times: 0,
        }
    }

    fn step(&mut self, request: &Request, simulation: &Simulation) {
        let seconds = request.at_ms.saturating_sub(self.before_ms) as f64 / 1_000.0;
        self.before_ms = request.at_ms;
        let fixed = &mut self.fixed;
        let hits = std::array::from_fn(|at| !fixed[at].step(request));
        self.truth.count(seconds, hits);
        if request.at_ms < self.next_ms {
            return;
        }
        self.next_ms += COMPARED_MS;
        if let Some(error) = self.look(simulation) {
            self.sum += error;
            self.most = self.most.max(error);
            self.times += 1;
        }
    }

    /// The worst TTL's error now; `None` where too few requests came to tell.
    fn look(&self, simulation: &Simulation) -> Option<f64> {
        let told = simulation.last();
        let told = told.filter(|_| self.truth.lookups() >= ENOUGH)?;
        Some(self.truth.error(&told.figures.ghost, FROM_SECONDS))
    }

    fn error(&self, last: f64) -> GhostError {
        GhostError {
            mean: self.sum / f64::from(self.times.max(1)),
            most: self.most,
            last,
            times: self.times,
        }
    }
}
