//! The plain rule: an endpoint is cached if its origin is slow.
//!
//! It looks at the origin's latency alone. A mean over all answers would fall as soon as caching helps, and switch
//! caching off by its own success.

use std::time::Duration;

use larder_model::{Method, Window};

/// With fewer measured answers of the origin nothing is decided.
pub const MIN_SAMPLES: u64 = 30;
/// From this mean latency of the origin on, in milliseconds, caching goes on.
pub const ON_FROM_MS: f64 = 50.0;
/// Below this mean latency, in milliseconds, it goes off; between the two it stays.
pub const OFF_BELOW_MS: f64 = 25.0;
/// A decision holds at least this long.
const DWELL: Duration = Duration::from_secs(60);

/// What was decided for an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is cached.
    pub cache_enabled: bool,
    /// When that was decided, on the clock that [`decide`] is given.
    pub since: Duration,
    /// Why: one sentence with its figures.
    pub reason: String,
}

/// The decision that replaces `current`; `None` if that stays. The window holds the last minutes; methods that
/// change something are never cached, whatever was measured.
#[must_use]
pub fn decide(
    method: &str,
    window: &Window,
    current: Option<&Decision>,
    now: Duration,
) -> Option<Decision> {
    let is_on = current.is_some_and(|current| current.cache_enabled);
    if !Method::is_safe_name(method) {
        return is_on.then(|| Decision {
            cache_enabled: false,
            since: now,
            reason: format!("auto: {method} is not a safe method, so its answers are never cached"),
        });
    }
    let dwells = current.is_some_and(|current| now.saturating_sub(current.since) < DWELL);
    let mean = window.origin_ms_mean()?;
    if dwells || window.origin_count < MIN_SAMPLES {
        return None;
    }
    let cache_enabled = if is_on {
        mean >= OFF_BELOW_MS
    } else {
        mean >= ON_FROM_MS
    };
    let is_news = current.is_none_or(|current| current.cache_enabled != cache_enabled);
    is_news.then(|| Decision {
        cache_enabled,
        since: now,
        reason: reason(cache_enabled, mean, window.origin_count),
    })
}

fn reason(cache_enabled: bool, mean: f64, samples: u64) -> String {
    if cache_enabled {
        format!(
            "auto: on, the origin takes {mean:.1} ms on average (at least {ON_FROM_MS} ms over {samples} answers)"
        )
    } else {
        format!(
            "auto: off, the origin takes {mean:.1} ms on average over {samples} answers (on from {ON_FROM_MS} ms, off below {OFF_BELOW_MS} ms)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn origin(count: u64, mean: f64) -> Window {
        Window {
            misses: count,
            origin_count: count,
            origin_ms_sum: mean * count as f64,
            ..Window::default()
        }
    }

    fn on() -> Decision {
        decide("GET", &origin(30, 800.0), None, Duration::ZERO).unwrap()
    }

    #[test]
    fn a_slow_origin_is_cached_and_the_reason_has_the_figures() {
        let decision = on();
        assert!(decision.cache_enabled);
        assert!(decision.reason.contains("800.0 ms") && decision.reason.contains("30 answers"));
    }

    #[test]
    fn too_few_samples_decide_nothing() {
        assert_eq!(decide("GET", &origin(29, 800.0), None, MINUTE), None);
        assert_eq!(decide("GET", &Window::default(), Some(&on()), MINUTE), None);
    }

    #[test]
    fn hits_dont_count_however_fast_and_many() {
        let window = Window {
            hits: 1_000_000,
            hit_ms_sum: 1_000.0,
            ..origin(40, 700.0)
        };
        assert_eq!(decide("GET", &window, Some(&on()), 10 * MINUTE), None);
    }

    #[test]
    fn between_the_two_thresholds_nothing_changes() {
        assert_eq!(decide("GET", &origin(99, 30.0), Some(&on()), MINUTE), None);
        let off = decide("GET", &origin(99, 10.0), Some(&on()), MINUTE).unwrap();
        assert!(!off.cache_enabled);
        assert_eq!(
            decide("GET", &origin(99, 49.0), Some(&off), 9 * MINUTE),
            None
        );
    }

    #[test]
    fn a_decision_holds_for_a_minute() {
        let fast = origin(99, 1.0);
        let early = MINUTE - Duration::from_millis(1);
        assert_eq!(decide("GET", &fast, Some(&on()), early), None);
        assert!(decide("GET", &fast, Some(&on()), MINUTE).is_some());
    }

    #[test]
    fn a_method_that_changes_something_is_never_cached() {
        assert_eq!(decide("POST", &origin(99, 800.0), None, MINUTE), None);
        let off = decide("POST", &origin(99, 800.0), Some(&on()), Duration::ZERO).unwrap();
        assert!(!off.cache_enabled);
    }
}
