//! What one process changes ends the proofs of all, before it says so; whatever happens to it in between.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Key, Proof, Service, Store, StoreError, Stored, Tag, Ttl, VersionName, Written};
use larder_embedded::{EmbeddedStore, Options};
use rustix::process::Signal;

use crate::another::Another;
use crate::support::{
    PATIENCE, Place, Process, entry, get, key, listen, options, role, runtime, say, set, wait_until,
};

fn read(store: &EmbeddedStore, key: &Key) -> Option<Stored> {
    let found = runtime().block_on(async { store.get(key, Ttl::MAX).await });
    found.unwrap()
}

/// The proof of an entry, which must be there and hold.
fn proof(store: &EmbeddedStore, key: &Key) -> Proof {
    let proof = read(store, key).unwrap().proof.unwrap();
    assert!(store.holds(&proof));
    proof
}

#[test]
fn it_holds_no_longer_than_until_anothers_change_is_done() {
    let place = Place::new();
    let store = place.open(options());
    let another = Another::start(&place);
    let name = key("/a");
    for round in 0..200 {
        set(&store, &name, format!("{round}"));
        let proof = proof(&store, &name);
        match round % 3 {
            0 => assert_eq!(another.ask(&format!("set {name} x")), "Stored"),
            1 => assert_eq!(another.ask(&format!("delete {name}")), "1"),
            _ => assert_eq!(another.ask("clear cache:svc:*"), "1"),
        }
        assert!(!store.holds(&proof), "{round}");
    }
}

/// Who read an entry that was evicted since may have it yet.
#[test]
fn what_is_not_there_is_deleted_too() {
    let place = Place::new();
    let small = Options {
        max_entries: Some(1),
        ..options()
    };
    let store = place.open(small);
    let another = Another::start(&place);
    for delete in [
        format!("delete {}", key("/a")),
        "clear cache:svc:/a*".to_owned(),
    ] {
        set(&store, &key("/a"), "x");
        let proof = proof(&store, &key("/a"));
        wait_until("it is evicted", || {
            set(&store, &key("/b"), "x");
            get(&store, &key("/a")).is_none()
        });
        assert!(store.holds(&proof), "what is evicted has not changed");
        assert_eq!(another.ask(&delete), "0");
        assert!(!store.holds(&proof), "{delete}");
        // And there are proofs again.
        assert!(read(&store, &key("/b")).unwrap().proof.is_some());
    }
}

#[test]
fn who_waits_is_woken_by_another_process() {
    let place = Place::new();
    let store = place.open(options());
    let another = Another::start(&place);
    let name = key("/a");
    for end in ["fill", "release", "delete"] {
        assert_eq!(another.ask(&format!("acquire {name}")), "granted");
        let waited = runtime().block_on(async {
            let acquired = store.acquire(std::slice::from_ref(&name), PATIENCE).await;
            let larder_core::Acquired::Held {
                proof: Some(proof), ..
            } = acquired.unwrap().remove(0)
            else {
                panic!("another has it")
            };
            let teller = {
                let (another, line) = (Arc::clone(&another), format!("{end} {name} x"));
                std::thread::spawn(move || another.ask(&line))
            };
            let begin = Instant::now();
            while store.holds(&proof) && begin.elapsed() < PATIENCE {
                store.changed(proof, PATIENCE).await.unwrap();
            }
            teller.join().unwrap();
            begin.elapsed()
        });
        assert!(waited < PATIENCE / 2, "{end}: {waited:?}");
        another.ask(&format!("delete {name}"));
    }
}

#[test]
fn a_version_that_another_renews_is_another_one() {
    let place = Place::new();
    let store = place.open(options());
    let another = Another::start(&place);
    let service = Service::new("svc").unwrap();
    let names = [VersionName::Tag(Tag::new("t").unwrap())];
    let tell = || runtime().block_on(async { store.versions(&service, &names).await.unwrap()[0] });
    let before = tell();
    assert_eq!(tell().version, before.version);
    assert!(store.holds(&before.proof.unwrap()));
    another.ask("renew svc t");
    assert!(!store.holds(&before.proof.unwrap()));
    assert_ne!(tell().version, before.version);
}

