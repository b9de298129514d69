//! Folders and entries; and what else the tests of this store use.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{Clock, Guard, Key, NewEntry, Store, Ttl, Written};
use larder_embedded::{EmbeddedStore, Options};
pub(crate) use larder_testing::process::{
    PATIENCE, Process, in_role, in_role_behind, listen, role, say,
};

/// A store's folder in a folder that goes with the test.
pub(crate) struct Place {
    _parent: tempfile::TempDir,
    pub(crate) folder: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("store");
        Self {
            _parent: parent,
            folder,
        }
    }

    pub(crate) fn open(&self, options: Options) -> EmbeddedStore {
        EmbeddedStore::open(&self.folder, options).unwrap()
    }
}

/// Patient ones: the machine may be loaded, and no test but those of the deadline is about it.
pub(crate) fn options() -> Options {
    Options {
        max_bytes: 64 << 20,
        deadline: PATIENCE,
        ..Options::default()
    }
}

pub(crate) fn key(endpoint: &str) -> Key {
    Key::new("svc", endpoint).unwrap()
}

pub(crate) fn entry(key: &Key, bytes: impl Into<Bytes>, seconds: u64) -> NewEntry {
    NewEntry {
        key: key.clone(),
        bytes: bytes.into(),
        ttl: Ttl::new(Duration::from_secs(seconds)).unwrap(),
        guard: Guard::Always,
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Sets an entry for an hour, outside a runtime.
pub(crate) fn set(store: &EmbeddedStore, key: &Key, bytes: impl Into<Bytes>) {
    let written = runtime().block_on(async { store.set(entry(key, bytes, 3_600)).await });
    assert_eq!(written.unwrap(), Written::Stored, "{key}");
}

pub(crate) fn get(store: &EmbeddedStore, key: &Key) -> Option<Bytes> {
    let found = runtime().block_on(async { store.get(key, Ttl::MAX).await });
    found.unwrap().map(|stored| stored.bytes)
}

pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A clock that a test sets.
#[derive(Clone, Default)]
pub(crate) struct HandClock(Arc<AtomicU64>);

impl HandClock {
    pub(crate) fn at(seconds: u64) -> Self {
        let clock = Self::default();
        clock.advance(seconds);
        clock
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}
