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
        let next = match self.ask(&mut candidate).await {
            Ok(Begins::Not) => Lease::None,
            Ok(Begins::AtOnce) => between(asked, asked),
            // Not before the one that led until now has stopped.
            Ok(Begins::AfterAnother) => between(Instant::now() + LEASE, asked),
            Ok(Begins::Before) => match self.lease() {
                Lease::Between { from, .. } => between(from, asked),
                Lease::Alone | Lease::None => between(asked, asked),
            },
            Err(_) => {
                *candidate = None;
                Lease::None
            }
        };
        self.set(next);
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

fn between(from: Instant, asked: Instant) -> Lease {
    Lease::Between {
        from,
        until: asked + LEASE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_stops_by_itself_and_the_next_one_waits_for_that() {
        let now = Instant::now();
        let first = between(now, now);
        assert!(first.holds(now) && first.holds(now + LEASE - Duration::from_millis(1)));
        assert!(!first.holds(now + LEASE));
        // The next one got the lock at the moment at which the first was last heard of.
        let begins = now + LEASE;
        assert!(
            !between(begins, now).holds(begins),
            "it must go on saying that it lives"
        );
        let next = between(begins, begins);
        for millisecond in 0..5_000 {
            let at = now + Duration::from_millis(millisecond);
            assert!(
                !(first.holds(at) && next.holds(at)),
                "two after {millisecond} ms"
            );
        }
        assert!(next.holds(now + LEASE));
        assert!(Lease::Alone.holds(now) && !Lease::None.holds(now));
    }
}
