//! What lies in the folder and is not ours: left alone, and never waited for. What is ours and damaged: nothing of it is
//! lost silently.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use larder_core::{Kept, Volatile};
use rustix::fs::{FileType, Mode};

use super::{Place, hides, keys, names, set_mode};

/// A place whose only journal was made hostile: opened, it is not adopted, and stays as it is.
fn is_left_alone(what: &str, make: impl FnOnce(&Path)) {
    let place = Place::new();
    let journal = place.leave(&["/a"]);
    make(&journal);
    let outbox = place.open();
    let counts = outbox.counts();
    assert_eq!(
        (counts.adopted, counts.refused, counts.pending),
        (0, 1, 0),
        "{what}"
    );
    assert!(journal.symlink_metadata().is_ok(), "{what}");
    // And is in nobody's way.
    assert_eq!(outbox.add(keys(&["/b"])), Kept::Pending, "{what}");
}

fn put_aside(journal: &Path) -> std::path::PathBuf {
    let aside = journal.with_file_name("aside");
    std::fs::rename(journal, &aside).unwrap();
    aside
}

#[test]
fn what_another_could_have_written_is_left_alone() {
    let place = Place::new();
    place.leave(&["/a"]);
    assert!(hides(&place.open(), "/a"), "untouched it is adopted");

    is_left_alone("a symbolic link", |journal| {
        symlink(put_aside(journal), journal).unwrap();
    });
    is_left_alone("a hard link", |journal| {
        std::fs::hard_link(journal, journal.with_file_name("second")).unwrap();
    });
    is_left_alone("a file that all may write", |journal| {
        set_mode(journal, 0o666)
    });
    is_left_alone("a file that the group may read", |journal| {
        set_mode(journal, 0o640)
    });
    is_left_alone("a fifo", |journal| {
        std::fs::remove_file(journal).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, journal, FileType::Fifo, mode, 0).unwrap();
    });
    is_left_alone("a folder", |journal| {
        std::fs::remove_file(journal).unwrap();
        std::fs::create_dir(journal).unwrap();
        set_mode(journal, 0o700);
    });
    if rustix::process::geteuid().is_root() {
        is_left_alone("another user's file", |journal| {
            std::os::unix::fs::chown(journal, Some(12_345), None).unwrap();
        });
    }
}

/// A folder that was made hostile: nothing is read or written there, and that is said.
fn is_refused(what: &str, make: impl FnOnce(&Path)) {
    let place = Place::new();
    place.leave(&["/a"]);
    make(&place.folder);
    let before = names(&place.folder).len();
    let outbox = place.open();
    assert!(outbox.is_empty(), "{what}");
    let kept = outbox.add(keys(&["/b"]));
    assert!(
        matches!(kept, Kept::PendingVolatile(Volatile::Unwritable(_))),
        "{what}: {kept:?}"
    );
    assert!(hides(&outbox, "/b"), "{what}");
    assert_eq!(names(&place.folder).len(), before, "{what}");
}

#[test]
fn a_folder_that_another_could_write_is_not_used() {
    is_refused("all may write it", |folder| set_mode(folder, 0o777));
    is_refused("all may write the one above", |folder| {
        set_mode(folder.parent().unwrap(), 0o777);
    });
    is_refused("a symbolic link", |folder| {
        let aside = folder.with_file_name("aside");
        std::fs::rename(folder, &aside).unwrap();
        symlink(aside, folder).unwrap();
    });
    is_refused("a file", |folder| {
        std::fs::remove_dir_all(folder).unwrap();
        std::fs::write(folder, "a file").unwrap();
    });
    if rustix::process::geteuid().is_root() {
        is_refused("another user's folder", |folder| {
            std::os::unix::fs::chown(folder, Some(12_345), None).unwrap();
        });
    }
}

fn append(journal: &Path, bytes: &[u8]) {
    let mut file = std::fs::File::options().append(true).open(journal).unwrap();
    file.write_all(bytes).unwrap();
}

/// What a line that can't be read named is not known: it may be anything of the service.
fn assert_all_is_hidden(place: &Place, unreadable: u64) {
    let outbox = place.open();
    assert_eq!(outbox.counts().unreadable, unreadable);
    assert!(hides(&outbox, "/a") && hides(&outbox, "/never-named"));
    let other = larder_core::Key::new("other", "/never-named").unwrap();
    assert!(!outbox.hides(&other));
    assert_eq!(place.names().len(), 1, "it is taken over, and removed");
}

#[test]
fn hostile_lines_are_counted_and_what_they_named_is_taken_to_be_everything() {
    let place = Place::new();
    let journal = place.leave(&["/a", "/b"]);
    append(&journal, b"\xff\x00garbage\n0123 9 + 1 key cache:svc:/a\n");
    append(&journal, &[b'x'; 100_000]);
    append(&journal, b"\n");
    assert_all_is_hidden(&place, 3);
}

#[test]
fn a_line_that_was_changed_is_known_by_its_checksum() {
    let place = Place::new();
    let journal = place.leave(&["/a", "/b"]);
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replace("svc:/b", "svc:/c")).unwrap();
    assert_all_is_hidden(&place, 1);
}

#[test]
fn of_a_journal_that_was_cut_short_the_rest_is_adopted() {
    let place = Place::new();
    let journal = place.leave(&["/a", "/b"]);
    let file = std::fs::File::options().write(true).open(&journal).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
    let outbox = place.open();
    assert_eq!(
        (outbox.counts().pending, outbox.counts().unreadable),
        (1, 0)
    );
    assert!(hides(&outbox, "/a") != hides(&outbox, "/b"));
}

#[test]
fn an_empty_journal_is_removed() {
    let place = Place::new();
    let journal = place.leave(&["/a"]);
    std::fs::write(&journal, "").unwrap();
    assert!(place.open().is_empty());
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn of_10_gib_a_part_is_read_and_all_of_the_service_hidden() {
    let place = Place::new();
    let journal = place.leave(&["/a"]);
    let file = std::fs::File::options().write(true).open(&journal).unwrap();
    file.set_len(10 << 30).unwrap();
    let begin = std::time::Instant::now();
    assert_all_is_hidden(&place, 0);
    assert!(begin.elapsed() < std::time::Duration::from_secs(5));
}
