//! What an invalidation or a `set` could not confirm: kept in memory and in a journal on the disk, hidden from this process
//! at once, and applied to the store before the store is used for it again.

mod adopt;
mod apply;
mod counted;
mod drive;
mod gate;
mod invalidation;
mod journal;
mod look;
mod record;
mod tombstones;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use larder_model::{Key, Service};
use tokio::sync::Notify;

pub use apply::{Applied, Apply};
pub use invalidation::Invalidation;
pub use journal::Volatile;

use crate::mutants::{Guard, is_off};
use crate::sync;
use crate::version::VersionName;
use gate::Gate;
use invalidation::Item;
use journal::{Journal, Place};
use tombstones::{Pending, Tombstones};

/// What may be pending. Past it, all of a service takes the place of what is pending of it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// So many parts: keys, patterns, versions.
    pub entries: usize,
    /// So many bytes in memory.
    pub bytes: usize,
    /// So many patterns of one service, each of which a lookup tries.
    pub patterns: usize,
}

impl Default for Limits {
    /// 10,000 parts, 1 MiB, 64 patterns.
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 1 << 20,
            patterns: 64,
        }
    }
}

/// How safely something is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Kept {
    /// In memory, and written to the journal: it survives the process, by kill -9 too. (Forced to the disk, so that it
    /// survives a power cut, it is in the background: a request does not wait for the disk.)
    Pending,
    /// In memory alone: lost with the process.
    PendingVolatile(Volatile),
}

/// When something began, for [`Outbox::supersede`].
#[derive(Debug, Clone, Copy)]
pub struct Moment(u64);

/// What happened in an outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxCounts {
    /// Parts that are pending.
    pub pending: u64,
    /// Parts that were applied.
    pub applied: u64,
    /// Journals of dead processes that were adopted.
    pub adopted: u64,
    /// How often a journal could not be adopted, since it was not this user's alone or could not be read.
    pub refused: u64,
    /// Lines of adopted journals that could not be read.
    pub unreadable: u64,
    /// How often all of a service took the place of its parts.
    pub collapsed: u64,
}

/// What an invalidation or a `set` could not confirm, until the store has confirmed it.
///
/// - [`Outbox::add`] keeps it. When it answers [`Kept::Pending`] it survives the process, however that ends.
/// - [`Outbox::hides`] says of a key whether it is named by what is pending: then the store is neither read nor filled.
/// - [`Outbox::run`] applies it, again and again until the store has confirmed it.
/// - A journal belongs to one process, which holds its lock, and to one store. That of a dead process is adopted by the
///   next one of the same store: one that starts, or one that lives.
///
/// Each part is applied at least once, and usually once: it only removes, so more often costs misses and nothing else.
///
/// ```
/// use larder_core::{Invalidation, Kept, Key, Outbox, OutboxLimits, Service};
///
/// # let parent = std::env::temp_dir().join(format!("larder-doc-{}", std::process::id()));
/// # let folder = parent.join("journal");
/// let service = Service::new("svc").unwrap();
/// let open = || Outbox::open(&folder, "127.0.0.1:6379/0", service.clone(), OutboxLimits::default());
/// let outbox = open();
/// let key = Key::new("svc", "/products").unwrap();
/// let kept = outbox.add(Invalidation::Keys(vec![key.clone()]));
/// assert!(kept == Kept::Pending && outbox.hides(&key));
/// drop(outbox);
/// assert!(open().hides(&key));
/// # std::fs::remove_dir_all(&parent).unwrap();
/// ```
#[derive(Debug)]
pub struct Outbox {
    /// How much is pending.
    gate: Gate,
    /// Locked before `tombstones`, never after it: what is written down is in the order in which it was added.
    journal: Mutex<Journal>,
    tombstones: RwLock<Tombstones>,
    /// The service whose cache this is: invalidated as a whole where a journal can't be read.
    service: Service,
    /// Of one [`Outbox::apply`] at a time.
    applying: tokio::sync::Mutex<()>,
    /// Wakes the driver.
    wake: Arc<Notify>,
    applied: AtomicU64,
    adopted: AtomicU64,
    refused: AtomicU64,
    unreadable: AtomicU64,
    collapsed: AtomicU64,
}

impl Outbox {
    /// An outbox without a journal: what is pending is lost with this process.
    #[must_use]
    pub fn new(service: Service, limits: Limits) -> Self {
        Self::build(service, limits, None)
    }

