//! Lookups of many keys at once: one round trip to the store, one call of the loader for all that is missing.

mod read;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_model::{Key, Outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{Answer, LoadError};
use crate::cache::{Cache, Inner};
use crate::counters::Count;
use crate::departure::{Departure, call, load_one, spawn};
use crate::flight::{Boarding, Flight, Landing};
use crate::form::{Form, Optional};
use crate::frame::Freshness;
use crate::governor::Event;
use crate::hold::{self, Hold, Many};
use crate::load::{Lookup, StandIn};
use crate::read::Look;
use read::{Asked, Sight, look_each};

impl Cache {
    /// The values under keys, in their order. All that is missing, and that nobody is loading yet, is loaded by one
    /// call of the loader; what it leaves out of its answer is absent, and stored so for the policy's `negative_ttl`.
    /// What another process was loading, and then did not store, is asked of a clone of the loader by itself.
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
        F: FnOnce(Vec<Key>) -> L + Clone + Send + 'static,
        L: Future<Output = Result<HashMap<Key, T>, E>> + Send + 'static,
    {
        let mut batch = Batch::of(self, keys.len(), loader);
        let missing = batch.find(keys).await;
        let joined = batch.load(missing).await;
        batch.join(joined).await;
        batch.answers_of(keys)
    }
}

/// One lookup of many keys: what is known of them by now.
struct Batch<'a, T, E, F> {
    inner: &'a Arc<Inner>,
    refreshes: bool,
    loader: F,
    joined_at: Instant,
    answers: HashMap<Key, Answer<Option<T>>>,
    /// The first one.
    error: Option<LoadError<E>>,
}

/// What a lookup of many did not find.
#[derive(Default)]
struct Missing {
    /// For these nobody is loading: this lookup does.
    departures: Vec<(Departure, StandIn)>,
    /// These are being loaded by others.
    joined: Vec<(Key, Arc<Flight>, StandIn)>,
    /// These are loaded for this lookup only.
    alone: Vec<(Key, Outcome)>,
}

/// What a loader of many makes for one.
type MadeOne<T, E> = Pin<Box<dyn Future<Output = Result<Option<T>, E>> + Send>>;

/// A loader of many, asked for one.
fn of_one<T, E, F, L>(
    loader: &F,
    key: &Key,
) -> impl FnOnce() -> MadeOne<T, E> + Send + use<T, E, F, L>
where
    T: Send + 'static,
    E: Send + 'static,
    F: FnOnce(Vec<Key>) -> L + Clone + Send + 'static,
    L: Future<Output = Result<HashMap<Key, T>, E>> + Send + 'static,
{
    let (loader, key) = (loader.clone(), key.clone());
    move || {
        Box::pin(async move {
            let mut made = loader(vec![key.clone()]).await?;
            Ok(made.remove(&key))
        })
    }
}

