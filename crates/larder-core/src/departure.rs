//! A load: within its time, with a panic caught, outliving its caller, and landed however it ends.

use std::any::Any;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_model::Key;
use tracing::Instrument;

use crate::cache::{Inner, LoadError};
use crate::counters::Count;
use crate::flight::{Flight, Landing};
use crate::form::Form;
use crate::store::{Guard, NewEntry};

/// Calls a loader: within its time, and with a panic caught.
pub(crate) async fn call<T, E, F, L>(time: Duration, loader: F) -> Result<T, LoadError<E>>
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
pub(crate) async fn spawn(load: impl Future<Output = ()> + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => {
            runtime.spawn(load.in_current_span());
        }
        // Without a runtime there is nobody else to run it.
        Err(_) => load.await,
    }
}

/// A load that has a flight to land. However it ends, the flight lands.
pub(crate) struct Departure {
    inner: Arc<Inner>,
    pub(crate) key: Key,
    pub(crate) flight: Arc<Flight>,
    /// Whether another load of the key may have filled since it was read.
    landed_since: bool,
}

impl Departure {
    pub(crate) fn new(
        inner: &Arc<Inner>,
        key: &Key,
        flight: &Arc<Flight>,
        landed_since: bool,
    ) -> Self {
        Self {
            inner: Arc::clone(inner),
            key: key.clone(),
            flight: Arc::clone(flight),
            landed_since,
        }
    }

    /// The value that another load has filled since the key was read, and its JSON.
    pub(crate) async fn find<M: Form>(&self) -> Option<(M::Value, Bytes)> {
        if !self.landed_since {
            return None;
        }
        let gate = self.inner.governor.gate(&self.key);
        if !gate.cache_enabled {
            return None;
        }
        let stored = self.inner.read(&self.key, M::longest(gate)?).await?;
        let json = stored.bytes.clone();
        let (value, _) = self.inner.accept::<M>(&self.key, gate, stored).await?;
        Some((value, json))
    }

    pub(crate) fn land(self, landing: Landing) {
        self.inner.flights.remove(&self.key, &self.flight);
        self.flight.land(landing);
    }

    /// Lands with what another load has filled. Those who wait may want it in another form.
    pub(crate) fn land_found<M: Form>(self, (value, json): (M::Value, Bytes)) {
        let (value, json) = (Arc::new(value), Some(json));
        self.land(Landing::Value { value, json });
    }

    /// Stores what was loaded, and lands.
    pub(crate) async fn finish<M: Form>(self, value: M::Value, json: Option<Bytes>) {
        if let Some(json) = &json
            && let Some(entry) = self.entry::<M>(&value, json.clone())
        {
            let ttl = entry.ttl.get();
            let written = self.inner.store.set(entry).await;
            let written = self.inner.settle_write(written);
            tracing::debug!(key = %self.key, %written, ?ttl, "loaded");
        }
        let value = Arc::new(value);
        self.land(Landing::Value { value, json });
    }

    /// What is stored of a loaded value, if anything: by the policy in force now, which may have changed while the load
    /// ran.
    fn entry<M: Form>(&self, value: &M::Value, json: Bytes) -> Option<NewEntry> {
        let gate = self.inner.governor.gate(&self.key);
        if !gate.cache_enabled {
            return None;
        }
        let ttl = M::ttl(value, gate)?;
        let policy = self.inner.governor.policy(&self.key);
        let ttl = shortened(ttl.get(), policy.jitter());
        let guard = Guard::While(self.flight.right().clone());
        let entry = self.inner.entry(&self.key, json, ttl, &policy, guard);
        entry.ok()
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.inner.flights.remove(&self.key, &self.flight);
        self.flight.land(Landing::Abandoned);
    }
}

/// Loads one key.
pub(crate) async fn load_one<M, E, F, L>(departure: Departure, loader: F)
where
    M: Form,
    E: Send + Sync + 'static,
    F: FnOnce() -> L + Send + 'static,
    L: Future<Output = Result<M::Made, E>> + Send + 'static,
{
    if let Some(found) = departure.find::<M>().await {
        return departure.land_found::<M>(found);
    }
    let inner = Arc::clone(&departure.inner);
    let time = inner.governor.policy(&departure.key).load_timeout();
    inner.counters.add(Count::Loads);
    let begin = Instant::now();
    let made = call(time, loader).await;
    departure.flight.took(begin.elapsed());
    match made.and_then(|made| M::finish(made).map_err(LoadError::NotJson)) {
        Ok((value, json)) => departure.finish::<M>(value, json).await,
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

/// A TTL, less a random share of at most `jitter`, so that what was stored together doesn't end together.
fn shortened(ttl: Duration, jitter: f64) -> Duration {
    if jitter <= 0.0 {
        return ttl;
    }
    // Every `RandomState` has other keys: chance enough for this.
    let chance = RandomState::new().hash_one(0_u8) as f64 / u64::MAX as f64;
    ttl.mul_f64((1.0 - jitter * chance).clamp(0.0, 1.0))
}
