//! A folder that this user alone can read or write: what was checked is what is used, by descriptor.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// A folder that this user alone can read or write, and the files in it.
///
/// Every file is reached through the descriptor that was checked, and checked itself: a regular file of this user, under
/// one name, and nobody else's to read or write. Root is no exception.
#[derive(Debug)]
pub struct PrivateFolder(OwnedFd);

impl PrivateFolder {
    /// Makes a folder, and those above it, for this user alone, if there is none.
    ///
    /// # Errors
    /// What the system says.
    pub fn make(path: &Path) -> io::Result<()> {
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(path)
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// It is not this user's alone, or the system fails; [`io::ErrorKind::NotFound`] if there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A `/` at the end would lead through a symbolic link.
        let path = &path.components().collect::<std::path::PathBuf>();
        let folder = fs::open(path, FOLDER_FLAGS, Mode::empty()).map_err(explain)?;
        check(&folder, FileType::Directory)?;
        check_parents(path)?;
        Ok(Self(folder))
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// As [`PrivateFolder::open`].
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        let folder = fs::openat(&self.0, name, FOLDER_FLAGS, Mode::empty()).map_err(explain)?;
        check(&folder, FileType::Directory)?;
        Ok(Self(folder))
    }

    /// Makes a file that must not be there yet, to be written, with mode 0600.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::AlreadyExists`] if there is one.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | FILE_FLAGS;
        let file = fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(File::from(file))
    }

    /// Opens a file, to be read.
    ///
    /// # Errors
    /// It is not this user's alone, or the system fails; [`io::ErrorKind::NotFound`] if there is none.
    pub fn read(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | FILE_FLAGS;
        let file = fs::openat(&self.0, name, flags, Mode::empty()).map_err(explain)?;
        check(&file, FileType::RegularFile)?;
        Ok(File::from(file))
    }

    /// Puts a file in the place of another.
    ///
    /// # Errors
    /// What the system says.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a name leads to this open file.
    #[must_use]
    pub fn leads_to(&self, name: &str, file: &File) -> bool {
        let named = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        let own = fs::fstat(file);
        matches!((named, own), (Ok(named), Ok(own)) if (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino))
    }

    /// When what is under a name was last written, in seconds since 1970; `None` if that can't be told.
    #[must_use]
    pub fn modified(&self, name: &str) -> Option<u64> {
        let status = fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        u64::try_from(status.st_mtime).ok()
    }

    /// The names of what is in it that are text.
    ///
    /// # Errors
    /// What the system says.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            names.extend(CStr::to_str(entry.file_name()).ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// Forces its names to the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.0)?)
    }

    /// Another descriptor of the same folder.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }
}

const FILE_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);
const FOLDER_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What `O_NOFOLLOW` and `O_DIRECTORY` refuse, in words.
fn explain(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::Error::other("it, or its folder, is a symbolic link: name the real one"),
        Errno::NOTDIR => io::Error::other("its folder is none: remove what is in its place"),
        _ => error.into(),
    }
}

/// Of this type, ours, and nobody else's to read or write; a file under one name only.
fn check(file: &impl AsFd, expected: FileType) -> io::Result<()> {
    let wrong = |what: &'static str| Err(io::Error::other(what));
    let status = fs::fstat(file)?;
    let is_file = expected == FileType::RegularFile;
    if FileType::from_raw_mode(status.st_mode) != expected {
        return wrong("it is not a regular file, or its folder is none");
    }
    if status.st_uid != rustix::process::geteuid().as_raw() {
        return wrong("it, or its folder, belongs to another user");
    }
    if status.st_mode & 0o077 != 0 {
        return wrong(
            "others may read or write it, or its folder: take these rights away (chmod go-rwx)",
        );
    }
    if is_file && status.st_nlink > 1 {
        return wrong("it has a second name (a hard link)");
    }
    Ok(())
}

/// Who may write a folder may put another one in the place of what is in it.
fn check_parents(folder: &Path) -> io::Result<()> {
    // Symbolic links among them are followed: what counts is where the folder lies.
    for parent in folder.canonicalize()?.ancestors().skip(1) {
        let mode = fs::stat(parent)?.st_mode;
        let is_sticky = mode & 0o1000 != 0;
        if mode & 0o002 != 0 && !is_sticky {
            return Err(io::Error::other(
                "everybody may write a folder above it: take that right away (chmod o-w)",
            ));
        }
    }
    Ok(())
}
