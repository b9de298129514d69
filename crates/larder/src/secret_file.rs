//! A file that was named and holds a secret: read with care.
//!
//! It may belong to anyone, and be a symbolic link (containers mount secrets so). What everybody may write is refused: who can
//! put a key of his own there is trusted as whoever has the right one.

use std::io::Read as _;
use std::path::Path;

use larder_core::Secret;
use rustix::fs::{FileType, Mode, OFlags};

const MAX_BYTES: usize = 64 << 10;

/// What the file holds, or what is wrong with it and what to do.
pub(crate) fn read(path: &Path) -> Result<Secret, String> {
    // Not blocking: a fifo would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
        format!("can't be opened ({error}): name a file that this user can read")
    })?;
    let status = rustix::fs::fstat(&file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err("is not a regular file: name another".to_owned());
    }
    if status.st_mode & 0o002 != 0 {
        return Err("can be written by everybody: run chmod o-w on it".to_owned());
    }
    // With room for all of it from the start, so that no part is left behind by growing.
    let mut text = String::with_capacity(MAX_BYTES + 1);
    let read = std::fs::File::from(file)
        .take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut text);
    let text = Secret::new(text);
    read.map_err(|error| format!("can't be read as text ({error}): name another"))?;
    if text.expose().len() > MAX_BYTES {
        return Err("is larger than 64 KiB: name one that holds the secret alone".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use crate::settings::{Settings, SettingsError};

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const NAME: &str = "LARDER_SEAL_KEYS_FILE";

    fn settings(folder: &tempfile::TempDir) -> Result<Settings, SettingsError> {
        let find = |name: &str| (name == NAME).then(|| "keys".to_owned());
        Settings::read(find, folder.path())
    }

    fn error(folder: &tempfile::TempDir) -> String {
        settings(folder).err().unwrap().to_string()
    }

    #[test]
    fn keys_are_read_from_a_file_as_containers_mount_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, format!("{KEY}\n{KEY}\n")).unwrap();
        symlink(&path, folder.path().join("keys")).unwrap();
        let settings = settings(&folder).unwrap();
        assert_eq!(settings.seal_keys.as_ref().unwrap().len(), 2);
        let listed = format!("{:?}", settings.list());
        assert!(listed.contains(NAME) && !listed.contains(KEY), "{listed}");
    }

    #[test]
    fn a_file_that_can_t_be_used_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let begin = format!("{NAME} (from the environment): keys ");
        let refused = |said: &str| {
            let error = error(&folder);
            assert!(error.starts_with(&begin) && error.contains(said), "{error}");
        };
        refused("can't be opened");
        std::fs::write(&path, format!("{KEY}\nhunter2")).unwrap();
        refused("its key 2 is not 32 bytes");
        assert!(!error(&folder).contains("hunter2"));
        std::fs::write(&path, "\n").unwrap();
        refused("openssl rand -hex 32");
        std::fs::write(&path, b"\xff").unwrap();
        refused("can't be read as text");
        std::fs::write(&path, "\n".repeat(super::MAX_BYTES + 1)).unwrap();
        refused("larger than 64 KiB");
        std::fs::write(&path, KEY).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o602)).unwrap();
        refused("chmod o-w");
        std::fs::remove_file(&path).unwrap();
        let mode = super::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, super::FileType::Fifo, mode, 0).unwrap();
        refused("not a regular file");
    }

    #[test]
    fn keys_have_one_place() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("keys"), KEY).unwrap();
        let find = |name: &str| match name {
            NAME => Some("keys".to_owned()),
            "LARDER_SEAL_KEYS" => Some(KEY.to_owned()),
            _ => None,
        };
        let error = Settings::read(find, folder.path()).err().unwrap();
        assert!(error.to_string().contains("unset one of them"), "{error}");
    }
}