#[test]
fn a_closed_store_holds_nothing() {
    let place = Place::new();
    let (store, other) = (place.open(options()), place.open(options()));
    set(&store, &key("/a"), "x");
    let proof = proof(&store, &key("/a"));
    assert!(other.holds(&proof), "one folder, one proof");
    runtime().block_on(async { store.close().await }).unwrap();
    assert!(!store.holds(&proof) && other.holds(&proof));
    let waits = runtime().block_on(async { store.changed(proof, PATIENCE).await });
    assert_eq!(waits, Ok(()));
}

#[test]
fn a_folder_that_was_removed_ends_the_proofs_of_all() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "x");
    let proof = proof(&store, &key("/a"));
    let another = Another::start(&place);
    std::fs::remove_dir_all(&place.folder).unwrap();
    let said = another.ask(&format!("delete {}", key("/a")));
    assert!(said.contains("start this process again"), "{said}");
    assert!(!store.holds(&proof), "the other one said so in the block");
}

#[test]
fn a_folder_that_was_removed_is_noticed_without_another() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "x");
    let proof = proof(&store, &key("/a"));
    std::fs::remove_file(place.folder.join("data.mdb")).unwrap();
    wait_until("it is noticed", || !store.holds(&proof));
}

const DEADLINE: Duration = Duration::from_millis(200);
const KEYS: usize = 8;
const VALUE_BYTES: usize = 16_000;

fn key_of(index: usize) -> Key {
    key(&format!("/{index}"))
}

/// Stops the writer again and again, until it stands behind its marks and before its commit.
fn stop_where(writer: &Process, is_there: impl Fn() -> bool) {
    wait_until("it is stopped behind its marks", || {
        writer.stop();
        let is_found = is_there();
        if !is_found {
            writer.signal(Signal::CONT);
            std::thread::sleep(Duration::from_micros(700));
        }
        is_found
    });
}

/// A writer that stands still behind its marks and before its commit leaves no proof for what it writes; and nobody's delete
/// is said to be done.
#[test]
fn a_writer_that_was_stopped_leaves_no_proof_for_what_it_writes() {
    let place = Place::new();
    let store = place.open(Options {
        deadline: DEADLINE,
        ..options()
    });
    wait_until("it is stored", || {
        let stored = store.set(entry(&key("/apart"), "x", 60));
        runtime().block_on(stored) == Ok(Written::Stored)
    });
    let floors = place.folder.with_file_name("floors");
    make_floors(&floors);
    let writer = Process::start("coherence::writer", "coherence-writer", &place.folder);
    let is_unproven =
        |index: usize| read(&store, &key_of(index)).is_some_and(|stored| stored.proof.is_none());
    stop_where(&writer, || {
        // Not in a clear, which leaves no proof for anything.
        let is_apart_proven = read(&store, &key("/apart")).unwrap().proof.is_some();
        (0..KEYS).any(is_unproven) && is_apart_proven
    });
    let unproven = (0..KEYS).find(|index| is_unproven(*index)).unwrap();
    let apart = proof(&store, &key("/apart"));
    let deleted = runtime().block_on(async { store.delete(&[key("/apart")]).await });
    assert!(
        matches!(deleted, Err(StoreError::NotBegun | StoreError::TimedOut)),
        "{deleted:?}"
    );
    assert!(store.holds(&apart), "it was not deleted");
    assert!(is_unproven(unproven));
    writer.signal(Signal::CONT);
    wait_until("there are proofs again", || {
        read(&store, &key_of(unproven)).is_some_and(|stored| stored.proof.is_some())
    });
}

const KILLS: u32 = 60;
/// So many more behind the marks and before the commit, where chance seldom leads.
const KILLS_BETWEEN: u32 = 5;

