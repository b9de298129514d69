//! The right of a load to fill: asked for before it begins, kept while it runs, given back when it ends.

use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, Instant};

use larder_model::{Key, Policy};
use tokio::time::sleep;

use crate::cache::Inner;
use crate::counters::Count;
use crate::departure::Departure;
use crate::flight::{FillRight, Shared};
use crate::form::Form;
use crate::lease::{Acquired, Lease, Released};
use crate::random;
use crate::read::{Asked, Found, Look, Read};
use crate::store::{StoreError, Stored};
use crate::version::{Stamp, VersionName};

/// How long a lease holds that nobody extends: within this time a load that died is replaced.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// So often the lease of a load that runs is extended.
const EXTEND_EVERY: Duration = Duration::from_millis(600);
/// A wait for a lease is longer than the lease has left by a random part of this: those who wait don't ask all at once.
const SPREAD: Duration = Duration::from_millis(20);
/// Where a store can't say when a lease ends, it is asked again so often.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// What a load may do.
pub(crate) enum Clearance<V> {
    /// There is nothing to load: another load filled. With what is to be given back.
    Found(Found<V>, Option<Hold>),
    /// It is to load.
    Load(Hold),
    /// It was not asked for by anybody who waits, and there is no need for it.
    Nothing,
}

/// What a load holds while it runs.
pub(crate) struct Hold {
    held: Held,
    /// What the entry will depend on, as it was before the load began; `None` if that could not be told.
    stamps: Option<Vec<Stamp>>,
}

enum Held {
    /// The lease: it may fill, if that still holds then.
    Lease(Lease, FillRight),
    /// Nothing, and the store can't be asked: nothing can be known to be invalidated.
    Unreachable,
    /// Nothing, for another reason: it fills nothing, and is not shared with those who came after it began.
    Nothing,
}

impl Hold {
    /// No lease; whether the store can't be asked.
    pub(crate) fn nothing(is_unreachable: bool) -> Self {
        let held = match is_unreachable {
            true => Held::Unreachable,
            false => Held::Nothing,
        };
        Self { held, stamps: None }
    }

    pub(crate) fn of(lease: Lease, right: &FillRight, stamps: Option<Vec<Stamp>>) -> Self {
        Self {
            held: Held::Lease(lease, right.clone()),
            stamps,
        }
    }

    /// The lease, if there is one that is not known to have ended.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        match &self.held {
            Held::Lease(lease, right) => Some(lease).filter(|_| right.holds()),
            Held::Unreachable | Held::Nothing => None,
        }
    }

    /// Whether there was a lease, and it is known to have ended.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(&self.held, Held::Lease(_, right) if !right.holds())
    }

    /// What the entry depends on, if all of it was told that a policy, which may have changed since, wants.
    pub(crate) fn stamps(&self, policy: &Policy) -> Option<Vec<Stamp>> {
        let stamps = self.stamps.as_ref()?;
        let is_stamped = |tag| {
            let is_it = |stamp: &Stamp| matches!(&stamp.name, VersionName::Tag(own) if own == tag);
            stamps.iter().any(is_it)
        };
        let has_service = stamps
            .iter()
            .any(|stamp| stamp.name == VersionName::Service);
        let is_whole = has_service && policy.tags().iter().all(is_stamped);
        is_whole.then(|| stamps.clone())
    }

    /// What the value depends on; none where the store can't be asked, and `None` where it could not be told.
    pub(crate) fn depends_on(&self) -> Option<Vec<Stamp>> {
        match self.held {
            Held::Unreachable => Some(Vec::new()),
            Held::Lease(..) | Held::Nothing => self.stamps.clone(),
        }
    }

    /// Gives the lease back, and says with whom the value may be shared: if it still held, nothing was invalidated until then.
    pub(crate) async fn release(&self, inner: &Inner, released: Released) -> Shared {
        match &self.held {
            Held::Unreachable => Shared::Recent,
            Held::Nothing => Shared::Early,
            Held::Lease(lease, _) => {
                let leases = std::slice::from_ref(lease);
                match inner.store.release(leases, released).await {
                    Ok(held) if held.first() == Some(&true) => Shared::All,
                    Ok(_) => Shared::Early,
                    Err(error) => {
                        inner.note_error(&error);
                        match is_unreachable(&error) {
                            true => Shared::Recent,
                            false => Shared::Early,
                        }
                    }
                }
            }
        }
    }

    /// Runs a load, and keeps the lease meanwhile.
    pub(crate) async fn while_held<T>(&self, inner: &Inner, load: impl Future<Output = T>) -> T {
        while_held(inner, &[self], load).await
    }
}

