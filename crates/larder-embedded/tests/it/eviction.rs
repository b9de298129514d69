//! What goes when room is needed: what has expired first, then what was not read of late.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use larder_core::{Store, Ttl};
use larder_embedded::{EmbeddedStore, Options};

use crate::support::{
    HandClock, Place, Process, entry, get, key, listen, options, role, runtime, say, set,
};

const LIVE_ENTRIES: usize = 2_048;
/// Exact LRU has .557.
const LEAST_HIT_RATIO: f64 = 0.547;

fn web07() -> Vec<u16> {
    let bytes = include_bytes!("../data/web07.u16");
    bytes
        .chunks_exact(2)
        .map(|page| u16::from_be_bytes([page[0], page[1]]))
        .collect()
}

fn bounded(max_entries: u64) -> Options {
    Options {
        max_entries: Some(max_entries),
        ..options()
    }
}

/// Asks for an entry, and stores it where there is none.
async fn ask(store: &EmbeddedStore, name: &str) -> bool {
    let key = key(name);
    if store.get(&key, Ttl::MAX).await.unwrap().is_some() {
        return true;
    }
    assert!(
        store
            .set(entry(&key, "page", 3_600))
            .await
            .unwrap()
            .is_stored()
    );
    false
}

#[test]
fn the_hit_ratio_on_web07_is_as_good_as_lrus() {
    let place = Place::new();
    let store = place.open(bounded(LIVE_ENTRIES as u64));
    let requests = web07();
    let hits = runtime().block_on(async {
        let mut hits = 0;
        for page in &requests {
            hits += usize::from(ask(&store, &format!("/product/{page}")).await);
        }
        let entries = store.stats().await.unwrap().entries.unwrap();
        assert!(entries <= LIVE_ENTRIES as u64, "{entries} entries");
        hits
    });
    let ratio = hits as f64 / requests.len() as f64;
    assert!(ratio >= LEAST_HIT_RATIO, "{ratio:.4}");
}

/// The same measure finds FIFO and chance wanting, so it measures something.
#[test]
fn fifo_and_chance_fail_the_same_measure() {
    let requests = web07();
    let fifo = simulated(&requests, |entries, _| entries.pop_front().unwrap());
    let by_chance = simulated(&requests, |entries, chance| {
        let at = (chance >> 33) as usize % entries.len();
        entries.swap_remove_back(at).unwrap()
    });
    for (name, ratio) in [("FIFO", fifo), ("chance", by_chance)] {
        assert!(ratio < LEAST_HIT_RATIO, "{name}: {ratio:.4}");
    }
}

fn simulated(requests: &[u16], evict: impl Fn(&mut VecDeque<u16>, u64) -> u16) -> f64 {
    let (mut queue, mut live) = (VecDeque::new(), HashMap::new());
    let (mut hits, mut chance) = (0, 1_u64);
    for page in requests {
        if live.contains_key(page) {
            hits += 1;
            continue;
        }
        if live.len() >= LIVE_ENTRIES {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let victim = evict(&mut queue, chance);
            live.remove(&victim);
        }
        live.insert(*page, ());
        queue.push_back(*page);
    }
    f64::from(hits) / requests.len() as f64
}

#[test]
fn a_read_by_another_process_saves_an_entry() {
    let place = Place::new();
    let store = place.open(bounded(200));
    for index in 0..100 {
        set(&store, &old(index), "x");
    }
    let mut reader = Process::start("eviction::reader", "read", &place.folder);
    reader.expect("read");
    for index in 0..250 {
        set(
            &store,
            &key(&format!("/{:08x}/new", spread(index + 100))),
            "x",
        );
    }
    let stays = |range: std::ops::Range<u32>| {
        range
            .filter(|index| get(&store, &old(*index)).is_some())
            .count()
    };
    assert_eq!(stays(0..10), 10, "what the other process read stays");
    assert!(stays(10..100) <= 75, "others go: {} stay", stays(10..100));
}

/// Old and new ones stand in any order, so the hand passes both.
fn old(index: u32) -> larder_core::Key {
    key(&format!("/{:08x}/old", spread(index)))
}

fn spread(index: u32) -> u32 {
    index.wrapping_mul(2_654_435_761)
}

#[test]
fn reader() {
    let Some(folder) = role("read") else { return };
    let store = EmbeddedStore::open(&folder, options()).unwrap();
    for index in 0..10 {
        for _ in 0..3 {
            assert!(get(&store, &old(index)).is_some());
        }
    }
    say("read");
    listen();
}

