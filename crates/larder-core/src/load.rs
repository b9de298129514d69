//! Lookups that load what is missing: once per key in this process, for all who ask at the same time.

use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_model::{Key, Outcome, Policy};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use crate::cache::{Answer, Cache, Inner, LoadError, read_typed};
use crate::counters::Count;
use crate::flight::{Boarding, Flight, Landing, Seen};
use crate::governor::Event;
use crate::json::Json;
use crate::store::{Guard, Stored, Ttl};

/// In which form a caller wants values: as its own type, as one that may be absent, or as JSON text.
trait Form: 'static {
    /// What the loader makes.
    type Made: Send + 'static;
    /// What the caller gets.
    type Value: Clone + Send + Sync + 'static;

    /// The value of what was loaded, and its JSON if it can be written so.
    fn finish(made: Self::Made) -> Result<(Self::Value, Option<Bytes>), Arc<str>>;

    /// The value of an entry.
    fn read(inner: &Inner, key: &Key, stored: &Stored) -> Option<Self::Value>;

    /// How long a value is fresh.
    fn ttl(_value: &Self::Value, policy: &Policy) -> Duration {
        policy.ttl()
    }
}

struct Typed<T>(PhantomData<fn() -> T>);

impl<T> Form for Typed<T>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Made = T;
    type Value = T;

    fn finish(made: T) -> Result<(T, Option<Bytes>), Arc<str>> {
        let json = Json::of(&made).ok().map(Json::into_bytes);
        Ok((made, json))
    }

    fn read(_inner: &Inner, _key: &Key, stored: &Stored) -> Option<T> {
        read_typed(stored)
    }
}

struct Optional<T>(PhantomData<fn() -> T>);

impl<T> Form for Optional<T>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Made = Option<T>;
    type Value = Option<T>;

    fn finish(made: Option<T>) -> Result<(Option<T>, Option<Bytes>), Arc<str>> {
        let json = Json::of(&made).ok().map(Json::into_bytes);
        Ok((made, json))
    }

    fn read(_inner: &Inner, _key: &Key, stored: &Stored) -> Option<Option<T>> {
        read_typed(stored)
    }

    fn ttl(value: &Option<T>, policy: &Policy) -> Duration {
        match value {
            Some(_) => policy.ttl(),
            None => policy.negative_ttl(),
        }
    }
}

struct Text<V>(PhantomData<fn() -> V>);

impl<V: Serialize + Send + 'static> Form for Text<V> {
    type Made = V;
    type Value = Json;

    fn finish(made: V) -> Result<(Json, Option<Bytes>), Arc<str>> {
        let json = Json::of(&made).map_err(|error| Arc::from(error.to_string()))?;
        let bytes = json.as_bytes().clone();
        Ok((json, Some(bytes)))
    }

    fn read(inner: &Inner, key: &Key, stored: &Stored) -> Option<Json> {
        inner.read_json(key, stored)
    }
}

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

/// One lookup of one key.
struct Lookup<'a, M: Form> {
    inner: &'a Arc<Inner>,
    key: &'a Key,
    form: PhantomData<M>,
}

impl<'a, M: Form> Lookup<'a, M> {
    fn of(inner: &'a Arc<Inner>, key: &'a Key) -> Self {
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
        if let Some(longest) = gate.ttl
            && let Some(answer) = self.find(longest).await
        {
            return Ok(answer);
        }
        inner.counters.add(Count::Misses);
        self.board(seen, loader).await
    }

    /// The value, if the store has it.
    async fn find(&self, longest: Ttl) -> Option<Answer<M::Value>> {
        let inner = self.inner;
        let stored = inner.read(self.key, longest).await;
        let (value, bytes) = inner.decode(stored, |stored| M::read(inner, self.key, stored))?;
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
                // Its own type fits.
                self.arrive(&flight, landing)
                    .unwrap_or(Err(LoadError::Abandoned))
            }
            Boarding::Passenger(flight) => {
                inner.counters.add(Count::Joined);
                let landing = flight.wait().await;
                match self.arrive(&flight, landing) {
                    Some(answer) => answer,
                    // Another type under the same key, or its runtime ended: this one's own loader can do it.
                    None => self.load_alone(Outcome::Miss, loader).await,
                }
            }
            Boarding::Full => self.load_alone(Outcome::Miss, loader).await,
        }
    }

    /// What a landing means to this caller; `None` if nothing.
    fn arrive<E: Send + Sync + 'static>(
        &self,
        flight: &Flight,
        landing: Landing,
    ) -> Option<Result<Answer<M::Value>, LoadError<E>>> {
        let load = flight.report_load();
        let bytes = landing.bytes();
        let value = match landing {
            Landing::Value { value, json } => {
                let value = value.downcast_ref::<M::Value>().cloned();
                let from_json = || M::read(self.inner, self.key, &just_loaded(json?));
                Ok(value.or_else(from_json)?)
            }
            Landing::Error(error) => Err(LoadError::Loader(error.downcast::<E>().ok()?)),
            Landing::Panicked(message) => Err(LoadError::Panicked(message)),
            Landing::TimedOut => Err(LoadError::TimedOut),
            Landing::NotJson(message) => Err(LoadError::NotJson(message)),
            Landing::Abandoned => return None,
        };
        self.inner
            .report_load(self.key, Outcome::Miss, load, value.is_err(), bytes);
        Some(value.map(|value| Answer {
            value,
            outcome: Outcome::Miss,
        }))
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
        inner.report_load(self.key, outcome, Some(load), value.is_err(), bytes);
        value.map(|(value, _)| Answer { value, outcome })
    }
}

