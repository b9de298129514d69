//! The time that all processes of a machine share, and that runs on while it sleeps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_core::Clock;
use rustix::time::{ClockId, clock_gettime};

/// The time since the machine was booted, sleep included, exact to about 4 ms: of each tick of the coarse clock its
/// beginning. So all processes read the same within a tick, and none finds more left of a life than another has just given.
#[derive(Debug, Clone, Copy, Default)]
pub struct BootClock;

/// The tick of the coarse clock at which [`TIME`] was reckoned.
static TICK: AtomicU64 = AtomicU64::new(0);
/// The time since boot, in nanoseconds.
static TIME: AtomicU64 = AtomicU64::new(0);
/// How long the machine slept since boot, in nanoseconds.
static SLEPT: AtomicU64 = AtomicU64::new(0);

const MILLISECOND: u64 = 1_000_000;

impl Clock for BootClock {
    fn now(&self) -> Duration {
        let tick = nanos(ClockId::MonotonicCoarse);
        if TICK.load(Ordering::Acquire) == tick {
            return Duration::from_nanos(TIME.load(Ordering::Relaxed));
        }
        let now = tick + slept();
        // A thread that was held up here does not turn it back.
        let time = TIME.fetch_max(now, Ordering::Relaxed).max(now);
        TICK.store(tick, Ordering::Release);
        Duration::from_nanos(time)
    }
}

/// How long the machine slept since boot, in whole milliseconds: the same for all processes, though two clocks can't be read
/// at one instant.
fn slept() -> u64 {
    // In this order a thread that is held up in between finds too little, which does not count: it never becomes less.
    let (all, awake) = (nanos(ClockId::Boottime), nanos(ClockId::Monotonic));
    let slept = all.saturating_sub(awake) + MILLISECOND / 2;
    let slept = slept / MILLISECOND * MILLISECOND;
    SLEPT.fetch_max(slept, Ordering::Relaxed).max(slept)
}

/// A clock's time in nanoseconds: enough for 584 years.
fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock in milliseconds since 1970: only to carry time over an orderly reboot.
pub(crate) fn wall_millis() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_up_with_the_machine_and_never_goes_back() {
        let begin = nanos(ClockId::Boottime);
        let mut before = BootClock.now();
        while nanos(ClockId::Boottime) - begin < 100_000_000 {
            let exact = Duration::from_nanos(nanos(ClockId::Boottime));
            let now = BootClock.now();
            assert!(now >= before);
            // Ten ticks of the slowest kernel (100 Hz): this thread may have been held up in between.
            assert!(exact.saturating_sub(now) < Duration::from_millis(100));
            before = now;
        }
        assert!(before > Duration::from_nanos(begin));
    }
}
