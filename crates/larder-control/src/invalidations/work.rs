//! An invalidation, done: in the trail, in the store, told to those who follow the service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Cache, Invalidated, Service, Target};
use larder_model::api::{Invalidation, InvalidationState, StoreOutcome, StoreState};

use super::entry;
use super::record::{Record, outcome};
use crate::cause::Cause;
use crate::plane::Plane;
use crate::registry::ChangeError;
use crate::shared_store::SharedStore;

/// Those who follow a service wait no longer for the store to be told; then they tell it themselves.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// Who waits looks again so often at the least: what the store could not be told is told behind our back.
const LOOK: Duration = Duration::from_millis(200);
/// And no more often.
const PAUSE: Duration = Duration::from_millis(20);
/// A cache that can't be opened is tried again after the first of these times, then less and less often, up to the other.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is to be invalidated, by whom.
pub(crate) struct Asked {
    pub(crate) service: Service,
    pub(crate) target: Target,
    pub(crate) id: String,
    pub(crate) cause: Cause,
}

/// Why an invalidation is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDone {
    #[error("an invalidation of this id names something else: use another id, or leave it out")]
    OtherId,
    #[error(
        "of this service as many invalidations were done within a minute as may be: wait for one, or name more at once"
    )]
    TooOften,
    #[error("there are 1,000 services with invalidations, the most that may be")]
    Full,
    #[error(
        "the database did not take the entry of the audit trail, and nothing was invalidated: try again, or tell the store itself by `larder clear`"
    )]
    Trail(ChangeError),
    #[error(
        "the database did not say whether it took the entry of the audit trail, so this may be invalidated or not: send it again with the id {id}, under which it is done once; GET /api/audit shows what was written"
    )]
    Unsure { id: String, error: ChangeError },
}

impl NotDone {
    fn of(error: ChangeError, id: &str) -> Self {
        match error {
            ChangeError::Unsure(_) => Self::Unsure {
                id: id.to_owned(),
                error,
            },
            error => Self::Trail(error),
        }
    }
}

/// Does it, unless it was done before.
pub(crate) async fn invalidate(plane: &Arc<Plane>, asked: Asked) -> Result<Arc<Record>, NotDone> {
    let all = &plane.invalidations;
    let turn = all.turn.lock().await;
    // Another replica may have done it under this name.
    if let Err(error) = all.catch_up().await {
        tracing::debug!(%error, "what other replicas invalidated is heard of later");
    }
    if let Some(record) = all.find(&asked.id) {
        let is_same = record.service == asked.service && record.target == asked.target;
        return is_same.then_some(record).ok_or(NotDone::OtherId);
    }
    if !all.has_room_for(&asked.service) {
        return Err(NotDone::Full);
    }
    if !all.done.take(&asked.service, Instant::now()) {
        return Err(NotDone::TooOften);
    }
    let Asked {
        service,
        target,
        id,
        cause,
    } = asked;
    let noted = entry(&service, &target, &id, &cause);
    let mut made = None;
    plane
        .registry
        .note(noted, |sequence| {
            let named = (service.clone(), target.clone());
            let (author, reason) = (cause.author.clone(), cause.reason.clone());
            let record = Arc::new(Record::new(sequence, id.clone(), named, author, reason));
            all.keep(Arc::clone(&record));
            made = Some(record);
        })
        .await
        .map_err(|error| NotDone::of(error, &id))?;
    drop(turn);
    // It was called: else there were an error.
    let record = made.ok_or(NotDone::Full)?;
    plane.metrics.invalidations.inc();
    tracing::info!(
        service = record.service.as_str(),
        what = record.target.what().as_str(),
        name = record.target.name().unwrap_or_default(),
        id = %record.id,
        "invalidated"
    );
    // What others wrote before it comes before it here, too.
    if let Err(error) = all.catch_up().await {
        tracing::debug!(%error, "what other replicas invalidated is heard of later");
    }
    tokio::spawn(tell(Arc::clone(plane), Arc::clone(&record)));
    Ok(record)
}

