//! This process's journal on the disk: held by a lock while the process lives, there only while something is pending.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::record;
use super::tombstones::Pending;
use crate::private_folder::PrivateFolder;

/// A journal that has grown to this, in bytes, is written anew, with what is still pending alone.
const COMPACT_AT: u64 = 4 << 20;
/// No journal is larger: what is pending is bounded well below that.
pub(super) const MAX_BYTES: u64 = 8 << 20;
/// A disk that could not be written is not tried again for this long.
const RETRY: Duration = Duration::from_secs(1);
/// A fault that goes on is logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
const SUFFIX: &str = ".journal";

/// Why something is kept in memory alone: it is lost with this process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Volatile {
    /// There is no journal.
    #[error("no journal is kept: give one a folder (LARDER_JOURNAL)")]
    NoJournal,
    /// The journal can't be written.
    #[error("the journal can't be written: {0}")]
    Unwritable(String),
}

/// Where the journals of one store lie.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    /// What the names of that store's journals begin with.
    prefix: String,
}

impl Place {
    pub(super) fn new(folder: &Path, store_identity: &str) -> Self {
        let hash = blake3::hash(store_identity.as_bytes()).to_hex();
        Self {
            folder: folder.to_owned(),
            prefix: format!("{}-", &hash.as_str()[..32]),
        }
    }

    pub(super) fn is_journal(&self, name: &str) -> bool {
        name.starts_with(&self.prefix) && name.ends_with(SUFFIX)
    }

    /// Makes a journal and takes its lock.
    ///
    /// Between the two, another process may take it for a dead one's and remove it: then it is made once more.
    fn create(&self, folder: &PrivateFolder) -> io::Result<(String, File)> {
        const TRIES: usize = 10;
        for _ in 0..TRIES {
            // Every `RandomState` has other keys.
            let random = RandomState::new().hash_one(0_u8);
            let (prefix, process) = (&self.prefix, std::process::id());
            let name = format!("{prefix}{process}-{random:016x}{SUFFIX}");
            let file = match folder.create(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created?,
            };
            if lock(&file)? && folder.leads_to(&name, &file) {
                return Ok((name, file));
            }
        }
        Err(io::Error::other(
            "another process removes it again and again",
        ))
    }
}

