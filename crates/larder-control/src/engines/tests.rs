//! Engines over a real database.

use std::sync::Arc;

use larder_decide::KeyLog;
use larder_model::{Outcome, PER_SECOND, Window};

use super::*;
use crate::cause::Cause;
use crate::plane::Settings;
use crate::registry::{Preconditions, Registry};
use crate::streams::{StreamLimits, Streams};

const TICK: Duration = Duration::from_secs(10);

/// The engine of one endpoint, ticked each ten seconds; what it decides is in force at once.
struct Ticked {
    folder: tempfile::TempDir,
    engines: Engines,
    registry: Registry,
    service: Service,
    watched: Watched,
    now: Duration,
}

impl Ticked {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(folder.path().join("control.db"));
        let streams = Arc::new(Streams::new(StreamLimits::default()));
        let registry = Registry::open(&settings, streams, crate::registry::Opens::ControlPlane)
            .await
            .unwrap();
        let ticked = Self {
            folder,
            engines: Engines::new(registry.database()),
            registry,
            service: Service::new("svc").unwrap(),
            watched: Watched {
                endpoint: "/a".parse().unwrap(),
                patch: serde_json::from_str(r#"{"mode":"auto","max_ttl_seconds":30}"#).unwrap(),
                decision: None,
            },
            now: Duration::from_secs(1_800_000_000),
        };
        ticked.set_policy().await;
        ticked
    }

    fn database(&self) -> &Database {
        &self.engines.database
    }

    async fn set_policy(&self) {
        let Watched {
            endpoint, patch, ..
        } = &self.watched;
        let (any, cause) = (Preconditions::default(), Cause::larder("a test"));
        let put = self
            .registry
            .put(&self.service, endpoint, patch.clone(), &any, &cause);
        put.await.unwrap();
    }

    async fn remove_policy(&mut self) {
        let (any, cause) = (Preconditions::default(), Cause::larder("a test"));
        let endpoint = &self.watched.endpoint;
        let removed = self.registry.delete(&self.service, endpoint, &any, &cause);
        removed.await.unwrap();
        self.watched.decision = None;
    }

    /// What else is to be in force, if anything.
    async fn try_tick(&mut self, windows: Vec<Arrived>) -> Result<Option<Decision>, sqlx::Error> {
        self.now += TICK;
        let ticked = self
            .engines
            .tick(&self.service, &self.watched, windows, self.now);
        let news = ticked.await?;
        self.watched.decision = news.clone().or(self.watched.decision.take());
        Ok(news)
    }

    async fn tick(&mut self, windows: Vec<Arrived>) -> Option<Decision> {
        self.try_tick(windows).await.unwrap()
    }

    /// Until it is cached, and nothing moves any more.
    async fn switch_on(&mut self) {
        for _ in 0..60 {
            self.tick(vec![self.slow()]).await;
        }
        for _ in 0..30 {
            self.tick(Vec::new()).await;
        }
        assert!(self.watched.decision.as_ref().unwrap().cache_enabled);
    }

    async fn last(&self) -> Record {
        let last = self.engines.last(&self.service, &self.watched.endpoint);
        last.await.unwrap()
    }

    async fn history(&self) -> Vec<Record> {
        let Self {
            service, watched, ..
        } = self;
        let history = self
            .engines
            .history(service, &watched.endpoint, u64::MAX, 50);
        history.await.unwrap()
    }

    /// Each of ten keys was asked for each three seconds, and answered after 800 ms.
    fn slow(&self) -> Arrived {
        let (mut window, mut keys) = (Window::default(), KeyLog::new(0));
        for at in (0..10 * PER_SECOND).step_by(75) {
            for key in 0..10_u32 {
                let hash = key.wrapping_mul(2_654_435_769);
                keys.saw(hash, at);
                keys.answered(hash, 7, None, at);
                let latency = Duration::from_micros(800_000 + u64::from(key));
                window.count(Outcome::Bypass, Some(latency), false, 0);
            }
        }
        Arrived {
            evidence: Some(keys.take(1.0, 10 * PER_SECOND)),
            ..self.arrived(window)
        }
    }

    /// Calls that all failed.
    fn failing(&self) -> Arrived {
        let mut window = Window::default();
        (0..10).for_each(|_| window.count(Outcome::Miss, None, true, 0));
        self.arrived(window)
    }

    fn arrived(&self, window: Window) -> Arrived {
        let now_ms = millis(self.now);
        Arrived {
            store: 0,
            id: ("i-1".into(), 1, now_ms),
            began_ms: now_ms - 10_000,
            ended_ms: now_ms,
            window,
            evidence: None,
            has_store_failed: false,
        }
    }

