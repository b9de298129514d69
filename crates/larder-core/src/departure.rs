//! A load: within its time, with a panic caught, outliving its caller, and landed however it ends.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use larder_model::{Key, Policy};
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use crate::answer::LoadError;
use crate::cache::Inner;
use crate::counters::Count;
use crate::flight::{FillRight, Flight, Landing, Shared};
use crate::form::Form;
use crate::frame::{Content, EncodeError, Frame};
use crate::governor::{Check, Gate};
use crate::hold::{Clearance, Hold, LEASE};
use crate::lease::{Acquired, Lease, Released};
use crate::mutants::{self, is_off};
use crate::random;
use crate::raw::Raw;
use crate::read::Found;
use crate::store::{Guard, NewEntry, Skip, StoreError, Ttl, Written};
use crate::version::Stamp;

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
    pub(crate) inner: Arc<Inner>,
    pub(crate) key: Key,
    pub(crate) flight: Arc<Flight>,
    /// Of a load in the background.
    background: Option<Background>,
}

/// What a load in the background has besides.
pub(crate) struct Background {
    /// How long the entry was fresh yet that it loads anew: only one that is fresh for longer is another.
    pub(crate) left: Duration,
    /// The entry that it is to be compared with.
    pub(crate) checks: Option<Compared>,
    /// Held until it has landed.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// A fresh entry with which what the origin answers is to be compared.
pub(crate) struct Compared {
    json: Bytes,
    age: Duration,
    is_by_ttl: bool,
}

impl Compared {
    /// `None` of one of which it can't be told how old it is at the least: what chance took away of its life is not known.
    fn new(entry: Found<Raw>, ttl: Duration, jitter: f64) -> Option<Self> {
        let by_ttl = || ttl.mul_f64(1.0 - jitter).checked_sub(entry.left?);
        Some(Self {
            age: entry.age.or_else(by_ttl)?,
            is_by_ttl: entry.age.is_none(),
            json: entry.value.bytes,
        })
    }

    fn with(&self, json: &Bytes) -> Check {
        Check {
            age: self.age,
            is_by_ttl: self.is_by_ttl,
            has_changed: self.json != *json,
        }
    }
}

impl Departure {
    pub(crate) fn new(inner: &Arc<Inner>, key: &Key, flight: &Arc<Flight>) -> Self {
        Self {
            inner: Arc::clone(inner),
            key: key.clone(),
            flight: Arc::clone(flight),
            background: None,
        }
    }

    pub(crate) fn in_background(mut self, background: Background) -> Self {
        self.background = Some(background);
        self
    }

    /// To be compared with an entry that is fresh by this gate, as it was just read: one that is fresh for longer is another.
    pub(crate) fn checking(mut self, gate: Gate, entry: Option<Found<Raw>>) -> Self {
        let ttl = gate.ttl.map(Ttl::get).unwrap_or_default();
        let jitter = self.inner.governor.policy(&self.key).jitter();
        if let (Some(background), Some(entry)) = (&mut self.background, entry)
            && let Some(left) = entry.left
        {
            background.left = left;
            background.checks = Compared::new(entry, ttl, jitter);
        }
        self
    }

    pub(crate) fn is_in_background(&self) -> bool {
        self.background.is_some()
    }

    /// Whether what is in the store is what this load was to make.
    pub(crate) fn is_done_by<V>(&self, found: &Found<V>) -> bool {
        match &self.background {
            None => true,
            Some(background) => found.left.is_some_and(|left| left > background.left),
        }
    }

    pub(crate) fn land(self, landing: Landing) {
        self.inner.flights.remove(&self.key, &self.flight);
        self.flight.land(landing);
    }

    /// Lands with what another load has filled. Those who wait may want it in another form.
    pub(crate) fn land_found<M: Form>(self, found: Found<M::Value>) {
        self.land(Landing::Value {
            value: Arc::new(found.value),
            json: found.json,
            shared: Shared::Early,
        });
    }

    /// Lands with a failure, and gives the lease back.
    pub(crate) async fn fail(self, error: Landing, hold: Hold) {
        let inner = Arc::clone(&self.inner);
        if self.is_in_background() {
            inner.governor.record_refresh(&self.key, None);
        }
        self.land(error);
        hold.release(&inner, Released::Failed).await;
    }

