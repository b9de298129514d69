//! A disk that is full, or can't be written, is an error with its next step, and never a crash.

use std::path::{Path, PathBuf};
use std::process::Command;

use larder_core::{Skip, Store, StoreError, Written};
use larder_embedded::{EmbeddedStore, OpenError, Options};

use crate::support::{Place, Process, entry, get, key, options, role, runtime, say};

/// A small file system of its own; unmounted when it is dropped.
struct Disk {
    path: PathBuf,
    _parent: tempfile::TempDir,
}

impl Disk {
    /// `None` where this user may not mount: then there is nothing to test on.
    fn mount(options: &str) -> Option<Self> {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "larder-test"])
            .arg(&path)
            .status();
        let is_mounted = mounted.is_ok_and(|status| status.success());
        if !is_mounted {
            eprintln!("this user may not mount a file system: not tested here");
        }
        is_mounted.then_some(Self {
            path,
            _parent: parent,
        })
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.path)
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

#[test]
fn a_full_disk_at_the_first_open_says_so() {
    for size in ["size=64k,mode=0700", "size=300k,mode=0700"] {
        let Some(disk) = Disk::mount(size) else {
            return;
        };
        let opened = EmbeddedStore::open(&disk.path.join("store"), options());
        let error = opened.err().expect("there is no room for it");
        assert!(
            matches!(error, OpenError::DiskFull { .. }),
            "{size}: {error}"
        );
        assert!(error.to_string().contains("make room"), "{error}");
    }
}

/// In a process of its own: a SIGBUS must be seen as one.
#[test]
fn a_disk_that_fills_up_later_is_no_crash() {
    let Some(disk) = Disk::mount("size=6m,mode=0700") else {
        return;
    };
    let mut child = Process::start("full_disk::child", "fill", &disk.path);
    child.expect("full");
    child.expect("reads");
    child.expect("writes again");
    assert!(child.wait().success());
}

#[test]
fn child() {
    let Some(disk) = role("fill") else { return };
    let store = EmbeddedStore::open(&disk.join("store"), options()).unwrap();
    let put = |index: usize| {
        let new = entry(&key(&format!("/{index}")), vec![1; 10_000], 3_600);
        runtime().block_on(async { store.set(new).await })
    };
    let full = (0..2_000)
        .find(|index| put(*index) != Ok(Written::Stored))
        .expect("it fills up");
    let outcome = put(full);
    let is_full = matches!(
        &outcome,
        Err(StoreError::Full(_)) | Ok(Written::Skipped(Skip::Store(StoreError::Full(_))))
    );
    assert!(is_full, "{outcome:?}");
    say("full");
    assert!(get(&store, &key("/0")).is_some());
    fill(&disk);
    assert!(get(&store, &key("/0")).is_some());
    say("reads");
    std::fs::remove_file(disk.join("others")).unwrap();
    grow(&disk);
    assert_eq!(put(full), Ok(Written::Stored));
    say("writes again");
}

/// Takes the last page, too.
fn fill(disk: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(disk.join("others")).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
}

fn grow(disk: &Path) {
    let status = Command::new("mount")
        .args(["-o", "remount,size=20m"])
        .arg(disk)
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_folder_that_can_only_be_read_says_so() {
    let Some(disk) = Disk::mount("size=20m,mode=0700") else {
        return;
    };
    let folder = disk.path.join("store");
    let made = EmbeddedStore::open(
        &folder,
        Options {
            max_bytes: 8 << 20,
            ..options()
        },
    )
    .unwrap();
    drop(made);
    disk.remount("ro");
    for path in [folder, disk.path.join("other")] {
        let error = EmbeddedStore::open(&path, options())
            .err()
            .expect("it can't be written");
        assert!(matches!(error, OpenError::NotWritable { .. }), "{error}");
        assert!(error.to_string().contains("LARDER_DIR"), "{error}");
    }
}

#[test]
fn a_folder_in_a_file_says_so() {
    let place = Place::new();
    std::fs::write(&place.folder, "a file").unwrap();
    assert!(EmbeddedStore::open(&place.folder, options()).is_err());
    assert!(EmbeddedStore::open(&place.folder.join("below"), options()).is_err());
}
