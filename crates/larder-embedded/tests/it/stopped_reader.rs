//! A process that was stopped inside a snapshot: sets are refused while there still is room to delete.

use larder_core::{ClearMode, Pattern, Store, StoreError, Written};
use larder_embedded::{EmbeddedStore, Options};
use rustix::process::Signal;

use crate::support::{Place, Process, entry, key, listen, options, role, runtime, say};

const VALUE_BYTES: usize = 1_000;
/// So many deletes, one at a time, the reserve of a store of 16 MiB bears at least.
const DELETES: usize = 30;

fn small() -> Options {
    Options {
        max_bytes: 16 << 20,
        ..options()
    }
}

fn name(index: usize) -> larder_core::Key {
    key(&format!("/{index}"))
}

async fn put(store: &EmbeddedStore, index: usize) -> Result<Written, StoreError> {
    let new = entry(&name(index), vec![1; VALUE_BYTES], 3_600);
    store.set(new).await
}

/// A process that is stopped inside a snapshot of the store.
fn stopped_reader(place: &Place) -> Process {
    let mut reader = Process::start("stopped_reader::reader", "hold", &place.folder);
    reader.expect("holds");
    reader.signal(Signal::STOP);
    reader
}

#[test]
fn reader() {
    let Some(folder) = role("hold") else { return };
    // SAFETY: the file is LMDB's, whole, and open in other processes through LMDB alone.
    let env = unsafe { heed::EnvOpenOptions::new().max_dbs(2).open(folder) }.unwrap();
    let txn = env.read_txn().unwrap();
    say("holds");
    listen();
    drop(txn);
    say("let go");
    listen();
}

/// Sets until one is refused; answers how many there were, and the refusal.
async fn fill(store: &EmbeddedStore, first: usize) -> (usize, StoreError) {
    for index in first..first + 100_000 {
        match put(store, index).await {
            Ok(Written::Stored) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => return (index - first, error),
        }
    }
    panic!("no set was refused");
}

/// Fills a store as far as eviction lets it; answers the first number that was not stored.
async fn fill_up(store: &EmbeddedStore, value_bytes: usize) -> usize {
    let mut next = 0;
    while store.stats().await.unwrap().evictions == Some(0) {
        let group = next..next + 100;
        let entries = group.map(|index| entry(&name(index), vec![1; value_bytes], 3_600));
        let outcomes = store.set_many(entries.collect()).await.unwrap();
        assert!(outcomes.iter().all(Written::is_stored));
        next += 100;
    }
    next
}

async fn living(store: &EmbeddedStore, names: std::ops::Range<usize>) -> Vec<usize> {
    let mut living = Vec::new();
    for index in names {
        if store
            .get(&name(index), larder_core::Ttl::MAX)
            .await
            .unwrap()
            .is_some()
        {
            living.push(index);
        }
    }
    living
}

#[test]
fn sets_are_refused_and_deletes_work() {
    let place = Place::new();
    let store = place.open(small());
    runtime().block_on(async {
        let next = fill_up(&store, VALUE_BYTES).await;
        let mut reader = stopped_reader(&place);
        let (stored, refusal) = fill(&store, next).await;
        assert!(stored > 0, "there was room beside the reserve");
        let StoreError::Full(why) = &refusal else {
            panic!("{refusal:?}")
        };
        assert!(
            why.contains(&format!("kill -CONT {}", reader.pid())),
            "{why}"
        );
        let evictions = store.stats().await.unwrap().evictions;
        for _ in 0..100 {
            assert_eq!(put(&store, next).await, Err(refusal.clone()));
        }
        assert_eq!(
            store.stats().await.unwrap().evictions,
            evictions,
            "what is refused drives out nothing"
        );

        for index in living(&store, 0..next).await.into_iter().take(DELETES) {
            let deleted = store.delete(&[name(index)]).await.unwrap();
            assert_eq!(deleted.entries, 1);
            assert!(living(&store, index..index + 1).await.is_empty());
        }
        assert_eq!(store.stats().await.unwrap().evictions, evictions);

        reader.signal(Signal::CONT);
        reader.tell("let go");
        reader.expect("let go");
        assert_eq!(put(&store, next).await, Ok(Written::Stored));
    });
}

/// No number of deletes finds the store full: when the reserve is used up, it is emptied.
#[test]
fn deletes_never_fail() {
    let place = Place::new();
    let store = place.open(small());
    runtime().block_on(async {
        let next = fill_up(&store, VALUE_BYTES).await;
        let mut reader = stopped_reader(&place);
        fill(&store, next).await;
        let names = living(&store, 0..next).await;
        let mut deletes = 0;
        for index in &names {
            let deleted = store.delete(&[name(*index)]).await.unwrap();
            deletes += deleted.entries;
            assert!(living(&store, *index..index + 1).await.is_empty());
        }
        assert!(
            (DELETES as u64..names.len() as u64).contains(&deletes),
            "{deletes}"
        );
        assert_eq!(store.stats().await.unwrap().entries, Some(0));
        assert!(put(&store, 0).await.is_err());

        reader.signal(Signal::CONT);
        reader.tell("let go");
        reader.expect("let go");
        for index in 0..next {
            assert_eq!(put(&store, index).await, Ok(Written::Stored));
        }
    });
}

#[test]
fn a_clear_never_fails() {
    for value_bytes in [100, 1_000, 10_000] {
        let place = Place::new();
        let store = place.open(small());
        runtime().block_on(async {
            let next = fill_up(&store, value_bytes).await;
            let _reader = stopped_reader(&place);
            fill(&store, next).await;
            for index in living(&store, 0..next).await.into_iter().take(DELETES) {
                assert_eq!(store.delete(&[name(index)]).await.unwrap().entries, 1);
            }
            let entries = store.stats().await.unwrap().entries.unwrap();
            let all = Pattern::parse("cache:svc:*").unwrap();
            let cleared = store.clear(&all, ClearMode::Delete).await;
            assert_eq!(
                cleared.unwrap().entries,
                entries,
                "{value_bytes} bytes each"
            );
            assert_eq!(store.stats().await.unwrap().entries, Some(0));
        });
    }
}

#[test]
fn a_reader_that_was_killed_holds_nothing() {
    let place = Place::new();
    let store = place.open(small());
    runtime().block_on(async {
        let next = fill_up(&store, VALUE_BYTES).await;
        let mut reader = stopped_reader(&place);
        fill(&store, next).await;
        reader.signal(Signal::KILL);
        reader.wait();
        assert_eq!(put(&store, next).await, Ok(Written::Stored));
    });
}
