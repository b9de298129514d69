//! What stands in a folder before it is used: made, checked or set aside by the first who opens it, found by the others.

use std::fs::File;
use std::time::{Duration, Instant};

use larder_core::mutants::{Guard, is_off};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::clock::{millis, wall_millis};
use crate::control::{Control, Removal};
use crate::folder::{self, Folder, OpenError};
use crate::lmdb::Lmdb;
use crate::opening::{Options, PATIENCE};
use crate::readers::Readers;
use crate::walk;

pub(crate) const DATA: &str = "data.mdb";
pub(crate) const LMDB_LOCK: &str = "lock.mdb";
pub(crate) const CONTROL: &str = "control";
const PAGE_BYTES: u64 = 4_096;
/// What LMDB's lock file takes: 64 bytes for each reader, and its own.
const LMDB_LOCK_BYTES: u64 = crate::lmdb::MAX_READERS as u64 * 64 + PAGE_BYTES;
/// The least that LMDB and the bookkeeping can work in.
const LEAST_BYTES: u64 = 1 << 20;

/// What the first opener does: nobody else has the folder open.
pub(crate) fn prepare(folder: &Folder, options: &Options) -> Result<Control, OpenError> {
    let max_bytes = options.max_bytes.max(LEAST_BYTES) / PAGE_BYTES * PAGE_BYTES;
    let control = existing_control(folder)?;
    let clocks = namespace(folder, "time")?;
    let refusal = control.as_ref().map(|control| may_stay(control, clocks));
    if let Some(Err(why)) = refusal {
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

pub(crate) fn chance() -> u64 {
    let mut bytes = [0; 8];
    // Without chance the seed can be foreseen, and somebody may choose keys that share recency: no more than that.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Whether what the folder holds is to be trusted; else why not.
fn may_stay(control: &Control, clocks: u64) -> Result<(), &'static str> {
    if control.boot_id() == boot_id() {
        return match has_clocks(control, clocks) {
            true => Ok(()),
            false => Err(
                "who used it before had other clocks (another time namespace), so no expiry can be told",
            ),
        };
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

/// Whether those who have, or had, the folder open went by these clocks. Those of an older version don't say.
fn has_clocks(control: &Control, time_namespace: u64) -> bool {
    [0, time_namespace].contains(&control.time_namespace())
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
    control.set_pid_namespace(namespace(folder, "pid")?);
    control.set_time_namespace(namespace(folder, "time")?);
    Ok(control)
}

/// What those who come later do; `None` if nobody has the folder open any more.
pub(crate) fn join(folder: &Folder) -> Result<Option<(Control, LmdbFiles)>, OpenError> {
    let path = folder.path().join(CONTROL);
    let control = existing_control(folder)?.ok_or_else(|| {
        let error = std::io::Error::from(std::io::ErrorKind::InvalidData);
        folder::system(&path, "reading it while others have it open", error)
    })?;
    if control.closed_at().is_some() || control.boot_id() != boot_id() {
        return Ok(None);
    }
    if control.pid_namespace() != namespace(folder, "pid")? {
        return Err(OpenError::PidNamespace {
            path: folder.path().to_owned(),
        });
    }
    if !has_clocks(&control, namespace(folder, "time")?) {
        return Err(OpenError::TimeNamespace {
            path: folder.path().to_owned(),
        });
    }
    let files = open_lmdb(folder, &control, false)?;
    Ok(Some((control, files)))
}

/// LMDB, and what is read beside it.
pub(crate) struct LmdbFiles {
    pub(crate) lmdb: Lmdb,
    pub(crate) data: File,
    pub(crate) readers: Readers,
}

pub(crate) fn open_lmdb(
    folder: &Folder,
    control: &Control,
    may_create: bool,
) -> Result<LmdbFiles, OpenError> {
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

pub(crate) fn warn_of_other_size(folder: &Folder, control: &Control, options: &Options) {
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

/// Which namespace of a kind this process is in. Processes of different ones for time count the time since boot differently;
/// Linux has those since 5.6, and before it all have the same.
fn namespace(folder: &Folder, of: &'static str) -> Result<u64, OpenError> {
    if is_off(Guard::NamespacesAreToldApart) {
        return Ok(0);
    }
    match rustix::fs::stat(format!("/proc/self/ns/{of}")) {
        Ok(status) => Ok(status.st_ino),
        Err(Errno::NOENT) if of == "time" => Ok(0),
        Err(error) => {
            let doing = "reading /proc/self/ns";
            Err(folder::system(folder.path(), doing, error))
        }
    }
}
