//! What was measured of an endpoint in a stretch of time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// No window counts more than this of anything.
pub(crate) const MAX_COUNT: u64 = 1_000_000_000;
/// The logarithm of a shorter latency is that of this one, in milliseconds.
const SHORTEST_MS: f64 = 0.001;

/// What was measured of an endpoint in a stretch of time. Merging is commutative and associative.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Window {
    /// Answers from the cache.
    pub hits: u64,
    /// Those among the hits that were stale.
    pub stales: u64,
    /// Answers that the cache did not have.
    pub misses: u64,
    /// Answers for which the cache was not asked.
    pub bypasses: u64,
    /// Loads in the background: answers of the origin that answered no request.
    pub refreshes: u64,
    /// Answers that were errors of the origin (5xx, time-outs).
    pub errors: u64,
    /// Answers that said that the request was wrong (4xx): no errors of the origin, and no measure of its latency.
    pub client_errors: u64,
    /// Successful answers of the origin whose latency is in the sum.
    pub origin_count: u64,
    /// The sum of the origin's latencies, in milliseconds.
    pub origin_ms_sum: f64,
    /// The sum of their squares.
    pub origin_ms_sq_sum: f64,
    /// The sum of their natural logarithms.
    pub origin_ln_sum: f64,
    /// The sum of the squares of those.
    pub origin_ln_sq_sum: f64,
    /// The longest of the origin's latencies, in milliseconds.
    pub origin_ms_max: f64,
    /// The sum of the latencies of hits, in milliseconds.
    pub hit_ms_sum: f64,
    /// The bytes of the values that were handed out.
    pub bytes: u64,
}

impl Window {
    /// Counts an answer. `latency` is the origin's for a miss or a bypass, and the whole one's for a hit.
    pub fn count(
        &mut self,
        outcome: Outcome,
        latency: Option<Duration>,
        is_error: bool,
        bytes: u64,
    ) {
        match outcome {
            Outcome::Hit => self.hits = self.hits.saturating_add(1),
            Outcome::Stale => {
                self.hits = self.hits.saturating_add(1);
                self.stales = self.stales.saturating_add(1);
            }
            Outcome::Miss => self.misses = self.misses.saturating_add(1),
            Outcome::Bypass => self.bypasses = self.bypasses.saturating_add(1),
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if is_error {
            self.errors = self.errors.saturating_add(1);
            return;
        }
        let Some(latency) = latency else { return };
        let ms = latency.as_secs_f64() * 1_000.0;
        if outcome.is_cached() {
            self.hit_ms_sum += ms;
        } else {
            self.count_origin(ms);
        }
    }

    /// Counts an answer that said that the request was wrong (4xx), which [`Window::count`] is not told of.
    pub fn count_client_error(&mut self, outcome: Outcome, bytes: u64) {
        self.count(outcome, None, false, bytes);
        self.client_errors = self.client_errors.saturating_add(1);
    }

    /// Counts a load in the background; `latency` is the origin's, if it succeeded.
    pub fn count_refresh(&mut self, latency: Option<Duration>) {
        self.refreshes = self.refreshes.saturating_add(1);
        match latency {
            Some(latency) => self.count_origin(latency.as_secs_f64() * 1_000.0),
            None => self.errors = self.errors.saturating_add(1),
        }
    }

    fn count_origin(&mut self, ms: f64) {
        self.origin_count = self.origin_count.saturating_add(1);
        let ln = ms.max(SHORTEST_MS).ln();
        self.origin_ms_sum += ms;
        self.origin_ms_sq_sum += ms * ms;
        self.origin_ln_sum += ln;
        self.origin_ln_sq_sum += ln * ln;
        self.origin_ms_max = self.origin_ms_max.max(ms);
    }

    /// Adds another window to this one.
    pub fn merge(&mut self, other: &Self) {
        self.hits = self.hits.saturating_add(other.hits);
        self.stales = self.stales.saturating_add(other.stales);
        self.misses = self.misses.saturating_add(other.misses);
        self.bypasses = self.bypasses.saturating_add(other.bypasses);
        self.refreshes = self.refreshes.saturating_add(other.refreshes);
        self.errors = self.errors.saturating_add(other.errors);
        self.client_errors = self.client_errors.saturating_add(other.client_errors);
        self.origin_count = self.origin_count.saturating_add(other.origin_count);
        self.origin_ms_sum += other.origin_ms_sum;
        self.origin_ms_sq_sum += other.origin_ms_sq_sum;
        self.origin_ln_sum += other.origin_ln_sum;
        self.origin_ln_sq_sum += other.origin_ln_sq_sum;
        self.origin_ms_max = self.origin_ms_max.max(other.origin_ms_max);
        self.hit_ms_sum += other.hit_ms_sum;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    /// All answers.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.hits
            .saturating_add(self.misses)
            .saturating_add(self.bypasses)
    }

    /// The share of hits among the answers for which the cache was asked; `None` if it never was.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let asked = self.hits.saturating_add(self.misses);
        (asked > 0).then(|| self.hits as f64 / asked as f64)
    }

    /// The origin's mean latency in milliseconds; `None` if it was never measured.
    #[must_use]
    pub fn origin_ms_mean(&self) -> Option<f64> {
        (self.origin_count > 0).then(|| self.origin_ms_sum / self.origin_count as f64)
    }

    /// Whether all of it can be: finite, not negative, and counts at most 10⁹.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let counts = [
            self.hits,
            self.stales,
            self.misses,
            self.bypasses,
            self.refreshes,
            self.errors,
            self.client_errors,
            self.origin_count,
        ];
        let sums = [
            self.origin_ms_sum,
            self.origin_ms_sq_sum,
            self.origin_ln_sq_sum,
            self.origin_ms_max,
            self.hit_ms_sum,
        ];
        let loads = self.requests().saturating_add(self.refreshes);
        counts.iter().all(|count| *count <= MAX_COUNT)
            && sums.iter().all(|sum| sum.is_finite() && *sum >= 0.0)
            && self.origin_ln_sum.is_finite()
            && self.stales <= self.hits
            && self.origin_count <= loads
            && self.errors <= loads
            && self.client_errors <= loads
    }
}
