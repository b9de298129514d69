//! What services tell this replica, told to the others, so that all measure the same and whichever leads decides from all of it.
//!
//! A window counts once, however often and through whichever replica it comes: each of them knows which it has. What can't be
//! told while the database is away waits, bounded, the oldest first to go.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_model::api::{InstanceReport, SignalBatch};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::database::Database;
use crate::plane::Plane;

/// How often replicas tell each other.
const EACH: Duration = Duration::from_secs(1);
/// How often what is old is removed.
const FORGET_EACH: u32 = 30;
/// No more waits to be told, in bytes.
const MAX_WAITING: usize = 16 << 20;
/// No more is told at once, in bytes, but for what one request brought.
const MAX_BATCH: usize = 1 << 20;

/// What was told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Signals {
        /// With which key they came: a window's identity is within that.
        by: Option<String>,
        batch: SignalBatch,
    },
    Instance(InstanceReport),
}

/// How long ago it was told when it was passed on, and what.
#[derive(Serialize, Deserialize)]
struct Said<T> {
    ago_ms: u64,
    what: T,
}

/// What is passed on between replicas.
pub(crate) struct Exchange {
    database: Database,
    waiting: Mutex<Waiting>,
    course: tokio::sync::Mutex<Course>,
}

#[derive(Default)]
struct Waiting {
    said: VecDeque<(Instant, Box<RawValue>)>,
    bytes: usize,
    dropped: u64,
}

/// How far it went.
#[derive(Default)]
struct Course {
    number: u64,
    /// A batch of which it is not known whether it was written.
    unsure: Option<String>,
    /// Up to which number each of the others was heard; `None` before the first look.
    heard: Option<HashMap<String, u64>>,
    rounds: u32,
}

impl Exchange {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database,
            waiting: Mutex::default(),
            course: tokio::sync::Mutex::default(),
        }
    }

    /// Whether there may be others.
    pub(crate) fn is_there(&self) -> bool {
        self.database.is_shared()
    }

    /// Passes signals on.
    pub(crate) fn signals(&self, by: Option<&str>, batch: SignalBatch) {
        let by = by.map(str::to_owned);
        self.put(What::Signals { by, batch });
    }

    /// Passes on what an instance says of itself.
    pub(crate) fn instance(&self, report: InstanceReport) {
        self.put(What::Instance(report));
    }

    fn put(&self, what: What) {
        // What was read as JSON can be written as such.
        let Ok(said) = to_raw_value(&what) else {
            return;
        };
        let mut waiting = self.waiting();
        waiting.bytes += said.get().len();
        waiting.said.push_back((Instant::now(), said));
        while waiting.bytes > MAX_WAITING
            && let Some((_, oldest)) = waiting.said.pop_front()
        {
            waiting.bytes -= oldest.get().len();
            waiting.dropped += 1;
        }
    }

    fn take(&self) -> Option<String> {
        let mut waiting = self.waiting();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < MAX_BATCH
            && let Some((at, what)) = waiting.said.pop_front()
        {
            bytes += what.get().len();
            let ago_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            batch.push(Said { ago_ms, what });
        }
        waiting.bytes -= bytes;
        (!batch.is_empty()).then(|| crate::json::text(&batch))
    }

    /// How much was not passed on since the last time that this was asked.
    fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.waiting().dropped)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the others what waits.
    async fn tell(&self, course: &mut Course) -> Result<(), sqlx::Error> {
        loop {
            let batch = match course.unsure.take() {
                Some(batch) => batch,
                None => match self.take() {
                    Some(batch) => {
                        course.number += 1;
                        batch
                    }
                    None => return Ok(()),
                },
            };
            let number = course.number;
            let put = self.database.put_told(number, batch.clone());
            if let Err(error) = put.await {
                // It is tried again under the same number, so that it counts once.
                course.unsure = Some(batch);
                return Err(error);
            }
        }
    }

    /// Takes in what the others tell. Before the first look they told others.
    async fn hear(&self, course: &mut Course, plane: &Plane) -> Result<(), sqlx::Error> {
        let others = self.database.told_by_others().await?;
        let Some(heard) = &mut course.heard else {
            course.heard = Some(others.into_iter().collect());
            return Ok(());
        };
        heard.retain(|replica, _| others.iter().any(|(other, _)| other == replica));
        for (replica, last) in others {
            let from = heard.entry(replica.clone()).or_default();
            while *from < last {
                let told = self.database.told_behind(&replica, *from).await?;
                let Some(end) = told.last() else { break };
                *from = end.number;
                for one in &told {
                    take_in(plane, &one.batch, one.age);
                }
            }
        }
        Ok(())
    }

    async fn round(&self, plane: &Plane) -> Result<(), sqlx::Error> {
        let mut course = self.course.lock().await;
        course.rounds += 1;
        self.tell(&mut course).await?;
        self.hear(&mut course, plane).await?;
        if plane.leading.holds() && course.rounds >= FORGET_EACH {
            course.rounds = 0;
            self.database.forget_told().await?;
        }
        Ok(())
    }
}

