//! Lookups of many keys at once: one read, one call of the loader for all that is missing.

mod read;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_model::{Key, Outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Answer, Cache, Inner, LoadError};
use crate::counters::Count;
use crate::departure::{Departure, call, spawn};
use crate::flight::{Boarding, Flight, Landing, Seen};
use crate::form::{Form, Optional};
use crate::governor::Event;
use crate::load::Lookup;
use read::{Asked, find_each};

impl Cache {
    /// The values under keys, in their order. All that is missing, and that nobody is loading yet, is loaded by one
    /// call of the loader; what it leaves out of its answer is absent, and stored so for the policy's `negative_ttl`.
    ///
    /// # Errors
    /// A [`LoadError`], if any load that was needed gave no answer.
    pub async fn get_or_load_many<T, E, F, L>(
        &self,
        keys: &[Key],
        loader: F,
    ) -> Result<Vec<Answer<Option<T>>>, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: FnOnce(Vec<Key>) -> L + Send + 'static,
        L: Future<Output = Result<HashMap<Key, T>, E>> + Send + 'static,
    {
        let mut batch = Batch::of(&self.inner, keys.len());
        let missing = batch.find(keys).await;
        let joined = batch.load(missing, loader).await;
        batch.join(joined).await;
        batch.answers_of(keys)
    }
}

/// One lookup of many keys: what is known of them by now.
struct Batch<'a, T, E> {
    inner: &'a Arc<Inner>,
    answers: HashMap<Key, Answer<Option<T>>>,
    /// The first one.
    error: Option<LoadError<E>>,
}

/// What a lookup of many did not find.
#[derive(Default)]
struct Missing {
    /// For these nobody is loading: this lookup does.
    departures: Vec<Departure>,
    /// These are being loaded by others.
    joined: Vec<(Key, Arc<Flight>)>,
    /// These are loaded for this lookup only.
    alone: Vec<(Key, Outcome)>,
}

impl<'a, T, E> Batch<'a, T, E>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    fn of(inner: &'a Arc<Inner>, count: usize) -> Self {
        Self {
            inner,
            answers: HashMap::with_capacity(count),
            error: None,
        }
    }

    /// Takes what the store has. Boards the loads of what it has not.
    async fn find(&mut self, keys: &[Key]) -> Missing {
        let inner = self.inner;
        let mut missing = Missing::default();
        let mut asked = Vec::with_capacity(keys.len());
        for key in unique(keys) {
            let gate = inner.governor.gate(key);
            if gate.cache_enabled {
                let (key, seen) = (key.clone(), inner.flights.seen(key));
                asked.push(Asked { key, gate, seen });
            } else {
                inner.counters.add(Count::Bypasses);
                missing.alone.push((key.clone(), Outcome::Bypass));
            }
        }
        let found = find_each::<T>(inner, &asked).await;
        for (asked, found) in asked.into_iter().zip(found) {
            match found {
                Some((value, bytes)) => self.take_hit(asked.key, value, bytes),
                None => {
                    inner.counters.add(Count::Misses);
                    missing.board(inner, asked.key, asked.seen);
                }
            }
        }
        missing
    }

    fn take_hit(&mut self, key: Key, value: Option<T>, bytes: u64) {
        let outcome = Outcome::Hit;
        self.inner.counters.add(Count::Hits);
        self.inner.report(&key, Event::of(outcome, bytes));
        self.answers.insert(key, Answer { value, outcome });
    }

    /// One call of the loader for what nobody else loads. Hands back what others load: that is waited for later, so
    /// that two lookups can't wait for each other.
    async fn load<F, L>(&mut self, missing: Missing, loader: F) -> Vec<(Key, Arc<Flight>)>
    where
        F: FnOnce(Vec<Key>) -> L + Send + 'static,
        L: Future<Output = Result<HashMap<Key, T>, E>> + Send + 'static,
    {
        let Missing {
            departures,
            joined,
            alone,
        } = missing;
        if departures.is_empty() && alone.is_empty() {
            return joined;
        }
        let own: Vec<(Key, Arc<Flight>)> = departures
            .iter()
            .map(|departure| (departure.key.clone(), Arc::clone(&departure.flight)))
            .collect();
        let (send, receive) = tokio::sync::oneshot::channel();
        let keys = alone.iter().map(|(key, _)| key.clone()).collect();
        let inner = Arc::clone(self.inner);
        spawn(load_many::<T, E, F, L>(
            inner, departures, keys, loader, send,
        ))
        .await;
        let loaded = receive.await.unwrap_or_else(|_| LoadedAlone {
            made: Err(LoadError::Abandoned),
            load: None,
        });
        self.take_loaded(alone, loaded);
        for (key, flight) in own {
            self.arrive(key, &flight).await;
        }
        joined
    }

    fn take_loaded(&mut self, alone: Vec<(Key, Outcome)>, loaded: LoadedAlone<T, E>) {
        let mut made = loaded.made;
        for (key, outcome) in alone {
            let event = Event {
                latency: loaded.load,
                is_error: made.is_err(),
                ..Event::of(outcome, 0)
            };
            self.inner.report(&key, event);
            let value = match &mut made {
                Ok(made) => Ok(made.remove(&key)),
                Err(error) => Err(error.clone()),
            };
            self.take(key, value.map(|value| Answer { value, outcome }));
        }
    }

    /// Waits for what others load. After an error there is nothing to wait for: what is left is reported as a miss that
    /// nobody judged.
    async fn join(&mut self, joined: Vec<(Key, Arc<Flight>)>) {
        for (key, flight) in joined {
            if self.error.is_some() {
                self.inner.report(&key, Event::of(Outcome::Miss, 0));
            } else {
                self.arrive(key, &flight).await;
            }
        }
    }

    async fn arrive(&mut self, key: Key, flight: &Flight) {
        let landing = flight.wait().await;
        let answer = Lookup::<Optional<T>>::of(self.inner, &key).arrive(flight, &landing);
        self.take(key, answer);
    }

    fn take(&mut self, key: Key, answer: Result<Answer<Option<T>>, LoadError<E>>) {
        match answer {
            Ok(answer) => {
                self.answers.insert(key, answer);
            }
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    fn answers_of(self, keys: &[Key]) -> Result<Vec<Answer<Option<T>>>, LoadError<E>> {
        if let Some(error) = self.error {
            return Err(error);
        }
        keys.iter()
            .map(|key| self.answers.get(key).cloned().ok_or(LoadError::Abandoned))
            .collect()
    }
}

impl Missing {
    fn board(&mut self, inner: &Arc<Inner>, key: Key, seen: Seen) {
        match inner.flights.board(&key, seen) {
            Boarding::Pilot {
                flight,
                landed_since,
            } => {
                let departure = Departure::new(inner, &key, &flight, landed_since);
                self.departures.push(departure);
            }
            Boarding::Passenger(flight) => {
                inner.counters.add(Count::Joined);
                self.joined.push((key, flight));
            }
            Boarding::Full => self.alone.push((key, Outcome::Miss)),
        }
    }
}

fn unique(keys: &[Key]) -> impl Iterator<Item = &Key> {
    let mut met = std::collections::HashSet::with_capacity(keys.len());
    keys.iter().filter(move |key| met.insert(key.as_str()))
}

/// Lands those whose key another load has filled since it was read, and hands back the others.
async fn still_missing<T>(departures: Vec<Departure>) -> Vec<Departure>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let finds = departures
        .iter()
        .map(|departure| departure.find::<Optional<T>>());
    let found = futures_util::future::join_all(finds).await;
    let mut missing = Vec::with_capacity(departures.len());
    for (departure, found) in departures.into_iter().zip(found) {
        match found {
            Some(found) => departure.land_found::<Optional<T>>(found),
            None => missing.push(departure),
        }
    }
    missing
}

