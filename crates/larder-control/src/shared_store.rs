//! The store that services share, where the control plane has it: what is invalidated there is done for all who use it.

mod browse;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use larder_core::{
    Cache, Frames, Key, Pattern, Service, Store, StoreError, StoreStats, Tag, Target, Ttl,
    VersionName,
};

/// So many services have a cache here; past them those that have nothing pending are let go.
const MAX_CACHES: usize = 256;
/// No count takes longer.
const COUNTING: Duration = Duration::from_secs(5);
/// So many entries are looked at at most, to count those with a tag; and so many at a time.
const MOST_LOOKED_AT: usize = 10_000;
const PAGE: usize = 500;

/// Opens the cache of a service over the store: one that obeys no policy and keeps nothing in the process. It may read and
/// write files. Its error says what to do.
type OpenCache = dyn Fn(&Service) -> Result<Cache, String> + Send + Sync;

/// The store that services share. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct SharedStore {
    store: Arc<dyn Store>,
    frames: Frames,
    id: u32,
    open: Arc<OpenCache>,
    caches: Arc<Mutex<HashMap<Service, Cache>>>,
}

impl fmt::Debug for SharedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedStore")
            .field("store", &self.store.name())
            .finish_non_exhaustive()
    }
}

/// How many entries something names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    /// `None`: not known.
    pub(crate) entries: Option<u64>,
    /// Why that is not all, or not known.
    pub(crate) why: Option<String>,
}

impl SharedStore {
    /// This store. `id` is the number under which services tell which store they have (0 for Redis); `frames` reads framed
    /// entries; `open` opens the cache of a service over it: one that obeys no policy and keeps nothing in the process, and may
    /// read and write files. Its error says what to do.
    pub fn new(
        store: Arc<dyn Store>,
        id: u32,
        frames: Frames,
        open: impl Fn(&Service) -> Result<Cache, String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            store,
            frames,
            id,
            open: Arc::new(open),
            caches: Arc::default(),
        }
    }

    pub(crate) fn name(&self) -> String {
        self.store.name()
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// How full it is; `None` if it does not answer.
    pub(crate) async fn stats(&self) -> Option<StoreStats> {
        let stats = tokio::time::timeout(COUNTING, self.store.stats()).await;
        stats.ok()?.ok()
    }

    /// A service's cache.
    pub(crate) async fn cache(&self, service: &Service) -> Result<Cache, String> {
        if let Some(cache) = self.caches().get(service) {
            return Ok(cache.clone());
        }
        let (this, service) = (self.clone(), service.clone());
        let runtime = tokio::runtime::Handle::current();
        let opening = tokio::task::spawn_blocking(move || {
            // What drives the cache runs on there.
            let _entered = runtime.enter();
            let cache = (this.open)(&service)?;
            let mut caches = this.caches();
            if caches.len() >= MAX_CACHES {
                caches.retain(|_, cache| !cache.outbox().is_empty());
            }
            // Whoever was faster has it.
            Ok(caches.entry(service).or_insert(cache).clone())
        });
        opening.await.map_err(|error| error.to_string())?
    }

    /// Whether nothing of a service is pending here: all that the store was to be told it was.
    pub(crate) fn is_settled(&self, service: &Service) -> bool {
        let caches = self.caches();
        caches
            .get(service)
            .is_some_and(|cache| cache.outbox().is_empty())
    }

    /// How many entries a target names.
    pub(crate) async fn count(&self, service: &Service, target: &Target) -> Count {
        let cache = match self.cache(service).await {
            Ok(cache) => cache,
            Err(why) => return Count::unknown(why),
        };
        let counting = async {
            match target {
                Target::Tag(tag) => self.count_tagged(service, tag).await,
                target => match cache.count_of(target).await {
                    Ok(entries) => Count { entries, why: None },
                    Err(error) => Count::unknown(error.to_string()),
                },
            }
        };
        match tokio::time::timeout(COUNTING, counting).await {
            Ok(count) => count,
            Err(_) => Count::unknown("they were not counted within 5 s".to_owned()),
        }
    }

    /// Looks at the entries of a service, one page after another, within a bound.
    async fn count_tagged(&self, service: &Service, tag: &Tag) -> Count {
        let began = Instant::now();
        let name = VersionName::Tag(tag.clone());
        let pattern = Pattern::of_service(service);
        let (mut after, mut entries, mut looked_at) = (None, 0, 0);
        loop {
            let page = async {
                let page = self.store.scan(Some(&pattern), after.take(), PAGE).await?;
                let keys: Vec<Key> = page.entries.into_iter().map(|entry| entry.key).collect();
                let stored = self.store.get_many(&keys, Ttl::MAX).await?;
                let found = std::iter::zip(&keys, stored);
                let has_tag = found.filter(|(key, stored)| {
                    let stored = stored.as_ref();
                    stored.is_some_and(|stored| self.depends_on(key, stored, &name))
                });
                Ok::<_, StoreError>((has_tag.count() as u64, keys.len(), page.next))
            };
            match page.await {
                Ok((tagged, looked, next)) => {
                    entries += tagged;
                    looked_at += looked;
                    after = next;
                }
                Err(error) => return Count::unknown(error.to_string()),
            }
            if after.is_none() {
                return Count {
                    entries: Some(entries),
                    why: None,
                };
            }
            if looked_at >= MOST_LOOKED_AT || began.elapsed() > COUNTING / 2 {
                return Count {
                    entries: Some(entries),
                    why: Some(format!("only {looked_at} entries were looked at")),
                };
            }
        }
    }

    fn depends_on(&self, key: &Key, stored: &larder_core::Stored, name: &VersionName) -> bool {
        let most = larder_core::MAX_VALUE_BYTES;
        let frame = self.frames.decode(key, &stored.bytes, most);
        frame.is_ok_and(|frame| frame.stamps.iter().any(|stamp| stamp.name == *name))
    }

    fn caches(&self) -> MutexGuard<'_, HashMap<Service, Cache>> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    pub(crate) fn unknown(why: String) -> Self {
        Self {
            entries: None,
            why: Some(why),
        }
    }
}
