//! What came out of a replay: counted by the engine and its store.

use std::time::Duration;

use larder_logs::{Format, format_time};
use serde::Serialize;

use crate::replay::Plan;
use crate::replay::engine::Engine;
use crate::replay::lines::LinesRead;
use crate::replay::series::Series;
use crate::replay::tally::Tally;
use crate::replay::targets::Targets;

/// What came out of a replay.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) log: Log,
    pub(crate) settings: Settings,
    pub(crate) total: Row,
    pub(crate) store: Store,
    /// The most asked for first.
    pub(crate) endpoints: Vec<Endpoint>,
    /// How long a stretch of `over_time` is.
    pub(crate) stretch_seconds: u64,
    pub(crate) over_time: Vec<Stretch>,
    pub(crate) elapsed_seconds: f64,
    #[serde(skip)]
    pub(crate) series: Series,
}

#[derive(Debug, Serialize)]
pub(crate) struct Log {
    /// `None` if no line was in any.
    pub(crate) format: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    #[serde(flatten)]
    pub(crate) lines: LinesRead,
}

#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) ttl_seconds: f64,
    pub(crate) max_bytes: u64,
    pub(crate) ignore_query: bool,
}

/// Counts, and what follows from them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Row {
    pub(crate) requests: u64,
    #[serde(flatten)]
    pub(crate) tally: Tally,
    pub(crate) hit_ratio: Option<f64>,
}

impl From<Tally> for Row {
    fn from(tally: Tally) -> Self {
        Self {
            requests: tally.requests(),
            tally,
            hit_ratio: tally.hit_ratio(),
        }
    }
}

/// What the store says at the end.
#[derive(Debug, Serialize)]
pub(crate) struct Store {
    pub(crate) evictions: u64,
    /// Entries that were removed because their time was over; others were overwritten, or are still there.
    pub(crate) expired: u64,
    pub(crate) entries: u64,
    pub(crate) used_bytes: u64,
    /// Answers that were too large to be stored.
    pub(crate) too_large: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Endpoint {
    pub(crate) endpoint: String,
    #[serde(flatten)]
    pub(crate) row: Row,
}

#[derive(Debug, Serialize)]
pub(crate) struct Stretch {
    pub(crate) from: String,
    #[serde(flatten)]
    pub(crate) row: Row,
    pub(crate) evictions: u64,
}

impl Report {
    pub(crate) async fn of(
        plan: &Plan,
        engine: &Engine,
        targets: &Targets,
        lines: &LinesRead,
        format: Option<Format>,
    ) -> anyhow::Result<Self> {
        let stats = engine.cache.stats().await?;
        let counts = engine.cache.counts();
        let figures = engine.recorder.figures();
        let mut recorded = Tally::default();
        figures
            .endpoints
            .iter()
            .for_each(|tally| recorded.add(tally));
        let total = Tally {
            hits: counts.hits,
            misses: counts.misses,
            origin_calls: counts.loads,
            ..recorded
        };
        Ok(Self {
            log: Log {
                format: format.map(|format| format.to_string()),
                from: lines.span_ms.map(|(from, _)| format_time(from)),
                to: lines.span_ms.map(|(_, to)| format_time(to)),
                lines: lines.clone(),
            },
            settings: Settings {
                ttl_seconds: plan.ttl.as_secs_f64(),
                max_bytes: plan.max_bytes,
                ignore_query: plan.ignore_query,
            },
            total: total.into(),
            store: Store {
                evictions: stats.evictions.unwrap_or(0),
                expired: stats.expired.unwrap_or(0),
                entries: stats.entries.unwrap_or(0),
                used_bytes: stats.used_bytes.unwrap_or(0),
                too_large: counts.too_large,
            },
            endpoints: endpoints(&figures.endpoints, targets),
            stretch_seconds: figures.series.seconds(),
            over_time: over_time(&figures.series),
            elapsed_seconds: 0.0,
            series: figures.series.clone(),
        })
    }

    /// The same, that took so long.
    pub(crate) fn took(mut self, elapsed: Duration) -> Self {
        self.elapsed_seconds = elapsed.as_secs_f64();
        self
    }
}

fn endpoints(tallies: &[Tally], targets: &Targets) -> Vec<Endpoint> {
    let names = targets.endpoints().names();
    let mut endpoints: Vec<Endpoint> = std::iter::zip(names, tallies)
        .filter(|(_, tally)| tally.requests() > 0)
        .map(|(name, tally)| Endpoint {
            endpoint: name.to_string(),
            row: Row::from(*tally),
        })
        .collect();
    endpoints.sort_by(|one, two| {
        let by_requests = two.row.requests.cmp(&one.row.requests);
        by_requests.then_with(|| one.endpoint.cmp(&two.endpoint))
    });
    endpoints
}

pub(crate) fn over_time(series: &Series) -> Vec<Stretch> {
    let stretches = series.stretches().iter();
    stretches
        .map(|stretch| Stretch {
            from: format_time(stretch.from_ms),
            row: stretch.tally.into(),
            evictions: stretch.evictions,
        })
        .collect()
}