/// Runs a load of several keys, and keeps their leases meanwhile.
pub(crate) async fn while_held<T>(
    inner: &Inner,
    holds: &[&Hold],
    load: impl Future<Output = T>,
) -> T {
    tokio::select! {
        biased;
        made = load => made,
        never = keep(inner, holds) => match never {},
    }
}

/// Extends leases until it is dropped.
async fn keep(inner: &Inner, holds: &[&Hold]) -> Infallible {
    loop {
        sleep(EXTEND_EVERY).await;
        let living = holds.iter().filter(|hold| hold.lease().is_some());
        let living: Vec<&&Hold> = living.collect();
        let leases: Vec<Lease> = living
            .iter()
            .filter_map(|hold| hold.lease().cloned())
            .collect();
        if leases.is_empty() {
            return std::future::pending().await;
        }
        match inner.store.extend(&leases, LEASE).await {
            Ok(held) => {
                for (hold, held) in living.iter().zip(held) {
                    // It ended; it is never taken again for the same load.
                    if let (false, Held::Lease(_, right)) = (held, &hold.held) {
                        right.end();
                    }
                }
            }
            // Whether it holds yet, the fill will show.
            Err(error) => inner.note_error(&error),
        }
    }
}

/// Whether an error says that nothing can be learned from the store at all.
pub(crate) fn is_unreachable(error: &StoreError) -> bool {
    matches!(error, StoreError::Away(_) | StoreError::Disabled(_))
}

impl Departure {
    /// Asks for the right to fill, and waits while another process loads; for no longer than a load may take.
    pub(crate) async fn clear<M: Form>(&self) -> Clearance<M::Value> {
        let inner = &*self.inner;
        let policy = inner.governor.policy(&self.key);
        let until = Instant::now() + policy.load_timeout();
        loop {
            // The store is not asked, but others may reach it, and invalidate while this loads.
            if inner.outbox.hides(&self.key) {
                return Clearance::Load(Hold::nothing(false));
            }
            self.flight.begin(Instant::now());
            let asked = inner.asked();
            let keys = std::slice::from_ref(&self.key);
            let acquire = inner.store.acquire(keys, LEASE);
            let (acquired, stamps) = tokio::join!(acquire, inner.stamps(&self.key, &policy));
            let acquired = match acquired.map(|mut acquired| acquired.pop()) {
                Ok(Some(acquired)) => acquired,
                Ok(None) => return Clearance::Load(Hold::nothing(false)),
                Err(error) => {
                    inner.note_error(&error);
                    return Clearance::Load(Hold::nothing(is_unreachable(&error)));
                }
            };
            match acquired {
                Acquired::Granted { lease, found } => {
                    let hold = Hold::of(lease, self.flight.right(), stamps);
                    return match self.usable::<M>(found, asked).await {
                        Some(found) => Clearance::Found(found, Some(hold)),
                        None => Clearance::Load(hold),
                    };
                }
                Acquired::Uncached { found } => {
                    return match self.usable::<M>(found, asked).await {
                        Some(found) => Clearance::Found(found, None),
                        None if self.is_in_background() => Clearance::Nothing,
                        None => Clearance::Load(Hold::nothing(false)),
                    };
                }
                Acquired::Held { left, proof, found } => {
                    if let Some(found) = self.usable::<M>(found, asked).await {
                        return Clearance::Found(found, None);
                    }
                    let rest = until.saturating_duration_since(Instant::now());
                    if rest.is_zero() {
                        return match self.is_in_background() {
                            true => Clearance::Nothing,
                            false => Clearance::Load(Hold::nothing(false)),
                        };
                    }
                    inner.counters.add(Count::LeaseWaits);
                    let most = rest.min(left + SPREAD.mul_f64(random::chance()));
                    match proof {
                        Some(proof) => {
                            let _ = inner.store.changed(proof, most).await;
                        }
                        None => sleep(most.min(ASK_EVERY)).await,
                    }
                }
            }
        }
    }

    /// What was found beside a lease, if there is nothing more to load then.
    async fn usable<M: Form>(
        &self,
        found: Option<Stored>,
        asked: Asked,
    ) -> Option<Found<M::Value>> {
        let inner = &*self.inner;
        let gate = inner.governor.gate(&self.key);
        if !gate.cache_enabled {
            return None;
        }
        let look: Look<M::Value> = inner
            .judge::<M>(&self.key, gate, Read::again(found?, asked))
            .await;
        look.fresh().filter(|found| self.is_done_by(found))
    }
}