/// Tells the store, then those who follow the service.
async fn tell(plane: Arc<Plane>, record: Arc<Record>) {
    let all = &plane.invalidations;
    let Some(shared) = &plane.store else {
        record.set_store(outcome(StoreState::None, None));
        all.tell(&record, None);
        all.poke();
        return;
    };
    let telling = tell_store(&plane, shared, &record);
    tokio::pin!(telling);
    if tokio::time::timeout(TOLD_WITHIN, &mut telling)
        .await
        .is_err()
    {
        all.tell(&record, None);
        telling.await;
    }
    all.poke();
    plane.live.poke();
}

async fn tell_store(plane: &Plane, shared: &SharedStore, record: &Record) {
    let all = &plane.invalidations;
    record.set_store(outcome(StoreState::Running, Some(shared.name())));
    let Some(cache) = open_cache(plane, shared, record).await else {
        return;
    };
    let invalidated = cache.invalidate(&record.target).await;
    if let Invalidated::Sweeping(_) = invalidated {
        record.set_store(outcome(StoreState::Sweeping, Some(shared.name())));
        all.poke();
    }
    // Not before: if this process ends while plain entries are removed, who follows the service does it.
    let invalidated = invalidated.swept().await;
    let done_in = match invalidated.is_done() {
        true => cache.store_mark(shared.id()).await.ok().flatten(),
        false => None,
    };
    all.tell(record, done_in);
    all.poke();
    let (state, entries, why) = match invalidated {
        Invalidated::Pending { kept, why } => {
            let why = match kept {
                larder_core::Kept::Pending => why.to_string(),
                larder_core::Kept::PendingVolatile(reason) => {
                    format!("{why}; kept in memory alone: {reason}")
                }
            };
            (StoreState::Pending, None, Some(why))
        }
        done => (StoreState::Done, entries(&record.target, &done), None),
    };
    record.set_store(StoreOutcome {
        entries,
        why,
        ..outcome(state, Some(shared.name()))
    });
    // Behind that: what settles it must not be written over.
    record.set_in_outbox(state == StoreState::Pending);
}

/// The cache of its service: tried again and again, until so many came behind the record that it is not kept any more. Those who
/// follow the service do not wait for that.
async fn open_cache(plane: &Plane, shared: &SharedStore, record: &Record) -> Option<Cache> {
    let all = &plane.invalidations;
    let (mut wait, most) = AGAIN;
    loop {
        let why = match shared.cache(&record.service).await {
            Ok(cache) => return Some(cache),
            Err(why) => why,
        };
        if !all.keeps(record) {
            let id = &record.id;
            tracing::warn!(%id, %why, "the store was not told of an invalidation: the instances tell it");
            return None;
        }
        let seconds = most.as_secs();
        let why =
            format!("no cache can be opened over it here: {why}; tried again within {seconds} s");
        record.set_store(StoreOutcome {
            why: Some(why),
            ..outcome(StoreState::Pending, Some(shared.name()))
        });
        all.tell(record, None);
        all.poke();
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(most);
    }
}

/// How many were removed. What a tag names is dead where it lies.
fn entries(target: &Target, done: &Invalidated) -> Option<u64> {
    (!matches!(target, Target::Tag(_))).then(|| done.entries())
}

/// How far it is, once all is done or this time is over.
pub(crate) async fn outcome_within(plane: &Plane, record: &Record, most: Duration) -> Invalidation {
    let began = Instant::now();
    let mut changes = plane.invalidations.changes();
    loop {
        changes.mark_unchanged();
        let now = record.describe(plane);
        let left = most.saturating_sub(began.elapsed());
        if now.state == InvalidationState::Done || left.is_zero() {
            return now;
        }
        // Either is a reason to look again.
        let _ = tokio::time::timeout(left.min(LOOK), changes.changed()).await;
        tokio::time::sleep(PAUSE.min(left)).await;
    }
}
