//! Where time comes from.

use std::time::Duration;

/// A clock that never goes back. What its zero means is its own affair.
pub trait Clock: Send + Sync + 'static {
    /// The time since its zero.
    fn now(&self) -> Duration;
}

/// This process's own monotonic clock, exact to about 4 ms, in a few nanoseconds
/// (`CLOCK_MONOTONIC_COARSE`). It does not run while the machine sleeps.
#[derive(Debug, Clone, Copy, Default)]
pub struct CoarseClock;

impl Clock for CoarseClock {
    fn now(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
}
