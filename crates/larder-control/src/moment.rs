//! When something that holds for a limited time ends.

use std::time::{Duration, Instant};

/// Now, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Since 1970. It can be set, and goes on while the machine is off.
    pub(crate) wall: Duration,
    /// The process's own clock. It can't be set, and may stand still while the machine sleeps.
    pub(crate) running: Instant,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            wall: crate::auto::now(),
            running: Instant::now(),
        }
    }
}

/// When an end comes: as soon as either clock says so. A wall clock that is set back prolongs nothing while the process
/// runs; one that went on while the process or the machine did not is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// In seconds since 1970: what is kept across a restart.
    at_seconds: u64,
    running: Option<Instant>,
}

impl Expiry {
    /// At a time of the wall clock.
    pub(crate) fn at(at_seconds: u64, now: Moment) -> Self {
        let left = Duration::from_secs(at_seconds).saturating_sub(now.wall);
        Self {
            at_seconds,
            running: now.running.checked_add(left),
        }
    }

    /// After a time.
    pub(crate) fn after(time: Duration, now: Moment) -> Self {
        let at = now.wall.saturating_add(time);
        Self {
            at_seconds: at.as_secs() + u64::from(at.subsec_nanos() > 0),
            running: now.running.checked_add(time),
        }
    }

    pub(crate) fn at_seconds(self) -> u64 {
        self.at_seconds
    }

    /// How long until then; nothing if it is past.
    pub(crate) fn left(self, now: Moment) -> Duration {
        let by_wall = Duration::from_secs(self.at_seconds).saturating_sub(now.wall);
        let by_running = self
            .running
            .map(|end| end.saturating_duration_since(now.running));
        by_running.map_or(by_wall, |left| left.min(by_wall))
    }

    pub(crate) fn is_past(self, now: Moment) -> bool {
        self.left(now).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn begin() -> Moment {
        Moment {
            wall: Duration::from_millis(1_796_000_000_500),
            running: Instant::now(),
        }
    }

    fn later(begin: Moment, wall: i64, running: u64) -> Moment {
        let seconds = begin.wall.as_secs().saturating_add_signed(wall);
        Moment {
            wall: Duration::from_secs(seconds) + Duration::from_millis(500),
            running: begin.running + Duration::from_secs(running),
        }
    }

    #[test]
    fn it_ends_when_its_time_is_over_by_either_clock() {
        let begin = begin();
        let at = Expiry::at(begin.wall.as_secs() + 60, begin);
        for expiry in [Expiry::after(MINUTE, begin), at] {
            assert!(!expiry.is_past(later(begin, 59, 59)));
            assert!(expiry.is_past(later(begin, 61, 61)));
            // The wall clock was set back by an hour: it ends all the same.
            assert!(!expiry.is_past(later(begin, -3_600, 59)));
            assert!(expiry.is_past(later(begin, -3_540, 61)));
            // The machine slept for an hour, while the process's clock stood still.
            assert!(expiry.is_past(later(begin, 3_600, 1)));
        }
    }

    #[test]
    fn a_restart_goes_by_the_wall_clock() {
        let begin = begin();
        let expiry = Expiry::after(MINUTE, begin);
        assert_eq!(expiry.at_seconds(), begin.wall.as_secs() + 61);
        let restarted = later(begin, 30, 0);
        let again = Expiry::at(expiry.at_seconds(), restarted);
        assert!(!again.is_past(later(restarted, 30, 30)));
        assert!(again.is_past(later(restarted, 31, 31)));
        assert!(
            Expiry::at(expiry.at_seconds(), later(begin, 3_600, 0)).is_past(later(begin, 3_600, 0))
        );
    }

    #[test]
    fn an_end_that_no_clock_reaches_is_far_and_not_past() {
        let begin = begin();
        assert!(Expiry::at(u64::MAX, begin).left(begin) > MINUTE);
    }
}
