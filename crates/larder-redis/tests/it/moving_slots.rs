//! Slots move from node to node, one key at a time, nodes come and go, while requests, deletes and clears go on: none fails,
//! and nothing that was deleted comes back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use larder_core::{Cursor, Key, Store as _};
use larder_testing::redis::RedisCluster;

use crate::traffic::Traffic;
use crate::{connect, connect_patiently, entry, key};

const SLOTS: usize = 1_000;
const GROUPS: usize = 10;
/// The moves take so long, so that requests meet slots in every state.
const LENGTH: Duration = Duration::from_secs(6);

/// A key in each of so many slots of the first master, by slot.
fn keys_by_slot(cluster: &RedisCluster, slots: usize) -> BTreeMap<usize, Key> {
    let mut by_slot = BTreeMap::new();
    let mut begin = 0;
    while by_slot.len() < slots {
        let keys: Vec<Key> = (begin..begin + 1_000)
            .map(|index| key(&format!("/g{}/{index}", index % GROUPS)))
            .collect();
        let of = cluster.slots_of_keys(keys.iter().map(Key::as_str));
        let own = std::iter::zip(of, keys).filter(|(slot, _)| cluster.slots_of(0).contains(slot));
        by_slot.extend(own);
        begin += 1_000;
    }
    by_slot.into_iter().take(slots).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_and_nothing_deleted_comes_back() {
    let mut cluster = RedisCluster::start();
    let by_slot = keys_by_slot(&cluster, SLOTS);
    let keys: Vec<Key> = by_slot.values().cloned().collect();
    let store = connect_patiently(&cluster.url());
    let entries = keys.iter().map(|key| entry(key, "1")).collect();
    let written = store.set_many(entries).await.unwrap();
    assert!(written.iter().all(|written| written.is_stored()));
    let groups = (0..GROUPS).map(|group| format!("/g{group}")).collect();
    let traffic = Traffic::start(connect(&cluster.url()), keys.clone(), groups);
    traffic.more(200).await;
    let begin = Instant::now();
    let mut moved = 0;
    tokio::task::block_in_place(|| {
        let mut mover = cluster.mover(0, 1);
        for (done, slot) in (1..).zip(by_slot.keys()) {
            moved += mover.move_slot(*slot);
            let due = LENGTH * done / SLOTS as u32;
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    });
    let took = begin.elapsed();
    // A node is added, gets slots, gives them back, and is removed.
    tokio::task::block_in_place(|| {
        let added = cluster.add();
        for (from, to) in [(1, added), (added, 1)] {
            let mut mover = cluster.mover(from, to);
            for slot in by_slot.keys().take(100) {
                mover.move_slot(*slot);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        cluster.remove(added);
    });
    traffic.more(500).await;
    let outcome = traffic.end().await;
    println!("{SLOTS} slots with {moved} keys moved in {took:?}: {outcome}");
    assert_eq!((outcome.failed, outcome.back.len()), (0, 0));
    assert!(outcome.hits > 0 && outcome.cleared > 0, "{outcome:?}");
    assert!(moved > 100, "slots with keys were moved: {moved}");
    // What is there now is found through the new owner.
    let begin = Instant::now();
    loop {
        let entries = keys.iter().map(|key| entry(key, "2")).collect();
        let written = store.set_many(entries).await.unwrap();
        let Some(other) = written.iter().find(|written| !written.is_stored()) else {
            break;
        };
        assert!(begin.elapsed() < Duration::from_secs(5), "{other:?}");
    }
    let deleted = store.delete(&keys).await.unwrap();
    assert_eq!(deleted.entries, SLOTS as u64);
}

/// A slot that is half moved: some of its keys are here, some there, and single keys are asked for there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_stays_half_moved_is_read_written_and_deleted() {
    let cluster = RedisCluster::start_with(2, &[]);
    let (slot, key) = keys_by_slot(&cluster, 1).pop_first().unwrap();
    let store = connect_patiently(&cluster.url());
    let (from, to) = (cluster.id(0), cluster.id(1));
    let slot = slot.to_string();
    assert_eq!(
        cluster.nodes[1].cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]),
        "OK"
    );
    assert_eq!(
        cluster.nodes[0].cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]),
        "OK"
    );
    let bare = cluster.nodes[0].cli(&["GET", key.as_str()]);
    assert!(bare.starts_with("ASK"), "the fault bites: {bare}");
    for round in 0..3 {
        assert!(store.set(entry(&key, "1")).await.unwrap().is_stored());
        assert_eq!(
            cluster.nodes[0].cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot]),
            "0"
        );
        assert!(
            store
                .get(&key, larder_core::Ttl::MAX)
                .await
                .unwrap()
                .is_some()
        );
        let cleared = match round {
            0 => store.delete(std::slice::from_ref(&key)).await,
            _ => {
                let pattern = larder_core::Pattern::parse("cache:svc:*").unwrap();
                store.clear(&pattern, larder_core::ClearMode::Delete).await
            }
        };
        assert_eq!(cleared.unwrap().entries, 1);
        assert_eq!(store.get(&key, larder_core::Ttl::MAX).await, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_goes_from_master_to_master_and_says_when_one_is_gone() {
    let mut cluster = RedisCluster::start();
    let store = connect_patiently(&cluster.url());
    let keys: Vec<Key> = (0..100).map(|index| key(&format!("/{index}"))).collect();
    let written = store
        .set_many(keys.iter().map(|key| entry(key, "1")).collect())
        .await;
    assert!(written.unwrap().iter().all(|written| written.is_stored()));
    let first = store.scan(None, None, 1_000).await.unwrap();
    let mut met = first.entries.len();
    let mut after: Option<Cursor> = first.next.clone();
    while let Some(cursor) = after.take() {
        let page = store.scan(None, Some(cursor), 1_000).await.unwrap();
        met += page.entries.len();
        after = page.next;
    }
    assert_eq!(met, 100);
    // The server where a scan stands is killed: another's cursors mean nothing to its successor.
    let cursor = first.next.unwrap();
    let port: u16 = cursor
        .0
        .trim_end_matches("/0")
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let index = cluster
        .nodes
        .iter()
        .position(|node| node.port() == port)
        .unwrap();
    cluster.nodes[index].kill();
    cluster.watch_closely();
    let begin = Instant::now();
    loop {
        let page = store.scan(None, Some(cursor.clone()), 1_000).await;
        let error = page.unwrap_err().to_string();
        if error.contains("begin the scan anew") {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
