//! How a folder is opened: checked by the first, shared by the others.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use larder_core::mutants::{Guard, is_off};
use larder_core::{Clock, Proof};
use rustix::fs::FlockOperation;

use crate::clock::{BootClock, millis, wall_millis};
use crate::control::Control;
use crate::folder::{self, FileAt, FileId, Folder, OpenError};
use crate::lmdb::Lmdb;
use crate::preparing::{
    CONTROL, DATA, LMDB_LOCK, chance, join, open_lmdb, prepare, warn_of_other_size,
};
use crate::readers::Readers;
use crate::waiting::Waiting;

const LOCK: &str = "lock";
const FILES: [&str; 4] = [DATA, LMDB_LOCK, CONTROL, LOCK];
/// Where the control block stands among them.
const CONTROL_AT: usize = 2;
/// How long the check of another process is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// How much `data.mdb` may take on the disk, in bytes; no less than 1 MiB. Fixed when the folder is made.
    pub max_bytes: u64,
    /// At most so many entries; `None`: as many as fit. Holds for writes of this process.
    pub max_entries: Option<u64>,
    /// After this time an operation is given up.
    pub deadline: Duration,
    /// Where time comes from. All who share a folder use the same.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_entries: None,
            deadline: Duration::from_millis(100),
            clock: Arc::new(BootClock),
        }
    }
}

/// A folder that this process has open.
pub(crate) struct Opened {
    pub(crate) folder: Folder,
    pub(crate) control: Control,
    pub(crate) lmdb: Lmdb,
    /// LMDB's file, to read what LMDB does not tell.
    pub(crate) data: File,
    pub(crate) readers: Readers,
    pub(crate) options: Options,
    /// Held shared while there are sessions.
    lock: File,
    sessions: Mutex<Sessions>,
    /// The files that were opened, in the order of [`FILES`].
    files: [FileAt; FILES.len()],
    is_exchanged: AtomicBool,
    /// The block's life while this process has the folder's lock: proofs are of this one.
    life: AtomicU64,
    pub(crate) waiting: Arc<Waiting>,
}

/// The stores of this process that use a folder.
struct Sessions {
    count: usize,
    is_locked: bool,
}

/// A store's use of a folder. When the last one of this process ends, it gives the folder back to others.
pub(crate) struct Session {
    opened: Arc<Opened>,
}

impl Session {
    fn begin(opened: Arc<Opened>) -> Result<Self, OpenError> {
        opened.enter()?;
        Ok(Self { opened })
    }

    pub(crate) fn opened(&self) -> Arc<Opened> {
        Arc::clone(&self.opened)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.opened.leave();
    }
}

/// The folders that this process has open, however their paths are spelt: LMDB can't be opened twice in a process.
static OPEN: Mutex<Option<HashMap<FileId, Weak<Opened>>>> = Mutex::new(None);

impl Opened {
    /// Opens a folder, or joins the one that is open.
    pub(crate) fn open(path: &Path, options: Options) -> Result<Session, OpenError> {
        let folder = Folder::open(path)?;
        let id = folder.id()?;
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        open.retain(|_, opened| opened.strong_count() > 0);
        // LMDB takes no second one at the same path.
        let replaced = open.values().filter_map(Weak::upgrade).find(|opened| {
            opened.folder.is_at_path_of(&folder) && {
                opened.look();
                opened.is_exchanged()
            }
        });
        if let Some(replaced) = replaced {
            return Err(replaced.exchanged());
        }
        if let Some(opened) = open.get(&id).and_then(Weak::upgrade) {
            return Session::begin(opened);
        }
        let opened = Arc::new(Self::open_alone(folder, options)?);
        open.insert(id, Arc::downgrade(&opened));
        Session::begin(opened)
    }

    fn open_alone(folder: Folder, options: Options) -> Result<Self, OpenError> {
        let lock = folder.open_file(LOCK)?;
        let lock_path = folder.path().join(LOCK);
        let alone = FlockOperation::NonBlockingLockExclusive;
        let shared = FlockOperation::NonBlockingLockShared;
        let begin = Instant::now();
        let (control, files) = loop {
            if folder::lock(&lock_path, &lock, alone, Duration::ZERO)? {
                let control = prepare(&folder, &options)?;
                let files = open_lmdb(&folder, &control, true)?;
                control.set_open();
                control.begin_life(chance() | 1);
                if !folder::lock(&lock_path, &lock, shared, PATIENCE)? {
                    return Err(OpenError::Busy { path: lock_path });
                }
                break (control, files);
            }
            // Who held it may have been the last and just closed the folder: then there is nothing to join, and this
            // one tries again to be the first.
            if folder::lock(&lock_path, &lock, shared, Duration::ZERO)?
                && let Some(joined) = join(&folder)?
            {
                break joined;
            }
            if begin.elapsed() >= PATIENCE {
                return Err(OpenError::Busy { path: lock_path });
            }
            folder::lock(&lock_path, &lock, FlockOperation::Unlock, Duration::ZERO)?;
            std::thread::sleep(Duration::from_millis(5));
        };
        warn_of_other_size(&folder, &control, &options);
        Ok(Self {
            files: FILES.map(|name| folder.file(name)),
            is_exchanged: AtomicBool::new(false),
            life: AtomicU64::new(control.life()),
            waiting: Arc::default(),
            folder,
            control,
            lmdb: files.lmdb,
            data: files.data,
            readers: files.readers,
            options,
            lock,
            sessions: Mutex::new(Sessions {
                count: 0,
                is_locked: true,
            }),
        })
    }