/// Many loads, sorted by who is to do them.
pub(crate) struct Many {
    /// This process, with the right of each to fill.
    pub(crate) own: Vec<(Departure, Hold)>,
    /// Another one, which has the lease.
    pub(crate) held: Vec<Departure>,
}

/// Asks for the rights of many loads to fill, at once. Those that another load has filled since land.
pub(crate) async fn clear_many<M: Form>(inner: &Inner, departures: Vec<Departure>) -> Many {
    let mut many = Many {
        own: Vec::with_capacity(departures.len()),
        held: Vec::new(),
    };
    let is_hidden = |departure: &Departure| inner.outbox.hides(&departure.key);
    let (hidden, departures): (Vec<_>, Vec<_>) = departures.into_iter().partition(is_hidden);
    many.own.extend(
        hidden
            .into_iter()
            .map(|departure| (departure, Hold::nothing(false))),
    );
    if departures.is_empty() {
        return many;
    }
    let (began, asked) = (Instant::now(), inner.asked());
    let keys: Vec<Key> = departures.iter().map(|one| one.key.clone()).collect();
    let stamps = keys.iter().map(|key| async move {
        let policy = inner.governor.policy(key);
        inner.stamps(key, &policy).await
    });
    let stamps = futures_util::future::join_all(stamps);
    let (acquired, stamps) = tokio::join!(inner.store.acquire(&keys, LEASE), stamps);
    let acquired = match acquired {
        Ok(acquired) => acquired,
        Err(error) => {
            inner.note_error(&error);
            let hold = || Hold::nothing(is_unreachable(&error));
            many.own
                .extend(departures.into_iter().map(|departure| (departure, hold())));
            return many;
        }
    };
    for ((departure, acquired), stamps) in departures.into_iter().zip(acquired).zip(stamps) {
        departure.flight.begin(began);
        let (hold, found) = match acquired {
            Acquired::Granted { lease, found } => {
                let hold = Hold::of(lease, departure.flight.right(), stamps);
                (Some(hold), found)
            }
            Acquired::Uncached { found } => (Some(Hold::nothing(false)), found),
            Acquired::Held { found, .. } => (None, found),
        };
        match (departure.usable::<M>(found, asked).await, hold) {
            (Some(found), hold) => {
                departure.land_found::<M>(found);
                if let Some(hold) = hold {
                    hold.release(inner, Released::Failed).await;
                }
            }
            (None, Some(hold)) => many.own.push((departure, hold)),
            (None, None) => many.held.push(departure),
        }
    }
    many
}

impl Inner {
    /// What an entry of this key will depend on, as it is now; `None` if the store can't tell.
    pub(crate) async fn stamps(&self, key: &Key, policy: &Policy) -> Option<Vec<Stamp>> {
        if !policy.is_framed() && !self.frames.is_sealing() {
            return Some(Vec::new());
        }
        let names = self.depends_on(key, policy);
        let service = self.service_of(key);
        if names
            .iter()
            .any(|name| self.outbox.hides_version(&service, name))
        {
            return None;
        }
        match self.versions(&service, &names).await {
            Ok(told) => {
                let stamps = names.into_iter().zip(told);
                let stamps = stamps.map(|(name, told)| Stamp {
                    name,
                    version: told.version,
                });
                Some(stamps.collect())
            }
            Err(error) => {
                self.note_error(&error);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::{Boarding, Flights};

    #[test]
    fn who_joined_late_has_no_part_in_what_nobody_vouches_for() {
        let (flights, key) = (Flights::new(), Key::new("svc", "/a").unwrap());
        let Boarding::Pilot(flight) = flights.board(&key) else {
            panic!("nobody else loads");
        };
        let began = Instant::now();
        let ages = [0, 1, 1_999, 2_001].map(Duration::from_millis);
        let shares = |shared| ages.map(|age| flight.is_for(shared, began + age));
        assert_eq!(shares(Shared::Recent), [false; 4], "it has not begun");
        flight.begin(began);
        assert_eq!(shares(Shared::All), [true; 4]);
        assert_eq!(shares(Shared::Recent), [true, true, true, false]);
        assert_eq!(shares(Shared::Early), [true, false, false, false]);
    }
}