    /// Stores what was loaded, and lands.
    pub(crate) async fn finish<M: Form>(
        self,
        value: M::Value,
        json: Option<Bytes>,
        load: Duration,
        hold: Hold,
    ) {
        if self.is_in_background() {
            self.inner.governor.record_refresh(&self.key, Some(load));
        }
        if let Some(json) = &json {
            let checks = self.background.as_ref().and_then(|it| it.checks.as_ref());
            let check = checks.map(|entry| entry.with(json));
            self.inner.note_answer(&self.key, json, check);
        }
        self.inner.load_costs.note(&self.key, load);
        // Who comes from now on begins anew. One who joined while the fill is on its way could have asked after an invalidation
        // that came after the fill.
        if !is_off(mutants::Guard::FlightClosesBeforeFill) {
            self.inner.flights.remove(&self.key, &self.flight);
        }
        let depends_on = hold.depends_on();
        let shared = match self.entry::<M>(&value, json.clone(), load, &hold) {
            Ok(entry) => self.fill(entry, hold).await,
            Err(_) => {
                if hold.has_ended() {
                    self.inner.counters.add(Count::Refused);
                }
                hold.release(&self.inner, Released::Uncached).await
            }
        };
        // One who joined may have asked after another process gave a version a new value, which ends no lease.
        let shared = match shared == Shared::Early || self.is_current(depends_on).await {
            true => shared,
            false => Shared::Early,
        };
        if is_off(mutants::Guard::FlightClosesBeforeFill) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let value = Arc::new(value);
        self.land(Landing::Value {
            value,
            json,
            shared,
        });
    }

    async fn fill(&self, entry: NewEntry, hold: Hold) -> Shared {
        let ttl = entry.ttl.get();
        let again = is_off(mutants::Guard::LostLeaseStaysLost).then(|| entry.clone());
        let written = self.inner.store.set(entry).await;
        let mut written = self.inner.settle_write(written);
        if let (Written::Refused | Written::Superseded, Some(mut entry)) = (&written, again)
            && let Some(lease) = self.acquire_late().await
        {
            entry.guard = Guard::Lease(FillRight::new(), lease);
            let late = self.inner.store.set(entry).await;
            written = self.inner.settle_write(late);
        }
        tracing::debug!(key = %self.key, %written, ?ttl, "loaded");
        match written {
            Written::Stored => Shared::All,
            Written::Skipped(_) => hold.release(&self.inner, Released::Uncached).await,
            Written::Refused | Written::Superseded | Written::Unknown => Shared::Early,
        }
    }

    /// Without the guard, what was not granted in time is asked for again.
    async fn hold_late(&self, hold: Hold) -> Hold {
        if !is_off(mutants::Guard::GrantBeforeLoad) || hold.lease().is_some() || hold.has_ended() {
            return hold;
        }
        match self.acquire_late().await {
            Some(lease) => Hold::of(lease, self.flight.right(), Some(Vec::new())),
            None => hold,
        }
    }

    /// A lease that is asked for after the load: what guards forbid.
    async fn acquire_late(&self) -> Option<Lease> {
        let keys = std::slice::from_ref(&self.key);
        let acquired = self.inner.store.acquire(keys, LEASE).await.ok()?.pop()?;
        match acquired {
            Acquired::Granted { lease, .. } => Some(lease),
            Acquired::Held { .. } | Acquired::Uncached { .. } => None,
        }
    }

    /// Whether what a value depends on is as it was when its load began.
    async fn is_current(&self, depends_on: Option<Vec<Stamp>>) -> bool {
        match depends_on {
            None => false,
            Some(stamps) if stamps.is_empty() || is_off(mutants::Guard::JoinersNeedVersions) => {
                true
            }
            Some(stamps) => {
                let service = self.inner.service_of(&self.key);
                self.inner.holds_up(&service, &stamps).await.is_some()
            }
        }
    }