/// Whether the lock of a journal could be taken: nobody alive has it.
pub(super) fn lock(file: &File) -> io::Result<bool> {
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A journal whose lock this process holds.
#[derive(Debug)]
struct Held {
    folder: PrivateFolder,
    name: String,
    file: File,
    bytes: u64,
}

impl Held {
    fn append(&mut self, text: &str) -> io::Result<()> {
        let written = self.file.write_all(text.as_bytes());
        match written {
            Ok(()) => self.bytes += text.len() as u64,
            // A part may have been written: it has no end, and is no record if it can't be taken back.
            Err(_) => drop(self.file.set_len(self.bytes)),
        }
        written
    }

    /// Whether it could be removed. It is before the lock is given back, so that nobody takes it for a dead process's.
    fn remove(&self) -> bool {
        self.folder.remove(&self.name).is_ok()
    }
}

impl Drop for Held {
    /// Closing it would do, but for a process that is just being started and has not closed its copy yet.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

#[derive(Debug)]
pub(super) struct Journal {
    /// `None`: nothing is written down.
    place: Option<Place>,
    own: Option<Held>,
    /// Those that stay until all was applied: of dead processes, which could not be copied into this one; and what could
    /// not be removed, which would be adopted again and again.
    kept: Vec<Held>,
    /// Why not all that is pending stands in it, and since when.
    failed: Option<(Volatile, Instant)>,
    warned: Option<Instant>,
    is_synced: bool,
}

impl Journal {
    pub(super) fn new(place: Option<Place>) -> Self {
        Self {
            place,
            own: None,
            kept: Vec::new(),
            failed: None,
            warned: None,
            is_synced: true,
        }
    }

    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    pub(super) fn is_own(&self, name: &str) -> bool {
        self.own.as_ref().is_some_and(|own| own.name == name)
    }

    /// Writes down what was added. `pending` is all that is pending, for when the journal is written anew.
    ///
    /// When this returns, the system has it: it survives the process, however that ends. A power cut it survives after
    /// the next [`Journal::take_unsynced`]: forcing it to the disk takes too long for a request.
    pub(super) fn add(
        &mut self,
        added: &[Pending],
        pending: impl FnOnce() -> Vec<Pending>,
    ) -> Result<(), Volatile> {
        if self.failed.is_none() && added.is_empty() {
            return self.place.as_ref().map(|_| ()).ok_or(Volatile::NoJournal);
        }
        match &mut self.own {
            Some(own) if self.failed.is_none() && own.bytes < COMPACT_AT => {
                let mut text = String::new();
                record::write_added(added, &mut text);
                let written = own.append(&text);
                self.is_synced = false;
                written.map_err(|error| self.fail(&error))
            }
            _ => self.rewrite(pending),
        }
    }

    /// Writes all that is pending into a new journal, and removes the old one.
    pub(super) fn rewrite(
        &mut self,
        pending: impl FnOnce() -> Vec<Pending>,
    ) -> Result<(), Volatile> {
        let place = self.place.clone().ok_or(Volatile::NoJournal)?;
        if let Some((why, since)) = &self.failed
            && since.elapsed() < RETRY
        {
            return Err(why.clone());
        }
        let made = Self::make(&place, &pending());
        let new = made.map_err(|error| self.fail(&error))?;
        let old = self.own.replace(new);
        self.kept.extend(old.filter(|old| !old.remove()));
        self.failed = None;
        self.is_synced = false;
        Ok(())
    }

    fn make(place: &Place, pending: &[Pending]) -> io::Result<Held> {
        PrivateFolder::make(&place.folder)?;
        let folder = PrivateFolder::open(&place.folder)?;
        let (name, file) = place.create(&folder)?;
        let mut held = Held {
            folder,
            name,
            file,
            bytes: 0,
        };
        let mut text = String::new();
        record::write_added(pending, &mut text);
        match held.append(&text) {
            Ok(()) => Ok(held),
            Err(error) => {
                let _ = held.remove();
                Err(error)
            }
        }
    }

    /// Marks records as applied, so that nobody applies them again, even if this process dies now.
    pub(super) fn mark(&mut self, records: &[u64]) {
        let Some(own) = &mut self.own else { return };
        let mut text = String::new();
        record::write_applied(records, &mut text);
        // What is not marked is applied once more: that costs misses and nothing else.
        if let Err(error) = own.append(&text) {
            self.fail(&error);
        }
    }

    /// Removes the journal: nothing is pending any more.
    pub(super) fn remove(&mut self) {
        self.kept.extend(self.own.take());
        self.kept.retain(|held| !held.remove());
        self.failed = None;
        self.is_synced = true;
    }

    /// Keeps a dead process's journal, and its lock, until all was applied.
    pub(super) fn keep(&mut self, folder: PrivateFolder, name: String, file: File) {
        self.kept.push(Held {
            folder,
            name,
            file,
            bytes: 0,
        });
    }

    pub(super) fn is_behind(&self) -> bool {
        self.failed.is_some()
    }

    /// What must be forced to the disk, if anything must; after that it is taken to be.
    pub(super) fn take_unsynced(&mut self) -> Option<Unsynced> {
        if std::mem::replace(&mut self.is_synced, true) {
            return None;
        }
        let own = self.own.as_ref()?;
        let (file, folder) = (own.file.try_clone(), own.folder.try_clone());
        Some(Unsynced {
            file: file.ok()?,
            folder: folder.ok()?,
        })
    }

    fn fail(&mut self, error: &io::Error) -> Volatile {
        let why = Volatile::Unwritable(say(error));
        self.failed = Some((why.clone(), Instant::now()));
        self.warn(error);
        why
    }

    /// Warns that nothing can be written down.
    pub(super) fn warn(&mut self, error: &io::Error) {
        if let Some(folder) = self.folder_to_warn_of() {
            tracing::warn!(%folder, error = %say(error), "no journal can be kept: invalidations that the store can't confirm are kept in memory alone, and lost with this process; mend the folder, or set LARDER_JOURNAL to another one");
        }
    }

    /// Warns that a dead process's journal can't be adopted.
    pub(super) fn warn_of(&mut self, name: &str, error: &io::Error) {
        if let Some(folder) = self.folder_to_warn_of() {
            let name = larder_model::escape(name);
            tracing::warn!(%folder, journal = %name, %error, "a journal is not adopted, and what it holds not invalidated; mend what is said of it, or remove it and clear the cache");
        }
    }

    /// The folder, for people; `None` if something was logged just now.
    fn folder_to_warn_of(&mut self) -> Option<String> {
        let is_due = self.warned.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        let folder = &self.place.as_ref().filter(|_| is_due)?.folder;
        self.warned = Some(Instant::now());
        Some(larder_model::escape(&folder.display().to_string()).into_owned())
    }
}

fn say(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => "the disk is full: make room".to_owned(),
        _ => error.to_string(),
    }
}

/// A journal that is to be forced to the disk.
pub(super) struct Unsynced {
    file: File,
    folder: PrivateFolder,
}

impl Unsynced {
    /// Takes as long as the disk takes.
    pub(super) fn sync(self) {
        // What can't be forced to the disk still survives the process.
        let synced = self.file.sync_data().and_then(|()| self.folder.sync());
        if let Err(error) = synced {
            tracing::debug!(%error, "the journal could not be forced to the disk");
        }
    }
}
