//! Lookups that load what is missing: once per key in this process, for all who ask at the same time.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_model::{Key, Outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Answer, Cache, Inner, LoadError};
use crate::counters::Count;
use crate::departure::{Departure, call, load_one, spawn};
use crate::flight::{Boarding, Flight, Landing, Seen};
use crate::form::{Form, Optional, Text, Typed};
use crate::governor::{Event, Gate};
use crate::json::Json;
use crate::store::{Stored, Ttl};

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
        Lookup::<Typed<T>>::of(&self.inner, key).run(loader).await
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
        Lookup::<Optional<T>>::of(&self.inner, key)
            .run(loader)
            .await
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
        Lookup::<Text<V>>::of(&self.inner, key).run(loader).await
    }
}

/// One lookup of one key.
pub(crate) struct Lookup<'a, M: Form> {
    inner: &'a Arc<Inner>,
    key: &'a Key,
    form: PhantomData<M>,
}

impl<'a, M: Form> Lookup<'a, M> {
    pub(crate) fn of(inner: &'a Arc<Inner>, key: &'a Key) -> Self {
        Self {
            inner,
            key,
            form: PhantomData,
        }
    }

    async fn run<E, F, L>(self, loader: F) -> Result<Answer<M::Value>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<M::Made, E>> + Send + 'static,
    {
        let inner = self.inner;
        let gate = inner.governor.gate(self.key);
        if !gate.cache_enabled {
            inner.counters.add(Count::Bypasses);
            return self.load_alone(Outcome::Bypass, loader).await;
        }
        let seen = inner.flights.seen(self.key);
        if let Some(answer) = self.find(gate).await {
            return Ok(answer);
        }
        inner.counters.add(Count::Misses);
        self.board(seen, loader).await
    }

    /// The value, if the store has it.
    async fn find(&self, gate: Gate) -> Option<Answer<M::Value>> {
        let inner = self.inner;
        let (value, bytes) = inner.find::<M>(self.key, gate).await?;
        inner.counters.add(Count::Hits);
        inner.report(self.key, Event::of(Outcome::Hit, bytes));
        Some(Answer {
            value,
            outcome: Outcome::Hit,
        })
    }

    async fn board<E, F, L>(self, seen: Seen, loader: F) -> Result<Answer<M::Value>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<M::Made, E>> + Send + 'static,
    {
        let inner = self.inner;
        match inner.flights.board(self.key, seen) {
            Boarding::Pilot {
                flight,
                landed_since,
            } => {
                let departure = Departure::new(inner, self.key, &flight, landed_since);
                spawn(load_one::<M, E, _, _>(departure, loader)).await;
                let landing = flight.wait().await;
                self.arrive(&flight, &landing)
            }
            Boarding::Passenger(flight) => {
                inner.counters.add(Count::Joined);
                let landing = flight.wait().await;
                match self.read(&landing) {
                    // Another type under the same key, or its runtime ended: this one's own loader can do it.
                    Err(LoadError::OtherType | LoadError::Abandoned) => {
                        self.load_alone(Outcome::Miss, loader).await
                    }
                    value => self.settle(&flight, &landing, value),
                }
            }
            Boarding::Full => self.load_alone(Outcome::Miss, loader).await,
        }
    }

    /// What a landing means to this caller.
    fn read<E: Send + Sync + 'static>(&self, landing: &Landing) -> Result<M::Value, LoadError<E>> {
        match landing {
            Landing::Value { value, json } => {
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
            Landing::Abandoned => Err(LoadError::Abandoned),
        }
    }

    /// This caller's answer from a load that landed, reported.
    pub(crate) fn arrive<E: Send + Sync + 'static>(
        &self,
        flight: &Flight,
        landing: &Landing,
    ) -> Result<Answer<M::Value>, LoadError<E>> {
        self.settle(flight, landing, self.read(landing))
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
            Ok((_, Some(json))) => json.len() as u64,
            _ => 0,
        };
        let event = Event {
            outcome,
            latency: Some(load),
            is_error: value.is_err(),
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

impl Inner {
    /// The value of an entry that the policy lets live, with its size in bytes.
    pub(crate) async fn find<M: Form>(&self, key: &Key, gate: Gate) -> Option<(M::Value, u64)> {
        let stored = self.read(key, M::longest(gate)?).await?;
        self.accept::<M>(key, gate, stored).await
    }

    /// The value of an entry that was read for this form, if the policy lets it live, with its size in bytes.
    pub(crate) async fn accept<M: Form>(
        &self,
        key: &Key,
        gate: Gate,
        stored: Stored,
    ) -> Option<(M::Value, u64)> {
        let (longest, left) = (M::longest(gate)?, stored.ttl);
        let read = |stored| M::read(self, stored);
        let (value, bytes) = self.decode(Some(stored), read)?;
        let ttl = M::ttl(&value, gate)?;
        if outlives(left, longest, ttl) {
            // A read cuts.
            self.read(key, ttl).await;
        }
        Some((value, bytes))
    }
}

/// Whether an entry that was read with `longest`, and has `left` to live if that was told, may live longer than `ttl`.
pub(crate) fn outlives(left: Option<Duration>, longest: Ttl, ttl: Ttl) -> bool {
    longest > ttl && left.is_none_or(|left| left > ttl.get())
}

fn just_loaded(json: Bytes) -> Stored {
    Stored {
        bytes: json,
        ttl: None,
        foreign: false,
        incarnation: 0,
        proof: None,
    }
}