    /// What is stored of a loaded value, if anything: by the policy in force now, which may have changed while the load
    /// ran.
    fn entry<M: Form>(
        &self,
        value: &M::Value,
        json: Option<Bytes>,
        load: Duration,
        hold: &Hold,
    ) -> Result<NewEntry, Skip> {
        let inner = &*self.inner;
        let gate = inner.governor.gate(&self.key);
        if !gate.cache_enabled {
            return Err(Skip::PolicyOff);
        }
        let json = json.ok_or(Skip::NotSerialisable)?;
        let ttl = M::ttl(value, gate).ok_or(Skip::NoTtl)?;
        let policy = inner.governor.policy(&self.key);
        let fresh = shortened(ttl.get(), policy.jitter());
        let fresh = Ttl::new(fresh).ok_or(Skip::NoTtl)?;
        let lease = hold.lease().ok_or(Skip::Store(StoreError::NotBegun))?;
        let (bytes, ttl) = if policy.is_framed() || inner.frames.is_sealing() {
            let stamps = hold
                .stamps(&policy)
                .ok_or(Skip::Store(StoreError::NotBegun))?;
            let life = Life {
                fresh,
                stale_while_revalidate: policy.stale_while_revalidate(),
                stale_if_error: policy.stale_if_error(),
                load_cost: load,
            };
            let stamped = (lease.incarnation, stamps);
            inner.framed(&self.key, json, life, policy.max_value_bytes(), stamped)?
        } else {
            (inner.fitting(json, &policy)?, fresh)
        };
        Ok(NewEntry {
            key: self.key.clone(),
            bytes,
            ttl,
            guard: match is_off(mutants::Guard::FillComparesLease) {
                true => Guard::Always,
                false => Guard::Lease(self.flight.right().clone(), lease.clone()),
            },
        })
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.inner.flights.remove(&self.key, &self.flight);
        self.flight.land(Landing::Abandoned);
    }
}

/// How long a value may be served for what, and how long its load took.
struct Life {
    fresh: Ttl,
    stale_while_revalidate: Duration,
    stale_if_error: Duration,
    load_cost: Duration,
}

impl Inner {
    /// A value in the framed form, and how long it is stored for: as long as it may be served for anything.
    fn framed(
        &self,
        key: &Key,
        json: Bytes,
        life: Life,
        max_value_bytes: u64,
        (incarnation, stamps): (u64, Vec<Stamp>),
    ) -> Result<(Bytes, Ttl), Skip> {
        let stale = life.stale_while_revalidate.max(life.stale_if_error);
        let total = life.fresh.get().saturating_add(stale);
        // In whole milliseconds, as the frame says it: a store that keeps more would say of a new entry that it lives for longer
        // than it was given, as if another program had changed it.
        let total = Ttl::new(total).map(|total| Duration::from_millis(total.as_millis()));
        let total = total.and_then(Ttl::new).ok_or(Skip::NoTtl)?;
        let frame = Frame {
            id: random::u128() as u64,
            incarnation,
            total: total.get(),
            fresh: life.fresh.get(),
            stale_while_revalidate: life.stale_while_revalidate,
            stale_if_error: life.stale_if_error,
            load_cost: life.load_cost,
            stamps,
            content: Content::Json,
            payload: json,
        };
        let encoded = self.frames.encode(key, &frame, max_value_bytes);
        match encoded {
            Ok(bytes) => Ok((bytes, total)),
            Err(error) => {
                if matches!(error, EncodeError::TooLarge { .. }) {
                    self.counters.add(Count::TooLarge);
                    return Err(Skip::TooLarge);
                }
                tracing::warn!(%key, %error, "a value can't be framed, so it is not stored");
                Err(Skip::NotSerialisable)
            }
        }
    }

    /// The value of a plain `set`, sealed.
    pub(crate) fn seal(
        &self,
        key: &Key,
        json: Bytes,
        ttl: Ttl,
        policy: &Policy,
    ) -> Result<Bytes, Skip> {
        // It is the caller's word: fresh for as long as he said, and nothing more.
        let life = Life {
            fresh: ttl,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            load_cost: Duration::ZERO,
        };
        let stamped = (self.store.incarnation(key), Vec::new());
        let (bytes, _) = self.framed(key, json, life, policy.max_value_bytes(), stamped)?;
        Ok(bytes)
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
    let hold = match departure.clear::<M>().await {
        Clearance::Load(hold) => hold,
        Clearance::Found(found, hold) => {
            let inner = Arc::clone(&departure.inner);
            departure.land_found::<M>(found);
            if let Some(hold) = hold {
                hold.release(&inner, Released::Failed).await;
            }
            return;
        }
        Clearance::Nothing => return departure.land(Landing::Nothing),
    };
    let inner = Arc::clone(&departure.inner);
    let time = inner.governor.policy(&departure.key).load_timeout();
    inner.counters.add(Count::Loads);
    let begin = Instant::now();
    departure.flight.begin(begin);
    let made = hold.while_held(&inner, call(time, loader)).await;
    let load = begin.elapsed();
    departure.flight.took(load);
    let hold = departure.hold_late(hold).await;
    match made.and_then(|made| M::finish(made).map_err(LoadError::NotJson)) {
        Ok((value, json)) => departure.finish::<M>(value, json, load, hold).await,
        Err(error) => {
            inner.counters.add(Count::LoadErrors);
            departure.fail(Landing::from(error), hold).await;
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
    ttl.mul_f64((1.0 - jitter * random::chance()).clamp(0.0, 1.0))
}
