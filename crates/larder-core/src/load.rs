//! Lookups that load what is missing: once per key in this process, for all who ask at the same time.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_model::{Key, Outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::answer::{Answer, LoadError};
use crate::cache::{Cache, Inner};
use crate::counters::Count;
use crate::departure::{Background, Departure, call, load_one, spawn};
use crate::flight::{Boarding, Flight, Landing};
use crate::form::{Form, Optional, Text, Typed, Undecoded};
use crate::frame::Freshness;
use crate::governor::{Event, Gate};
use crate::json::Json;
use crate::random;
use crate::raw::Raw;
use crate::read::{Found, Look};
use crate::spans;

impl Cache {
    /// The value under a key; loaded, and stored as the policy in force says, if there is none.
    ///
    /// All who ask for the same key at the same time share one load. It does not belong to the one who began it: if
    /// that one goes away, the others still get the value. Needs a Tokio runtime.
    ///
    /// # Errors
    /// A [`LoadError`]: the loader's own error, or why it gave no answer. The store never is the reason.
    pub async fn get_or_load<T, E, F, L>(
        &self,
        key: &Key,
        loader: F,
    ) -> Result<Answer<T>, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<T, E>> + Send + 'static,
    {
        let lookup = Lookup::<Typed<T>>::of(&self.inner, key).refreshing(self.refreshes);
        spans::lookup(&self.inner, lookup.run(loader)).await
    }

    /// [`Cache::get_or_load`] for what may be absent: `None` is stored for the policy's `negative_ttl`.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get_or_load_optional<T, E, F, L>(
        &self,
        key: &Key,
        loader: F,
    ) -> Result<Answer<Option<T>>, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Option<T>, E>> + Send + 'static,
    {
        let lookup = Lookup::<Optional<T>>::of(&self.inner, key).refreshing(self.refreshes);
        spans::lookup(&self.inner, lookup.run(loader)).await
    }

    /// [`Cache::get_or_load`], but the value comes as the JSON text that is stored, which nobody parses.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`]; [`LoadError::NotJson`] if the value can't be written as JSON.
    pub async fn get_or_load_json<V, E, F, L>(
        &self,
        key: &Key,
        loader: F,
    ) -> Result<Answer<Json>, LoadError<E>>
    where
        V: Serialize + Send + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<V, E>> + Send + 'static,
    {
        let lookup = Lookup::<Text<V>>::of(&self.inner, key).refreshing(self.refreshes);
        spans::lookup(&self.inner, lookup.run(loader)).await
    }
}

/// So often a lookup boards at the most: the second load that it joins begins after it asked.
const MOST_BOARDINGS: usize = 3;

/// What may take the place of a load that fails or is slow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StandIn {
    /// A stale value, if it is still there then.
    Stale,
    Nothing,
}

/// What a wait for a load ended with.
enum Waited<V> {
    Landed(Landing),
    /// It is slow, and a stale value stands in.
    Stale(Answer<V>),
}

/// One lookup of one key.
pub(crate) struct Lookup<'a, M: Form> {
    inner: &'a Arc<Inner>,
    key: &'a Key,
    /// Whether it may load in the background.
    refreshes: bool,
    form: PhantomData<M>,
}

impl<'a, M: Form> Lookup<'a, M> {
    pub(crate) fn of(inner: &'a Arc<Inner>, key: &'a Key) -> Self {
        Self {
            inner,
            key,
            refreshes: true,
            form: PhantomData,
        }
    }

    pub(crate) fn refreshing(mut self, refreshes: bool) -> Self {
        self.refreshes = refreshes;
        self
    }

    /// What a hit does not need is boxed: its future is made, moved and dropped at every hit.
    async fn run<E, F, L>(self, loader: F) -> Result<Answer<M::Value>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<M::Made, E>> + Send + 'static,
    {
        let inner = self.inner;
        let gate = inner.governor.gate(self.key);
        if gate.is_watched {
            inner.governor.note_lookup(self.key);
        }
        if !gate.cache_enabled {
            inner.counters.add(Count::Bypasses);
            return Box::pin(self.load_alone(Outcome::Bypass, loader)).await;
        }
        if let Some(near) = inner.near::<M>(self.key, gate) {
            inner.counters.add(Count::HitsNear);
            if self.is_to_be_checked(gate) {
                self.check(gate, near.left, loader);
            } else if near.is_due_early && self.refreshes {
                self.refresh(near.left, loader);
            }
            return Ok(self.hit(near.value, near.bytes));
        }
        match inner.look::<M>(self.key, gate).await {
            Look::Fresh(found) => {
                if self.is_to_be_checked(gate) {
                    self.check(gate, found.left.unwrap_or_default(), loader);
                } else if found.is_due_early && self.refreshes {
                    self.refresh(found.left.unwrap_or_default(), loader);
                }
                Ok(self.hit(found.value, found.bytes))
            }
            Look::Stale(found, Freshness::StaleWhileRevalidate) if self.refreshes => {
                self.refresh(Duration::ZERO, loader);
                inner.counters.add(Count::StaleWhileRevalidate);
                Ok(self.stale(found))
            }
            Look::Stale(..) => {
                inner.counters.add(Count::Misses);
                Box::pin(self.board(StandIn::Stale, loader)).await
            }
            Look::Nothing => {
                inner.counters.add(Count::Misses);
                Box::pin(self.board(StandIn::Nothing, loader)).await
            }
        }
    }

