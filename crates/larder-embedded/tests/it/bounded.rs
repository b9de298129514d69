//! However much is stored, the folder keeps its limit, and no caller gets an error, unless a reader stands still in mid-read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{ClearMode, Pattern, Skip, Store, StoreError, Written};

use crate::support::{PATIENCE, Place, entry, get, key, options, runtime};

const MAX_BYTES: u64 = 64 << 20;
const THROUGH: u64 = 1 << 30;
const LARGEST: usize = 1 << 20;
const TASKS: u64 = 4;

/// What the folder takes on the disk, and what its files' lengths are: the larger one.
fn folder_bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap());
    let sizes = files.map(|file| file.len().max(file.blocks() * 512));
    sizes.sum()
}

/// From 100 bytes to 1 MiB, as many of each order of magnitude.
fn size(chance: u64) -> usize {
    let orders = (LARGEST as f64 / 100.0).ln();
    (100.0 * (orders * (chance >> 11) as f64 / (1_u64 << 53) as f64).exp()) as usize
}

#[test]
fn a_gibibyte_goes_through_64_mebibytes() {
    let place = Place::new();
    let store = Arc::new(place.open(options()));
    let through = Arc::new(AtomicU64::new(0));
    let (sets, held) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let source = Bytes::from(
        (0..LARGEST * 2)
            .map(|index| (index % 251) as u8)
            .collect::<Vec<_>>(),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, through, source) =
                (Arc::clone(&store), Arc::clone(&through), source.clone());
            let (sets, held) = (Arc::clone(&sets), Arc::clone(&held));
            runtime.spawn(async move {
                let mut chance = task + 1;
                let mut last = None;
                while through.load(Ordering::Relaxed) < THROUGH {
                    chance = chance
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let bytes = size(chance);
                    let name = key(&format!("/{}", chance >> 44));
                    let value = source.slice(bytes % 997..bytes % 997 + bytes);
                    let mut written = store.set(entry(&name, value.clone(), 3_600)).await;
                    // A reader of this process that got no processor for a while keeps what it reads from being freed.
                    let own = format!("process {} ", std::process::id());
                    let is_held = |written: &Result<Written, _>| matches!(written, Err(StoreError::Full(why)) if why.contains(&own));
                    let begin = Instant::now();
                    while is_held(&written) && begin.elapsed() < PATIENCE {
                        held.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        written = store.set(entry(&name, value.clone(), 3_600)).await;
                    }
                    sets.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(written, Ok(Written::Stored), "{bytes} bytes");
                    through.fetch_add(bytes as u64, Ordering::Relaxed);
                    if let Some(last) = last.replace(name) {
                        store.get(&last, larder_core::Ttl::MAX).await.unwrap();
                    }
                }
            })
        })
        .collect();
    let mut largest = 0;
    let mut used = Vec::new();
    while tasks.iter().any(|task| !task.is_finished()) {
        largest = largest.max(folder_bytes(&place.folder));
        let stats = runtime.block_on(async { store.stats().await }).unwrap();
        used.push(stats.used_bytes.unwrap());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    let [sets, held] = [sets, held].map(|count| count.load(Ordering::Relaxed));
    assert!(held <= sets / 100, "{held} errors in {sets} sets");
    largest = largest.max(folder_bytes(&place.folder));
    assert!(largest <= MAX_BYTES + MAX_BYTES / 10, "{largest} bytes");
    let stats = runtime.block_on(async { store.stats().await }).unwrap();
    assert!(stats.evictions.unwrap() > 0);
    // On average: a value that needs many pages in a row may have just driven out most of the others.
    let used_on_average = used.iter().sum::<u64>() / used.len() as u64;
    assert!(
        used_on_average > MAX_BYTES / 4,
        "the room is used: {used_on_average}"
    );

    // A full store takes deletes and clears, the largest value, and nothing larger.
    let largest = Bytes::from(vec![1; (MAX_BYTES / 8) as usize]);
    runtime.block_on(async {
        let written = store
            .set(entry(&key("/largest"), largest.clone(), 60))
            .await;
        assert_eq!(written, Ok(Written::Stored));
        let mut larger = largest.to_vec();
        larger.push(1);
        let written = store.set(entry(&key("/larger"), larger, 60)).await;
        assert_eq!(written, Ok(Written::Skipped(Skip::TooLarge)));
        assert_eq!(store.delete(&[key("/largest")]).await.unwrap().entries, 1);
        let all = Pattern::parse("cache:svc:*").unwrap();
        let entries = store.stats().await.unwrap().entries.unwrap();
        assert_eq!(
            store.clear(&all, ClearMode::Delete).await.unwrap().entries,
            entries
        );
        assert_eq!(store.stats().await.unwrap().entries, Some(0));
    });
}

#[test]
fn small_values_and_large_ones_by_turns_fit_too() {
    let place = Place::new();
    let store = place.open(larder_embedded::Options {
        max_bytes: 8 << 20,
        ..options()
    });
    let large = Bytes::from(vec![2; 1 << 20]);
    runtime().block_on(async {
        for round in 0..6 {
            for batch in 0..40 {
                let small = (0..100).map(|index| {
                    entry(
                        &key(&format!("/{round}/{batch}/{index}")),
                        vec![1; 900],
                        3_600,
                    )
                });
                let outcomes = store.set_many(small.collect()).await.unwrap();
                assert!(outcomes.iter().all(Written::is_stored), "{outcomes:?}");
            }
            for index in 0..10 {
                let written = store
                    .set(entry(
                        &key(&format!("/large/{index}")),
                        large.clone(),
                        3_600,
                    ))
                    .await;
                assert_eq!(written, Ok(Written::Stored), "round {round}, {index}");
            }
        }
    });
    assert!(folder_bytes(&place.folder) <= (8 << 20) * 11 / 10);
}

#[test]
fn another_limit_later_does_not_change_the_first() {
    let place = Place::new();
    let with = |max_bytes| larder_embedded::Options {
        max_bytes,
        ..options()
    };
    drop(place.open(with(8 << 20)));
    let store = place.open(with(32 << 20));
    let stats = runtime().block_on(async { store.stats().await }).unwrap();
    assert_eq!(stats.limit_bytes, Some(8 << 20));
    assert_eq!(get(&store, &key("/none")), None);
}
