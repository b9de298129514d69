//! Which of all replicas decides, and ends what is over: one at a time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::database::{Begins, Candidate, Database};

/// How often a leader says that it lives, and another one asks whether it may lead.
const EACH: Duration = Duration::from_millis(500);
/// So long after it last said something that was answered a leader stops. Who gets the lock after one that did not say that it
/// ends waits for so long before it begins: there are never two, whatever happened to a leader, its connection or the database.
const LEASE: Duration = Duration::from_secs(2);

/// Whether this process leads.
pub(crate) struct Leading {
    database: Database,
    lease: Mutex<Lease>,
    /// How often it began to lead.
    begun: watch::Sender<u64>,
    candidate: tokio::sync::Mutex<Option<Candidate>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// There is nobody else.
    Alone,
    /// Another one leads, or nobody.
    None,
    /// This one leads.
    Between { from: Instant, until: Instant },
}

impl Lease {
    fn holds(self, now: Instant) -> bool {
        match self {
            Self::Alone => true,
            Self::None => false,
            Self::Between { from, until } => (from..until).contains(&now),
        }
    }

    /// What becomes of it by an answer, `None` if there was none: when that was asked for, and when it came.
    fn next(self, answer: Option<Begins>, asked: Instant, now: Instant) -> Self {
        let from = match (answer, self) {
            (None | Some(Begins::Not), _) => return Self::None,
            (Some(Begins::Before), Self::Between { from, .. }) => from,
            (Some(Begins::AtOnce | Begins::Before), _) => asked,
            // Not before the one that led until now has stopped.
            (Some(Begins::AfterAnother), _) => now + LEASE,
        };
        Self::Between {
            from,
            until: asked + LEASE,
        }
    }
}

impl Leading {
    pub(crate) fn new(database: Database) -> Self {
        let lease = match database.is_shared() {
            true => Lease::None,
            false => Lease::Alone,
        };
        Self {
            lease: Mutex::new(lease),
            database,
            begun: watch::Sender::new(0),
            candidate: tokio::sync::Mutex::default(),
        }
    }

    /// Whether this process leads now.
    pub(crate) fn holds(&self) -> bool {
        self.lease().holds(Instant::now())
    }

    /// Tells whenever it begins to lead.
    pub(crate) fn begins(&self) -> watch::Receiver<u64> {
        self.begun.subscribe()
    }

    /// Seeks to lead, and goes on leading, again and again.
    pub(crate) async fn run(&self) {
        if self.lease() == Lease::Alone {
            return std::future::pending().await;
        }
        let mut led = self.holds();
        loop {
            self.step().await;
            let leads = self.holds();
            if leads && !led {
                tracing::info!("this control plane leads: it decides, and ends what is over");
                self.begun.send_modify(|times| *times += 1);
            } else if led && !leads {
                tracing::warn!(
                    "this control plane leads no more: the database did not answer in time"
                );
            }
            led = leads;
            tokio::time::sleep(EACH).await;
        }
    }

    /// Asks to lead, or says that the leader lives.
    pub(crate) async fn step(&self) {
        let mut candidate = self.candidate.lock().await;
        let asked = Instant::now();
        let answer = self.ask(&mut candidate).await.ok();
        if answer.is_none() {
            *candidate = None;
        }
        self.set(self.lease().next(answer, asked, Instant::now()));
    }

    async fn ask(&self, candidate: &mut Option<Candidate>) -> Result<Begins, sqlx::Error> {
        let candidate = match candidate {
            Some(asks) => asks,
            None => match self.database.candidate().await? {
                Some(new) => candidate.insert(new),
                None => return Ok(Begins::Not),
            },
        };
        candidate.ask().await
    }

    /// Lets another one lead.
    pub(crate) async fn end(&self) {
        self.set(Lease::None);
        if let Some(candidate) = self.candidate.lock().await.take() {
            candidate.end().await;
        }
    }

    fn set(&self, next: Lease) {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if *lease != Lease::Alone {
            *lease = next;
        }
    }

    fn lease(&self) -> Lease {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leader whose last answer was asked for `age` before the other one got the lock, and when the other one leads.
    fn handed_over(age: Duration) -> (Lease, Lease, Instant) {
        let asked = Instant::now();
        let first = Lease::None.next(Some(Begins::AtOnce), asked, asked);
        let taken = asked + age;
        let waits = Lease::None.next(Some(Begins::AfterAnother), taken, taken);
        assert!(!waits.holds(taken), "it must say again that it lives");
        // It goes on saying that, each time a bit later.
        let mut other = waits;
        let mut now = taken;
        while !other.holds(now) {
            assert!(now < taken + 3 * LEASE, "it never leads");
            now += EACH;
            other = other.next(Some(Begins::Before), now, now);
        }
        (first, other, now)
    }

    #[test]
    fn the_next_one_leads_once_the_one_before_has_stopped() {
        for millis in [0, 1, 700, 1_999, 5_000] {
            let (first, other, leads) = handed_over(Duration::from_millis(millis));
            let Lease::Between { from, .. } = other else {
                panic!("{other:?}");
            };
            for at in [from, leads] {
                assert!(!first.holds(at), "two lead: {first:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_leader_leads_from_answer_to_answer_and_no_longer() {
        let asked = Instant::now();
        let late = asked + Duration::from_millis(1_500);
        // The time begins when it asked: what it was answered may be as old.
        let leads = Lease::None.next(Some(Begins::AtOnce), asked, late);
        assert!(leads.holds(late) && !leads.holds(asked + LEASE));
        let longer = leads.next(Some(Begins::Before), late, late);
        assert!(longer.holds(asked + LEASE) && !longer.holds(late + LEASE));
        for none in [None, Some(Begins::Not)] {
            assert_eq!(longer.next(none, late, late), Lease::None);
        }
        assert!(Lease::Alone.holds(asked) && !Lease::None.holds(asked));
    }
}
