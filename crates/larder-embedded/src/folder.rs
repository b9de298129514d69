//! The folder: opened only if it, and all in it, is this user's alone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Why the embedded store can't be used. Each says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folder, or something in it, is not this user's alone.
    #[error("{path} {what}: {next}", path = path.display())]
    Unsafe {
        /// Which file or folder.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// The file system is shared by machines, or can't share memory between processes.
    #[error("{path} lies on {kind}, which the embedded store can't use: set LARDER_DIR to a folder on a local disk, or REDIS_URL to share a cache between machines", path = path.display())]
    FileSystem {
        /// The folder.
        path: PathBuf,
        /// The kind of the file system.
        kind: &'static str,
    },
    /// Processes of another PID namespace (another container) have the folder open.
    #[error("{path} is in use by processes of another PID namespace (another container), with which it can't be shared: give each its own LARDER_DIR, run them with a shared PID namespace, or set REDIS_URL", path = path.display())]
    PidNamespace {
        /// The folder.
        path: PathBuf,
    },
    /// Processes of another time namespace have the folder open.
    #[error("{path} is in use by processes of another time namespace, whose clocks are others: give each its own LARDER_DIR, run them in one time namespace, or set REDIS_URL", path = path.display())]
    TimeNamespace {
        /// The folder.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("{path}: the disk is full: make room, or set LARDER_DIR to a folder on another disk", path = path.display())]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
    },
    /// The folder can't be written.
    #[error("{path} can't be written ({error}): make it writable for this user, or set LARDER_DIR to another folder", path = path.display())]
    NotWritable {
        /// What could not be written.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process checks the folder, and does not come to an end.
    #[error("{path} is being checked by another process that does not come to an end: end that process (its id: fuser {path})", path = path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The folder, or a file in it, was removed or exchanged while this process had it open.
    #[error("{path} was removed or exchanged while this process used it: start this process again, and remove a store's folder only while nobody uses it", path = path.display())]
    Exchanged {
        /// The folder.
        path: PathBuf,
    },
    /// The system failed in another way.
    #[error("{path}: {doing}: {error}", path = path.display())]
    System {
        /// Which file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// LMDB failed.
    #[error("{path}: LMDB: {error}", path = path.display())]
    Lmdb {
        /// The folder.
        path: PathBuf,
        /// What LMDB says.
        error: String,
    },
}

/// A folder that was checked. Everything in it is reached through the descriptor that was checked.
pub(crate) struct Folder {
    path: PathBuf,
    /// The same, wherever the process goes.
    absolute: PathBuf,
    descriptor: OwnedFd,
}

/// Which file a path led to: device and inode.
pub(crate) type FileId = (u64, u64);

/// What a name in a folder leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileAt {
    Is(FileId),
    None,
    /// The system does not say.
    Unknown,
}

impl Folder {
    /// Opens a folder, and makes it if there is none.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        // A `/` at the end would lead through a symbolic link.
        let path = &path.components().collect::<PathBuf>();
        make(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(not_ours(
                    path,
                    "is a symbolic link or no folder",
                    "name a folder itself in LARDER_DIR",
                ));
            }
            Err(error) => return Err(system(path, "opening it", error)),
        };
        check_folder(path, &descriptor)?;
        check_parents(path)?;
        check_file_system(path, &descriptor)?;
        let absolute = std::path::absolute(path)
            .map_err(|error| system(path, "looking where it is", error))?;
        Ok(Self {
            path: path.to_owned(),
            absolute,
            descriptor,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn id(&self) -> Result<FileId, OpenError> {
        let status = rustix::fs::fstat(&self.descriptor)
            .map_err(|error| system(&self.path, "looking at it", error))?;
        Ok(file_id(&status))
    }

    /// Whether the path still leads to this folder. What can't be seen is taken to be so.
    pub(crate) fn is_in_place(&self) -> bool {
        let own = id_of(&self.descriptor);
        match rustix::fs::lstat(&self.absolute) {
            Ok(status) => own.is_none_or(|own| own == file_id(&status)),
            Err(error) => !matches!(error, Errno::NOENT | Errno::NOTDIR),
        }
    }

    pub(crate) fn is_at_path_of(&self, other: &Self) -> bool {
        self.absolute == other.absolute
    }

    /// Which file a name leads to.
    pub(crate) fn file(&self, name: &str) -> FileAt {
        match rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => FileAt::Is(file_id(&status)),
            Err(Errno::NOENT) => FileAt::None,
            Err(_) => FileAt::Unknown,
        }
    }

    /// A path through the descriptor, for LMDB, which takes paths only.
    pub(crate) fn path_by_descriptor(&self) -> PathBuf {
        use std::os::fd::AsRawFd as _;
        format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()).into()
    }

    /// Opens a file in the folder, and makes it if there is none, with mode 0600.
    pub(crate) fn open_file(&self, name: &str) -> Result<File, OpenError> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let path = self.path.join(name);
        let file = rustix::fs::openat(&self.descriptor, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| refusal(&path, error))?;
        check_file(&path, &file)?;
        Ok(File::from(file))
    }

    /// [`Folder::open_file`], if there is one.
    pub(crate) fn open_existing(&self, name: &str) -> Result<Option<File>, OpenError> {
        match rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => self.open_file(name).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(system(&self.path.join(name), "looking at it", error)),
        }
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), OpenError> {
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(refusal(&self.path.join(name), error)),
        }
    }

    /// Moves a file into the folder `damaged/`, over what was there.
    pub(crate) fn set_aside(&self, name: &str) -> Result<(), OpenError> {
        const ASIDE: &str = "damaged";
        match rustix::fs::mkdirat(&self.descriptor, ASIDE, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(refusal(&self.path.join(ASIDE), error)),
        }
        let to = format!("{ASIDE}/{name}");
        match rustix::fs::renameat(&self.descriptor, name, &self.descriptor, to) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // What can't be kept is removed: the service comes first.
            Err(_) => self.remove(name),
        }
    }
}

