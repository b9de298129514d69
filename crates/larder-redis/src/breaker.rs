//! When to stop asking a server, and when to look for it again: pure, so that it is tested without either.

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Where the breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The first probe is under way: operations may wait for it.
    Starting,
    /// Operations go through; so many in a row had no answer.
    Closed { failures: u32 },
    /// Operations fail at once; so many probes had no answer.
    Open { probes: u32 },
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// An operation had no answer within its deadline.
    TimedOut,
    /// An operation was answered.
    Answered,
    /// The connection broke.
    Broke,
    /// A probe (connecting, and the first commands) was answered.
    ProbeAnswered,
    /// A probe was not answered.
    ProbeFailed,
}

impl State {
    /// The state after an event. Opens after `most` operations in a row without an answer.
    pub(crate) fn after(self, event: Event, most: u32) -> Self {
        match (self, event) {
            (_, Event::ProbeAnswered) | (Self::Closed { .. }, Event::Answered) => {
                Self::Closed { failures: 0 }
            }
            (Self::Closed { failures }, Event::TimedOut) if failures + 1 < most => Self::Closed {
                failures: failures + 1,
            },
            (Self::Closed { .. }, Event::TimedOut | Event::Broke) => Self::Open { probes: 0 },
            (Self::Starting, Event::ProbeFailed) => Self::Open { probes: 1 },
            (Self::Open { probes }, Event::ProbeFailed) => Self::Open {
                probes: probes.saturating_add(1),
            },
            (state, _) => state,
        }
    }

    /// How long to wait before the next probe: twice as long each time, and half of it by chance (0 to 1), so that
    /// the clients of a server that comes back don't come all at once.
    pub(crate) fn pause(self, chance: f64) -> Duration {
        let probes = match self {
            Self::Open { probes } => probes,
            Self::Starting | Self::Closed { .. } => 0,
        };
        let pause = FIRST_PAUSE
            .saturating_mul(1 << probes.min(10))
            .min(LONGEST_PAUSE);
        pause.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_when_a_probe_is_answered() {
        let closed = State::Closed { failures: 0 };
        let mut state = closed;
        for event in [
            Event::TimedOut,
            Event::TimedOut,
            Event::Answered,
            Event::TimedOut,
            Event::TimedOut,
        ] {
            state = state.after(event, 3);
            assert!(matches!(state, State::Closed { .. }));
        }
        state = state.after(Event::TimedOut, 3);
        assert_eq!(state, State::Open { probes: 0 });
        state = state.after(Event::ProbeFailed, 3).after(Event::Answered, 3);
        assert_eq!(state, State::Open { probes: 1 });
        assert_eq!(state.after(Event::ProbeAnswered, 3), closed);
        assert_eq!(closed.after(Event::Broke, 3), State::Open { probes: 0 });
        assert_eq!(
            State::Starting.after(Event::ProbeFailed, 3),
            State::Open { probes: 1 }
        );
        assert_eq!(State::Starting.after(Event::ProbeAnswered, 3), closed);
    }

    #[test]
    fn pauses_grow_to_less_than_half_a_second() {
        let pause = |probes, chance| State::Open { probes }.pause(chance).as_millis();
        assert_eq!((pause(0, 0.0), pause(0, 1.0)), (25, 50));
        assert_eq!((pause(u32::MAX, 0.0), pause(u32::MAX, 1.0)), (200, 400));
    }
}