    /// An outbox whose journal lies in a folder, which is made if there is none. Adopts what dead processes left there, and heeds
    /// what living ones have pending.
    ///
    /// `store_identity` says which store it is: the same text in every process that uses the same store, and another one
    /// for another store (host, port and database; or the folder). It must hold no credentials: its hash is part of the
    /// journal's name. A folder that can't be used is logged, and tried again at every [`Outbox::add`].
    ///
    /// Reads and writes files: call it at start.
    #[must_use]
    pub fn open(folder: &Path, store_identity: &str, service: Service, limits: Limits) -> Self {
        let place = Place::new(folder, store_identity);
        let outbox = Self::build(service, limits, Some(place));
        outbox.adopt();
        outbox.heed_living();
        outbox
    }

    fn build(service: Service, limits: Limits, place: Option<Place>) -> Self {
        Self {
            gate: Gate::default(),
            journal: Mutex::new(Journal::new(place)),
            tombstones: RwLock::new(Tombstones::new(limits)),
            service,
            applying: tokio::sync::Mutex::new(()),
            wake: Arc::new(Notify::new()),
            applied: AtomicU64::new(0),
            adopted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            collapsed: AtomicU64::new(0),
        }
    }

    /// Keeps what could not be confirmed, and hides what it names. Writes a few bytes to a file before it returns.
    pub fn add(&self, invalidation: Invalidation) -> Kept {
        let kept = self.add_items(&mut self.journal(), &invalidation.into_items());
        self.wake.notify_one();
        kept
    }

    fn add_items(&self, journal: &mut Journal, items: &[Item]) -> Kept {
        let mut added = Vec::new();
        let mut has_collapsed = false;
        {
            let mut tombstones = self.tombstones_mut();
            for item in items {
                let record = tombstones.add(item);
                added.extend(record.map(|record| Pending {
                    item: item.clone(),
                    record,
                }));
                if tombstones.collapse() {
                    has_collapsed = true;
                    self.collapsed.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.gate.set(tombstones.len());
        }
        let pending = || self.tombstones().pending();
        let written = if is_off(Guard::JournalIsKept) {
            Ok(())
        } else if has_collapsed {
            journal.rewrite(pending)
        } else {
            journal.add(&added, pending)
        };
        match written {
            Ok(()) => Kept::Pending,
            Err(why) => Kept::PendingVolatile(why),
        }
    }

    /// Whether a key is named by what is pending: then the store must not be read or filled for it.
    ///
    /// One load while nothing is pending.
    #[inline]
    #[must_use]
    pub fn hides(&self, key: &Key) -> bool {
        !self.is_empty() && !is_off(Guard::TombstonesHide) && self.tombstones().hides(key)
    }

    /// Whether a version is named by what is pending: then no entry that depends on it is used.
    #[inline]
    #[must_use]
    pub fn hides_version(&self, service: &Service, name: &VersionName) -> bool {
        !self.is_empty() && self.tombstones().hides_version(service, name)
    }

    /// Whether nothing is pending.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gate.is_open()
    }

    /// Now, for a `set` that begins.
    #[must_use]
    pub fn moment(&self) -> Moment {
        // What is added later comes after it in any case.
        Moment(if self.is_empty() {
            0
        } else {
            self.tombstones().clock()
        })
    }

    /// Forgets what is pending of a key, after a `set` of it that began at `moment` is known to be stored: applied now, the
    /// invalidation would only remove the newer value. What was added since then stays, and so do patterns.
    pub fn supersede(&self, key: &Key, moment: Moment) {
        if self.is_empty() {
            return;
        }
        let mut journal = self.journal();
        let record = self.tombstones_mut().supersede(key, moment.0);
        self.settle(&mut journal, record.as_slice());
    }

    /// Marks records as done, and removes the journal once nothing is pending.
    fn settle(&self, journal: &mut Journal, records: &[u64]) {
        let len = self.tombstones().len();
        self.gate.set(len);
        if len == 0 {
            journal.remove();
        } else if !records.is_empty() {
            journal.mark(records);
        }
    }

    /// What happened.
    #[must_use]
    pub fn counts(&self) -> OutboxCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OutboxCounts {
            pending: self.gate.len() as u64,
            applied: count(&self.applied),
            adopted: count(&self.adopted),
            refused: count(&self.refused),
            unreadable: count(&self.unreadable),
            collapsed: count(&self.collapsed),
        }
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tombstones(&self) -> RwLockReadGuard<'_, Tombstones> {
        self.tombstones
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn tombstones_mut(&self) -> RwLockWriteGuard<'_, Tombstones> {
        self.tombstones
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    /// Lets the driver end. What is pending stays in the journal, for who comes next.
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
