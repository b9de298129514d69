//! The engines of all endpoints in mode `auto` or `shadow`, by service: ticked, and kept each minute.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use larder_decide::{Arrived, Code, Engine, Limits, Record};
use larder_model::{Endpoint, Mode, Policy, PolicyPatch, Service};
use tokio::sync::Mutex;

use crate::database::{Database, shape};
use crate::decision::Decision;

/// States are kept this often.
const KEPT_EVERY: Duration = Duration::from_secs(60);
/// A reason that is another, where what is decided is not, is said no more often than this, in seconds.
const REASONS_EVERY: f64 = 60.0;

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
        Limits {
            min_ttl: policy.min_ttl().as_secs_f64(),
            max_ttl: policy.max_ttl().as_secs_f64(),
            budget: policy.staleness_budget(),
            is_applied: policy.mode() == Mode::Auto,
        }
    }
}

struct Running {
    endpoint: Endpoint,
    engine: Engine,
    /// What it was last decided from.
    last: Option<Record>,
    /// The latest record that was news, and is kept.
    said: Option<Record>,
    /// Whether what it decided was in force: where nothing is any more, its policy was removed meanwhile.
    was_in_force: bool,
    kept_at: Duration,
}

impl Running {
    /// Whether a record is worth keeping: another decision is at once; another reason if it lasts, and not again and again.
    fn is_news(&self, record: &Record) -> bool {
        let Some(said) = &self.said else {
            return true;
        };
        let since = (record.figures.now - said.figures.now).abs();
        let is_due = since >= REASONS_EVERY || said.code == Code::Learning;
        let lasts = self.last.is_some_and(|last| last.code == record.code);
        !record.decides_as(said) || (record.code != said.code && lasts && is_due)
    }
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
        let mut all = self.running.lock().await;
        let key = key(service, endpoint);
        let is_over = |running: &Running| running.was_in_force && watched.decision.is_none();
        if all.get(&key).is_some_and(is_over) {
            all.remove(&key);
        }
        let running = match all.entry(key) {
            Entry::Occupied(running) => running.into_mut(),
            Entry::Vacant(place) => {
                let begun = self.begin(service, watched, !windows.is_empty(), now);
                let Some(begun) = begun.await? else {
                    return Ok(None);
                };
                place.insert(begun)
            }
        };
        let record = running.engine.tick(millis(now), windows, &watched.limits());
        let is_news = running.is_news(&record);
        running.last = Some(record);
        running.was_in_force |= watched.decision.is_some();
        let in_force = watched.decision.as_ref();
        let decision = Decision::new(&record, &running.engine, in_force);
        let is_in_force = in_force.is_some_and(|it| it.is_as(&decision));
        if is_news {
            self.database.put_record(service, endpoint, &record).await?;
            running.said = Some(record);
        }
        if !is_in_force || now.saturating_sub(running.kept_at) >= KEPT_EVERY {
            self.database
                .put_engine(service, endpoint, &running.engine)
                .await?;
            running.kept_at = now;
        }
        Ok((is_news || !is_in_force).then_some(decision))
    }

    /// An endpoint's engine, with what was kept of it; where that is lost, it goes on from what is in force. `None` where nothing
    /// is known, and nothing was measured: nothing is to be said then.
    async fn begin(
        &self,
        service: &Service,
        watched: &Watched,
        was_measured: bool,
        now: Duration,
    ) -> Result<Option<Running>, sqlx::Error> {
        let (endpoint, in_force) = (&watched.endpoint, &watched.decision);
        let kept = match in_force {
            Some(_) => self.database.engine(service, endpoint).await?,
            // Left behind by a policy that was removed.
            None => None,
        };
        if kept.is_none() && !was_measured {
            return Ok(None);
        }
        let engine = match (kept, in_force) {
            (Some(engine), _) => engine,
            (None, Some(decision)) => {
                Engine::resume(millis(now), decision.standing(&watched.limits()))
            }
            (None, None) => Engine::new(millis(now)),
        };
        let said = self
            .database
            .records(service, endpoint, u64::MAX, 1)
            .await?;
        Ok(Some(Running {
            endpoint: endpoint.clone(),
            engine,
            last: None,
            said: said.into_iter().next(),
            was_in_force: in_force.is_some(),
            kept_at: now,
        }))
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

    /// The latest decisions of an endpoint until a time, so many at the most, newest first.
    pub(crate) async fn history(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        at: u64,
        most: u32,
    ) -> Result<Vec<Record>, sqlx::Error> {
        self.database.records(service, endpoint, at, most).await
    }

    /// Removes what policies left behind that are not there any more.
    pub(crate) async fn forget_left_behind(&self) {
        if let Err(error) = self.database.forget_left_behind().await {
            tracing::warn!(%error, "what removed policies left behind could not be removed");
        }
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

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn key(service: &Service, endpoint: &Endpoint) -> Key {
    (
        service.clone(),
        endpoint.method().as_str().to_owned(),
        shape(endpoint),
    )
}

#[cfg(test)]
mod tests;
