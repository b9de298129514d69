//! What was measured, kept for longer than memory has it: each minute of a service for a day, each hour for 90 days.

use std::time::Duration;

use larder_model::{Service, Window};
use tokio::sync::Mutex;

use crate::database::Database;
use crate::measured::Measured;
use crate::plane::Plane;

/// Stretches of time, in seconds.
const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;
/// A minute is over when what other replicas were told of it is known, too.
const LATE: u64 = 15;
/// Who begins to lead keeps what he measured before, so many minutes back.
const BACK: u64 = 10;
/// Who goes on leads, and could keep nothing for a while, has no more in memory.
const REACH: u64 = 58;
/// No service has more minutes or hours; all together have no more in the last hour.
const MOST: u32 = 100_000;
/// How often it is looked for a minute that is over.
const EACH: Duration = Duration::from_secs(10);

/// How long each stretch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    Minute,
    Hour,
}

impl Step {
    pub(crate) fn seconds(self) -> u64 {
        match self {
            Self::Minute => MINUTE,
            Self::Hour => HOUR,
        }
    }

    /// For how long stretches of this length are kept.
    pub(crate) fn kept_seconds(self) -> u64 {
        match self {
            Self::Minute => DAY,
            Self::Hour => 90 * DAY,
        }
    }

    /// The next larger unit of time that people count in, in seconds.
    pub(crate) fn larger_seconds(self) -> u64 {
        match self {
            Self::Minute => HOUR,
            Self::Hour => DAY,
        }
    }
}

/// Which minutes are kept.
pub(crate) struct Rollups {
    database: Database,
    /// The next minute since 1970.
    next: Mutex<u64>,
}

impl Rollups {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database,
            next: Mutex::new(0),
        }
    }

    /// Measures what was kept of the last hour: a restart forgets it in memory.
    pub(crate) async fn restore(
        &self,
        measured: &Measured,
        now: Duration,
    ) -> Result<(), sqlx::Error> {
        let since = now.as_secs().saturating_sub(HOUR);
        let kept = self.database.rollups(None, MINUTE, since, MOST).await?;
        for (service, at, window) in kept {
            if let Ok(service) = Service::new(&service) {
                measured.restore(&service, Duration::from_secs(at), &window);
            }
        }
        Ok(())
    }

    /// Keeps minutes and hours that are over, and forgets what is old.
    pub(crate) async fn keep(&self, measured: &Measured, now: Duration) -> Result<(), sqlx::Error> {
        let now = now.as_secs();
        let end = now.saturating_sub(LATE) / MINUTE;
        let mut next = self.next.lock().await;
        if *next >= end {
            return Ok(());
        }
        let first = match *next {
            0 => end.saturating_sub(BACK),
            next => next.max(end.saturating_sub(REACH)),
        };
        for minute in first..end {
            let at = minute * MINUTE;
            let stretch = (Duration::from_secs(at), Duration::from_secs(at + MINUTE));
            for (service, window) in measured.between(stretch) {
                let kept = self.database.put_rollup(&service, (at, MINUTE), &window);
                kept.await?;
            }
            *next = minute + 1;
        }
        self.keep_hours(end * MINUTE).await?;
        for step in [Step::Minute, Step::Hour] {
            let before = now.saturating_sub(step.kept_seconds());
            let forgotten = self.database.forget_rollups(step.seconds(), before);
            forgotten.await?;
        }
        Ok(())
    }

    /// Keeps the hours that end before a time.
    async fn keep_hours(&self, until: u64) -> Result<(), sqlx::Error> {
        let until = until - until % HOUR;
        let missing = self.database.missing_rollups((MINUTE, HOUR), until);
        for (service, at) in missing.await? {
            let Ok(of) = Service::new(&service) else {
                continue;
            };
            let minutes = self.database.rollups(Some(&of), MINUTE, at, 60).await?;
            let mut sum = Window::default();
            let in_it = minutes.iter().filter(|(_, begins, _)| *begins < at + HOUR);
            in_it.for_each(|(_, _, window)| sum.merge(window));
            self.database.put_rollup(&service, (at, HOUR), &sum).await?;
        }
        Ok(())
    }
}

