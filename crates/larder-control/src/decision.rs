//! What is in force by decision, as it is kept and shown to services.

use std::time::Duration;

use larder_decide::{Engine, Record};
use larder_model::api::Watch;

/// What was decided for an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decision {
    /// Whether it is cached.
    pub(crate) cache_enabled: bool,
    /// For how long; zero: as its policy says.
    pub(crate) ttl: Duration,
    /// What its service is to measure.
    pub(crate) watch: Watch,
    /// When that was decided, since 1970.
    pub(crate) since: Duration,
    /// Why: one sentence with its figures.
    pub(crate) reason: String,
}

impl Decision {
    pub(crate) fn new(record: &Record, engine: &Engine) -> Self {
        let is_cached = record.is_cached();
        Self {
            cache_enabled: is_cached,
            ttl: Duration::try_from_secs_f64(record.after.ttl).unwrap_or_default(),
            watch: Watch {
                key_share: engine.key_share(),
                check_share: if is_cached {
                    stepped(engine.check_share())
                } else {
                    0.0
                },
            },
            since: Duration::try_from_secs_f64(record.figures.now).unwrap_or_default(),
            reason: record.sentence(),
        }
    }

    /// Whether services would do the same by the other.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        (self.cache_enabled, self.ttl, self.watch) == (other.cache_enabled, other.ttl, other.watch)
    }
}

/// To a power of two, so that a share that hardly moves is no news.
fn stepped(share: f64) -> f64 {
    if share <= 0.0 {
        0.0
    } else {
        share.log2().round().exp2().min(0.05)
    }
}
