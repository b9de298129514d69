//! The engine over days of virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arrivals;
mod exact;
mod faults;
mod workloads;

use larder_decide::simulation::Trial;

const MINUTE: u64 = 60_000;
const SEEDS: [u64; 3] = [1, 2, 3];

/// For who reads the tests' output.
fn print(name: &str, outcome: &Trial) {
    let tally = outcome.simulation.tally();
    println!(
        "{name}: first on {} s, on {}, TTL {} s, {} flips, {} moves, origin {:.4}, hits {:.4}, stale {:.5}, checks {:.4}, regret {:.4} (best {} s)",
        outcome.first_on(),
        outcome.is_on(),
        outcome.ttl(),
        outcome.flips(),
        outcome.moves(),
        tally.origin_share(),
        tally.hit_ratio(),
        tally.stale_share(),
        tally.checks as f64 / tally.requests as f64,
        outcome.regret(),
        outcome.best_ttl,
    );
}
