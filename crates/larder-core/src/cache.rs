//! The cache: the plain operations, and how it is put together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder_model::{Key, KeyError, Outcome, Pattern, Policy, Service};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checked::CheckedTexts;
use crate::clock::{Clock, CoarseClock};
use crate::counters::{Count, Counters, Counts};
use crate::flight::Flights;
use crate::governor::{Event, FixedGovernor, Governor};
use crate::in_process::InProcess;
use crate::json::Json;
use crate::request::RequestScope;
use crate::store::{
    ClearMode, Deleted, Guard, NewEntry, Skip, Store, StoreError, StoreFuture, StoreStats, Stored,
    Ttl, Written,
};

/// What an in-process store may take if nothing else is said: 64 MiB.
const IN_PROCESS_BYTES: u64 = 64 << 20;
/// An error that is swallowed is logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A value, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The value.
    pub value: T,
    /// Whether the cache had it.
    pub outcome: Outcome,
}

/// Why a load gave no value. Everybody who waited for it gets the same.
#[derive(Debug)]
pub enum LoadError<E> {
    /// The loader's own error.
    Loader(Arc<E>),
    /// The loader panicked, with this message.
    Panicked(Arc<str>),
    /// The load took longer than the policy's `load_timeout`.
    TimedOut,
    /// The value can't be written as JSON, which was asked for.
    NotJson(Arc<str>),
    /// Another load of the same key makes a value, or an error, of another type.
    OtherType,
    /// The runtime that the load ran on ended.
    Abandoned,
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Loader(error) => Self::Loader(Arc::clone(error)),
            Self::Panicked(message) => Self::Panicked(Arc::clone(message)),
            Self::TimedOut => Self::TimedOut,
            Self::NotJson(message) => Self::NotJson(Arc::clone(message)),
            Self::OtherType => Self::OtherType,
            Self::Abandoned => Self::Abandoned,
        }
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loader(error) => error.fmt(f),
            Self::Panicked(message) => write!(f, "the loader panicked: {message}"),
            Self::TimedOut => {
                f.write_str("the load took longer than the policy's load_timeout_seconds")
            }
            Self::NotJson(message) => write!(f, "the loaded value is not JSON: {message}"),
            Self::OtherType => f.write_str(
                "another load of the same key makes a value of another type: use one type per key",
            ),
            Self::Abandoned => f.write_str("the runtime that the load ran on ended"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for LoadError<E> {}

/// A cache: a store, a governor, and the loads under way. Cheap to clone; the clones are one cache.
#[derive(Clone)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    service: Service,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) governor: Arc<dyn Governor>,
    pub(crate) flights: Flights,
    pub(crate) counters: Counters,
    pub(crate) checked: CheckedTexts,
    /// When a swallowed error was last logged, in milliseconds of the coarse clock; 0: never.
    logged_at: AtomicU64,
}

/// Puts a [`Cache`] together.
pub struct CacheBuilder {
    service: Service,
    store: Option<Arc<dyn Store>>,
    governor: Option<Arc<dyn Governor>>,
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