/// Else each of them evicts the first key, and what is stored before the others never stays.
#[test]
fn writers_that_live_shortly_go_on_where_the_last_one_stopped() {
    let place = Place::new();
    let named = |group: &str, index: u32| key(&format!("/{group}/{index}"));
    let store = place.open(bounded(100));
    for index in 0..100 {
        set(&store, &named("later", index), "x");
    }
    drop(store);
    for index in 0..80 {
        set(&place.open(bounded(100)), &named("earlier", index), "x");
    }
    let store = place.open(bounded(100));
    let count = |group, most| {
        let stays = |index: &u32| get(&store, &named(group, *index)).is_some();
        (0..most).filter(stays).count()
    };
    assert_eq!((count("earlier", 80), count("later", 100)), (80, 20));
}

#[test]
fn what_has_expired_goes_before_what_lives() {
    let place = Place::new();
    let clock = HandClock::at(1_000);
    let store = place.open(Options {
        clock: Arc::new(clock.clone()),
        ..bounded(200)
    });
    runtime().block_on(async {
        for index in 0..100 {
            let living = entry(&key(&format!("/living/{index}")), "x", 3_600);
            let ending = entry(&key(&format!("/ending/{index}")), "x", 10);
            assert!(store.set(living).await.unwrap().is_stored());
            assert!(store.set(ending).await.unwrap().is_stored());
        }
        clock.advance(11);
        for index in 0..100 {
            assert!(
                store
                    .set(entry(&key(&format!("/new/{index}")), "x", 3_600))
                    .await
                    .unwrap()
                    .is_stored()
            );
        }
        let stats = store.stats().await.unwrap();
        assert_eq!(
            (stats.expired, stats.evictions, stats.entries),
            (Some(100), Some(0), Some(200))
        );
    });
}

/// An entry that was stored anew is indexed at its first end, and must outlive that.
#[test]
fn what_was_given_a_longer_life_does_not_go_at_its_first_end() {
    let place = Place::new();
    let clock = HandClock::at(1_000);
    let store = place.open(Options {
        clock: Arc::new(clock.clone()),
        ..options()
    });
    runtime().block_on(async {
        for (seconds, life) in [(0, 10), (5, 10), (6, 10), (9, 10)] {
            clock.advance(seconds);
            assert!(
                store
                    .set(entry(&key("/a"), "x", life))
                    .await
                    .unwrap()
                    .is_stored()
            );
            assert!(
                store
                    .set(entry(&key("/b"), "x", 1_000))
                    .await
                    .unwrap()
                    .is_stored()
            );
        }
        assert!(store.get(&key("/a"), Ttl::MAX).await.unwrap().is_some());
        clock.advance(10);
        assert!(
            store
                .set(entry(&key("/b"), "x", 1_000))
                .await
                .unwrap()
                .is_stored()
        );
        let stats = store.stats().await.unwrap();
        assert_eq!((stats.entries, stats.expired), (Some(1), Some(1)));
    });
}

#[test]
fn a_flood_of_unique_keys_costs_the_hot_set_ten_points_at_most() {
    let calm = hot_hit_ratio(0);
    let flooded = hot_hit_ratio(1);
    assert!(calm - flooded <= 0.10, "{calm:.3} fell to {flooded:.3}");
}

/// The hit ratio of a Zipf load, with so many unique keys asked for beside each request.
fn hot_hit_ratio(unique_beside: u32) -> f64 {
    const KEYS: usize = 2_000;
    const REQUESTS: u32 = 20_000;
    let place = Place::new();
    let store = place.open(bounded(1_000));
    let sums: Vec<f64> = (1..=KEYS)
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        })
        .collect();
    runtime().block_on(async {
        let (mut hits, mut chance) = (0, 1_u64);
        for request in 0..REQUESTS {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (chance >> 11) as f64 / (1_u64 << 53) as f64 * sums[KEYS - 1];
            let rank = sums.partition_point(|sum| *sum < at);
            hits += u32::from(ask(&store, &format!("/{rank}/hot")).await);
            for unique in 0..unique_beside {
                ask(&store, &format!("/{request}/{unique}/once")).await;
            }
        }
        f64::from(hits) / f64::from(REQUESTS)
    })
}
