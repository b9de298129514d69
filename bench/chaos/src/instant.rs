//! The one clock that all processes of a machine share, and what its readings prove.
//!
//! - The instant of a call is read before the call, that of its return after it: what is between two instants really was.
//! - A load's beginning is read in the loader, which has begun by then. A beginning before the instant of an invalidation's call
//!   is one before the call; so no value is ever taken to be older than it is.
//! - Nothing is shared by the processes that are watched: each writes down what it saw, and is judged afterwards. There is
//!   nothing in between that could put them in order and hide a race.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) type Nanos = u64;

/// How far this process's clock is ahead of the one that all share, in seconds: in a time namespace of its own.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// This process's clock is so many seconds ahead.
pub(crate) fn is_ahead(seconds: i64) {
    AHEAD.store(seconds, Ordering::Relaxed);
}

/// Now.
pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = time.tv_sec - AHEAD.load(Ordering::Relaxed);
    let seconds = u64::try_from(seconds).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

pub(crate) const fn millis(millis: u64) -> Nanos {
    millis * 1_000_000
}

pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
