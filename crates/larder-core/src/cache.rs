//! The cache: the plain operations, and how it is put together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder_model::{Key, KeyError, Policy, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::checked::CheckedTexts;
use crate::clock::{Clock, CoarseClock};
use crate::costs::LoadCosts;
use crate::counters::{Count, Counters, Counts};
use crate::flight::Flights;
use crate::frame::Frames;
use crate::governor::{Check, Event, FixedGovernor, Governor, Named};
use crate::in_process::InProcess;
use crate::invalidate::Telling;
use crate::json::Json;
use crate::l1::L1;
use crate::mutants::{self, is_off};
use crate::outbox::{Invalidation, Limits as OutboxLimits, Moment, Outbox};
use crate::raw::Raw;
use crate::request::RequestScope;
use crate::spans;
use crate::store::{Guard, NewEntry, Skip, Store, StoreError, StoreStats, Ttl, Written};
use crate::sweeps::Sweeps;
use crate::versions::Versions;

/// What an in-process store may take if nothing else is said: 64 MiB.
const IN_PROCESS_BYTES: u64 = 64 << 20;
/// What the L1 may take if nothing else is said: 32 MiB.
pub const L1_BYTES: u64 = 32 << 20;
/// So many loads run in the background at the same time.
const BACKGROUND_LOADS: usize = 64;
/// An error that is swallowed is logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A cache: a store, a governor, and the loads under way. Cheap to clone; the clones are one cache.
#[derive(Clone)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
    /// Whether its lookups may load in the background.
    pub(crate) refreshes: bool,
}

pub(crate) struct Inner {
    pub(crate) service: Service,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) governor: Arc<dyn Governor>,
    pub(crate) flights: Flights,
    pub(crate) counters: Counters,
    pub(crate) checked: CheckedTexts,
    /// `None` where values are not kept in this process.
    pub(crate) l1: Option<L1>,
    pub(crate) versions: Versions,
    pub(crate) frames: Frames,
    /// What the store could not be told.
    pub(crate) outbox: Arc<Outbox>,
    /// What is being removed behind an invalidation.
    pub(crate) sweeps: Sweeps,
    pub(crate) load_costs: LoadCosts,
    /// One for each load that may run in the background.
    pub(crate) background: Arc<Semaphore>,
    /// When a swallowed error was last logged, in milliseconds of the coarse clock; 0: never.
    logged_at: AtomicU64,
}

/// Puts a [`Cache`] together.
pub struct CacheBuilder {
    service: Service,
    store: Option<Arc<dyn Store>>,
    governor: Option<Arc<dyn Governor>>,
    l1_bytes: u64,
    frames: Frames,
    outbox: Option<Arc<Outbox>>,
}

impl CacheBuilder {
    /// Uses this store. Without one, entries are kept in the process, in 64 MiB.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Asks this governor. Without one, everything is cached by the default policy.
    #[must_use]
    pub fn governor(mut self, governor: Arc<dyn Governor>) -> Self {
        self.governor = Some(governor);
        self
    }

    /// Keeps values of the store in this process too, in at most this much memory (bytes): by default in 32 MiB, with 0 none.
    #[must_use]
    pub fn l1_bytes(mut self, bytes: u64) -> Self {
        self.l1_bytes = bytes;
        self
    }

    /// Writes and reads framed entries with these: sealed, if they have keys.
    #[must_use]
    pub fn frames(mut self, frames: Frames) -> Self {
        self.frames = frames;
        self
    }

    /// Keeps here what the store could not be told. Without one that is kept in memory alone.
    #[must_use]
    pub fn outbox(mut self, outbox: Arc<Outbox>) -> Self {
        self.outbox = Some(outbox);
        self
    }

    /// The cache. Within a Tokio runtime, what the store could not be told is told to it from there as soon as it can be.
    #[must_use]
    pub fn build(self) -> Cache {
        let limits = OutboxLimits::default();
        let outbox = self
            .outbox
            .unwrap_or_else(|| Arc::new(Outbox::new(self.service.clone(), limits)));
        let store = self
            .store
            .unwrap_or_else(|| Arc::new(InProcess::new(IN_PROCESS_BYTES)));
        let governor = self
            .governor
            .unwrap_or_else(|| Arc::new(FixedGovernor::default()));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(outbox.run(Telling(Arc::clone(&store))));
        }
        let has_l1 = self.l1_bytes > 0 && store.has_proofs();
        Cache {
            refreshes: true,
            inner: Arc::new(Inner {
                service: self.service,
                store,
                governor,
                flights: Flights::new(),
                counters: Counters::new(),
                checked: CheckedTexts::new(),
                l1: has_l1.then(|| L1::new(self.l1_bytes)),
                versions: Versions::new(),
                frames: self.frames,
                outbox,
                sweeps: Sweeps::default(),
                load_costs: LoadCosts::new(),
                background: Arc::new(Semaphore::new(BACKGROUND_LOADS)),
                logged_at: AtomicU64::new(0),
            }),
        }
    }
}

