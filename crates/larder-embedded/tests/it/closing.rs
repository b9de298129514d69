//! What `close` ends: the lock and the mark of an orderly end come with it, not only with the drop of the store.

use std::os::unix::fs::FileExt as _;

use larder_core::{ClearMode, Pattern, Store, StoreError, Ttl};
use larder_embedded::EmbeddedStore;
use rustix::fs::{FlockOperation, flock};

use crate::support::{Place, Process, get, key, listen, options, role, runtime, say, set};

/// Where the control block says whether the close was orderly.
const CLEAN_AT: u64 = 40;

fn is_marked(place: &Place) -> bool {
    let mut word = [0; 8];
    let control = std::fs::File::open(place.folder.join("control")).unwrap();
    control.read_exact_at(&mut word, CLEAN_AT).unwrap();
    u64::from_le_bytes(word) == 1
}

fn is_locked(place: &Place) -> bool {
    let lock = std::fs::File::open(place.folder.join("lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
}

fn close(store: &EmbeddedStore) {
    runtime().block_on(async { store.close().await }).unwrap();
}

#[test]
fn a_store_that_is_closed_leaves_the_folder_to_others() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "x");
    assert!(is_locked(&place) && !is_marked(&place));
    for _ in 0..2 {
        close(&store);
        assert!(!is_locked(&place) && is_marked(&place));
    }

    let mut other = Process::start("closing::other", "other", &place.folder);
    other.expect("has it");
    assert!(is_locked(&place) && !is_marked(&place));
    close(&store);
    drop(store);
    assert!(
        is_locked(&place) && !is_marked(&place),
        "it is the other's now"
    );
    other.tell("end");
    assert!(other.wait().success());
    assert!(is_marked(&place));
}

#[test]
fn other() {
    let Some(folder) = role("other") else { return };
    let store = EmbeddedStore::open(&folder, options()).unwrap();
    assert_eq!(get(&store, &key("/a")).unwrap(), "x");
    say("has it");
    listen();
}

#[test]
fn the_last_store_of_a_process_gives_the_lock_back() {
    let place = Place::new();
    let (first, second) = (place.open(options()), place.open(options()));
    close(&first);
    assert!(is_locked(&place) && !is_marked(&place));
    set(&second, &key("/a"), "x");
    drop(second);
    assert!(!is_locked(&place) && is_marked(&place));
}

#[test]
fn a_folder_is_opened_again_while_a_closed_store_is_kept() {
    let place = Place::new();
    let closed = place.open(options());
    set(&closed, &key("/a"), "x");
    close(&closed);
    let store = place.open(options());
    assert!(is_locked(&place) && !is_marked(&place));
    assert_eq!(get(&store, &key("/a")).unwrap(), "x");
    set(&store, &key("/a"), "y");
    drop(closed);
    assert!(is_locked(&place) && !is_marked(&place));
    assert_eq!(get(&store, &key("/a")).unwrap(), "y");
}

#[test]
fn what_is_asked_of_a_closed_store_is_answered_so() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "x");
    close(&store);
    let all = Pattern::parse("cache:svc:*").unwrap();
    runtime().block_on(async {
        let errors = [
            store.get(&key("/a"), Ttl::MAX).await.err(),
            store.get_many(&[key("/a")], Ttl::MAX).await.err(),
            store.scan(None, None, 10).await.err(),
            store.stats().await.err(),
            store.delete(&[key("/a")]).await.err(),
            store.clear(&all, ClearMode::Delete).await.err(),
            store.clear(&all, ClearMode::DryRun).await.err(),
        ];
        for error in errors {
            assert!(matches!(error, Some(StoreError::Away(_))), "{error:?}");
        }
    });
}

#[test]
fn a_store_is_closed_while_others_read_it() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "x");
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    runtime().block_on(async {
                        while let Ok(found) = store.get(&key("/a"), Ttl::MAX).await {
                            assert_eq!(found.unwrap().bytes, "x");
                        }
                    });
                })
            })
            .collect();
        close(&store);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert!(!is_locked(&place) && is_marked(&place));
}
