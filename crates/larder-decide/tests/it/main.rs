//! The engine over days of virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arrivals;
mod exact;
mod faults;
mod workload;
mod workloads;

use larder_decide::simulation::{Fixed, Request, Setup, Simulation, Tally};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const SEEDS: [u64; 3] = [1, 2, 3];

/// What came of a workload.
struct Outcome {
    simulation: Simulation,
    /// After the first ten minutes.
    later: Tally,
    /// What the best fixed TTL within the budget would have waited after the first ten minutes.
    best_ms: f64,
    best_ttl: u64,
}

const FIXED_TTLS: [u64; 20] = [
    0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 14, 16, 20, 60, 300, 900, 1_800, 3_600, 86_400,
];

impl Outcome {
    fn of(setup: Setup, workload: impl Iterator<Item = Request>) -> Self {
        let mut simulation = Simulation::new(setup, 0);
        let max_ms = (setup.limits.max_ttl * 1_000.0) as u64;
        let ttls = FIXED_TTLS.map(|ttl| (ttl * SECOND).min(max_ms));
        let mut fixed = ttls.map(Fixed::new);
        let mut early = Tally::default();
        let mut early_ms = [0.0; FIXED_TTLS.len()];
        for request in workload {
            if request.at_ms <= 10 * MINUTE {
                early = *simulation.tally();
                early_ms = std::array::from_fn(|at| fixed[at].tally().waited_ms);
            }
            simulation.step(&request);
            for one in &mut fixed {
                one.step(&request);
            }
        }
        let now = *simulation.tally();
        let later = Tally {
            requests: now.requests - early.requests,
            hits: now.hits - early.hits,
            stale: now.stale - early.stale,
            origin_calls: now.origin_calls - early.origin_calls,
            checks: now.checks - early.checks,
            waited_ms: now.waited_ms - early.waited_ms,
            without_ms: now.without_ms - early.without_ms,
        };
        let is_within = |one: &&(f64, f64, u64)| one.1 <= setup.limits.budget;
        let all: Vec<(f64, f64, u64)> = (0..ttls.len())
            .map(|at| {
                (
                    fixed[at].tally().waited_ms - early_ms[at],
                    fixed[at].tally().stale_share(),
                    ttls[at],
                )
            })
            .collect();
        let best = all
            .iter()
            .filter(is_within)
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap();
        Self {
            simulation,
            later,
            best_ms: best.0,
            best_ttl: best.2 / SECOND,
        }
    }

    /// What was waited more than with the best fixed TTL within the budget, by what that saves.
    fn regret(&self) -> f64 {
        (self.later.waited_ms - self.best_ms) / (self.later.without_ms - self.best_ms).max(1.0)
    }

    fn flips(&self) -> u32 {
        self.simulation.engine().standing().flips
    }

    fn moves(&self) -> usize {
        let ttls: Vec<f64> = self
            .simulation
            .news()
            .iter()
            .filter(|one| one.after.is_on)
            .map(|one| one.after.ttl)
            .collect();
        ttls.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    fn ttl(&self) -> f64 {
        self.simulation.engine().standing().ttl
    }

    fn is_on(&self) -> bool {
        self.simulation.engine().standing().is_on
    }

    /// When it was first switched on, in seconds.
    fn first_on(&self) -> f64 {
        let first = self.simulation.news().iter().find(|one| one.after.is_on);
        first.map_or(f64::INFINITY, |one| one.figures.now)
    }

    /// For who reads the tests' output.
    fn print(&self, name: &str) {
        let tally = self.simulation.tally();
        println!(
            "{name}: first on {} s, on {}, TTL {} s, {} flips, {} moves, origin {:.4}, hits {:.4}, stale {:.5}, checks {:.4}, regret {:.4} (best {} s)",
            self.first_on(),
            self.is_on(),
            self.ttl(),
            self.flips(),
            self.moves(),
            tally.origin_share(),
            tally.hit_ratio(),
            tally.stale_share(),
            tally.checks as f64 / tally.requests as f64,
            self.regret(),
            self.best_ttl,
        );
    }
}
