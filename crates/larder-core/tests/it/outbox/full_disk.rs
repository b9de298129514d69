//! On a disk that can't be written it is kept in memory, says so, and is written down once there is room.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Kept, Volatile};

use super::applied::Steerable;
use super::{hides, keys, names, open, pattern};

/// A small file system of its own; unmounted when it is dropped.
struct Disk {
    path: PathBuf,
    _parent: tempfile::TempDir,
}

impl Disk {
    /// `None` where this user may not mount: then there is nothing to test on.
    fn mount() -> Option<Self> {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "larder-test"])
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

    fn fill(&self) {
        let mut file = std::fs::File::create(self.path.join("others")).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn make_read_only(&self) {
        let status = Command::new("mount")
            .args(["-o", "remount,ro"])
            .arg(&self.path)
            .status();
        assert!(status.unwrap().success());
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path.join("others")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn is_volatile(kept: &Kept) -> bool {
    matches!(kept, Kept::PendingVolatile(Volatile::Unwritable(why)) if why.contains("make room"))
}

/// What a new outbox finds there of these keys.
fn finds(folder: &Path, paths: &[&str]) -> bool {
    let outbox = open(folder);
    paths.iter().all(|path| hides(&outbox, path))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_written_down_is_once_there_is_room() {
    let Some(disk) = Disk::mount() else { return };
    let folder = disk.path.join("journal");
    let outbox = Arc::new(open(&folder));
    let store = Arc::new(Steerable::default());
    store.refuse(&["*"]);
    let driver = tokio::spawn(outbox.run(Arc::clone(&store)));
    assert_eq!(outbox.add(keys(&["/first"])), Kept::Pending);
    disk.fill();
    // What still fits into the journal's last page is kept there.
    let paths: Vec<String> = (0..400).map(|index| format!("/{index}")).collect();
    let kept: Vec<_> = paths.iter().map(|path| outbox.add(keys(&[path]))).collect();
    assert!(is_volatile(kept.last().unwrap()), "{:?}", kept.last());
    assert!(paths.iter().all(|path| hides(&outbox, path)));
    disk.make_room();

    let begin = Instant::now();
    let mut all: Vec<&str> = paths.iter().map(String::as_str).collect();
    all.push("/first");
    let is_written = || {
        let journals = names(&folder);
        let texts = journals
            .iter()
            .map(|name| std::fs::read_to_string(folder.join(name)));
        let text = texts.flatten().collect::<String>();
        all.iter()
            .all(|path| text.contains(&format!("cache:svc:{path}\n")))
    };
    while !is_written() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "never written down"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(outbox);
    // Until then it may hold the journal's lock.
    driver.await.unwrap();
    assert!(finds(&folder, &all));
}

#[tokio::test(start_paused = true)]
async fn what_is_adopted_on_a_full_disk_stays_there_until_it_is_applied() {
    let Some(disk) = Disk::mount() else { return };
    let folder = disk.path.join("journal");
    let dead = open(&folder);
    assert_eq!(dead.add(keys(&["/a"])), Kept::Pending);
    drop(dead);
    disk.fill();
    let outbox = open(&folder);
    assert!(hides(&outbox, "/a"));
    assert_eq!(names(&folder).len(), 1);
    let next = open(&folder);
    assert_eq!(next.counts().adopted, 0, "it is taken");
    assert!(hides(&next, "/a"), "and not applied yet");
    drop(next);
    drop(outbox);
    assert!(finds(&folder, &["/a"]), "who took it has ended, too");
    let outbox = open(&folder);
    let _ = outbox.apply(&Steerable::default()).await;
    assert!(outbox.is_empty() && names(&folder).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_removed_is_applied_once() {
    let Some(disk) = Disk::mount() else { return };
    let folder = disk.path.join("journal");
    let dead = open(&folder);
    assert_eq!(dead.add(pattern("cache:svc:*")), Kept::Pending);
    drop(dead);
    disk.make_read_only();
    let (outbox, store) = (open(&folder), Steerable::default());
    assert!(hides(&outbox, "/a"));
    assert_eq!(outbox.apply(&store).await.left, 0);
    assert_eq!(names(&folder).len(), 1);
    assert_eq!(outbox.adopt(), 0);
    assert!(outbox.is_empty());
    assert_eq!(store.successes("cache:svc:*"), 1);
}
