//! Leases and versions stand beside the entries: they are no entries, go when their time is over, and outlive who made them.

use std::time::Duration;

use larder_core::{
    Acquired, ClearMode, Key, Lease, Pattern, Released, Service, Store, StoreError, Tag, Version,
    VersionName, Written,
};
use larder_embedded::{EmbeddedStore, Options};

use crate::another::Another;
use crate::support::{HandClock, Place, entry, key, options, runtime};

const TIME: Duration = Duration::from_secs(10);

fn acquire(store: &EmbeddedStore, key: &Key, time: Duration) -> Option<Lease> {
    let acquired =
        runtime().block_on(async { store.acquire(std::slice::from_ref(key), time).await });
    match acquired.unwrap().remove(0) {
        Acquired::Granted { lease, .. } => Some(lease),
        _ => None,
    }
}

fn version(store: &EmbeddedStore, tag: &str) -> Version {
    let name = VersionName::Tag(Tag::new(tag).unwrap());
    let service = Service::new("svc").unwrap();
    let told = runtime().block_on(async { store.versions(&service, &[name]).await });
    told.unwrap()[0].version
}

fn with_clock(clock: &HandClock) -> Options {
    Options {
        clock: std::sync::Arc::new(clock.clone()),
        ..options()
    }
}

#[test]
fn they_are_no_entries() {
    let place = Place::new();
    let store = place.open(options());
    acquire(&store, &key("/a"), TIME).unwrap();
    version(&store, "t");
    runtime().block_on(async {
        assert_eq!(store.stats().await.unwrap().entries, Some(0));
        assert!(store.scan(None, None, 10).await.unwrap().entries.is_empty());
        let all = Pattern::parse("cache:svc:*").unwrap();
        for mode in [ClearMode::DryRun, ClearMode::Delete] {
            assert_eq!(store.clear(&all, mode).await.unwrap().entries, 0);
        }
    });
}

#[test]
fn one_of_two_processes_has_a_lease() {
    let place = Place::new();
    let store = place.open(options());
    let another = Another::start(&place);
    let name = key("/a");
    assert_eq!(another.ask(&format!("acquire {name}")), "granted");
    assert!(acquire(&store, &name, TIME).is_none());
    assert_eq!(another.ask(&format!("release {name}")), "[true]");
    let lease = acquire(&store, &name, TIME).unwrap();
    assert_eq!(another.ask(&format!("acquire {name}")), "held");
    // A delete of another process ends it.
    assert_eq!(another.ask(&format!("delete {name}")), "0");
    let released = runtime().block_on(async { store.release(&[lease], Released::Failed).await });
    assert_eq!(released.unwrap(), [false]);
}

#[test]
fn a_lease_outlives_an_orderly_end_and_so_does_a_version() {
    let place = Place::new();
    let store = place.open(options());
    acquire(&store, &key("/a"), Duration::from_secs(3_600)).unwrap();
    let before = version(&store, "t");
    drop(store);
    let store = place.open(options());
    assert!(acquire(&store, &key("/a"), TIME).is_none());
    assert_eq!(version(&store, "t"), before);
    assert!(!place.folder.join("damaged").exists());
}

#[test]
fn a_lease_is_over_by_the_stores_time() {
    let place = Place::new();
    let clock = HandClock::at(1_000);
    let store = place.open(with_clock(&clock));
    acquire(&store, &key("/a"), TIME).unwrap();
    clock.advance(9);
    assert!(acquire(&store, &key("/a"), TIME).is_none());
    clock.advance(1);
    assert!(acquire(&store, &key("/a"), TIME).is_some());
}

/// Entries come and go, and the lease is there.
#[test]
fn no_eviction_ends_a_lease() {
    let place = Place::new();
    let small = Options {
        max_bytes: 4 << 20,
        ..options()
    };
    let store = place.open(small);
    let lease = acquire(&store, &key("/held"), Duration::from_secs(3_600)).unwrap();
    runtime().block_on(async {
        for index in 0..8_000 {
            let new = entry(&key(&format!("/{index}")), vec![1; 1_000], 3_600);
            assert_eq!(store.set(new).await.unwrap(), Written::Stored);
        }
        assert!(store.stats().await.unwrap().evictions.unwrap() > 0);
        let extended = store.extend(&[lease], Duration::from_secs(7_200)).await;
        assert_eq!(extended.unwrap(), [true]);
    });
}

/// Leases that nobody gave back go when they are over; until then there is a bound, and room for entries.
#[test]
fn leases_take_no_more_than_their_part() {
    let place = Place::new();
    let clock = HandClock::at(1_000);
    let store = place.open(Options {
        max_bytes: 1 << 20,
        ..with_clock(&clock)
    });
    let name = |round: u32, index: u32| key(&format!("/{round}/{index}"));
    runtime().block_on(async {
        for round in 0..2 {
            let mut refusal = None;
            for index in 0..10_000 {
                let acquired = store.acquire(&[name(round, index)], TIME).await;
                if let Err(error) = acquired {
                    refusal = Some((index, error));
                    break;
                }
            }
            let (granted, refusal) = refusal.expect("there is a bound");
            assert!(granted > 200, "{granted}");
            assert!(
                matches!(&refusal, StoreError::Full(why) if why.contains("LARDER_MAX_BYTES")),
                "{refusal:?}"
            );
            let new = entry(&key("/a"), vec![1; 1_000], 3_600);
            assert_eq!(store.set(new).await.unwrap(), Written::Stored);
            clock.advance(11);
        }
    });
}

#[test]
fn a_version_that_nobody_asks_for_goes_and_one_that_is_asked_for_stays() {
    const DAY: u64 = 24 * 3_600;
    let place = Place::new();
    let clock = HandClock::at(1_000);
    let store = place.open(with_clock(&clock));
    let (asked, left) = (version(&store, "asked"), version(&store, "left"));
    for _ in 0..4 {
        clock.advance(10 * DAY);
        assert_eq!(version(&store, "asked"), asked);
        // What prolongs it stands before this in the queue.
        runtime()
            .block_on(async { store.delete(&[key("/a")]).await })
            .unwrap();
    }
    assert_ne!(version(&store, "left"), left, "it was never the same again");
}

/// A store that has no room for more versions forgets some, and takes others.
#[test]
fn versions_take_no_more_than_their_part() {
    let place = Place::new();
    let store = place.open(Options {
        max_bytes: 1 << 20,
        ..options()
    });
    let tags: Vec<String> = (0..4_000).map(|tag| format!("tag-{tag}")).collect();
    let first = version(&store, &tags[0]);
    for tag in &tags {
        version(&store, tag);
    }
    let stats = runtime().block_on(async { store.stats().await }).unwrap();
    assert!(stats.used_bytes.unwrap() < 1 << 18, "{stats:?}");
    let forgotten = tags.iter().filter(|tag| version(&store, tag) == first);
    assert!(forgotten.count() <= 1);
}
