//! One invalidation: what it names, who wants it, how far it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use larder_core::{Service, Target};
use larder_model::api::{Named, StoreOutcome, StoreState, ToldInvalidation};

use super::position;
use crate::audit::Row;
use crate::cause::Author;

/// One invalidation.
pub(crate) struct Record {
    /// Its number in the trail.
    pub(crate) sequence: u64,
    pub(crate) id: String,
    pub(crate) service: Service,
    pub(crate) target: Target,
    pub(crate) at_seconds: u64,
    pub(crate) author: Author,
    pub(crate) reason: String,
    /// How it is told to those who follow the service, once it may be.
    told: OnceLock<(ToldInvalidation, Bytes)>,
    store: Mutex<StoreOutcome>,
    /// Whether it waits in the outbox of the service's cache here.
    in_outbox: AtomicBool,
}

/// What the trail has of one beside what every entry has.
#[derive(serde::Deserialize)]
struct Noted {
    id: String,
    what: Named,
    name: Option<String>,
}

impl Record {
    pub(crate) fn new(
        sequence: u64,
        id: String,
        (service, target): (Service, Target),
        author: Author,
        reason: String,
    ) -> Self {
        Self {
            sequence,
            id,
            service,
            target,
            at_seconds: crate::auto::now().as_secs(),
            author,
            reason,
            told: OnceLock::new(),
            store: Mutex::new(outcome(StoreState::Running, None)),
            in_outbox: AtomicBool::new(false),
        }
    }

    /// One that an earlier life of the control plane made; `None` if its entry can't be read.
    pub(super) fn of_trail(row: &Row) -> Option<Self> {
        let service = Service::new(row.service.as_deref()?).ok()?;
        let noted: Noted = serde_json::from_str(row.after.as_deref()?).ok()?;
        let target = Target::read(&service, noted.what, noted.name.as_deref()).ok()?;
        let author = Author {
            name: row.actor.clone(),
            is_verified: row.actor_verified,
        };
        let record = Self::new(
            row.sequence,
            noted.id,
            (service, target),
            author,
            row.reason.clone(),
        );
        record.set_store(outcome(StoreState::Unknown, None));
        Some(Self {
            at_seconds: row.at_seconds,
            ..record
        })
    }

    /// From now on it may be told: with the store that was told already, if one was. `false` if it was said before.
    pub(super) fn tell(&self, database_id: &str, done_in: Option<String>) -> bool {
        let told = ToldInvalidation {
            what: self.target.what(),
            name: self.target.name().map(str::to_owned),
            done_in,
        };
        let position = position(database_id, self.sequence);
        let event = crate::streams::invalidate(&position, &crate::json::bytes(&told));
        self.told.set((told, event)).is_ok()
    }

    pub(super) fn is_told(&self) -> bool {
        self.told.get().is_some()
    }

    /// As those who follow the service hear of it.
    pub(super) fn event(&self) -> Bytes {
        self.told
            .get()
            .map(|(_, event)| event.clone())
            .unwrap_or_default()
    }

    /// The same, as a document.
    pub(super) fn told(&self) -> Option<ToldInvalidation> {
        self.told.get().map(|(told, _)| told.clone())
    }

    pub(crate) fn store(&self) -> StoreOutcome {
        self.locked().clone()
    }

    pub(super) fn set_store(&self, outcome: StoreOutcome) {
        *self.locked() = outcome;
    }

    pub(super) fn is_in_outbox(&self) -> bool {
        self.in_outbox.load(Ordering::Acquire)
    }

    pub(super) fn set_in_outbox(&self, is_in: bool) {
        self.in_outbox.store(is_in, Ordering::Release);
    }

    fn locked(&self) -> MutexGuard<'_, StoreOutcome> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An outcome of which nothing else is known.
pub(super) fn outcome(state: StoreState, name: Option<String>) -> StoreOutcome {
    StoreOutcome {
        name,
        state,
        entries: None,
        why: None,
    }
}
