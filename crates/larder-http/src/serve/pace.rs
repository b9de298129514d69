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

/// How a client takes what waits for it.
#[derive(Debug, Clone, Copy)]
struct Taking {
    since: Duration,
    /// When it last took something.
    last: Duration,
    /// What it took since.
    bytes: u64,
}

impl Taking {
    fn begin(now: Duration) -> Self {
        Self {
            since: now,
            last: now,
            bytes: 0,
        }
    }

    fn took(&mut self, bytes: usize, now: Duration) {
        self.last = now;
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    fn deadline(&self, limits: &Limits) -> Duration {
        let earned = earned_time(self.bytes, limits.write_bytes_per_second);
        let by_rate = self.since.saturating_add(earned);
        by_rate.min(self.last).saturating_add(limits.write_timeout)
    }
}

/// How long so many bytes may take.
pub(super) fn earned_time(bytes: u64, bytes_per_second: u32) -> Duration {
    let rate = f64::from(bytes_per_second.max(1));
    Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or(Duration::MAX)
}

/// A connection's progress.
#[derive(Debug)]
pub(super) struct Pace {
    phase: Phase,
    /// HTTP/2: bytes that arrive need not be of a request (pings, windows), so that they don't end idleness.
    is_multiplexed: bool,
    /// While the socket has no room for what is to be written.
    socket: Option<Taking>,
    /// HTTP/2: answers whose next piece is there, for whenever the client makes room for it: it may not, though the
    /// socket has room.
    offers: usize,
    /// While there are such answers.
    answers: Option<Taking>,
}

impl Pace {
    /// A connection that has just been accepted: the head of its first request is awaited.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            phase: Phase::Head { since: now },
            is_multiplexed: false,
            socket: None,
            offers: 0,
            answers: None,
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
        self.socket.get_or_insert(Taking::begin(now));
    }

    pub(super) fn wrote(&mut self, bytes: usize, now: Duration) {
        if let Some(socket) = &mut self.socket {
            socket.took(bytes, now);
        }
    }

    /// All that was to be written has been.
    pub(super) fn flushed(&mut self, now: Duration) {
        if self.socket.take().is_some()
            && let Phase::Idle { since } = &mut self.phase
        {
            *since = now;
        }
    }

    /// The next piece of an answer waits for its client.
    pub(super) fn begin_offer(&mut self, now: Duration) {
        self.offers += 1;
        self.answers.get_or_insert(Taking::begin(now));
    }

    /// A piece was taken, and the next one waits.
    pub(super) fn took_offer(&mut self, bytes: usize, now: Duration) {
        if let Some(answers) = &mut self.answers {
            answers.took(bytes, now);
        }
    }

    /// A piece was taken, or given up, and none is there to follow it.
    pub(super) fn end_offer(&mut self, bytes: usize, now: Duration) {
        self.took_offer(bytes, now);
        self.offers = self.offers.saturating_sub(1);
        if self.offers == 0 {
            self.answers = None;
        }
    }

    /// When this connection has taken too long, if nothing happens until then.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Head { since } => since.checked_add(limits.head_timeout),
            Phase::Answering { .. } => None,
            // The end of an answer is still on its way, and has the time that writing has.
            Phase::Idle { .. } if self.socket.is_some() => None,
            Phase::Idle { since } => since.checked_add(limits.idle_timeout),
        };
        let taking = [&self.socket, &self.answers].into_iter().flatten();
        taking
            .map(|taking| taking.deadline(limits))
            .chain(phase)
            .min()
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
        scene.pace.wrote(1 << 20, scene.at(20));
        assert_eq!(scene.deadline(), Some(50));
        scene.pace.flushed(scene.at(21));
        assert_eq!(scene.deadline(), None);
    }

    #[test]
    fn a_client_that_takes_its_answer_slowly_has_what_the_bytes_earn() {
        let mut scene = Scene::new();
        scene.pace.begin_request(false);
        scene.pace.write_blocked(scene.at(0));
        for second in [10, 20, 30, 40] {
            scene.pace.wrote(1_024, scene.at(second));
        }
        assert_eq!(scene.deadline(), Some(34));
    }

    #[test]
    fn the_end_of_an_answer_is_not_idleness() {
        let mut scene = Scene::new();
        scene.pace.begin_request(false);
        scene.pace.write_blocked(scene.at(0));
        scene.pace.end_request(scene.at(0));
        scene.pace.wrote(1 << 20, scene.at(100));
        assert_eq!(scene.deadline(), Some(130));
        scene.pace.flushed(scene.at(110));
        assert_eq!(scene.deadline(), Some(185));
    }

    #[test]
    fn answers_that_wait_for_their_client_have_their_time_together() {
        let mut scene = Scene::new();
        scene.pace.begin_request(true);
        scene.pace.begin_offer(scene.at(0));
        scene.pace.begin_request(true);
        scene.pace.begin_offer(scene.at(5));
        assert_eq!(scene.deadline(), Some(30));
        scene.pace.took_offer(10 << 10, scene.at(20));
        assert_eq!(scene.deadline(), Some(40), "10 s were earned");
        scene.pace.end_offer(1 << 20, scene.at(21));
        assert_eq!(scene.deadline(), Some(51), "one still waits");
        scene.pace.end_offer(0, scene.at(22));
        assert_eq!(scene.deadline(), None, "the handler is waited for");
    }
}
