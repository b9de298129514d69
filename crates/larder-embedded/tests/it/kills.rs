//! `kill -9` in mid-write: what was reported as stored is there, nothing is corrupt, and the next start is not cold.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Key, Store, Written};
use larder_embedded::EmbeddedStore;

use crate::support::{Place, Process, entry, get, key, options, role, say};

const KILLS: u32 = 200;
const LEAST_IN_TRANSACTION: u32 = 100;
/// A machine that has much else to do may need more kills until so many were in a transaction.
const MOST_KILLS: u32 = 500;
const TASKS: usize = 8;
const KEYS: usize = 16;
const VALUE_BYTES: usize = 16_000;
/// Where the control block names the process that is between begin and commit.
const WRITING_AT: u64 = 80;

#[test]
fn two_hundred_kills_lose_nothing_that_was_stored() {
    let place = Place::new();
    let mut in_transaction = 0;
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut kill = 0;
    while kill < KILLS || (in_transaction < LEAST_IN_TRANSACTION && kill < MOST_KILLS) {
        kill += 1;
        let mut child = Process::start("kills::writer", "kill", &place.folder);
        let mut stored = [None::<u64>; TASKS];
        let note = |said: String, stored: &mut [Option<u64>; TASKS]| {
            let (task, round) = said.split_once(' ').unwrap();
            stored[task.parse::<usize>().unwrap()] = Some(round.parse().unwrap());
        };
        while stored.contains(&None) {
            note(child.hear().expect("the child writes"), &mut stored);
        }
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        std::thread::sleep(Duration::from_micros(chance >> 52));
        child.signal(rustix::process::Signal::KILL);
        child.wait();
        in_transaction += u32::from(writing_process(&place) == u64::from(child.pid()));
        // What it said before it died was stored too.
        while let Some(said) = child.hear() {
            note(said, &mut stored);
        }
        let store = place.open(options());
        assert!(
            !place.folder.join("damaged").exists(),
            "kill {kill}: set aside"
        );
        for (task, stored) in stored.into_iter().enumerate() {
            check(&store, task, stored.unwrap());
        }
    }
    eprintln!("{in_transaction} of {kill} kills were in a transaction");
    assert!(
        in_transaction >= LEAST_IN_TRANSACTION,
        "{in_transaction} of {kill} kills were in a transaction"
    );
}

fn check(store: &EmbeddedStore, task: usize, stored: u64) {
    for index in 0..KEYS {
        let bytes = get(store, &key_of(task, index)).expect("what was stored is there");
        assert_eq!(bytes.len(), VALUE_BYTES);
        let round = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(
            round >= stored,
            "task {task}: {round} is older than {stored}, which was stored"
        );
        assert!(
            bytes[8..].iter().all(|byte| *byte == round as u8),
            "a torn value"
        );
    }
}

fn writing_process(place: &Place) -> u64 {
    let mut word = [0; 8];
    let control = std::fs::File::open(place.folder.join("control")).unwrap();
    control.read_exact_at(&mut word, WRITING_AT).unwrap();
    u64::from_le_bytes(word)
}

fn key_of(task: usize, index: usize) -> Key {
    key(&format!("/{task}/{index}"))
}

#[test]
fn writer() {
    let Some(folder) = role("kill") else { return };
    let store = Arc::new(EmbeddedStore::open(&folder, options()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    // Later than any round of the children before.
    let begin = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let begin = begin.as_nanos() as u64;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = Arc::clone(&store);
            runtime.spawn(async move {
                for round in begin.. {
                    let mut value = vec![round as u8; VALUE_BYTES];
                    value[..8].copy_from_slice(&round.to_le_bytes());
                    let value = bytes::Bytes::from(value);
                    let entries =
                        (0..KEYS).map(|index| entry(&key_of(task, index), value.clone(), 3_600));
                    let outcomes = store.set_many(entries.collect()).await.unwrap();
                    assert!(outcomes.iter().all(Written::is_stored));
                    say(&format!("{task} {round}"));
                }
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
}
