//! How a folder is opened: checked by the first, shared by the others.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use larder_core::{Clock, Proof};
use rustix::fs::{FallocateFlags, FlockOperation};

use crate::clock::{BootClock, millis, wall_millis};
use crate::control::{Control, Removal};
use crate::folder::{self, FileAt, FileId, Folder, OpenError};
use crate::lmdb::Lmdb;
use crate::readers::Readers;
use crate::waiting::Waiting;
use crate::walk;

const DATA: &str = "data.mdb";
const LMDB_LOCK: &str = "lock.mdb";
const CONTROL: &str = "control";
const LOCK: &str = "lock";
const FILES: [&str; 4] = [DATA, LMDB_LOCK, CONTROL, LOCK];
/// Where the control block stands among them.
const CONTROL_AT: usize = 2;
const PAGE_BYTES: u64 = 4_096;
/// What LMDB's lock file takes: 64 bytes for each reader, and its own.
const LMDB_LOCK_BYTES: u64 = crate::lmdb::MAX_READERS as u64 * 64 + PAGE_BYTES;
/// The least that LMDB and the bookkeeping can work in.
const LEAST_BYTES: u64 = 1 << 20;
/// How long the check of another process is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// What the first opener does: nobody else has the folder open.
fn prepare(folder: &Folder, options: &Options) -> Result<Control, OpenError> {
    let max_bytes = options.max_bytes.max(LEAST_BYTES) / PAGE_BYTES * PAGE_BYTES;
    let control = existing_control(folder)?;
    if let Some(why) = control.as_ref().and_then(|control| may_stay(control).err()) {
        let path = folder.path().display().to_string();
        tracing::info!(folder = path, why, "the embedded store starts empty");
        folder.remove(DATA)?;
        folder.remove(LMDB_LOCK)?;
        if let Some(control) = &control {
            control.retire();
        }
        return settle(folder, new_control(folder, max_bytes)?, options);
    }
    match (damage(folder, control.is_some())?, control) {
        (Some(damage), old) => {
            set_aside(folder, &damage)?;
            if let Some(old) = old {
                old.retire();
            }
            let control = new_control(folder, max_bytes)?;
            control.count_removed(Removal::Damaged, 1);
            settle(folder, control, options)
        }
        (None, Some(control)) => settle(folder, control, options),
        (None, None) => {
            folder.remove(LMDB_LOCK)?;
            settle(folder, new_control(folder, max_bytes)?, options)
        }
    }
}

/// What is wrong with the data file, if there is one.
fn damage(folder: &Folder, has_control: bool) -> Result<Option<walk::Damage>, OpenError> {
    let Some(data) = folder.open_existing(DATA)? else {
        return Ok(None);
    };
    let is_empty = data.metadata().is_ok_and(|data| data.len() == 0);
    if !has_control && !is_empty {
        return Ok(Some(
            "its control block is missing, damaged, or of another version".to_owned(),
        ));
    }
    Ok(walk::check(&data).err())
}

fn existing_control(folder: &Folder) -> Result<Option<Control>, OpenError> {
    let Some(file) = folder.open_existing(CONTROL)? else {
        return Ok(None);
    };
    let path = folder.path().join(CONTROL);
    let bytes = file
        .metadata()
        .map_err(|error| folder::system(&path, "looking at it", error))?
        .len();
    let Ok(control) = Control::map(&file) else {
        return Ok(None);
    };
    Ok(control.is_valid(bytes).then_some(control))
}

fn new_control(folder: &Folder, max_bytes: u64) -> Result<Control, OpenError> {
    folder.remove(CONTROL)?;
    let path = folder.path().join(CONTROL);
    let file = folder.open_file(CONTROL)?;
    let bytes = Control::file_bytes(max_bytes);
    // Blocks that exist: else a full disk would be a SIGBUS at the first write to them.
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)
        .map_err(|error| folder::refusal(&path, error))?;
    let control = Control::map(&file).map_err(|error| folder::io_refusal(&path, error))?;
    control.initialise(max_bytes, chance());
    Ok(control)
}

fn chance() -> u64 {
    let mut bytes = [0; 8];
    // Without chance the seed can be foreseen, and somebody may choose keys that share recency: no more than that.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Whether what the folder holds is to be trusted; else why not.
fn may_stay(control: &Control) -> Result<(), &'static str> {
    if control.boot_id() == boot_id() {
        return Ok(());
    }
    let Some((_, closed_at_wall)) = control.closed_at() else {
        return Err(
            "the machine stopped without an orderly close, and what was not on the disk is lost",
        );
    };
    if wall_millis() < closed_at_wall {
        return Err("the machine's clock went back while it was off, so no expiry can be told");
    }
    Ok(())
}