    /// The store's time, in milliseconds.
    pub(crate) fn now(&self) -> u64 {
        millis(self.options.clock.now()).saturating_add(self.control.time_base())
    }

    /// Looks whether the folder's files are those that were opened. When they are not, others share another store, or none:
    /// then this one is used no more.
    pub(crate) fn look(&self) {
        if is_off(Guard::ExchangeIsNoticed) {
            return;
        }
        let is_same = |(name, opened): (&str, &FileAt)| match self.folder.file(name) {
            FileAt::Unknown => true,
            now => now == *opened,
        };
        let is_in_place =
            self.folder.is_in_place() && FILES.into_iter().zip(&self.files).all(is_same);
        if !is_in_place && !self.is_exchanged.swap(true, Ordering::Relaxed) {
            // The others that have this block too need not find it out by themselves.
            if !self.folder.is_in_place() || !is_same((CONTROL, &self.files[CONTROL_AT])) {
                self.control.retire();
            }
            tracing::error!("nothing is cached any more: {}", self.exchanged());
        }
    }

    /// Whether what was read with a proof is still so.
    #[inline]
    pub(crate) fn holds(&self, proof: &Proof) -> bool {
        !self.is_exchanged() && self.control.holds(self.life(), proof)
    }

    #[inline]
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::Relaxed)
    }

    pub(crate) fn is_exchanged(&self) -> bool {
        self.is_exchanged.load(Ordering::Relaxed)
    }

    pub(crate) fn exchanged(&self) -> OpenError {
        OpenError::Exchanged {
            path: self.folder.path().to_owned(),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<(), OpenError> {
        let mut sessions = self.sessions();
        if !sessions.is_locked {
            self.lock_again()?;
            sessions.is_locked = true;
            // Others may have had the folder alone meanwhile.
            self.life.store(self.control.life(), Ordering::Relaxed);
        }
        self.look();
        if self.is_exchanged() {
            if sessions.count == 0 {
                self.unlock(&mut sessions);
            }
            return Err(self.exchanged());
        }
        sessions.count += 1;
        Ok(())
    }

    /// Takes the folder's lock after it was given back: LMDB still has the file open, and others may have come and gone.
    fn lock_again(&self) -> Result<(), OpenError> {
        let path = self.folder.path().join(LOCK);
        let lock = |operation, patience| folder::lock(&path, &self.lock, operation, patience);
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if lock(FlockOperation::NonBlockingLockExclusive, Duration::ZERO)? {
                self.control.set_open();
                if lock(FlockOperation::NonBlockingLockShared, PATIENCE)? {
                    return Ok(());
                }
            } else if lock(FlockOperation::NonBlockingLockShared, Duration::ZERO)? {
                if self.control.closed_at().is_none() {
                    return Ok(());
                }
                // Who had it just closed it: this one tries again to be the first.
                lock(FlockOperation::Unlock, Duration::ZERO)?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(OpenError::Busy { path })
    }

    /// The last who leaves syncs the file, says that all is well, and gives the lock back.
    fn leave(&self) {
        let mut sessions = self.sessions();
        sessions.count = sessions.count.saturating_sub(1);
        if sessions.count > 0 {
            return;
        }
        let path = self.folder.path().join(LOCK);
        let alone = FlockOperation::NonBlockingLockExclusive;
        self.look();
        if !self.is_exchanged()
            && matches!(
                folder::lock(&path, &self.lock, alone, Duration::ZERO),
                Ok(true)
            )
        {
            self.end_orderly();
        }
        self.unlock(&mut sessions);
    }

    fn unlock(&self, sessions: &mut Sessions) {
        sessions.is_locked = false;
        let path = self.folder.path().join(LOCK);
        if let Err(error) = folder::lock(&path, &self.lock, FlockOperation::Unlock, Duration::ZERO)
        {
            tracing::warn!(%error, "the embedded store's lock could not be given back");
        }
    }

    fn end_orderly(&self) {
        match self.lmdb.env.force_sync() {
            Ok(()) => self.control.set_closed(self.now(), wall_millis()),
            Err(error) => {
                let folder = self.folder.path().display().to_string();
                tracing::warn!(folder, %error, "the embedded store was not synced to the disk; it will start empty after a reboot");
            }
        }
    }
}