impl<'a, T, E, F, L> Batch<'a, T, E, F>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
    F: FnOnce(Vec<Key>) -> L + Clone + Send + 'static,
    L: Future<Output = Result<HashMap<Key, T>, E>> + Send + 'static,
{
    fn of(cache: &'a Cache, count: usize, loader: F) -> Self {
        Self {
            inner: &cache.inner,
            refreshes: cache.refreshes,
            loader,
            joined_at: Instant::now(),
            answers: HashMap::with_capacity(count),
            error: None,
        }
    }

    /// Takes what may be served. Boards the loads of what may not.
    async fn find(&mut self, keys: &[Key]) -> Missing {
        let inner = self.inner;
        let mut missing = Missing::default();
        let mut asked = Vec::with_capacity(keys.len());
        for key in unique(keys) {
            let gate = inner.governor.gate(key);
            if gate.is_watched {
                inner.governor.note_lookup(key);
            }
            if gate.cache_enabled {
                let key = key.clone();
                asked.push(Asked { key, gate });
            } else {
                inner.counters.add(Count::Bypasses);
                missing.alone.push((key.clone(), Outcome::Bypass));
            }
        }
        let looks = look_each::<T>(inner, &asked).await;
        self.joined_at = Instant::now();
        for (asked, sight) in asked.into_iter().zip(looks) {
            let lookup = Lookup::<Optional<T>>::of(inner, &asked.key);
            let answer = match sight {
                Sight::Near(near) => lookup.hit(near.value, near.bytes),
                Sight::Far(Look::Fresh(found)) => lookup.hit(found.value, found.bytes),
                Sight::Far(Look::Stale(found, Freshness::StaleWhileRevalidate))
                    if self.refreshes =>
                {
                    lookup.refresh(Duration::ZERO, of_one(&self.loader, &asked.key));
                    inner.counters.add(Count::StaleWhileRevalidate);
                    lookup.stale(found)
                }
                Sight::Far(Look::Stale(..)) => {
                    missing.board(inner, asked.key, StandIn::Stale);
                    continue;
                }
                Sight::Far(Look::Nothing) => {
                    missing.board(inner, asked.key, StandIn::Nothing);
                    continue;
                }
            };
            self.answers.insert(asked.key, answer);
        }
        missing
    }

    /// One call of the loader for what nobody else loads. Hands back what others load: that is waited for later, so
    /// that two lookups can't wait for each other.
    async fn load(&mut self, missing: Missing) -> Vec<(Key, Arc<Flight>, StandIn)> {
        let Missing {
            departures,
            joined,
            alone,
        } = missing;
        if departures.is_empty() && alone.is_empty() {
            return joined;
        }
        let (departures, own): (Vec<Departure>, Vec<_>) = departures
            .into_iter()
            .map(|(departure, stand_in)| {
                let own = (
                    departure.key.clone(),
                    Arc::clone(&departure.flight),
                    stand_in,
                );
                (departure, own)
            })
            .unzip();
        let (send, receive) = tokio::sync::oneshot::channel();
        let keys = alone.iter().map(|(key, _)| key.clone()).collect();
        let (inner, loader) = (Arc::clone(self.inner), self.loader.clone());
        spawn(load_many::<T, E, F, L>(
            inner, departures, keys, loader, send,
        ))
        .await;
        let loaded = receive.await.unwrap_or_else(|_| LoadedAlone {
            made: Err(LoadError::Abandoned),
            load: None,
        });
        self.take_loaded(alone, loaded);
        for (key, flight, stand_in) in own {
            let landing = flight.wait().await;
            self.arrive(key, &flight, &landing, stand_in).await;
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
    async fn join(&mut self, joined: Vec<(Key, Arc<Flight>, StandIn)>) {
        for (key, flight, stand_in) in joined {
            if self.error.is_some() {
                self.inner.report(&key, Event::of(Outcome::Miss, 0));
                continue;
            }
            let landing = flight.wait().await;
            let is_for_us = match &landing {
                Landing::Value { shared, .. } => flight.is_for(*shared, self.joined_at),
                Landing::Nothing => false,
                _ => true,
            };
            if is_for_us {
                self.arrive(key, &flight, &landing, stand_in).await;
                continue;
            }
            self.inner.counters.add(Count::Unshared);
            let loader = of_one(&self.loader, &key);
            let lookup = Lookup::<Optional<T>>::of(self.inner, &key);
            let answer = lookup.board(stand_in, loader).await;
            self.take(key, answer);
        }
    }

    async fn arrive(&mut self, key: Key, flight: &Flight, landing: &Landing, stand_in: StandIn) {
        let lookup = Lookup::<Optional<T>>::of(self.inner, &key);
        let answer = lookup.arrive(flight, landing, stand_in).await;
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
    fn board(&mut self, inner: &Arc<Inner>, key: Key, stand_in: StandIn) {
        inner.counters.add(Count::Misses);
        match inner.flights.board(&key) {
            Boarding::Pilot(flight) => {
                let departure = Departure::new(inner, &key, &flight);
                self.departures.push((departure, stand_in));
            }
            Boarding::Passenger(flight) => {
                inner.counters.add(Count::Joined);
                self.joined.push((key, flight, stand_in));
            }
            Boarding::Full => self.alone.push((key, Outcome::Miss)),
        }
    }
}

fn unique(keys: &[Key]) -> impl Iterator<Item = &Key> {
    let mut met = std::collections::HashSet::with_capacity(keys.len());
    keys.iter().filter(move |key| met.insert(key.as_str()))
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
    F: FnOnce(Vec<Key>) -> L + Clone + Send + 'static,
    L: Future<Output = Result<HashMap<Key, T>, E>> + Send + 'static,
{
    let Many { own, held } = hold::clear_many::<Optional<T>>(&inner, departures).await;
    // Those that other processes load are waited for once the own ones are filled, so that nobody waits for somebody who waits
    // for him.
    let elsewhere = held.into_iter().map(|departure| {
        let loader = of_one(&loader, &departure.key);
        load_one::<Optional<T>, E, _, _>(departure, loader)
    });
    let elsewhere: Vec<_> = elsewhere.collect();
    let loaded = load_own(&inner, own, alone, loader).await;
    // The caller may be gone; the others have their landing.
    let _ = caller.send(loaded);
    futures_util::future::join_all(elsewhere).await;
}

/// One call of the loader.
async fn load_own<T, E, F, L>(
    inner: &Arc<Inner>,
    own: Vec<(Departure, Hold)>,
    alone: Vec<Key>,
    loader: F,
) -> LoadedAlone<T, E>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
    F: FnOnce(Vec<Key>) -> L + Clone + Send + 'static,
    L: Future<Output = Result<HashMap<Key, T>, E>> + Send + 'static,
{
    let keys = own.iter().map(|(departure, _)| departure.key.clone());
    let keys: Vec<Key> = keys.chain(alone.iter().cloned()).collect();
    if keys.is_empty() {
        let made = Ok(HashMap::new());
        return LoadedAlone { made, load: None };
    }
    inner.counters.add(Count::Loads);
    let time = longest_load(inner, &keys);
    let begin = Instant::now();
    for (departure, _) in &own {
        departure.flight.begin(begin);
    }
    let holds: Vec<&Hold> = own.iter().map(|(_, hold)| hold).collect();
    let made = hold::while_held(inner, &holds, call(time, || loader(keys))).await;
    let load = begin.elapsed();
    for (departure, _) in &own {
        departure.flight.took(load);
    }
    let made = match made {
        Ok(mut made) => {
            let only_here = alone
                .into_iter()
                .filter_map(|key| made.remove_entry(&key))
                .collect();
            fill::<T>(own, made, load).await;
            Ok(only_here)
        }
        Err(error) => {
            inner.counters.add(Count::LoadErrors);
            for (departure, hold) in own {
                departure.fail(Landing::from(error.clone()), hold).await;
            }
            Err(error)
        }
    };
    LoadedAlone {
        made,
        load: Some(load),
    }
}

/// The longest `load_timeout` of the policies of some keys.
fn longest_load(inner: &Inner, keys: &[Key]) -> Duration {
    let times = keys
        .iter()
        .map(|key| inner.governor.policy(key).load_timeout());
    times.max().unwrap_or_default()
}

/// Stores what was loaded, and lands. What the loader left out is absent.
async fn fill<T>(own: Vec<(Departure, Hold)>, mut made: HashMap<Key, T>, load: Duration)
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let fills = own.into_iter().map(|(departure, hold)| {
        let value = made.remove(&departure.key);
        async move {
            match Optional::<T>::finish(value) {
                Ok((value, json)) => {
                    departure
                        .finish::<Optional<T>>(value, json, load, hold)
                        .await;
                }
                Err(message) => departure.fail(Landing::NotJson(message), hold).await,
            }
        }
    });
    futures_util::future::join_all(fills).await;
}