/// Writers are killed at any instant, and readers in other processes serve nothing that a delete ended: see [`reader`].
#[test]
fn a_writer_that_was_killed_leaves_nothing_old() {
    let place = Place::new();
    let store = place.open(options());
    let floors = place.folder.with_file_name("floors");
    make_floors(&floors);
    let mut readers: Vec<Process> = (0..2)
        .map(|_| Process::start("coherence::reader", "coherence-reader", &place.folder))
        .collect();
    for reader in &mut readers {
        reader.expect("reads");
    }
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    // Nobody else writes: what has no proof now was marked, and not committed.
    let is_between = || {
        let mut all = (0..KEYS).filter_map(|index| read(&store, &key_of(index)));
        all.any(|stored| stored.proof.is_none())
    };
    let mut between = 0;
    for kill in 0..KILLS + KILLS_BETWEEN {
        let mut writer = Process::start("coherence::writer", "coherence-writer", &place.folder);
        writer.expect("writes");
        if kill < KILLS {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            std::thread::sleep(Duration::from_micros(chance >> 50));
        } else {
            stop_where(&writer, is_between);
        }
        writer.signal(Signal::KILL);
        writer.wait();
        between += u32::from(is_between());
        // The next transaction settles what that left.
        set(&store, &key("/settle"), "x");
        for index in 0..KEYS {
            assert!(read(&store, &key_of(index)).is_none_or(|stored| stored.proof.is_some()));
        }
    }
    for mut reader in readers {
        reader.tell("end");
        let said = reader.hear().expect("it judged all");
        let (hits, reads) = said.split_once(' ').unwrap();
        assert!(hits.parse::<u64>().unwrap() > 0, "{said}");
        assert!(reads.parse::<u64>().unwrap() > 0, "{said}");
        assert!(reader.wait().success());
        eprintln!("{hits} by proof, {reads} read");
    }
    eprintln!("{between} kills were behind the marks and before the commit");
    assert!(between >= KILLS_BETWEEN, "{between}");
}

/// Beside the folder: for each key, the greatest value whose delete has returned.
fn make_floors(path: &Path) {
    std::fs::write(path, vec![0; KEYS * 8]).unwrap();
}

fn floor(floors: &File, index: usize) -> u64 {
    let mut word = [0; 8];
    floors.read_exact_at(&mut word, index as u64 * 8).unwrap();
    u64::from_le_bytes(word)
}

/// Sets values that rise, and deletes them; notes each delete once it has returned.
#[test]
fn writer() {
    let Some(folder) = role("coherence-writer") else {
        return;
    };
    let store = EmbeddedStore::open(&folder, options()).unwrap();
    let floors = File::options()
        .write(true)
        .open(folder.with_file_name("floors"))
        .unwrap();
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = since_1970.unwrap().as_nanos() as u64;
    runtime().block_on(async {
        for round in first.. {
            let mut value = vec![0; VALUE_BYTES];
            value[..8].copy_from_slice(&round.to_le_bytes());
            let value = bytes::Bytes::from(value);
            let entries = (0..KEYS).map(|index| entry(&key_of(index), value.clone(), 3_600));
            store.set_many(entries.collect()).await.unwrap();
            if round == first {
                say("writes");
            }
            let index = round as usize % KEYS;
            match round % 5 {
                0 => {
                    let all = larder_core::Pattern::parse("cache:svc:/?").unwrap();
                    let delete = larder_core::ClearMode::Delete;
                    store.clear(&all, delete).await.unwrap();
                    for index in 0..KEYS as u64 {
                        floors
                            .write_all_at(&round.to_le_bytes(), index * 8)
                            .unwrap();
                    }
                }
                _ => {
                    store.delete(&[key_of(index)]).await.unwrap();
                    floors
                        .write_all_at(&round.to_le_bytes(), index as u64 * 8)
                        .unwrap();
                }
            }
        }
    });
}

/// Keeps what it reads for as long as its proof holds, as an L1 does, and judges each use: nothing may be served whose delete had
/// returned before the use began.
#[test]
fn reader() {
    let Some(folder) = role("coherence-reader") else {
        return;
    };
    let store = EmbeddedStore::open(&folder, options()).unwrap();
    let floors = File::open(folder.with_file_name("floors")).unwrap();
    let stop = std::thread::spawn(listen);
    say("reads");
    let mut kept: HashMap<usize, (u64, Proof)> = HashMap::new();
    let (mut hits, mut reads) = (0_u64, 0_u64);
    runtime().block_on(async {
        while !stop.is_finished() {
            for index in 0..KEYS {
                let floor = floor(&floors, index);
                if let Some((value, proof)) = kept.get(&index)
                    && store.holds(proof)
                {
                    assert!(*value > floor, "{value} was deleted");
                    hits += 1;
                    continue;
                }
                kept.remove(&index);
                let Some(found) = store.get(&key_of(index), Ttl::MAX).await.unwrap() else {
                    continue;
                };
                let value = u64::from_le_bytes(found.bytes[..8].try_into().unwrap());
                assert!(value > floor, "{value} was deleted, and is read");
                reads += 1;
                if let Some(proof) = found.proof {
                    kept.insert(index, (value, proof));
                }
            }
        }
    });
    say(&format!("{hits} {reads}"));
}