/// Keeps again and again, while this process leads.
pub(crate) async fn run(plane: &Plane) {
    let mut is_failing = false;
    loop {
        tokio::time::sleep(EACH).await;
        if !plane.leading.holds() {
            continue;
        }
        let kept = plane.rollups.keep(&plane.measured, crate::auto::now());
        let kept = kept.await;
        if let Err(error) = &kept
            && !is_failing
        {
            tracing::warn!(%error, "what was measured could not be kept: it is tried again");
        }
        is_failing = kept.is_err();
    }
}

#[cfg(test)]
mod tests {
    use larder_model::api::{Signal, SignalBatch, SignalStatus};
    use larder_testing::postgres::PostgresServer;

    use super::*;
    use crate::database::{DatabasePlace, PostgresUrl};

    /// The beginning of an hour.
    const BEGIN: u64 = 1_800_000_000;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(BEGIN + seconds)
    }

    fn measure(measured: &Measured, service: &str, seconds: u64) {
        let signal = Signal {
            service_name: service.into(),
            endpoint: "/a".into(),
            latency_ms: 10.0,
            status: SignalStatus::Success,
            cache: None,
            bytes: None,
        };
        let batch = SignalBatch {
            signals: vec![signal],
            windows: Vec::new(),
        };
        measured
            .take(None, batch, at(seconds), |_, _| None)
            .unwrap();
    }

    async fn kept(database: &Database, length: u64) -> Vec<(String, u64, u64)> {
        let all = database.rollups(None, length, 0, MOST).await.unwrap();
        let mut all: Vec<_> = all
            .into_iter()
            .map(|(service, at, window)| (service, at - BEGIN, window.bypasses))
            .collect();
        all.sort();
        all
    }

    async fn minutes_and_hours_are_kept_and_forgotten(place: DatabasePlace) {
        let database = Database::open(&place).await.unwrap();
        let (rollups, measured) = (Rollups::new(database.clone()), Measured::default());
        for seconds in [0, 59, 60, 130] {
            measure(&measured, "one", seconds);
        }
        measure(&measured, "other", 61);
        rollups.keep(&measured, at(60 + LATE - 1)).await.unwrap();
        assert_eq!(kept(&database, MINUTE).await, [], "the minute is not over");
        rollups.keep(&measured, at(120 + LATE)).await.unwrap();
        let one = |at, count| ("one".to_owned(), at, count);
        let other = ("other".to_owned(), 60, 1);
        let both = [one(0, 2), one(60, 1), other.clone()];
        assert_eq!(kept(&database, MINUTE).await, both);
        // Another one that begins to lead keeps what is not kept yet, and changes nothing.
        let next = Rollups::new(database.clone());
        let more = Measured::default();
        for seconds in [60, 61] {
            measure(&more, "one", seconds);
        }
        next.keep(&more, at(120 + LATE)).await.unwrap();
        assert_eq!(kept(&database, MINUTE).await, both);
        next.keep(&measured, at(180 + LATE)).await.unwrap();
        let three = [one(0, 2), one(60, 1), one(120, 1), other];
        assert_eq!(kept(&database, MINUTE).await, three);
        assert_eq!(kept(&database, HOUR).await, []);

        // A restart knows the last hour.
        let again = Measured::default();
        next.restore(&again, at(600)).await.unwrap();
        again.forget_old(at(600));
        let hour = again.hour(Some(&Service::new("one").unwrap()), at(600));
        assert_eq!(hour.iter().map(|window| window.bypasses).sum::<u64>(), 4);

        next.keep(&measured, at(HOUR + LATE)).await.unwrap();
        let hours = [one(0, 4), ("other".to_owned(), 0, 1)];
        assert_eq!(kept(&database, HOUR).await, hours);
        next.keep(&measured, at(DAY + HOUR)).await.unwrap();
        assert_eq!(kept(&database, MINUTE).await, []);
        assert_eq!(kept(&database, HOUR).await, hours);
        next.keep(&measured, at(91 * DAY)).await.unwrap();
        assert_eq!(kept(&database, HOUR).await, []);
    }

    #[tokio::test]
    async fn minutes_and_hours_are_kept_and_forgotten_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("control.db").into();
        minutes_and_hours_are_kept_and_forgotten(place).await;
    }

    #[tokio::test]
    async fn minutes_and_hours_are_kept_and_forgotten_in_postgresql() {
        let server = PostgresServer::shared();
        let url = larder_model::Secret::new(server.database());
        let place = DatabasePlace::Postgres(PostgresUrl::parse(url).unwrap());
        minutes_and_hours_are_kept_and_forgotten(place).await;
    }
}
