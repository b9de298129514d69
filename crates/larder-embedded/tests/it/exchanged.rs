//! A folder that is removed or exchanged while it is open is used no more: others would not see what is written into it,
//! and what they delete would stay.

use larder_core::{Store, StoreError, Ttl};
use larder_embedded::{EmbeddedStore, OpenError};

use crate::support::{
    Place, Process, entry, get, key, listen, options, role, runtime, say, set, wait_until,
};

const FILES: [&str; 4] = ["data.mdb", "lock.mdb", "control", "lock"];

fn read(store: &EmbeddedStore) -> Result<bool, StoreError> {
    let found = runtime().block_on(async { store.get(&key("/a"), Ttl::MAX).await });
    found.map(|found| found.is_some())
}

fn assert_unused(store: &EmbeddedStore) {
    wait_until("it is noticed", || read(store).is_err());
    let (written, deleted) = runtime().block_on(async {
        let written = store.set(entry(&key("/a"), "y", 60)).await;
        (written, store.delete(&[key("/a")]).await)
    });
    for error in [written.err(), deleted.err()] {
        let Some(StoreError::Disabled(why)) = &error else {
            panic!("{error:?}")
        };
        assert!(why.contains("start this process again"), "{why}");
    }
}

/// Without a write: a process that only reads notices it too.
#[test]
fn a_folder_that_was_removed_is_read_no_more() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "x");
    assert_eq!(read(&store), Ok(true));
    std::fs::remove_dir_all(&place.folder).unwrap();
    assert_unused(&store);
}

#[test]
fn each_file_that_was_removed_is_noticed() {
    for file in FILES {
        let place = Place::new();
        let (store, second) = (place.open(options()), place.open(options()));
        set(&store, &key("/a"), "x");
        std::fs::remove_file(place.folder.join(file)).unwrap();
        assert_unused(&store);
        assert_unused(&second);
    }
}

#[test]
fn a_delete_notices_it_before_it_says_that_it_is_done() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "x");
    std::fs::rename(&place.folder, place.folder.with_file_name("away")).unwrap();
    let mut other = Process::start("exchanged::other", "other", &place.folder);
    other.expect("x");
    let deleted = runtime().block_on(async { store.delete(&[key("/a")]).await });
    assert!(
        matches!(deleted, Err(StoreError::Disabled(_))),
        "{deleted:?}"
    );
    assert!(read(&store).is_err());
}

/// What another process deletes in the new folder does not stay in the old one.
#[test]
fn others_that_use_the_new_folder_leave_nothing_stale() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "old");
    std::fs::remove_dir_all(&place.folder).unwrap();
    let mut other = Process::start("exchanged::other", "other", &place.folder);
    other.expect("x");
    assert_unused(&store);

    // The path is LMDB's in this process until the old store is dropped.
    let error = EmbeddedStore::open(&place.folder, options()).err().unwrap();
    assert!(matches!(error, OpenError::Exchanged { .. }), "{error}");
    drop(store);
    assert_eq!(get(&place.open(options()), &key("/a")).unwrap(), "x");
    other.tell("end");
    assert!(other.wait().success());
}

#[test]
fn other() {
    let Some(folder) = role("other") else { return };
    let store = EmbeddedStore::open(&folder, options()).unwrap();
    set(&store, &key("/a"), "x");
    say("x");
    listen();
}

#[test]
fn a_closed_store_does_not_take_a_folder_again_that_was_exchanged() {
    let place = Place::new();
    let closed = place.open(options());
    runtime().block_on(async { closed.close().await }).unwrap();
    std::fs::remove_file(place.folder.join("data.mdb")).unwrap();
    let error = EmbeddedStore::open(&place.folder, options()).err().unwrap();
    assert!(matches!(error, OpenError::Exchanged { .. }), "{error}");
    let mut other = Process::start("exchanged::other", "other", &place.folder);
    other.expect("x");
    drop(closed);
    assert_eq!(get(&place.open(options()), &key("/a")).unwrap(), "x");
}
