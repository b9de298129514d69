//! Which store a service has, for what is decided: those who share one give the same number.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use twox_hash::XxHash3_64;

use crate::settings::Settings;

/// All who use Redis share one store, and have number 0. An embedded one is what it is to the kernel, by whatever path it is
/// reached: its folder's device and inode, and which start of which machine they are of. Containers have paths in common, and
/// often `/etc/machine-id`; those that share a volume share these.
#[must_use]
pub fn store_id(settings: &Settings) -> u32 {
    match settings.redis_url {
        Some(_) => 0,
        None => of_folder(&settings.dir.join("store")),
    }
}

fn of_folder(folder: &Path) -> u32 {
    let place = match fs::metadata(folder) {
        Ok(found) => format!("{}:{}", found.dev(), found.ino()),
        Err(_) => folder.display().to_string(),
    };
    number(&machine(), &place)
}

/// This start of this machine; where that can't be told, this machine.
fn machine() -> String {
    let names = ["/proc/sys/kernel/random/boot_id", "/etc/machine-id"];
    let read = names
        .iter()
        .filter_map(|name| fs::read_to_string(name).ok());
    read.map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// The same in every version; never 0.
fn number(machine: &str, place: &str) -> u32 {
    let text = format!("{machine}\n{place}");
    (XxHash3_64::oneshot(text.as_bytes()) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_number_by_whatever_path_and_another_folder_another() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other, link] = ["one", "other", "link"].map(|name| folder.path().join(name));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        assert_eq!(of_folder(&one), of_folder(&link));
        assert_ne!(of_folder(&one), of_folder(&other));
        // Another at the same path, as in another container.
        let before = of_folder(&one);
        fs::rename(&one, folder.path().join("away")).unwrap();
        fs::create_dir(&one).unwrap();
        assert_ne!(of_folder(&one), before);
    }

    #[test]
    fn the_number_is_the_same_in_every_version() {
        assert_eq!(number("0b1f", "66:131"), 250_607_688);
        assert_ne!(number("0b1f", "66:131"), number("0b20", "66:131"));
        assert!(!machine().is_empty());
    }
}