impl Cache {
    /// Begins a cache for a service.
    #[must_use]
    pub fn builder(service: Service) -> CacheBuilder {
        CacheBuilder {
            service,
            store: None,
            governor: None,
            l1_bytes: L1_BYTES,
            frames: Frames::new(None),
            outbox: None,
        }
    }

    /// A cache for this process alone, in at most this much memory (bytes), for the service `local`.
    #[must_use]
    pub fn in_process(max_bytes: u64) -> Self {
        let service = Service::local();
        Self::builder(service)
            .store(Arc::new(InProcess::new(max_bytes)))
            .build()
    }

    /// This cache, but its lookups begin no load in the background: for one who asks with an identity of his own, which must
    /// not be at work once he has his answer. What is stale stands in for a load that fails or is slow, as ever.
    #[must_use]
    pub fn in_foreground(&self) -> Self {
        Self {
            refreshes: false,
            ..self.clone()
        }
    }

    /// The service whose cache this is.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.inner.service
    }

    /// The key of an endpoint of this service.
    ///
    /// # Errors
    /// A [`KeyError`] that says what to change.
    pub fn key(&self, endpoint: &str) -> Result<Key, KeyError> {
        Key::new(self.service().as_str(), endpoint)
    }

    /// Who says what is cached.
    #[must_use]
    pub fn governor(&self) -> &Arc<dyn Governor> {
        &self.inner.governor
    }

    /// What the store could not be told yet.
    #[must_use]
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.inner.outbox
    }

    /// Where entries are kept.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The value under a key. A store that is away, an entry that does not decode and a policy that says `off` all
    /// mean that there is none.
    pub async fn get<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        spans::lookup(&self.inner, self.inner.get(key, read_typed)).await
    }

    /// [`Cache::get`], as JSON text that nobody parsed.
    pub async fn get_json(&self, key: &Key) -> Option<Json> {
        let inner = &*self.inner;
        spans::lookup(inner, inner.get(key, |raw| inner.read_json(raw))).await
    }

    /// The values under keys, in their order.
    pub async fn get_many<T: DeserializeOwned>(&self, keys: &[Key]) -> Vec<Option<T>> {
        self.inner.get_many(keys, read_typed).await
    }

    /// Stores a value for a time, whatever the policy's `ttl`, but not where its `mode` is `off`. Ends the right to
    /// fill of a load of the same key that is under way.
    pub async fn set<T: Serialize + ?Sized>(&self, key: &Key, value: &T, ttl: Duration) -> Written {
        match Json::of(value) {
            Ok(json) => self.set_json(key, json, ttl).await,
            Err(_) => Written::Skipped(Skip::NotSerialisable),
        }
    }

    /// [`Cache::set`], with JSON text.
    pub async fn set_json(&self, key: &Key, json: Json, ttl: Duration) -> Written {
        let inner = &*self.inner;
        inner.begin_set(std::slice::from_ref(key));
        let moment = inner.outbox.moment();
        let entry = match inner.new_entry(key, json.into_bytes(), ttl) {
            Ok(entry) => entry,
            Err(skip) => return Written::Skipped(skip),
        };
        let written = inner.store.set(entry).await;
        inner.settle_set(key, moment, written)
    }

    /// Stores values, each for the same time: one outcome for each, in their order.
    pub async fn set_many<T: Serialize>(&self, values: &[(Key, T)], ttl: Duration) -> Vec<Written> {
        let inner = &*self.inner;
        let keys: Vec<Key> = values.iter().map(|(key, _)| key.clone()).collect();
        inner.begin_set(&keys);
        let mut outcomes = Vec::with_capacity(values.len());
        let mut entries = Vec::with_capacity(values.len());
        for (key, value) in values {
            let entry = Json::of(value)
                .map_err(|_| Skip::NotSerialisable)
                .and_then(|json| inner.new_entry(key, json.into_bytes(), ttl));
            match entry {
                Ok(entry) => {
                    entries.push(entry);
                    outcomes.push(None);
                }
                Err(skip) => outcomes.push(Some(Written::Skipped(skip))),
            }
        }
        let count = entries.len();
        let moment = inner.outbox.moment();
        let mut written = match inner.store.set_many(entries).await {
            Ok(written) => written.into_iter(),
            // Each is counted below.
            Err(error) => vec![Written::Skipped(Skip::Store(error)); count].into_iter(),
        };
        std::iter::zip(values, outcomes)
            .map(|((key, _), outcome)| {
                outcome
                    .or_else(|| Some(inner.settle_set(key, moment, Ok(written.next()?))))
                    .unwrap_or(Written::Unknown)
            })
            .collect()
    }

    /// What happened in this cache, in this process.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.inner.counters.counts()
    }

    /// How full the store is, and what happened in it.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not be asked.
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.inner.store.stats().await
    }

    /// Ends orderly: what was reported as stored is on its way to the disk, connections are given back.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not end orderly.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.store.close().await
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("service", &self.inner.service.as_str())
            .field("store", &self.inner.store.name())
            .finish_non_exhaustive()
    }
}

