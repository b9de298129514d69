//! The key of the audit trail: a file of its own, made at the first start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use larder_model::Secret;
use ring::hmac;
use rustix::fs::{FileType, Mode, OFlags};

use super::Row;
use crate::hex;

/// 32 bytes as hexadecimal digits, and the end of the line.
const MAX_BYTES: u64 = 100;
/// What is signed to name a key.
const NAMING: &[u8] = b"larder audit: the name of this key";
/// What every entry's MAC begins with.
const FORM: &str = "larder audit 1";

/// Why the key can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file can't be made, opened or read.
    #[error(
        "can't use the audit trail's key {path}: {source}; give the control plane a folder that it may write in, or bring the file back"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a private file of this user.
    #[error(
        "the audit trail's key {0} must be a regular file of this user alone: run chmod 600 on it, or move it away if it is not yours"
    )]
    NotPrivate(PathBuf),
    /// It holds something else.
    #[error(
        "{0} holds no key of an audit trail (64 hexadecimal digits): bring back a copy of it, or move it away: a new one is then made, and what was written before can't be verified any more"
    )]
    NotAKey(PathBuf),
}

/// The key of the audit trail.
pub(crate) struct AuditKey {
    key: hmac::Key,
    id: String,
}

impl AuditKey {
    /// Reads the key; makes one if there is no such file.
    pub(crate) fn open_or_make(path: &Path) -> Result<Self, KeyError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
            _ => {}
        }
        Self::open(path)
    }

    /// Reads the key.
    pub(crate) fn open(path: &Path) -> Result<Self, KeyError> {
        let text = read(path)?;
        let key: [u8; 32] = hex::decode(text.expose().trim_ascii_end())
            .ok_or_else(|| KeyError::NotAKey(path.to_owned()))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let name = hmac::sign(&key, NAMING);
        let name = name.as_ref().get(..8).unwrap_or_default();
        Ok(Self {
            id: hex::encode(name),
            key,
        })
    }

    /// What tells it from others, and nothing of it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The MAC of an entry behind the one with the MAC `previous`.
    pub(super) fn sign(&self, previous: &str, row: &Row) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        parts(previous, row, |part| context.update(part));
        context.sign()
    }

    /// Whether an entry's MAC is the one that this key makes.
    pub(super) fn has_signed(&self, previous: &str, row: &Row) -> bool {
        let mut bytes = Vec::new();
        parts(previous, row, |part| bytes.extend_from_slice(part));
        let mac: Option<[u8; 32]> = hex::decode(&row.mac);
        mac.is_some_and(|mac| hmac::verify(&self.key, &bytes, &mac).is_ok())
    }
}

/// What goes into a MAC: each part with its length before it, so that no two entries give the same bytes.
fn parts(previous: &str, row: &Row, mut update: impl FnMut(&[u8])) {
    let (sequence, at) = (row.sequence.to_string(), row.at_seconds.to_string());
    let verified = if row.actor_verified { "1" } else { "0" };
    let always = [
        FORM,
        previous,
        &sequence,
        &at,
        &row.actor,
        verified,
        &row.action,
        &row.reason,
        &row.key_id,
    ];
    let sometimes = [
        &row.address,
        &row.service,
        &row.target,
        &row.before,
        &row.after,
    ];
    let sometimes = sometimes.into_iter().map(Option::as_deref);
    for part in always.into_iter().map(Some).chain(sometimes) {
        let Some(part) = part else {
            update(&[0]);
            continue;
        };
        update(&[1]);
        update(&(part.len() as u64).to_le_bytes());
        update(part.as_bytes());
    }
}

/// Makes the file in one step: whoever looks finds a whole key or none.
fn make(path: &Path) -> Result<(), KeyError> {
    let error = |source| KeyError::File {
        path: path.to_owned(),
        source,
    };
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|source| error(io::Error::other(source.to_string())))?;
    let text = Secret::new(hex::encode(&key) + "\n");
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.expose().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| {
        // What is left of it is no key; if it can't be removed either, it is in nobody's way.
        let _ = fs::remove_file(&new);
        error(source)
    })
}

fn read(path: &Path) -> Result<Secret, KeyError> {
    let error = |source: io::Error| KeyError::File {
        path: path.to_owned(),
        source,
    };
    // Not blocking: a fifo would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::LOOP => KeyError::NotPrivate(path.to_owned()),
        errno => error(errno.into()),
    })?;
    let status = rustix::fs::fstat(&file).map_err(|errno| error(errno.into()))?;
    let is_private = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
        && status.st_uid == rustix::process::geteuid().as_raw()
        && status.st_mode & 0o077 == 0;
    if !is_private {
        return Err(KeyError::NotPrivate(path.to_owned()));
    }
    let mut text = String::with_capacity(MAX_BYTES as usize + 1);
    let read = File::from(file).take(MAX_BYTES).read_to_string(&mut text);
    let text = Secret::new(text);
    match read {
        Ok(_) => Ok(text),
        Err(source) if source.kind() == io::ErrorKind::InvalidData => {
            Err(KeyError::NotAKey(path.to_owned()))
        }
        Err(source) => Err(error(source)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn it_is_made_once_and_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let made = AuditKey::open_or_make(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(AuditKey::open_or_make(&path).unwrap().id(), made.id());
        let other = AuditKey::open_or_make(&folder.path().join("other")).unwrap();
        assert_ne!(other.id(), made.id());
    }

    #[test]
    fn nothing_moves_from_a_field_into_its_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let key = AuditKey::open_or_make(&folder.path().join("audit.key")).unwrap();
        let row = |service: &str, target: Option<&str>| Row {
            sequence: 1,
            at_seconds: 0,
            actor: "alice".to_owned(),
            actor_verified: false,
            address: None,
            action: "policy_set".to_owned(),
            service: Some(service.to_owned()),
            target: target.map(str::to_owned),
            before: None,
            after: None,
            reason: String::new(),
            key_id: key.id().to_owned(),
            mac: String::new(),
        };
        let sign = |row: &Row| hex::encode(key.sign("", row).as_ref());
        let rows = [
            row("a\u{1}b", Some("c")),
            row("a", Some("b\u{1}c")),
            row("a", Some("")),
            row("a", None),
        ];
        let macs: std::collections::HashSet<_> = rows.iter().map(sign).collect();
        assert_eq!(macs.len(), rows.len());
    }

    #[test]
    fn a_file_that_is_no_private_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        AuditKey::open_or_make(&path).unwrap();
        let refused = |path: &Path| AuditKey::open_or_make(path).err().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(refused(&path), KeyError::NotPrivate(_)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(refused(&link), KeyError::NotPrivate(_)));
        assert!(matches!(refused(folder.path()), KeyError::NotPrivate(_)));
        for text in ["", "hunter2", "0\u{e9}", &"0".repeat(66)] {
            fs::write(&path, text).unwrap();
            let error = refused(&path);
            assert!(matches!(error, KeyError::NotAKey(_)), "{text}: {error}");
            assert!(!error.to_string().contains("hunter2"));
        }
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(refused(&path), KeyError::NotAKey(_)));
    }
}
