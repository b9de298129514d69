//! What is in force by decision, as it is kept and shown to services.

use std::time::Duration;

use larder_decide::{Engine, Limits, Record, Standing};
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
    /// What a record decided; what is in force already stays as it is where little moved.
    pub(crate) fn new(record: &Record, engine: &Engine, in_force: Option<&Self>) -> Self {
        let is_cached = record.is_cached();
        let check_share = match is_cached {
            true => engine.check_share(),
            false => 0.0,
        };
        let before = in_force.map(|before| before.watch);
        Self {
            cache_enabled: is_cached,
            ttl: Duration::try_from_secs_f64(record.after.ttl).unwrap_or_default(),
            watch: Watch {
                key_share: key_share(engine.key_share(), before.map(|before| before.key_share)),
                check_share: stepped(check_share, before.map(|before| before.check_share)),
            },
            since: Duration::try_from_secs_f64(record.figures.now).unwrap_or_default(),
            reason: record.sentence(),
        }
    }

    /// Whether services would do the same by the other.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        (self.cache_enabled, self.ttl, self.watch) == (other.cache_enabled, other.ttl, other.watch)
    }

    /// What an engine goes on from, whose state is lost.
    pub(crate) fn standing(&self, limits: &Limits) -> Standing {
        let at = self.since.as_secs_f64();
        Standing {
            is_on: self.cache_enabled,
            ttl: match self.ttl.is_zero() {
                true => limits.max_ttl,
                false => self.ttl.as_secs_f64(),
            },
            changed_at: at,
            ttl_at: at,
            calm_since: at,
            flips: u32::from(self.cache_enabled),
            ..Standing::default()
        }
    }
}

/// Up to a power of two: services tell no fewer keys than are remembered. The one in force stays for as long as it is not
/// three times as much, so that a share that moves to and fro is no news each time.
fn key_share(share: f64, in_force: Option<f64>) -> f64 {
    let fits = |before: &f64| (share..=3.0 * share).contains(before);
    in_force
        .filter(fits)
        .unwrap_or_else(|| share.log2().ceil().exp2().min(1.0))
}

/// To a power of two; the one in force stays for as long as it is near.
fn stepped(share: f64, in_force: Option<f64>) -> f64 {
    if share <= 0.0 {
        return 0.0;
    }
    let fits = |before: &f64| (0.6 * share..=1.7 * share).contains(before);
    in_force
        .filter(fits)
        .unwrap_or_else(|| share.log2().round().exp2().min(0.05))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_that_move_to_and_fro_are_no_news_and_those_that_go_on_moving_are() {
        // As a ghost's moves while as many keys come as go: by a fifth down, by a quarter up.
        let mut in_force = None;
        let mut news = 0;
        for round in 0..1_000 {
            let share = 0.3 * [1.0, 0.8, 0.64, 0.8][round % 4];
            let next = key_share(share, in_force);
            assert!((share..=3.0 * share).contains(&next), "{next} for {share}");
            news += u32::from(in_force != Some(next));
            in_force = Some(next);
        }
        assert_eq!(news, 1);
        let shares: Vec<f64> = (0..20).map(|step| 0.8_f64.powi(step)).collect();
        let mut told = shares.iter().fold(vec![1.0], |mut told, share| {
            told.push(key_share(*share, told.last().copied()));
            told
        });
        told.dedup();
        assert!(told.len() >= 4, "{told:?}");
        assert_eq!(key_share(1.0, Some(0.5)), 1.0, "it grows again");
        // Where rounding would fall to one side and the other.
        let edge = (-6.5_f64).exp2();
        let first = stepped(edge * 1.01, None);
        assert_eq!(stepped(edge * 0.99, Some(first)), first);
        assert_ne!(stepped(edge * 0.3, Some(first)), first);
        assert_eq!((stepped(0.0, Some(first)), stepped(1.0, None)), (0.0, 0.05));
    }
}