/// Decodes what a store had.
pub(crate) fn read_typed<T: DeserializeOwned>(raw: Raw) -> Option<T> {
    serde_json::from_slice(&raw.bytes).ok()
}

impl Inner {
    #[inline]
    pub(crate) fn read_json(&self, raw: Raw) -> Option<Json> {
        if raw.is_foreign {
            self.checked.check(raw.bytes)
        } else {
            Some(Json::trusted(raw.bytes))
        }
    }

    /// Entries are about to be stored. Whatever becomes of that: what a load that began before makes is older.
    fn begin_set(&self, keys: &[Key]) {
        if !is_off(mutants::Guard::SetEndsLease) {
            keys.iter().for_each(|key| self.flights.end(key));
        }
        self.governor.note_invalidated(Named::Keys(keys));
    }

    pub(crate) fn new_entry(
        &self,
        key: &Key,
        bytes: Bytes,
        ttl: Duration,
    ) -> Result<NewEntry, Skip> {
        let policy = self.governor.policy(key);
        if !self.governor.gate(key).cache_enabled {
            return Err(Skip::PolicyOff);
        }
        let ttl = Ttl::new(ttl).ok_or(Skip::NoTtl)?;
        let bytes = match self.frames.is_sealing() {
            true => self.seal(key, bytes, ttl, &policy)?,
            false => self.fitting(bytes, &policy)?,
        };
        Ok(NewEntry {
            key: key.clone(),
            bytes,
            ttl,
            guard: Guard::Always,
        })
    }

    /// A value that is no larger than a policy allows.
    pub(crate) fn fitting(&self, bytes: Bytes, policy: &Policy) -> Result<Bytes, Skip> {
        if bytes.len() as u64 > policy.max_value_bytes() {
            self.counters.add(Count::TooLarge);
            return Err(Skip::TooLarge);
        }
        Ok(bytes)
    }

    /// Keeps in mind what a `set` did not reach: the old value must not be served after it.
    fn settle_set(
        &self,
        key: &Key,
        moment: Moment,
        written: Result<Written, StoreError>,
    ) -> Written {
        let written = self.settle_write(written);
        match &written {
            Written::Stored => self.outbox.supersede(key, moment),
            Written::Unknown | Written::Skipped(Skip::Store(_)) => {
                if !is_off(mutants::Guard::FailedSetHides) {
                    let invalidation = Invalidation::Keys(vec![key.clone()]);
                    let _kept = self.postpone(invalidation);
                }
            }
            Written::Skipped(_) | Written::Refused | Written::Superseded => {}
        }
        written
    }

    pub(crate) fn settle_write(&self, written: Result<Written, StoreError>) -> Written {
        match written {
            Ok(Written::Skipped(Skip::Store(error))) => {
                self.note_error(&error);
                Written::from(error)
            }
            Ok(written) => {
                if matches!(written, Written::Refused | Written::Superseded) {
                    self.counters.add(Count::Refused);
                }
                written
            }
            Err(error) => {
                self.note_error(&error);
                Written::from(error)
            }
        }
    }

    /// Reports an answer: to the request it belongs to, or to the governor.
    #[inline]
    pub(crate) fn report(&self, key: &Key, event: Event) {
        if !RequestScope::note(key, event) {
            self.governor.record(key, event);
        }
    }

    /// Tells of an answer of the origin, if somebody wants to know.
    pub(crate) fn note_answer(&self, key: &Key, json: &Bytes, check: Option<Check>) {
        if self.governor.gate(key).is_watched {
            self.governor.note_answer(key, json, check);
        }
    }

    /// Counts an error that the caller doesn't get to see, and logs it if none was logged of late.
    pub(crate) fn note_error(&self, error: &StoreError) {
        self.counters.add(Count::StoreErrors);
        self.governor.note_store_error();
        let now = u64::try_from(CoarseClock.now().as_millis()).unwrap_or(u64::MAX);
        let logged_at = self.logged_at.load(Ordering::Relaxed);
        let interval = LOG_INTERVAL.as_millis() as u64;
        if logged_at != 0 && now < logged_at.saturating_add(interval) {
            return;
        }
        let is_ours = self
            .logged_at
            .compare_exchange(logged_at, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if is_ours {
            let service = self.service.as_str();
            tracing::warn!(service, %error, "the store did not do what it was asked; requests go on without it");
        }
    }
}
