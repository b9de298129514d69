//! The key of the audit trail: a file of its own, made at the first start.

use std::fmt;
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
    /// What was given is none.
    #[error(
        "LARDER_AUDIT_KEY is no key of an audit trail: it takes the 64 hexadecimal digits of an audit.key, such as openssl rand -hex 32 makes"
    )]
    NotGiven,
    /// Other replicas write the trail, and the key is not here.
    #[error(
        "there is no key of the audit trail in {0}, and others write the trail: copy audit.key of a replica that runs to there, or set LARDER_AUDIT_KEY to what is in it"
    )]
    NotHere(PathBuf),
}

/// Where the key of the audit trail is.
#[derive(Clone)]
pub enum AuditKeyPlace {
    /// In this file, of this user alone (0600); it is made if there is none. Who can write it and the database can write the
    /// trail anew: a backup of it belongs elsewhere.
    File(PathBuf),
    /// Here, as the 64 hexadecimal digits that a file holds.
    Given(Secret),
}

impl fmt::Debug for AuditKeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Given(_) => f.write_str("(given, not shown)"),
        }
    }
}

impl fmt::Display for AuditKeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Given(_) => f.write_str("LARDER_AUDIT_KEY"),
        }
    }
}

impl From<PathBuf> for AuditKeyPlace {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

/// The key of the audit trail.
pub(crate) struct AuditKey {
    key: hmac::Key,
    id: String,
}

impl AuditKey {
    /// Reads the key; makes one if there is no such file, and nobody else may be writing with one.
    pub(crate) fn open_or_make(place: &AuditKeyPlace, is_alone: bool) -> Result<Self, KeyError> {
        if let AuditKeyPlace::File(path) = place
            && matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
        {
            if !is_alone {
                return Err(KeyError::NotHere(path.clone()));
            }
            make(path)?;
        }
        Self::open(place)
    }

    /// Reads the key.
    pub(crate) fn open(place: &AuditKeyPlace) -> Result<Self, KeyError> {
        match place {
            AuditKeyPlace::File(path) => {
                Self::of(&read(path)?).ok_or_else(|| KeyError::NotAKey(path.clone()))
            }
            AuditKeyPlace::Given(key) => Self::of(key).ok_or(KeyError::NotGiven),
        }
    }

    fn of(text: &Secret) -> Option<Self> {
        let key: [u8; 32] = hex::decode(text.expose().trim_ascii())?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let name = hmac::sign(&key, NAMING);
        let name = name.as_ref().get(..8).unwrap_or_default();
        Some(Self {
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

    fn open_or_make(path: &Path) -> Result<AuditKey, KeyError> {
        AuditKey::open_or_make(&path.to_owned().into(), true)
    }

    #[test]
    fn one_that_is_given_is_that_of_the_file_and_what_is_none_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let made = open_or_make(&path).unwrap();
        let given = |text: &str| AuditKeyPlace::Given(Secret::new(text.to_owned()));
        let copied = given(&fs::read_to_string(&path).unwrap());
        assert_eq!(AuditKey::open(&copied).unwrap().id(), made.id());
        let error = AuditKey::open(&given("canary")).err().unwrap();
        assert!(matches!(error, KeyError::NotGiven));
        assert!(!format!("{error}{:?}", given("canary")).contains("canary"));
    }

    #[test]
    fn none_is_made_where_others_write_with_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("audit.key").into();
        let error = AuditKey::open_or_make(&place, false).err().unwrap();
        assert!(matches!(error, KeyError::NotHere(_)), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn it_is_made_once_and_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let made = open_or_make(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(open_or_make(&path).unwrap().id(), made.id());
        let other = open_or_make(&folder.path().join("other")).unwrap();
        assert_ne!(other.id(), made.id());
    }

    #[test]
    fn nothing_moves_from_a_field_into_its_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let key = open_or_make(&folder.path().join("audit.key")).unwrap();
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
        open_or_make(&path).unwrap();
        let refused = |path: &Path| open_or_make(path).err().unwrap();
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