    /// As if the process had been started anew.
    fn restart(&mut self) {
        self.engines = Engines::new(self.database().clone());
    }

    async fn sql(&self, statement: &'static str) {
        let path = self.folder.path().join("control.db");
        let url = format!("sqlite://{}", path.display());
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
}

#[tokio::test]
async fn a_state_that_is_lost_or_of_another_version_leaves_what_was_decided() {
    for statement in [
        "DELETE FROM engine_states",
        "UPDATE engine_states SET state = x'01'",
    ] {
        let mut ticked = Ticked::new().await;
        ticked.switch_on().await;
        let before = ticked.watched.decision.clone().unwrap();
        ticked.engines.keep().await;
        ticked.sql(statement).await;
        ticked.restart();
        assert_eq!(ticked.tick(Vec::new()).await, None);
        for _ in 0..20 {
            ticked.tick(vec![ticked.slow()]).await;
            let now = ticked.watched.decision.clone().unwrap();
            assert!(now.cache_enabled && now.ttl >= before.ttl, "{now:?}");
        }
    }
}

#[tokio::test]
async fn what_a_removed_policy_leaves_does_not_come_back() {
    let mut ticked = Ticked::new().await;
    ticked.switch_on().await;
    ticked.engines.keep().await;
    let endpoint = ticked.watched.endpoint.clone();
    assert!(!ticked.history().await.is_empty());
    ticked.remove_policy().await;
    // A tick that was under way, or the process's end.
    ticked.engines.keep().await;
    let record = ticked.last().await;
    let put = ticked
        .database()
        .put_record(&ticked.service, &endpoint, &record);
    put.await.unwrap();
    assert!(ticked.history().await.is_empty());
    // Set anew before a tick could tell that there was none.
    ticked.set_policy().await;
    assert_eq!(ticked.tick(Vec::new()).await, None);
    let engine = ticked.database().engine(&ticked.service, &endpoint).await;
    assert_eq!(engine.unwrap(), None);
    ticked.tick(vec![ticked.arrived(Window::default())]).await;
    assert_eq!(ticked.last().await.tick, 1);
}

#[tokio::test]
async fn what_older_versions_left_behind_is_removed() {
    let mut ticked = Ticked::new().await;
    ticked.switch_on().await;
    ticked.sql("DELETE FROM policies").await;
    assert!(!ticked.history().await.is_empty());
    ticked.engines.forget_left_behind().await;
    assert!(ticked.history().await.is_empty());
    let engine = ticked
        .database()
        .engine(&ticked.service, &ticked.watched.endpoint);
    assert_eq!(engine.await.unwrap(), None);
}

#[tokio::test]
async fn a_restart_decides_nothing_twice() {
    let mut ticked = Ticked::new().await;
    ticked.switch_on().await;
    ticked.engines.keep().await;
    let before = ticked.history().await.len();
    for _ in 0..5 {
        ticked.restart();
        assert_eq!(ticked.tick(Vec::new()).await, None);
    }
    assert_eq!(ticked.history().await.len(), before);
}

#[tokio::test]
async fn a_reason_that_comes_and_goes_is_no_news_and_one_that_lasts_is() {
    let mut ticked = Ticked::new().await;
    ticked.switch_on().await;
    let before = ticked.history().await.len();
    for _ in 0..30 {
        assert_eq!(ticked.tick(vec![ticked.failing()]).await, None);
        assert_eq!(ticked.last().await.code, Code::OriginFailing);
        assert_eq!(ticked.tick(Vec::new()).await, None);
        assert_eq!(ticked.last().await.code, Code::Pays);
    }
    assert_eq!(ticked.history().await.len(), before);
    let mut news = 0;
    for _ in 0..30 {
        news += usize::from(ticked.tick(vec![ticked.failing()]).await.is_some());
    }
    assert_eq!((news, ticked.history().await.len()), (1, before + 1));
    let reason = &ticked.watched.decision.as_ref().unwrap().reason;
    assert!(reason.contains("calls of the origin fail"), "{reason}");
}

#[tokio::test]
async fn a_decision_that_could_not_be_kept_is_kept_later() {
    let mut ticked = Ticked::new().await;
    ticked.tick(vec![ticked.slow()]).await;
    ticked
        .sql("ALTER TABLE decision_records RENAME TO away")
        .await;
    let mut failed = 0;
    while !ticked.last().await.after.is_on {
        failed = u32::from(ticked.try_tick(vec![ticked.slow()]).await.is_err());
    }
    assert_eq!(failed, 1);
    ticked
        .sql("ALTER TABLE away RENAME TO decision_records")
        .await;
    assert!(ticked.tick(Vec::new()).await.unwrap().cache_enabled);
    assert!(ticked.history().await[0].after.is_on);
}
