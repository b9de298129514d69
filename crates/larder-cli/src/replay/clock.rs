//! The log's own time: it stands still between two lines, and never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_core::Clock;

/// How long the clock may stand still, in milliseconds: each divides a second, so that whole seconds stay exact.
const STEPS_MS: [u64; 10] = [1_000, 500, 250, 200, 100, 50, 20, 10, 5, 2];

/// The log's time, in milliseconds since 1970. Clones are one clock.
#[derive(Clone, Default)]
pub(crate) struct LogClock(Arc<AtomicU64>);

impl LogClock {
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::Release);
    }
}

impl Clock for LogClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Acquire))
    }
}

/// In steps of how many milliseconds the clock goes for entries that live so long: a thousandth of that, and a second at
/// most. What happens within a step happens at its beginning, so a life is wrong by 0.1 % at most, and by nothing in a log
/// of whole seconds.
pub(crate) fn step_ms(ttl: Duration) -> u64 {
    let longest = ttl.as_millis() / 1_000;
    let step = STEPS_MS.iter().find(|step| u128::from(**step) <= longest);
    step.copied().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_thousandth_of_a_life_and_a_second_at_most() {
        let steps = [1, 2, 60, 300, 1_000, 86_400].map(|ttl| step_ms(Duration::from_secs(ttl)));
        assert_eq!(steps, [1, 2, 50, 250, 1_000, 1_000]);
        assert!(STEPS_MS.iter().all(|step| 1_000 % step == 0));
    }
}