/// What was made for the keys that only the one caller wanted.
struct LoadedAlone<T, E> {
    made: Result<HashMap<Key, T>, LoadError<E>>,
    /// How long the loader took, if it was called.
    load: Option<Duration>,
}

async fn load_many<T, E, F, L>(
    inner: Arc<Inner>,
    departures: Vec<Departure>,
    alone: Vec<Key>,
    loader: F,
    caller: tokio::sync::oneshot::Sender<LoadedAlone<T, E>>,
) where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
    F: FnOnce(Vec<Key>) -> L + Send + 'static,
    L: Future<Output = Result<HashMap<Key, T>, E>> + Send + 'static,
{
    let departures = still_missing::<T>(departures).await;
    let own = departures.iter().map(|departure| departure.key.clone());
    let keys: Vec<Key> = own.chain(alone.iter().cloned()).collect();
    if keys.is_empty() {
        let made = Ok(HashMap::new());
        let _ = caller.send(LoadedAlone { made, load: None });
        return;
    }
    inner.counters.add(Count::Loads);
    let time = longest_load(&inner, &keys);
    let begin = Instant::now();
    let made = call(time, || loader(keys)).await;
    let load = begin.elapsed();
    for departure in &departures {
        departure.flight.took(load);
    }
    let made = match made {
        Ok(mut made) => {
            let only_here = alone
                .into_iter()
                .filter_map(|key| made.remove_entry(&key))
                .collect();
            fill::<T>(departures, made).await;
            Ok(only_here)
        }
        Err(error) => {
            inner.counters.add(Count::LoadErrors);
            for departure in departures {
                departure.land(Landing::from(error.clone()));
            }
            Err(error)
        }
    };
    // The caller may be gone; the others have their landing.
    let load = Some(load);
    let _ = caller.send(LoadedAlone { made, load });
}

/// The longest `load_timeout` of the policies of some keys.
fn longest_load(inner: &Inner, keys: &[Key]) -> Duration {
    let times = keys
        .iter()
        .map(|key| inner.governor.policy(key).load_timeout());
    times.max().unwrap_or_default()
}

/// Stores what was loaded, and lands. What the loader left out is absent.
async fn fill<T>(departures: Vec<Departure>, mut made: HashMap<Key, T>)
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let fills = departures.into_iter().map(|departure| {
        let value = made.remove(&departure.key);
        async move {
            match Optional::<T>::finish(value) {
                Ok((value, json)) => departure.finish::<Optional<T>>(value, json).await,
                Err(message) => departure.land(Landing::NotJson(message)),
            }
        }
    });
    futures_util::future::join_all(fills).await;
}