fn set_aside(folder: &Folder, damage: &str) -> Result<(), OpenError> {
    let path = folder.path().display().to_string();
    tracing::warn!(
        folder = path,
        damage,
        "the embedded store was damaged: it is set aside in damaged/, and the cache starts empty"
    );
    folder.set_aside(DATA)?;
    folder.remove(LMDB_LOCK)
}

/// Carries time over to this boot, and notes who has the folder open from now on.
fn settle(folder: &Folder, control: Control, options: &Options) -> Result<Control, OpenError> {
    let this_boot = boot_id();
    if control.boot_id() != this_boot {
        let now = millis(options.clock.now());
        let store_time = match control.closed_at() {
            Some((closed_at, closed_at_wall)) => {
                closed_at.saturating_add(wall_millis().saturating_sub(closed_at_wall))
            }
            None => now,
        };
        // Never less than it was: then entries would live longer.
        control.set_time_base(store_time.saturating_sub(now));
        control.set_boot_id(this_boot);
    }
    control.set_pid_namespace(pid_namespace(folder)?);
    Ok(control)
}

/// What those who come later do; `None` if nobody has the folder open any more.
fn join(folder: &Folder) -> Result<Option<(Control, LmdbFiles)>, OpenError> {
    let path = folder.path().join(CONTROL);
    let control = existing_control(folder)?.ok_or_else(|| {
        let error = std::io::Error::from(std::io::ErrorKind::InvalidData);
        folder::system(&path, "reading it while others have it open", error)
    })?;
    if control.closed_at().is_some() || control.boot_id() != boot_id() {
        return Ok(None);
    }
    if control.pid_namespace() != pid_namespace(folder)? {
        return Err(OpenError::PidNamespace {
            path: folder.path().to_owned(),
        });
    }
    let files = open_lmdb(folder, &control, false)?;
    Ok(Some((control, files)))
}

/// LMDB, and what is read beside it.
struct LmdbFiles {
    lmdb: Lmdb,
    data: File,
    readers: Readers,
}

fn open_lmdb(folder: &Folder, control: &Control, may_create: bool) -> Result<LmdbFiles, OpenError> {
    let failed = |error: heed::Error| match error {
        heed::Error::Io(error) => folder::io_refusal(&folder.path().join(DATA), error),
        other => OpenError::Lmdb {
            path: folder.path().to_owned(),
            error: other.to_string(),
        },
    };
    // Made by us, so that its mode and owner are checked before LMDB has it.
    let checked = folder.open_file(DATA)?;
    let lmdb_lock = folder.open_file(LMDB_LOCK)?;
    if may_create {
        // LMDB would make a file with holes, and die of them on a full disk.
        rustix::fs::fallocate(&lmdb_lock, FallocateFlags::empty(), 0, LMDB_LOCK_BYTES)
            .map_err(|error| folder::refusal(&folder.path().join(LMDB_LOCK), error))?;
    }
    let readers = Readers::map(&lmdb_lock)
        .map_err(|error| folder::system(&folder.path().join(LMDB_LOCK), "mapping it", error))?;
    // Closed before LMDB has it: closing any descriptor of a file gives up the process's locks on it.
    drop(lmdb_lock);
    let map_bytes = usize::try_from(control.max_bytes()).unwrap_or(usize::MAX);
    let begin = Instant::now();
    let lmdb = loop {
        match Lmdb::open(&folder.path_by_descriptor(), map_bytes, may_create) {
            // Another thread is just closing it.
            Err(heed::Error::EnvAlreadyOpened) if begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => break opened.map_err(failed)?,
        }
    };
    let data = lmdb.env.try_clone_inner_file().map_err(failed)?;
    if folder::id_of(&data) != folder::id_of(&checked) {
        return Err(OpenError::Unsafe {
            path: folder.path().join(DATA),
            what: "was exchanged while it was being opened",
            next: "see who else can write to this folder",
        });
    }
    Ok(LmdbFiles {
        lmdb,
        data,
        readers,
    })
}

fn warn_of_other_size(folder: &Folder, control: &Control, options: &Options) {
    let asked = options.max_bytes.max(LEAST_BYTES) / PAGE_BYTES * PAGE_BYTES;
    let fixed = control.max_bytes();
    if asked != fixed {
        let folder = folder.path().display().to_string();
        tracing::warn!(
            folder,
            asked,
            fixed,
            "LARDER_MAX_BYTES was fixed when the folder was made: to change it, stop all who use the folder, delete it, and start again"
        );
    }
}

fn boot_id() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0)
}

fn pid_namespace(folder: &Folder) -> Result<u64, OpenError> {
    let path = Path::new("/proc/self/ns/pid");
    let status = rustix::fs::stat(path)
        .map_err(|error| folder::system(folder.path(), "reading /proc/self/ns/pid", error))?;
    Ok(status.st_ino)
}