/// Exchanges again and again; where there are no other replicas, for ever.
pub(crate) async fn run(plane: &Plane) {
    if !plane.exchange.is_there() {
        return std::future::pending().await;
    }
    let mut is_failing = false;
    loop {
        tokio::time::sleep(EACH.min(plane.tick)).await;
        let done = plane.exchange.round(plane).await;
        if let Err(error) = &done
            && !is_failing
        {
            tracing::warn!(%error, "what services tell can't be told to the other replicas: it waits");
        }
        is_failing = done.is_err();
        plane.metrics.untold.inc_by(plane.exchange.take_dropped());
    }
}

/// Takes in what another replica passed on; `age` ago.
fn take_in(plane: &Plane, batch: &str, age: Duration) {
    let Ok(batch) = serde_json::from_str::<Vec<Said<What>>>(batch) else {
        tracing::warn!("what another replica told can't be read: is it of another version?");
        return;
    };
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    for Said { ago_ms, what } in batch {
        let ago_ms = ago_ms.saturating_add(age_ms);
        match what {
            What::Signals { by, mut batch } => {
                for window in &mut batch.windows {
                    window.ended_ago_ms = window.ended_ago_ms.saturating_add(ago_ms);
                }
                // What can't be was refused by the replica that it came to.
                let _ = crate::routes::take_signals(plane, by.as_deref(), batch);
            }
            What::Instance(report) => {
                let seen = crate::auto::now().saturating_sub(Duration::from_millis(ago_ms));
                let _ = plane.instances.take(report, seen);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DatabasePlace;

    async fn exchange() -> (Exchange, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let place = DatabasePlace::File(folder.path().join("control.db"));
        let database = Database::open(&place).await.unwrap();
        (Exchange::new(database), folder)
    }

    fn signals(count: usize) -> SignalBatch {
        let signal = serde_json::json!({ "service_name": "svc", "endpoint": "/a", "latency_ms": 1.0, "status": "success" });
        SignalBatch {
            signals: vec![serde_json::from_value(signal).unwrap(); count],
            windows: Vec::new(),
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_the_oldest_goes_first() {
        let (exchange, _folder) = exchange().await;
        for count in [1_000, 2_000, 3_000, 4_000].repeat(100) {
            exchange.signals(None, signals(count));
        }
        assert!(exchange.waiting().bytes <= MAX_WAITING);
        let dropped = exchange.take_dropped();
        assert!(dropped > 0 && exchange.take_dropped() == 0);
        let mut left = 0;
        while let Some(batch) = exchange.take() {
            left += serde_json::from_str::<Vec<Said<What>>>(&batch)
                .unwrap()
                .len();
        }
        assert_eq!(left as u64 + dropped, 400);
        assert_eq!(exchange.waiting().bytes, 0);
    }
}
