//! When a stream is opened again. A state machine without a clock: times are since any zero.

use std::time::Duration;

use crate::stream::Ended;

/// A stream that lived so long was well: what befell those before it counts no more.
const STEADY: Duration = Duration::from_secs(10);
/// After the first loss, and at most, some of this by chance.
const LOST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Where there is no stream, it is tried again after these times; an older control plane is replaced one day.
const NOT_HAD: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
/// No control plane that has no room puts its clients off for less, and none for longer.
const LEAST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(120);

/// When a stream is to be opened.
#[derive(Debug, Default)]
pub(crate) struct Reopening {
    /// Streams that were lost or not had, one after another.
    failures: u32,
    due: Duration,
    /// The control plane did not answer when it was last asked: whoever asks again finds out when it does.
    is_away: bool,
}

impl Reopening {
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        !self.is_away && now >= self.due
    }

    /// How long until a stream is to be opened; `None` while the control plane is away.
    pub(crate) fn wait(&self, now: Duration) -> Option<Duration> {
        (!self.is_away).then(|| self.due.saturating_sub(now))
    }

    /// A stream ended; `chance` is from 0 to 1.
    pub(crate) fn ended(&mut self, ended: &Ended, now: Duration, chance: f64) {
        let wait = match ended {
            Ended::NotHad { after, .. } => {
                let backed_off = self.back_off(NOT_HAD);
                let wait =
                    after.map_or(backed_off, |after| after.clamp(LEAST_RETRY, LONGEST_RETRY));
                wait.mul_f64(0.8 + 0.4 * chance)
            }
            Ended::Drained { retry, .. } if ended.was_well() => {
                self.failures = 0;
                (*retry).min(LONGEST_RETRY)
            }
            Ended::Lost { lived, .. } if *lived >= STEADY => {
                self.failures = 0;
                self.lost(chance)
            }
            Ended::Unreachable(_) | Ended::Drained { .. } | Ended::Lost { .. } => self.lost(chance),
        };
        self.due = now.saturating_add(wait);
    }

    /// The control plane was asked, and answered or did not. When it is back it may be another one.
    pub(crate) fn asked(&mut self, has_answered: bool, now: Duration) {
        if has_answered && self.is_away {
            self.failures = 0;
            self.due = now;
        }
        self.is_away = !has_answered;
    }

    fn lost(&mut self, chance: f64) -> Duration {
        self.back_off(LOST).mul_f64(0.5 + chance)
    }

    fn back_off(&mut self, (first, most): (Duration, Duration)) -> Duration {
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn lost(lived: u64) -> Ended {
        Ended::Lost {
            why: String::new(),
            lived: Duration::from_secs(lived),
        }
    }

    fn not_had(after: Option<u64>) -> Ended {
        Ended::NotHad {
            why: String::new(),
            after: after.map(Duration::from_secs),
        }
    }

    /// In milliseconds, by the middle of what chance gives.
    fn wait(reopening: &mut Reopening, ended: &Ended) -> u128 {
        reopening.ended(ended, NOW, 0.5);
        let wait = reopening.wait(NOW).unwrap();
        assert_eq!(reopening.is_due(NOW), wait.is_zero());
        assert!(reopening.is_due(NOW + wait));
        wait.as_millis()
    }

    #[test]
    fn a_stream_that_is_lost_again_and_again_is_opened_less_and_less_often() {
        let mut reopening = Reopening::default();
        assert!(reopening.is_due(Duration::ZERO), "at first at once");
        let waits: Vec<u128> = (0..10).map(|_| wait(&mut reopening, &lost(0))).collect();
        assert_eq!(
            waits,
            [
                250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000
            ]
        );
        assert_eq!(
            wait(&mut reopening, &lost(60)),
            250,
            "it was well for a time"
        );
        let spread = |chance| {
            let mut reopening = Reopening::default();
            reopening.ended(&lost(60), NOW, chance);
            reopening.wait(NOW).unwrap().as_millis()
        };
        assert_eq!((spread(0.0), spread(1.0)), (125, 375));
    }

    #[test]
    fn what_the_control_plane_says_counts_within_bounds() {
        let mut reopening = Reopening::default();
        let drained = |retry: u64, lived: u64| Ended::Drained {
            retry: Duration::from_millis(retry),
            lived: Duration::from_secs(lived),
        };
        assert_eq!(wait(&mut reopening, &drained(0, 600)), 0);
        assert_eq!(wait(&mut reopening, &drained(7_000, 600)), 7_000);
        assert_eq!(wait(&mut reopening, &drained(u64::MAX, 600)), 120_000);
        assert_eq!(
            wait(&mut reopening, &drained(0, 0)),
            250,
            "else it would be opened without end"
        );
        assert_eq!(wait(&mut reopening, &drained(0, 0)), 500);
        assert_eq!(wait(&mut reopening, &not_had(Some(12))), 12_000);
        assert_eq!(wait(&mut reopening, &not_had(Some(0))), 1_000);
        assert_eq!(wait(&mut reopening, &not_had(Some(u64::MAX))), 120_000);
    }

    #[test]
    fn where_there_is_no_stream_it_is_tried_now_and_then() {
        let mut reopening = Reopening::default();
        let waits: Vec<u128> = (0..5)
            .map(|_| wait(&mut reopening, &not_had(None)))
            .collect();
        assert_eq!(waits, [30_000, 60_000, 120_000, 240_000, 300_000]);
    }

    #[test]
    fn while_the_control_plane_is_away_no_stream_is_tried() {
        let mut reopening = Reopening::default();
        reopening.ended(&not_had(None), NOW, 0.5);
        reopening.asked(false, NOW);
        assert!(!reopening.is_due(NOW * 2));
        assert_eq!(reopening.wait(NOW), None);
        reopening.asked(true, NOW);
        assert!(reopening.is_due(NOW), "it is back: it may be another");
        for ended in [not_had(None), Ended::Unreachable(String::new())] {
            reopening.ended(&ended, NOW, 0.5);
            reopening.asked(true, NOW);
            assert!(
                !reopening.is_due(NOW),
                "it was there all the time: {ended:?}"
            );
        }
    }
}
