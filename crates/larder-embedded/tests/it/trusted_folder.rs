//! A folder is opened only if it, and all in it, is this user's alone (SF-4).

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use larder_embedded::{EmbeddedStore, OpenError};

use crate::support::{Place, get, key, options, set};

const FILES: [&str; 4] = ["data.mdb", "lock.mdb", "control", "lock"];

fn refused(path: &Path, why: &str) {
    match EmbeddedStore::open(path, options()) {
        Ok(_) => panic!("{}: opened, although {why}", path.display()),
        Err(error @ OpenError::Unsafe { .. }) => {
            assert!(
                error.to_string().contains(": "),
                "it says what to do: {error}"
            );
        }
        Err(error) => panic!("{why}: {error}"),
    }
}

/// A folder that was used and closed.
fn used() -> Place {
    let place = Place::new();
    set(&place.open(options()), &key("/a"), "x");
    place
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Bare LMDB opens what others could change: that is the attack.
fn lmdb_opens(folder: &Path) {
    // SAFETY: the file is LMDB's and whole, and nobody else has it open.
    let env = unsafe { heed::EnvOpenOptions::new().max_dbs(2).open(folder) }.unwrap();
    env.prepare_for_closing().wait();
}

#[test]
fn what_it_makes_is_this_users_alone() {
    let place = used();
    assert_eq!(place.folder.metadata().unwrap().mode() & 0o777, 0o700);
    for file in FILES {
        let file = place.folder.join(file).metadata().unwrap();
        assert_eq!(file.mode() & 0o777, 0o600);
    }
}

#[test]
fn a_folder_that_others_can_enter_is_refused() {
    for mode in [0o777, 0o750, 0o701, 0o770] {
        let place = used();
        chmod(&place.folder, mode);
        lmdb_opens(&place.folder);
        refused(&place.folder, &format!("its mode is {mode:o}"));
        chmod(&place.folder, 0o700);
        assert!(get(&place.open(options()), &key("/a")).is_some());
    }
}

#[test]
fn a_symbolic_link_to_a_folder_is_refused() {
    let place = used();
    let link = place.folder.with_file_name("link");
    symlink(&place.folder, &link).unwrap();
    lmdb_opens(&link);
    refused(&link, "it is a symbolic link");
    refused(
        Path::new(&format!("{}/", link.display())),
        "it is a symbolic link, with a slash",
    );
}

#[test]
fn a_file_that_is_a_link_or_a_fifo_is_refused() {
    for file in FILES {
        let place = used();
        let path = place.folder.join(file);
        let elsewhere = place.folder.with_file_name("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        if file == "data.mdb" {
            lmdb_opens(&place.folder);
        }
        refused(&place.folder, &format!("{file} is a symbolic link"));
        std::fs::remove_file(&path).unwrap();

        std::fs::hard_link(&elsewhere, &path).unwrap();
        if file == "data.mdb" {
            lmdb_opens(&place.folder);
        }
        refused(&place.folder, &format!("{file} has a second name"));
        std::fs::remove_file(&path).unwrap();

        let made = std::process::Command::new("mkfifo")
            .args(["-m", "600"])
            .arg(&path)
            .status();
        assert!(made.unwrap().success());
        refused(&place.folder, &format!("{file} is a fifo"));
        std::fs::remove_file(&path).unwrap();

        std::fs::create_dir(&path).unwrap();
        assert!(
            EmbeddedStore::open(&place.folder, options()).is_err(),
            "{file} is a folder"
        );
    }
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    for file in FILES {
        let place = used();
        chmod(&place.folder.join(file), 0o666);
        refused(&place.folder, &format!("{file} can be written by all"));
    }
}

#[test]
fn what_belongs_to_another_user_is_refused_even_to_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can give files away: not tested here");
        return;
    }
    const OTHER: u32 = 54_321;
    let place = used();
    std::os::unix::fs::chown(&place.folder, Some(OTHER), None).unwrap();
    lmdb_opens(&place.folder);
    refused(&place.folder, "it belongs to another user");
    std::os::unix::fs::chown(&place.folder, Some(0), None).unwrap();
    for file in FILES {
        let path = place.folder.join(file);
        std::os::unix::fs::chown(&path, Some(OTHER), None).unwrap();
        refused(&place.folder, &format!("{file} belongs to another user"));
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
}

#[test]
fn a_parent_that_everybody_can_write_is_refused_unless_it_is_sticky() {
    let place = used();
    let parent = place.folder.parent().unwrap();
    chmod(parent, 0o777);
    lmdb_opens(&place.folder);
    refused(&place.folder, "its parent can be written by all");
    chmod(parent, 0o1777);
    assert!(get(&place.open(options()), &key("/a")).is_some());
    chmod(parent, 0o700);
}

#[test]
fn a_link_on_the_way_hides_no_parent_that_everybody_can_write() {
    let place = Place::new();
    let above = place.folder.parent().unwrap();
    let shared = above.join("shared");
    std::fs::create_dir_all(shared.join("inner")).unwrap();
    chmod(&shared, 0o777);
    let way = above.join("way");
    symlink(shared.join("inner"), &way).unwrap();
    refused(
        &way.join("store"),
        "a parent behind a link can be written by all",
    );
}
