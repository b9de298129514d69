//! The engine that is asked: a cache over an embedded store in a temporary folder, in the log's own time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use larder_core::{Cache, Key, Policy, Service};
use larder_embedded::{EmbeddedStore, Options};

use crate::replay::body::make_up;
use crate::replay::clock::LogClock;
use crate::replay::recorder::Recorder;

/// A slow disk must not change what comes out.
const DEADLINE: Duration = Duration::from_secs(60);

/// A cache, its clock, and who takes note of what it does.
pub(crate) struct Engine {
    pub(crate) cache: Cache,
    pub(crate) clock: LogClock,
    pub(crate) recorder: Arc<Recorder>,
    /// A longer answer is not stored; none that is made up is longer than one byte more.
    max_value_bytes: u64,
}

impl Engine {
    pub(crate) fn open(
        folder: &Path,
        max_bytes: u64,
        policy: Policy,
        service: Service,
    ) -> anyhow::Result<Self> {
        let clock = LogClock::default();
        let options = Options {
            max_bytes,
            max_entries: None,
            deadline: DEADLINE,
            clock: Arc::new(clock.clone()),
        };
        let store = EmbeddedStore::open(&folder.join("store"), options)?;
        let max_value_bytes = policy.max_value_bytes();
        let recorder = Arc::new(Recorder::new(policy, clock.clone()));
        let cache = Cache::builder(service)
            .store(Arc::new(store))
            .governor(Arc::clone(&recorder) as _)
            // It would go by this machine's clock, and the store is to count every hit.
            .l1_bytes(0)
            .build();
        Ok(Self {
            cache,
            clock,
            recorder,
            max_value_bytes,
        })
    }

    /// One lookup, whose loader makes up an answer of so many bytes; says whether there was an answer.
    pub(crate) fn look_up(&self, key: &Key, bytes: u64) -> impl Future<Output = bool> + use<'_> {
        let key = key.clone();
        let bytes = bytes.min(self.max_value_bytes + 1);
        async move {
            let load = move || async move { make_up(bytes) };
            self.cache.get_or_load_json(&key, load).await.is_ok()
        }
    }

    /// Figures of a store that failed would be wrong.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let counts = self.cache.counts();
        let failed = counts.store_errors + counts.load_errors;
        if failed > 0 {
            bail!(
                "the temporary store failed {failed} times, so the figures would be wrong: is its disk full (TMPDIR chooses another)?"
            );
        }
        Ok(())
    }
}