/// Makes the folder, and those above it, for this user alone.
fn make(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt as _;
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| io_refusal(path, error))
}

fn check_folder(path: &Path, descriptor: &OwnedFd) -> Result<(), OpenError> {
    let status =
        rustix::fs::fstat(descriptor).map_err(|error| system(path, "looking at it", error))?;
    check_owner(path, &status)?;
    if status.st_mode & 0o077 != 0 {
        return Err(not_ours(
            path,
            "can be entered or read by other users",
            "run chmod 700 on it",
        ));
    }
    Ok(())
}

fn check_owner(path: &Path, status: &Stat) -> Result<(), OpenError> {
    if status.st_uid == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(not_ours(
            path,
            "belongs to another user",
            "set LARDER_DIR to a folder of this user",
        ))
    }
}

/// Who may write a folder may put another one in the place of what is in it.
fn check_parents(path: &Path) -> Result<(), OpenError> {
    // Symbolic links among them are followed: what counts is where the folder lies.
    let whole = path
        .canonicalize()
        .map_err(|error| io_refusal(path, error))?;
    for parent in whole.ancestors().skip(1) {
        let status =
            rustix::fs::stat(parent).map_err(|error| system(parent, "looking at it", error))?;
        let is_sticky = status.st_mode & 0o1000 != 0;
        if status.st_mode & 0o002 != 0 && !is_sticky {
            return Err(not_ours(
                parent,
                "can be written by everybody",
                "run chmod o-w on it, or set LARDER_DIR to a folder elsewhere",
            ));
        }
    }
    Ok(())
}

fn check_file(path: &Path, file: &impl AsFd) -> Result<(), OpenError> {
    let status = rustix::fs::fstat(file).map_err(|error| system(path, "looking at it", error))?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(not_ours(path, "is not a regular file", "remove it"));
    }
    check_owner(path, &status)?;
    if status.st_nlink != 1 {
        return Err(not_ours(
            path,
            "has a second name elsewhere (a hard link)",
            "remove it",
        ));
    }
    if status.st_mode & 0o077 != 0 {
        return Err(not_ours(
            path,
            "can be read or written by other users",
            "run chmod 600 on it",
        ));
    }
    Ok(())
}

