//! What must outlive the process, on the disk: the last policies that were in force, in `{state_dir}/policies/{service}.json`;
//! up to where invalidations are done, in `{state_dir}/invalidations/{service}.json`.
//!
//! A new version is written beside the old one, forced to the disk, and put in its place by one rename, so that the
//! file is whole at any instant. It is read only if nobody else could have written it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use larder_core::api::ServiceConfig;
use larder_core::{PrivateFolder, Service};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// No file is larger, in bytes: an answer of the largest size, and its frame.
const MAX_FILE: u64 = crate::fetch::MAX_ANSWER as u64 + 4_096;

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Under which tag the control plane knows it.
    pub(crate) etag: Option<String>,
    pub(crate) config: ServiceConfig,
}

/// Up to where the invalidations of the service are done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptPosition {
    pub(crate) position: String,
    /// In which store it was done.
    #[serde(default)]
    pub(crate) store_id: u32,
}

/// What is kept in a folder of its own.
pub(crate) trait Keepable: Serialize + DeserializeOwned {
    /// The folder's name.
    const FOLDER: &str;
}

impl Keepable for Kept {
    const FOLDER: &str = "policies";
}

impl Keepable for KeptPosition {
    const FOLDER: &str = "invalidations";
}

/// Where it is kept.
pub(crate) struct KnownGood<T = Kept> {
    state_dir: PathBuf,
    service: Service,
    kept: PhantomData<fn() -> T>,
}

impl<T: Keepable> KnownGood<T> {
    pub(crate) fn new(state_dir: PathBuf, service: Service) -> Self {
        Self {
            state_dir,
            service,
            kept: PhantomData,
        }
    }

    /// What was kept, if there is anything and it can be trusted. Else a warning says what is wrong.
    pub(crate) fn read(&self) -> Option<T> {
        self.look().unwrap_or_default()
    }

    /// The same; an error where something is there that can't be trusted.
    pub(crate) fn look(&self) -> Result<Option<T>, io::Error> {
        let kept = match self.try_read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other,
        };
        kept.map(Some).inspect_err(|error| {
            let file = self.state_dir.join(T::FOLDER).join(self.name());
            tracing::warn!(file = %file.display(), %error, "what was kept is ignored; remove the file, or mend what is said of it");
        })
    }

    fn try_read(&self) -> io::Result<T> {
        let folder = self.open_folder()?;
        let file = folder.read(&self.name())?;
        let length = file.metadata()?.len();
        if length > MAX_FILE {
            return Err(io::Error::other("it is larger than 8 MiB"));
        }
        let mut text = String::with_capacity(length as usize);
        file.take(length).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Puts this in place of what was kept.
    pub(crate) fn write(&self, kept: &T) -> io::Result<()> {
        PrivateFolder::make(&self.state_dir.join(T::FOLDER))?;
        let folder = self.open_folder()?;
        self.remove_leftovers(&folder);
        let random = getrandom::u64().map_err(io::Error::other)?;
        let beside = format!("{}{random:016x}", self.leftover_prefix());
        let written =
            fill(folder.create(&beside)?, kept).and_then(|()| folder.rename(&beside, &self.name()));
        if written.is_err() {
            // It would be in nobody's way, but it would be there.
            let _ = folder.remove(&beside);
        }
        written?;
        folder.sync()
    }

    fn open_folder(&self) -> io::Result<PrivateFolder> {
        PrivateFolder::open(&self.state_dir)?.folder(T::FOLDER)
    }

    /// Removes what a process that died in mid-write left beside the file. One that lives needs no minute to write.
    fn remove_leftovers(&self, folder: &PrivateFolder) {
        let prefix = self.leftover_prefix();
        for name in folder.names().unwrap_or_default() {
            if name.starts_with(&prefix) && is_old(folder, &name) {
                let _ = folder.remove(&name);
            }
        }
    }

    fn name(&self) -> String {
        format!("{}.json", self.service.as_str())
    }

    /// `~` is in no service's name, so that one service's leftovers are never another's.
    fn leftover_prefix(&self) -> String {
        format!(".{}~", self.service.as_str())
    }
}

fn fill<T: Serialize>(mut file: File, kept: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(kept)?;
    file.write_all(&bytes)?;
    file.sync_all()
}

/// Whether it was last written more than a minute ago.
fn is_old(folder: &PrivateFolder, name: &str) -> bool {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let modified = folder.modified(name);
    modified.is_some_and(|modified| now.saturating_sub(modified) > 60)
}

#[cfg(test)]
mod killed;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::{self, FileType, Mode};

    use super::*;

    fn kept(version: u64) -> Kept {
        Kept {
            etag: Some("\"a-1\"".into()),
            config: ServiceConfig {
                service_name: "svc".into(),
                version,
                policies: Vec::new(),
            },
        }
    }

    fn known_good() -> (tempfile::TempDir, KnownGood) {
        let folder = tempfile::tempdir().unwrap();
        let known_good = KnownGood::new(folder.path().join("state"), Service::new("svc").unwrap());
        (folder, known_good)
    }

    #[test]
    fn what_was_written_is_read_and_nothing_lies_beside_it() {
        let (folder, known_good) = known_good();
        assert!(known_good.read().is_none());
        known_good.write(&kept(1)).unwrap();
        let policies = folder.path().join("state/policies");
        std::fs::write(policies.join(".svc~dead"), "half").unwrap();
        let dead = File::options()
            .write(true)
            .open(policies.join(".svc~dead"))
            .unwrap();
        dead.set_modified(UNIX_EPOCH).unwrap();
        known_good.write(&kept(2)).unwrap();
        assert_eq!(known_good.read().unwrap().config.version, 2);
        assert_eq!(std::fs::read_dir(&policies).unwrap().count(), 1);
        let mode = std::fs::metadata(policies.join("svc.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_another_could_have_written_is_ignored() {
        let (folder, known_good) = known_good();
        known_good.write(&kept(1)).unwrap();
        let policies = folder.path().join("state/policies");
        let file = policies.join("svc.json");
        let set_mode = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(&file, 0o666);
        assert!(known_good.read().is_none());
        set_mode(&file, 0o600);
        set_mode(&policies, 0o777);
        assert!(known_good.read().is_none());
        set_mode(&policies, 0o700);
        std::fs::hard_link(&file, policies.join("second")).unwrap();
        assert!(known_good.read().is_none());
        std::fs::remove_file(&file).unwrap();
        symlink(policies.join("second"), &file).unwrap();
        assert!(known_good.read().is_none());
        std::fs::remove_file(&file).unwrap();
        fs::mknodat(fs::CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(known_good.read().is_none());
        std::fs::remove_file(&file).unwrap();
        std::fs::rename(policies.join("second"), &file).unwrap();
        assert!(known_good.read().is_some());
        set_mode(folder.path(), 0o777);
        assert!(known_good.read().is_none());
        assert!(known_good.write(&kept(2)).is_err());
        set_mode(folder.path(), 0o1777);
        assert_eq!(known_good.read().unwrap().config.version, 1);
    }

    #[test]
    fn a_damaged_file_is_ignored() {
        let (folder, known_good) = known_good();
        known_good.write(&kept(1)).unwrap();
        let file = folder.path().join("state/policies/svc.json");
        for damage in [
            b"".to_vec(),
            b"{\"etag\":".to_vec(),
            vec![0xff; 100],
            vec![b' '; 9 << 20],
        ] {
            std::fs::write(&file, damage).unwrap();
            assert!(known_good.read().is_none());
        }
    }
}