    pub(crate) fn hit(&self, value: M::Value, bytes: u64) -> Answer<M::Value> {
        self.inner.counters.add(Count::Hits);
        self.inner.report(self.key, Event::of(Outcome::Hit, bytes));
        Answer {
            value,
            outcome: Outcome::Hit,
        }
    }

    pub(crate) fn stale(&self, found: Found<M::Value>) -> Answer<M::Value> {
        let outcome = Outcome::Stale;
        self.inner.counters.add(Count::Stales);
        let bytes = found.bytes;
        self.inner.report(self.key, Event::of(outcome, bytes));
        Answer {
            value: found.value,
            outcome,
        }
    }

    /// Loads in the background what is fresh for so long yet, unless that is under way, or too much is.
    pub(crate) fn refresh<E, F, L>(&self, left: Duration, loader: F)
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<M::Made, E>> + Send + 'static,
    {
        if let Some((runtime, departure)) = self.depart_behind(left) {
            runtime.spawn(load_one::<M, E, _, _>(departure, loader));
        }
    }

    /// Whether chance wants this hit to be checked.
    #[inline]
    fn is_to_be_checked(&self, gate: Gate) -> bool {
        gate.is_watched
            && self.refreshes
            && random::chance() * (f64::from(u32::MAX) + 1.0) < f64::from(gate.check_share)
    }

    /// [`Lookup::refresh`], comparing what comes with the entry as it is now.
    #[cold]
    fn check<E, F, L>(&self, gate: Gate, left: Duration, loader: F)
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<M::Made, E>> + Send + 'static,
    {
        let Some((runtime, departure)) = self.depart_behind(left) else {
            return;
        };
        runtime.spawn(async move {
            let entry = departure
                .inner
                .look::<Undecoded>(&departure.key, gate)
                .await;
            let departure = departure.checking(gate, entry.fresh());
            load_one::<M, E, _, _>(departure, loader).await;
        });
    }

    /// A load in the background, and where it runs; `None` if one is under way, or too much is.
    fn depart_behind(&self, left: Duration) -> Option<(Handle, Departure)> {
        let inner = self.inner;
        let runtime = Handle::try_current().ok()?;
        let Ok(place) = Arc::clone(&inner.background).try_acquire_owned() else {
            inner.counters.add(Count::BackgroundFull);
            return None;
        };
        let Boarding::Pilot(flight) = inner.flights.board(self.key) else {
            return None;
        };
        inner.counters.add(Count::BackgroundLoads);
        let background = Background {
            left,
            checks: None,
            _place: place,
        };
        let departure = Departure::new(inner, self.key, &flight).in_background(background);
        Some((runtime, departure))
    }

    pub(crate) async fn board<E, F, L>(
        self,
        stand_in: StandIn,
        loader: F,
    ) -> Result<Answer<M::Value>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<M::Made, E>> + Send + 'static,
    {
        let inner = self.inner;
        let joined_at = Instant::now();
        // One who waits for a load that he may not share boards once more: that load begins after he asked, or was begun by one
        // who did.
        for _ in 0..MOST_BOARDINGS {
            match inner.flights.board(self.key) {
                Boarding::Pilot(flight) => {
                    let departure = Departure::new(inner, self.key, &flight);
                    spawn(load_one::<M, E, _, _>(departure, loader)).await;
                    return match self.wait(&flight, stand_in).await {
                        Waited::Landed(landing) => self.arrive(&flight, &landing, stand_in).await,
                        Waited::Stale(answer) => Ok(answer),
                    };
                }
                Boarding::Passenger(flight) => {
                    inner.counters.add(Count::Joined);
                    let landing = match self.wait(&flight, stand_in).await {
                        Waited::Landed(landing) => landing,
                        Waited::Stale(answer) => return Ok(answer),
                    };
                    match &landing {
                        Landing::Value { shared, .. } if !flight.is_for(*shared, joined_at) => {
                            inner.counters.add(Count::Unshared);
                            continue;
                        }
                        // A load in the background that was not needed.
                        Landing::Nothing => continue,
                        _ => {}
                    }
                    return match self.read::<E>(&landing) {
                        // Another type under the same key, or its runtime ended: this one's own loader can do it.
                        Err(LoadError::OtherType | LoadError::Abandoned) => {
                            self.load_alone(Outcome::Miss, loader).await
                        }
                        _ => self.arrive(&flight, &landing, stand_in).await,
                    };
                }
                Boarding::Full => break,
            }
        }
        self.load_alone(Outcome::Miss, loader).await
    }

