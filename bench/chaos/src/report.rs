//! What a run has shown, as Markdown and JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::instant::Nanos;
use crate::judge::{Verdict, Violation, in_millis};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    seed: u64,
    pub(crate) rows: Vec<Row>,
    pub(crate) not_run: Vec<NotRun>,
}

/// A scenario that can't be run here.
#[derive(Debug, Serialize)]
pub(crate) struct NotRun {
    pub(crate) scenario: &'static str,
    pub(crate) store: &'static str,
    pub(crate) why: String,
}

/// A scenario over a store.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    scenario: &'static str,
    store: &'static str,
    rounds: u64,
    faults: u64,
    reads: u64,
    cached: u64,
    invalidations: u64,
    pending: u64,
    violations: usize,
    failed: u64,
    loads: u64,
    least_loads: u64,
    lookup_ms: Spread,
    stale_ms: Spread,
    recovery_ms: Spread,
    /// The first of them.
    shown: Vec<Violation>,
    #[serde(skip)]
    sum: Verdict,
}

/// Percentiles; 0 where there is nothing.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Spread {
    p50: f64,
    p99: f64,
    most: f64,
}

impl Spread {
    fn of(times: &mut [Nanos]) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let index = (times.len() as f64 * share) as usize;
            let index = index.min(times.len().saturating_sub(1));
            times.get(index).map_or(0.0, |time| in_millis(*time))
        };
        Self {
            p50: at(0.5),
            p99: at(0.99),
            most: at(1.0),
        }
    }
}

/// So many violations of a scenario are in the report.
const SHOWN: usize = 20;

impl Row {
    pub(crate) fn new(scenario: &'static str, store: &'static str) -> Self {
        Self {
            scenario,
            store,
            rounds: 0,
            faults: 0,
            reads: 0,
            cached: 0,
            invalidations: 0,
            pending: 0,
            violations: 0,
            failed: 0,
            loads: 0,
            least_loads: 0,
            lookup_ms: Spread::default(),
            stale_ms: Spread::default(),
            recovery_ms: Spread::default(),
            shown: Vec::new(),
            sum: Verdict::default(),
        }
    }

    /// Adds a round.
    pub(crate) fn add(&mut self, faults: u64, verdict: Verdict) {
        self.rounds += 1;
        self.faults += faults;
        self.sum.add(verdict);
        let sum = &mut self.sum;
        self.reads = sum.reads;
        self.cached = sum.cached;
        self.invalidations = sum.invalidations;
        self.pending = sum.pending;
        self.violations = sum.violations.len();
        self.failed = sum.failed;
        self.loads = sum.loads;
        self.least_loads = sum.least_loads;
        self.lookup_ms = Spread::of(&mut sum.took);
        self.stale_ms = Spread::of(&mut sum.stale);
        self.recovery_ms = Spread::of(&mut sum.recovery);
        self.shown = sum.violations.iter().take(SHOWN).cloned().collect();
    }
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            rows: Vec::new(),
            not_run: Vec::new(),
        }
    }

    /// Whether nothing was violated, and nothing failed.
    pub(crate) fn is_good(&self) -> bool {
        self.rows
            .iter()
            .all(|row| row.violations == 0 && row.failed == 0)
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("Seed {}. Times in ms.\n\n", self.seed);
        text += "| store | scenario | faults | reads | invalidations (pending) | violations | failed | loads / least | lookup p50, p99 | old value elsewhere p50, p99, most | recovery most |\n";
        text += "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
        for row in &self.rows {
            let (took, stale) = (row.lookup_ms, row.stale_ms);
            // Writing to a text can't fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} ({}) | {} | {} | {} / {} | {:.3}, {:.1} | {:.2}, {:.2}, {:.1} | {:.0} |",
                row.store,
                row.scenario,
                row.faults,
                row.reads,
                row.invalidations,
                row.pending,
                row.violations,
                row.failed,
                row.loads,
                row.least_loads,
                took.p50,
                took.p99,
                stale.p50,
                stale.p99,
                stale.most,
                row.recovery_ms.most,
            );
        }
        if !self.not_run.is_empty() {
            text += "\nNot run here:\n\n";
        }
        for one in &self.not_run {
            let _ = writeln!(text, "- {} over {}: {}", one.scenario, one.store, one.why);
        }
        for row in self.rows.iter().filter(|row| row.violations > 0) {
            let _ = writeln!(text, "\n{} over {}:\n", row.scenario, row.store);
            for one in &row.shown {
                let _ = writeln!(
                    text,
                    "- {} worker {} {}: {}, {:.1} ms too late, {:.1} ms after the beginning",
                    one.rule, one.worker, one.key, one.what, one.late_ms, one.at_ms
                );
            }
        }
        text
    }
}