    /// The cache.
    #[must_use]
    pub fn build(self) -> Cache {
        let store = self
            .store
            .unwrap_or_else(|| Arc::new(InProcess::new(IN_PROCESS_BYTES)));
        let governor = self
            .governor
            .unwrap_or_else(|| Arc::new(FixedGovernor::default()));
        Cache {
            inner: Arc::new(Inner {
                service: self.service,
                store,
                governor,
                flights: Flights::new(),
                counters: Counters::new(),
                checked: CheckedTexts::new(),
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

    /// Where entries are kept.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The value under a key. A store that is away, an entry that does not decode and a policy that says `off` all
    /// mean that there is none.
    pub async fn get<T: DeserializeOwned>(&self, key: &Key) -> Option<T> {
        self.inner.get(key, read_typed).await
    }

    /// [`Cache::get`], as JSON text that nobody parsed.
    pub async fn get_json(&self, key: &Key) -> Option<Json> {
        self.inner
            .get(key, |stored| self.inner.read_json(stored))
            .await
    }

    /// The values under keys, in their order.
    pub async fn get_many<T: DeserializeOwned>(&self, keys: &[Key]) -> Vec<Option<T>> {
        let inner = &*self.inner;
        let is_enabled: Vec<bool> = keys
            .iter()
            .map(|key| inner.governor.gate(key).cache_enabled)
            .collect();
        let asked: Vec<Key> = std::iter::zip(keys, &is_enabled)
            .filter(|(_, is_enabled)| **is_enabled)
            .map(|(key, _)| key.clone())
            .collect();
        let mut found = inner.read_many(&asked, Ttl::MAX).await.into_iter();
        std::iter::zip(keys, is_enabled)
            .map(|(key, is_enabled)| {
                if is_enabled {
                    inner.settle_read(key, found.next().flatten(), read_typed)
                } else {
                    inner.bypass(key);
                    None
                }
            })
            .collect()
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
        // Whatever becomes of it: what a load that began before makes is older.
        self.inner.flights.end(key);
        let entry = match self.inner.new_entry(key, json.into_bytes(), ttl) {
            Ok(entry) => entry,
            Err(skip) => return Written::Skipped(skip),
        };
        let written = self.inner.store.set(entry).await;
        self.inner.settle_write(written)
    }

    /// Stores values, each for the same time: one outcome for each, in their order.
    pub async fn set_many<T: Serialize>(&self, values: &[(Key, T)], ttl: Duration) -> Vec<Written> {
        let inner = &*self.inner;
        let mut outcomes = Vec::with_capacity(values.len());
        let mut entries = Vec::with_capacity(values.len());
        for (key, value) in values {
            inner.flights.end(key);
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
        let mut written = match inner.store.set_many(entries).await {
            Ok(written) => written.into_iter(),
            // Each is counted below.
            Err(error) => vec![Written::Skipped(Skip::Store(error)); count].into_iter(),
        };
        outcomes
            .into_iter()
            .map(|outcome| {
                outcome
                    .or_else(|| Some(inner.settle_write(Ok(written.next()?))))
                    .unwrap_or(Written::Unknown)
            })
            .collect()
    }

    /// Deletes the entry under a key, and ends the right to fill of a load of it that is under way: no lookup that
    /// begins after this returned finds a value whose load began before. Whatever the policy says.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not be told: then the entry may still be there.
    pub async fn delete(&self, key: &Key) -> Result<Deleted, StoreError> {
        self.delete_many(std::slice::from_ref(key)).await
    }

    /// [`Cache::delete`] of several keys.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not be told: then some of the entries may still be there.
    pub async fn delete_many(&self, keys: &[Key]) -> Result<Deleted, StoreError> {
        let end = || keys.iter().for_each(|key| self.inner.flights.end(key));
        end();
        let deleted = self.inner.store.delete(keys).await;
        // What boarded in between may have found the old value: nobody joins it any more.
        end();
        self.inner.settle_delete(deleted)
    }

    /// Deletes all entries that a pattern means, answers how many there were, and ends the right to fill of loads of
    /// them that are under way.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not be told all of it: then some of the entries may still be there.
    pub async fn clear(&self, pattern: &Pattern) -> Result<Deleted, StoreError> {
        self.inner.flights.end_matching(pattern);
        let deleted = self.inner.store.clear(pattern, ClearMode::Delete).await;
        self.inner.flights.end_matching(pattern);
        self.inner.settle_delete(deleted)
    }

    /// How many entries [`Cache::clear`] would delete.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not be asked.
    pub async fn count(&self, pattern: &Pattern) -> Result<Deleted, StoreError> {
        self.inner.store.clear(pattern, ClearMode::DryRun).await
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
pub(crate) fn read_typed<T: DeserializeOwned>(stored: Stored) -> Option<T> {
    serde_json::from_slice(&stored.bytes).ok()
}

impl Inner {
    #[inline]
    pub(crate) fn read_json(&self, stored: Stored) -> Option<Json> {
        if stored.foreign {
            self.checked.check(stored.bytes)
        } else {
            Some(Json::trusted(stored.bytes))
        }
    }

    async fn get<T>(&self, key: &Key, decode: impl FnOnce(Stored) -> Option<T>) -> Option<T> {
        if !self.governor.gate(key).cache_enabled {
            self.bypass(key);
            return None;
        }
        let stored = self.read(key, Ttl::MAX).await;
        self.settle_read(key, stored, decode)
    }

    /// Counts and reports that the cache was not asked.
    fn bypass(&self, key: &Key) {
        self.counters.add(Count::Bypasses);
        self.report(key, Event::of(Outcome::Bypass, 0));
    }

    /// Counts and reports what a plain read found.
    // What a hit goes through is inlined: a value that was just written and is moved on by other widths makes the processor
    // wait, 5 to 8 ns each time.
    #[inline]
    fn settle_read<T>(
        &self,
        key: &Key,
        stored: Option<Stored>,
        decode: impl FnOnce(Stored) -> Option<T>,
    ) -> Option<T> {
        match self.decode(stored, decode) {
            Some((value, bytes)) => {
                self.counters.add(Count::Hits);
                self.report(key, Event::of(Outcome::Hit, bytes));
                Some(value)
            }
            None => {
                self.counters.add(Count::Misses);
                self.report(key, Event::of(Outcome::Miss, 0));
                None
            }
        }
    }

    /// The value of an entry, with its size in bytes; an entry that does not decode is counted.
    #[inline]
    pub(crate) fn decode<T>(
        &self,
        stored: Option<Stored>,
        decode: impl FnOnce(Stored) -> Option<T>,
    ) -> Option<(T, u64)> {
        let stored = stored?;
        let bytes = stored.bytes.len() as u64;
        let value = decode(stored);
        if value.is_none() {
            self.counters.add(Count::Undecodable);
        }
        Some((value?, bytes))
    }

    /// What the store has under a key; nothing if it is slow or away.
    pub(crate) async fn read(&self, key: &Key, longest: Ttl) -> Option<Stored> {
        let answer = match self.store.get(key, longest) {
            // Not awaited: to be moved into the caller's future and out again costs more than what there is to wait for.
            StoreFuture::Ready(Some(answer)) => answer,
            pending => pending.await,
        };
        match answer {
            Ok(stored) => stored,
            Err(error) => {
                self.note_error(&error);
                None
            }
        }
    }

    pub(crate) async fn read_many(&self, keys: &[Key], longest: Ttl) -> Vec<Option<Stored>> {
        if keys.is_empty() {
            return Vec::new();
        }
        match self.store.get_many(keys, longest).await {
            Ok(stored) => stored,
            Err(error) => {
                self.note_error(&error);
                vec![None; keys.len()]
            }
        }
    }

    fn new_entry(&self, key: &Key, bytes: Bytes, ttl: Duration) -> Result<NewEntry, Skip> {
        let policy = self.governor.policy(key);
        if !self.governor.gate(key).cache_enabled {
            return Err(Skip::PolicyOff);
        }
        self.entry(key, bytes, ttl, &policy, Guard::Always)
    }

    /// An entry within what a policy allows.
    pub(crate) fn entry(
        &self,
        key: &Key,
        bytes: Bytes,
        ttl: Duration,
        policy: &Policy,
        guard: Guard,
    ) -> Result<NewEntry, Skip> {
        let ttl = Ttl::new(ttl).ok_or(Skip::NoTtl)?;
        if bytes.len() as u64 > policy.max_value_bytes() {
            self.counters.add(Count::TooLarge);
            return Err(Skip::TooLarge);
        }
        Ok(NewEntry {
            key: key.clone(),
            bytes,
            ttl,
            guard,
        })
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

    fn settle_delete(&self, deleted: Result<Deleted, StoreError>) -> Result<Deleted, StoreError> {
        if let Err(error) = &deleted {
            self.note_error(error);
        }
        deleted
    }

    /// Reports an answer: to the request it belongs to, or to the governor.
    #[inline]
    pub(crate) fn report(&self, key: &Key, event: Event) {
        if !RequestScope::note(key, event) {
            self.governor.record(key, event);
        }
    }

    /// Counts an error that the caller doesn't get to see, and logs it if none was logged of late.
    pub(crate) fn note_error(&self, error: &StoreError) {
        self.counters.add(Count::StoreErrors);
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
