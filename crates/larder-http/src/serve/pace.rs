//! What a connection is doing, and until when it may: a state machine without a clock. Times are since any zero.

use std::time::Duration;

use super::Limits;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A request's head is arriving.
    Head { since: Duration },
    /// Requests are being answered; more than one only in HTTP/2. At least one.
    Answering { requests: usize },
    /// Nothing is arriving and nothing is being answered.
    Idle { since: Duration },
}

/// A connection's progress.
#[derive(Debug)]
pub(super) struct Pace {
    phase: Phase,
    /// HTTP/2: bytes that arrive need not be of a request (pings, windows), so that they don't end idleness.
    is_multiplexed: bool,
    /// Since when the client takes nothing of what is written.
    blocked_since: Option<Duration>,
}

impl Pace {
    /// A connection that has just been accepted: the head of its first request is awaited.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            phase: Phase::Head { since: now },
            is_multiplexed: false,
            blocked_since: None,
        }
    }

    pub(super) fn received(&mut self, now: Duration) {
        if matches!(self.phase, Phase::Idle { .. }) && !self.is_multiplexed {
            self.phase = Phase::Head { since: now };
        }
    }

    pub(super) fn begin_request(&mut self, is_multiplexed: bool) {
        self.is_multiplexed = is_multiplexed;
        let requests = match self.phase {
            Phase::Answering { requests } => requests + 1,
            Phase::Head { .. } | Phase::Idle { .. } => 1,
        };
        self.phase = Phase::Answering { requests };
    }

    pub(super) fn end_request(&mut self, now: Duration) {
        self.phase = match self.phase {
            Phase::Answering { requests } if requests > 1 => Phase::Answering {
                requests: requests - 1,
            },
            _ => Phase::Idle { since: now },
        };
    }

    pub(super) fn write_blocked(&mut self, now: Duration) {
        self.blocked_since.get_or_insert(now);
    }

    pub(super) fn wrote(&mut self) {
        self.blocked_since = None;
    }

    /// When this connection has taken too long, if nothing happens until then.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Head { since } => since.checked_add(limits.head_timeout),
            Phase::Answering { .. } => None,
            Phase::Idle { since } => since.checked_add(limits.idle_timeout),
        };
        let write = self
            .blocked_since
            .and_then(|since| since.checked_add(limits.write_timeout));
        [phase, write].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that begins at second 1,000; times are in seconds after that.
    struct Scene {
        pace: Pace,
    }

    const BEGIN: Duration = Duration::from_secs(1_000);

    impl Scene {
        fn new() -> Self {
            Self {
                pace: Pace::new(BEGIN),
            }
        }

        fn at(&self, seconds: u64) -> Duration {
            BEGIN + Duration::from_secs(seconds)
        }

        fn deadline(&self) -> Option<u64> {
            let deadline = self.pace.deadline(&Limits::default());
            deadline.map(|deadline| (deadline - BEGIN).as_secs())
        }
    }

    #[test]
    fn a_head_has_its_time_from_its_first_byte_however_slowly_it_comes() {
        let mut scene = Scene::new();
        scene.pace.received(scene.at(9));
        assert_eq!(scene.deadline(), Some(10));
        scene.pace.begin_request(false);
        assert_eq!(scene.deadline(), None);
        scene.pace.end_request(scene.at(20));
        assert_eq!(scene.deadline(), Some(95));
        scene.pace.received(scene.at(50));
        scene.pace.received(scene.at(55));
        assert_eq!(scene.deadline(), Some(60));
    }

    #[test]
    fn many_requests_at_once_are_idle_when_the_last_has_ended() {
        let mut scene = Scene::new();
        scene.pace.begin_request(true);
        scene.pace.begin_request(true);
        scene.pace.end_request(scene.at(1));
        assert_eq!(scene.deadline(), None);
        scene.pace.end_request(scene.at(2));
        scene.pace.received(scene.at(60));
        assert_eq!(scene.deadline(), Some(77), "a ping doesn't end idleness");
    }

    #[test]
    fn a_client_that_takes_nothing_of_its_answer_has_its_time_from_the_last_it_took() {
        let mut scene = Scene::new();
        scene.pace.begin_request(false);
        scene.pace.write_blocked(scene.at(3));
        scene.pace.write_blocked(scene.at(9));
        assert_eq!(scene.deadline(), Some(33));
        scene.pace.wrote();
        assert_eq!(scene.deadline(), None);
    }
}
