//! Lookups of many keys at once: one read, one call of the loader for all that is missing.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use larder_model::{Key, Outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Answer, Cache, Inner, LoadError, read_typed};
use crate::counters::Count;
use crate::departure::{Departure, call, spawn};
use crate::flight::{Boarding, Flight, Landing, Seen};
use crate::form::{Form, Optional};
use crate::governor::Event;
use crate::load::Lookup;
use crate::store::Stored;

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
        let mut answers = HashMap::with_capacity(keys.len());
        let mut missing = Missing::default();
        find_many::<T>(&self.inner, keys, &mut answers, &mut missing).await;
        load_missing(&self.inner, missing, loader, &mut answers).await?;
        keys.iter()
            .map(|key| answers.get(key).cloned().ok_or(LoadError::Abandoned))
            .collect()
    }
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

async fn find_many<T>(
    inner: &Arc<Inner>,
    keys: &[Key],
    answers: &mut HashMap<Key, Answer<Option<T>>>,
    missing: &mut Missing,
) where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let mut asked = Vec::with_capacity(keys.len());
    let mut seen = Vec::with_capacity(keys.len());
    let mut longest = None;
    for key in unique(keys) {
        let gate = inner.governor.gate(key);
        if gate.cache_enabled {
            asked.push(key.clone());
            seen.push(inner.flights.seen(key));
            longest = longest.max(gate.ttl);
        } else {
            inner.counters.add(Count::Bypasses);
            missing.alone.push((key.clone(), Outcome::Bypass));
        }
    }
    let found = match longest {
        Some(longest) => inner.read_many(&asked, longest).await,
        None => vec![None; asked.len()],
    };
    for ((key, seen), stored) in asked.into_iter().zip(seen).zip(found) {
        if !take_found(inner, &key, stored, answers) {
            inner.counters.add(Count::Misses);
            board_one(inner, key, seen, missing);
        }
    }
}

fn unique(keys: &[Key]) -> impl Iterator<Item = &Key> {
    let mut met = std::collections::HashSet::with_capacity(keys.len());
    keys.iter().filter(move |key| met.insert(key.as_str()))
}

fn take_found<T: DeserializeOwned>(
    inner: &Inner,
    key: &Key,
    stored: Option<Stored>,
    answers: &mut HashMap<Key, Answer<Option<T>>>,
) -> bool {
    let Some((value, bytes)) = inner.decode(stored, read_typed) else {
        return false;
    };
    inner.counters.add(Count::Hits);
    inner.report(key, Event::of(Outcome::Hit, bytes));
    let outcome = Outcome::Hit;
    answers.insert(key.clone(), Answer { value, outcome });
    true
}

fn board_one(inner: &Arc<Inner>, key: Key, seen: Seen, missing: &mut Missing) {
    match inner.flights.board(&key, seen) {
        Boarding::Pilot {
            flight,
            landed_since,
        } => {
            let departure = Departure::new(inner, &key, &flight, landed_since);
            missing.departures.push(departure);
        }
        Boarding::Passenger(flight) => {
            inner.counters.add(Count::Joined);
            missing.joined.push((key, flight));
        }
        Boarding::Full => missing.alone.push((key, Outcome::Miss)),
    }
}

/// One call of the loader for what nobody else loads, then the wait for what others load: in this order, so that two
/// lookups can't wait for each other.
async fn load_missing<T, E, F, L>(
    inner: &Arc<Inner>,
    missing: Missing,
    loader: F,
    answers: &mut HashMap<Key, Answer<Option<T>>>,
) -> Result<(), LoadError<E>>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
    F: FnOnce(Vec<Key>) -> L + Send + 'static,
    L: Future<Output = Result<HashMap<Key, T>, E>> + Send + 'static,
{
    let mut waiting = missing.joined;
    if !missing.departures.is_empty() || !missing.alone.is_empty() {
        for departure in &missing.departures {
            waiting.push((departure.key.clone(), Arc::clone(&departure.flight)));
        }
        let (send, receive) = tokio::sync::oneshot::channel();
        let alone: Vec<Key> = missing.alone.iter().map(|(key, _)| key.clone()).collect();
        let load =
            load_many::<T, E, F, L>(Arc::clone(inner), missing.departures, alone, loader, send);
        spawn(load).await;
        let mut loaded = receive.await.map_err(|_| LoadError::Abandoned)??;
        for (key, outcome) in missing.alone {
            let value = loaded.remove(&key);
            inner.report(&key, Event::of(outcome, 0));
            answers.insert(key, Answer { value, outcome });
        }
    }
    for (key, flight) in waiting {
        let landing = flight.wait().await;
        let arrived = Lookup::<Optional<T>>::of(inner, &key).arrive(&flight, landing);
        answers.insert(key, arrived.unwrap_or(Err(LoadError::OtherType))?);
    }
    Ok(())
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
            Some(value) => departure.land_found::<Optional<T>>(value),
            None => missing.push(departure),
        }
    }
    missing
}

/// The values of the keys that only the one caller wanted, or why there are none.
type LoadedAlone<T, E> = Result<HashMap<Key, T>, LoadError<E>>;

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
    let mut keys: Vec<Key> = departures
        .iter()
        .map(|departure| departure.key.clone())
        .collect();
    keys.extend(alone.iter().cloned());
    if keys.is_empty() {
        let _ = caller.send(Ok(HashMap::new()));
        return;
    }
    inner.counters.add(Count::Loads);
    let time = keys
        .iter()
        .map(|key| inner.governor.policy(key).load_timeout())
        .max()
        .unwrap_or_default();
    let begin = Instant::now();
    let made = call(time, || loader(keys)).await;
    let load = begin.elapsed();
    let mut made = match made {
        Ok(made) => made,
        Err(error) => {
            inner.counters.add(Count::LoadErrors);
            for departure in departures {
                departure.flight.took(load);
                departure.land(Landing::from(error.clone()));
            }
            // The caller may be gone; the others have their landing.
            let _ = caller.send(Err(error));
            return;
        }
    };
    let only_here = alone
        .into_iter()
        .filter_map(|key| made.remove(&key).map(|value| (key, value)))
        .collect();
    let fills = departures.into_iter().map(|departure| {
        departure.flight.took(load);
        let value = made.remove(&departure.key);
        let policy = inner.governor.policy(&departure.key);
        async move {
            if let Ok((value, json)) = Optional::<T>::finish(value) {
                departure.finish::<Optional<T>>(value, json, &policy).await;
            }
        }
    });
    futures_util::future::join_all(fills).await;
    let _ = caller.send(Ok(only_here));
}