    /// Waits for a load; for no longer than the policy lets it take before a stale value stands in, if there is one.
    async fn wait(&self, flight: &Flight, stand_in: StandIn) -> Waited<M::Value> {
        let soft = match stand_in {
            StandIn::Stale => self.inner.governor.policy(self.key).soft_load_timeout(),
            StandIn::Nothing => Duration::ZERO,
        };
        if soft.is_zero() {
            return Waited::Landed(flight.wait().await);
        }
        if let Ok(landing) = tokio::time::timeout(soft, flight.wait()).await {
            return Waited::Landed(landing);
        }
        match self.stand_in(Count::StaleSlow).await {
            Some(answer) => Waited::Stale(answer),
            None => Waited::Landed(flight.wait().await),
        }
    }

    /// The stale value, read again: it may have been invalidated since this lookup began.
    async fn stand_in(&self, count: Count) -> Option<Answer<M::Value>> {
        let gate = self.inner.governor.gate(self.key);
        match self.inner.look::<M>(self.key, gate).await {
            Look::Fresh(found) => Some(self.hit(found.value, found.bytes)),
            Look::Stale(found, _) => {
                self.inner.counters.add(count);
                Some(self.stale(found))
            }
            Look::Nothing => None,
        }
    }

    /// What a landing means to this caller.
    fn read<E: Send + Sync + 'static>(&self, landing: &Landing) -> Result<M::Value, LoadError<E>> {
        match landing {
            Landing::Value { value, json, .. } => {
                let value = value.downcast_ref::<M::Value>().cloned();
                let from_json = || M::read(self.inner, just_loaded(json.clone()?));
                value.or_else(from_json).ok_or(LoadError::OtherType)
            }
            Landing::Error(error) => Err(Arc::clone(error)
                .downcast::<E>()
                .map_or(LoadError::OtherType, LoadError::Loader)),
            Landing::Panicked(message) => Err(LoadError::Panicked(Arc::clone(message))),
            Landing::TimedOut => Err(LoadError::TimedOut),
            Landing::NotJson(message) => Err(LoadError::NotJson(Arc::clone(message))),
            Landing::Nothing | Landing::Abandoned => Err(LoadError::Abandoned),
        }
    }

    /// This caller's answer from a load that landed, reported; where that failed, a stale value if there is one.
    pub(crate) async fn arrive<E: Send + Sync + 'static>(
        &self,
        flight: &Flight,
        landing: &Landing,
        stand_in: StandIn,
    ) -> Result<Answer<M::Value>, LoadError<E>> {
        let value = self.read(landing);
        let has_failed = matches!(
            value,
            Err(LoadError::Loader(_) | LoadError::Panicked(_) | LoadError::TimedOut)
        );
        if has_failed
            && stand_in == StandIn::Stale
            && let Some(answer) = self.stand_in(Count::StaleIfError).await
        {
            return Ok(answer);
        }
        self.settle(flight, landing, value)
    }

    fn settle<E>(
        &self,
        flight: &Flight,
        landing: &Landing,
        value: Result<M::Value, LoadError<E>>,
    ) -> Result<Answer<M::Value>, LoadError<E>> {
        let outcome = Outcome::Miss;
        let event = Event {
            outcome,
            latency: flight.report_load(),
            is_error: value.is_err(),
            is_client_error: false,
            bytes: landing.bytes(),
        };
        self.inner.report(self.key, event);
        value.map(|value| Answer { value, outcome })
    }

    /// Loads for this caller only, and stores nothing.
    async fn load_alone<E, F, L>(
        self,
        outcome: Outcome,
        loader: F,
    ) -> Result<Answer<M::Value>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<M::Made, E>> + Send + 'static,
    {
        let inner = self.inner;
        let policy = inner.governor.policy(self.key);
        inner.counters.add(Count::Loads);
        let begin = Instant::now();
        let made = call(policy.load_timeout(), loader).await;
        let load = begin.elapsed();
        let value = made.and_then(|made| M::finish(made).map_err(LoadError::NotJson));
        if value.is_err() {
            inner.counters.add(Count::LoadErrors);
        }
        let bytes = match &value {
            Ok((_, Some(json))) => {
                inner.note_answer(self.key, json, None);
                json.len() as u64
            }
            _ => 0,
        };
        let event = Event {
            outcome,
            latency: Some(load),
            is_error: value.is_err(),
            is_client_error: false,
            bytes,
        };
        inner.report(self.key, event);
        value.map(|(value, _)| Answer { value, outcome })
    }
}

impl Landing {
    fn bytes(&self) -> u64 {
        match self {
            Self::Value {
                json: Some(json), ..
            } => json.len() as u64,
            _ => 0,
        }
    }
}

fn just_loaded(json: Bytes) -> Raw {
    Raw {
        bytes: json,
        is_foreign: false,
    }
}