/// Which file a descriptor is of.
pub(crate) fn id_of(file: &impl AsFd) -> Option<FileId> {
    rustix::fs::fstat(file).ok().map(|status| file_id(&status))
}

fn file_id(status: &Stat) -> FileId {
    (status.st_dev, status.st_ino)
}

fn check_file_system(path: &Path, descriptor: &OwnedFd) -> Result<(), OpenError> {
    let status = rustix::fs::fstatfs(descriptor)
        .map_err(|error| system(path, "looking at its file system", error))?;
    match unusable_file_system(status.f_type as u64) {
        None => Ok(()),
        Some(kind) => Err(OpenError::FileSystem {
            path: path.to_owned(),
            kind,
        }),
    }
}

/// File systems on which LMDB does not work: those that machines share, and FUSE, by their magic numbers
/// (`linux/magic.h`).
fn unusable_file_system(magic: u64) -> Option<&'static str> {
    Some(match magic & 0xffff_ffff {
        0x6969 => "NFS (a network file system)",
        0xff53_4d42 => "CIFS (a network file system)",
        0xfe53_4d42 => "SMB (a network file system)",
        0x517b => "SMB (a network file system)",
        0x0102_1997 => "9p (a network file system)",
        0x6573_5546 => "FUSE (a file system in user space)",
        0x5346_414f => "AFS (a network file system)",
        0x00c3_6400 => "Ceph (a network file system)",
        0x0bd0_0bd0 => "Lustre (a network file system)",
        0x4750_4653 => "GPFS (a network file system)",
        0x7461_636f => "OCFS2 (a cluster file system)",
        0x0116_1970 => "GFS2 (a cluster file system)",
        _ => return None,
    })
}

/// Takes a lock on a file. Waiting, it looks again every few milliseconds, for at most `patience`: who holds it may
/// be stopped.
pub(crate) fn lock(
    path: &Path,
    file: &File,
    operation: FlockOperation,
    patience: std::time::Duration,
) -> Result<bool, OpenError> {
    let begin = std::time::Instant::now();
    loop {
        match rustix::fs::flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if begin.elapsed() >= patience => return Ok(false),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(std::time::Duration::from_millis(5)),
            Err(Errno::INTR) => {}
            Err(error) => return Err(system(path, "locking it", error)),
        }
    }
}

fn not_ours(path: &Path, what: &'static str, next: &'static str) -> OpenError {
    OpenError::Unsafe {
        path: path.to_owned(),
        what,
        next,
    }
}

pub(crate) fn system(path: &Path, doing: &'static str, error: impl Into<io::Error>) -> OpenError {
    OpenError::System {
        path: path.to_owned(),
        doing,
        error: error.into(),
    }
}

/// An error of writing, with what helps against it.
pub(crate) fn io_refusal(path: &Path, error: io::Error) -> OpenError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno) => refusal(path, errno),
        None => system(path, "writing it", error),
    }
}

pub(crate) fn refusal(path: &Path, errno: Errno) -> OpenError {
    let path_buf = path.to_owned();
    match errno {
        Errno::NOSPC | Errno::DQUOT => OpenError::DiskFull { path: path_buf },
        Errno::ROFS | Errno::ACCESS | Errno::PERM => OpenError::NotWritable {
            path: path_buf,
            error: errno.into(),
        },
        Errno::LOOP => not_ours(path, "is a symbolic link", "remove it"),
        Errno::NXIO | Errno::ISDIR => not_ours(path, "is not a regular file", "remove it"),
        _ => system(path, "writing it", errno),
    }
}

#[cfg(test)]
mod tests {
    use super::unusable_file_system;

    #[test]
    fn network_file_systems_are_refused_and_local_ones_are_not() {
        for magic in [
            0x6969,
            0xff53_4d42,
            0xffff_ffff_ff53_4d42,
            0xfe53_4d42,
            0x0102_1997,
            0x6573_5546,
        ] {
            assert!(unusable_file_system(magic).is_some(), "{magic:x}");
        }
        // ext4, xfs, btrfs, tmpfs, overlayfs, zfs
        for magic in [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x794c_7630,
            0x2fc1_2fc1,
        ] {
            assert_eq!(unusable_file_system(magic), None, "{magic:x}");
        }
    }
}