/// Calls a loader: within its time, and with a panic caught.
async fn call<T, E, F, L>(time: Duration, loader: F) -> Result<T, LoadError<E>>
where
    F: FnOnce() -> L,
    L: Future<Output = Result<T, E>>,
{
    let load = AssertUnwindSafe(async { loader().await }).catch_unwind();
    match tokio::time::timeout(time, load).await {
        Ok(Ok(made)) => made.map_err(|error| LoadError::Loader(Arc::new(error))),
        Ok(Err(panic)) => Err(LoadError::Panicked(panic_message(&*panic))),
        Err(_elapsed) => Err(LoadError::TimedOut),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> Arc<str> {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    message.unwrap_or("no message").into()
}

/// Runs a load so that it outlives its caller.
async fn spawn(load: impl Future<Output = ()> + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn(load.in_current_span());
        }
        // Without a runtime there is nobody else to run it.
        Err(_) => load.await,
    }
}

/// A load that has a flight to land. However it ends, the flight lands.
struct Departure {
    inner: Arc<Inner>,
    key: Key,
    flight: Arc<Flight>,
    /// Whether another load of the key may have filled since it was read.
    landed_since: bool,
}

impl Departure {
    fn new(inner: &Arc<Inner>, key: &Key, flight: &Arc<Flight>, landed_since: bool) -> Self {
        Self {
            inner: Arc::clone(inner),
            key: key.clone(),
            flight: Arc::clone(flight),
            landed_since,
        }
    }

    /// The value that another load has filled since the key was read.
    async fn find<M: Form>(&self) -> Option<M::Value> {
        if !self.landed_since {
            return None;
        }
        let longest = self.inner.governor.gate(&self.key).ttl?;
        let stored = self.inner.read(&self.key, longest).await;
        let read = |stored: &Stored| M::read(&self.inner, &self.key, stored);
        let (value, _bytes) = self.inner.decode(stored, read)?;
        Some(value)
    }

    fn land(self, landing: Landing) {
        self.inner.flights.remove(&self.key, &self.flight);
        self.flight.land(landing);
    }

    fn land_found<M: Form>(self, value: M::Value) {
        let value = Arc::new(value);
        self.land(Landing::Value { value, json: None });
    }

    /// Stores what was loaded, and lands.
    async fn finish<M: Form>(self, value: M::Value, json: Option<Bytes>, policy: &Policy) {
        if let Some(json) = &json {
            let ttl = shortened(M::ttl(&value, policy), policy.jitter());
            let guard = Guard::While(self.flight.right().clone());
            let entry = self
                .inner
                .entry(&self.key, json.clone(), ttl, policy, guard);
            // The policy may have been switched off while the load ran.
            if let Ok(entry) = entry
                && self.inner.governor.gate(&self.key).cache_enabled
            {
                let written = self.inner.store.set(entry).await;
                let written = self.inner.settle_write(written);
                tracing::debug!(key = %self.key, %written, ?ttl, "loaded");
            }
        }
        let value = Arc::new(value);
        self.land(Landing::Value { value, json });
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.inner.flights.remove(&self.key, &self.flight);
        self.flight.land(Landing::Abandoned);
    }
}

async fn load_one<M, E, F, L>(departure: Departure, loader: F)
where
    M: Form,
    E: Send + Sync + 'static,
    F: FnOnce() -> L + Send + 'static,
    L: Future<Output = Result<M::Made, E>> + Send + 'static,
{
    if let Some(value) = departure.find::<M>().await {
        return departure.land_found::<M>(value);
    }
    let inner = Arc::clone(&departure.inner);
    let policy = inner.governor.policy(&departure.key);
    inner.counters.add(Count::Loads);
    let begin = Instant::now();
    let made = call(policy.load_timeout(), loader).await;
    departure.flight.took(begin.elapsed());
    match made.and_then(|made| M::finish(made).map_err(LoadError::NotJson)) {
        Ok((value, json)) => departure.finish::<M>(value, json, &policy).await,
        Err(error) => {
            inner.counters.add(Count::LoadErrors);
            departure.land(Landing::from(error));
        }
    }
}

impl<E: Send + Sync + 'static> From<LoadError<E>> for Landing {
    fn from(error: LoadError<E>) -> Self {
        match error {
            LoadError::Loader(error) => Self::Error(error),
            LoadError::Panicked(message) => Self::Panicked(message),
            LoadError::TimedOut => Self::TimedOut,
            LoadError::NotJson(message) => Self::NotJson(message),
            LoadError::OtherType | LoadError::Abandoned => Self::Abandoned,
        }
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
    fn report_load(
        &self,
        key: &Key,
        outcome: Outcome,
        load: Option<Duration>,
        is_error: bool,
        bytes: u64,
    ) {
        let latency = load;
        self.report(
            key,
            Event {
                outcome,
                latency,
                is_error,
                bytes,
            },
        );
    }
}

fn just_loaded(json: Bytes) -> Stored {
    Stored {
        bytes: json,
        ttl: None,
        foreign: false,
    }
}

/// A TTL, less a random share of at most `jitter`, so that what was stored together doesn't end together.
fn shortened(ttl: Duration, jitter: f64) -> Duration {
    if jitter <= 0.0 {
        return ttl;
    }
    // Every `RandomState` has other keys: chance enough for this.
    let chance = RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64;
    ttl.mul_f64((1.0 - jitter * chance).clamp(0.0, 1.0))
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
