//! The engines of all endpoints in mode `auto` or `shadow`, by service: ticked, and kept each minute.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use larder_decide::{Arrived, Engine, Limits, Record};
use larder_model::{Endpoint, Mode, Policy, PolicyPatch, Service};
use tokio::sync::Mutex;

use crate::database::{Database, shape};
use crate::decision::Decision;

/// States are kept this often.
const KEPT_EVERY: Duration = Duration::from_secs(60);

/// An endpoint that the engine decides for.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) endpoint: Endpoint,
    pub(crate) patch: PolicyPatch,
    /// What is in force of what was decided for it.
    pub(crate) decision: Option<Decision>,
}

impl Watched {
    /// What its policy leaves to the engine.
    fn limits(&self) -> Limits {
        let policy = self.patch.apply(&Policy::default()).unwrap_or_default();
        let default = Policy::default();
        // A TTL that somebody set is the longest; the default's is no bound.
        let is_bound = self.patch.ttl_seconds.is_some() || self.patch.max_ttl_seconds.is_some();
        let longest = if is_bound {
            policy.max_ttl()
        } else {
            default.max_ttl()
        };
        Limits {
            min_ttl: policy.min_ttl().as_secs_f64(),
            max_ttl: longest.as_secs_f64(),
            budget: policy.staleness_budget(),
            is_applied: policy.mode() == Mode::Auto,
        }
    }
}

struct Running {
    endpoint: Endpoint,
    engine: Engine,
    last: Option<Record>,
    kept_at: Duration,
}

type Key = (Service, String, String);

/// The engines of all services.
pub(crate) struct Engines {
    database: Database,
    running: Mutex<HashMap<Key, Running>>,
}

impl Engines {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database,
            running: Mutex::default(),
        }
    }

    /// Ticks an endpoint's engine; what is to be in force, if that is another decision than what is.
    pub(crate) async fn tick(
        &self,
        service: &Service,
        watched: &Watched,
        windows: Vec<Arrived>,
        now: Duration,
    ) -> Result<Option<Decision>, sqlx::Error> {
        let endpoint = &watched.endpoint;
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut all = self.running.lock().await;
        let key = key(service, endpoint);
        if !all.contains_key(&key) {
            // Nothing is known, and nothing was measured: nothing is to be said.
            let kept = self.database.engine(service, endpoint).await?;
            if kept.is_none() && windows.is_empty() {
                return Ok(None);
            }
            let running = Running {
                endpoint: endpoint.clone(),
                engine: kept.unwrap_or_else(|| Engine::new(now_ms)),
                last: None,
                kept_at: now,
            };
            all.insert(key.clone(), running);
        }
        let Some(running) = all.get_mut(&key) else {
            return Ok(None);
        };
        let record = running.engine.tick(now_ms, windows, &watched.limits());
        let is_news = running.last.is_none_or(|last| record.is_news_after(&last));
        running.last = Some(record);
        let decision = Decision::new(&record, &running.engine);
        let is_in_force = watched
            .decision
            .as_ref()
            .is_some_and(|it| it.is_as(&decision));
        if is_news {
            self.database.put_record(service, endpoint, &record).await?;
        }
        if !is_in_force || now.saturating_sub(running.kept_at) >= KEPT_EVERY {
            self.database
                .put_engine(service, endpoint, &running.engine)
                .await?;
            running.kept_at = now;
        }
        Ok((is_news || !is_in_force).then_some(decision))
    }

    /// Forgets the engines of all endpoints but these; what was kept of them stays.
    pub(crate) async fn retain(&self, watched: &HashSet<(Service, Endpoint)>) {
        let mut all = self.running.lock().await;
        all.retain(|(service, ..), running| {
            watched.contains(&(service.clone(), running.endpoint.clone()))
        });
    }

    /// What an endpoint was last decided from.
    pub(crate) async fn last(&self, service: &Service, endpoint: &Endpoint) -> Option<Record> {
        let all = self.running.lock().await;
        all.get(&key(service, endpoint))?.last
    }

    /// The decisions of an endpoint until a time, newest first.
    pub(crate) async fn history(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        at: u64,
    ) -> Result<Vec<Record>, sqlx::Error> {
        self.database.records(service, endpoint, at).await
    }

    /// Keeps all states.
    pub(crate) async fn keep(&self) {
        for ((service, ..), running) in self.running.lock().await.iter() {
            let endpoint = &running.endpoint;
            let kept = self
                .database
                .put_engine(service, endpoint, &running.engine)
                .await;
            if let Err(error) = kept {
                tracing::warn!(service = service.as_str(), %endpoint, %error, "what was measured could not be kept");
            }
        }
    }
}

fn key(service: &Service, endpoint: &Endpoint) -> Key {
    (
        service.clone(),
        endpoint.method().as_str().to_owned(),
        shape(endpoint),
    )
}
