//! What came of a simulation.

use larder_decide::simulation::{Simulation, Tally};
use larder_logs::format_time;
use serde::Serialize;

use crate::replay::LinesRead;

/// What came of a log.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) log: LinesRead,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) requests: u64,
    /// Requests of endpoints or keys past what is told apart.
    pub(super) not_told_apart: u64,
    /// What each TTL would have done with all.
    pub(super) total: Vec<TtlRow>,
    pub(super) endpoints: Vec<EndpointRow>,
    pub(super) elapsed_seconds: f64,
}

/// What a TTL would have done.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TtlRow {
    pub(super) ttl_seconds: u64,
    pub(super) hit_ratio: f64,
    /// The seconds of waiting for the origin that hits saved.
    pub(super) saved_seconds: f64,
    /// The share of hits whose answer had changed.
    pub(super) stale_share: f64,
    /// The most that lived at a time, in bytes of values.
    pub(super) peak_bytes: u64,
}

impl TtlRow {
    pub(super) fn of(ttl_seconds: u64, tally: &Tally, peak_bytes: u64) -> Self {
        Self {
            ttl_seconds,
            hit_ratio: tally.hit_ratio(),
            saved_seconds: (tally.without_ms - tally.waited_ms) / 1_000.0,
            stale_share: tally.stale_share(),
            peak_bytes,
        }
    }
}

/// What came of an endpoint.
#[derive(Debug, Serialize)]
pub(super) struct EndpointRow {
    pub(super) endpoint: String,
    pub(super) requests: u64,
    /// The seconds that the origin took for all of them.
    pub(super) origin_seconds: f64,
    pub(super) ttls: Vec<TtlRow>,
    /// What `auto` would have done; `null` with fewer than 100 requests, and past the first 200 endpoints.
    pub(super) decided: Option<Decided>,
}

/// What `auto` would have done.
#[derive(Debug, Serialize)]
pub(super) struct Decided {
    pub(super) hit_ratio: f64,
    pub(super) saved_seconds: f64,
    pub(super) stale_share: f64,
    pub(super) origin_share: f64,
    /// How often it would have been switched.
    pub(super) flips: u32,
    /// Each decision, and each reason that was another.
    pub(super) decisions: Vec<DecidedAt>,
}

#[derive(Debug, Serialize)]
pub(super) struct DecidedAt {
    pub(super) at: String,
    pub(super) cache_enabled: bool,
    pub(super) ttl_seconds: f64,
    pub(super) code: &'static str,
    pub(super) reason: String,
}

impl Decided {
    pub(super) fn of(simulation: &Simulation) -> Self {
        let tally = simulation.tally();
        let decisions = simulation.news().iter().map(|record| DecidedAt {
            at: format_time((record.figures.now * 1_000.0) as u64),
            cache_enabled: record.after.is_on,
            ttl_seconds: record.after.ttl,
            code: record.code.as_str(),
            reason: record.sentence(),
        });
        Self {
            hit_ratio: tally.hit_ratio(),
            saved_seconds: (tally.without_ms - tally.waited_ms) / 1_000.0,
            stale_share: tally.stale_share(),
            origin_share: tally.origin_share(),
            flips: simulation.engine().standing().flips,
            decisions: decisions.collect(),
        }
    }
}
