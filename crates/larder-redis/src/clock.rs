//! This process's own time, by which trust ends. It goes on while the process is stopped.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// So far the coarse clock may be behind, at the slowest tick that a kernel has.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Nanoseconds since the machine was booted.
pub(crate) fn now() -> u64 {
    nanos(ClockId::Monotonic)
}

/// The same as of the last tick: an eighth of the cost.
pub(crate) fn coarse() -> u64 {
    nanos(ClockId::MonotonicCoarse)
}

/// Enough for 584 years.
fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// This long after a time.
pub(crate) fn after(time: u64, pause: Duration) -> u64 {
    time.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX))
}
