//! A damaged file is set aside; the service starts cold, never crashes, and reads what was stored or nothing.

use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use larder_embedded::{EmbeddedStore, Options};

use crate::support::{Place, Process, entry, get, in_role, key, options, role, runtime, say, set};

const PAGE: u64 = 4_096;
const ENTRIES: usize = 400;
const CASES_PER_CHILD: usize = 25;

fn small() -> Options {
    Options {
        max_bytes: 4 << 20,
        ..options()
    }
}

fn name(index: usize) -> String {
    format!("/{index}/{}", "k".repeat(index % 90))
}

/// Small values, values of a page, values of several.
fn value(index: usize) -> Vec<u8> {
    let length = match index % 10 {
        0 => 9_000,
        1 => 4_064,
        2 => 2_100,
        other => 40 * other,
    };
    (0..length).map(|at| (at * 7 + index) as u8).collect()
}

/// A store with a free list and trees of more than one level, closed orderly.
fn whole() -> Place {
    let place = Place::new();
    let store = place.open(small());
    runtime().block_on(async {
        use larder_core::Store as _;
        for round in 0..2 {
            for chunk in (0..ENTRIES + 50).collect::<Vec<_>>().chunks(50) {
                let entries = chunk
                    .iter()
                    .map(|index| entry(&key(&name(*index)), value(*index), 3_600 + round));
                let outcomes = store.set_many(entries.collect()).await.unwrap();
                assert!(outcomes.iter().all(larder_core::Written::is_stored));
            }
        }
        let extra: Vec<_> = (ENTRIES..ENTRIES + 50)
            .map(|index| key(&name(index)))
            .collect();
        assert_eq!(store.delete(&extra).await.unwrap().entries, 50);
    });
    place
}

/// What is done to a file.
#[derive(Clone, Debug)]
enum Damage {
    Cut(u64),
    Zeroed(u64),
    Random { at: u64, seed: u64, bytes: u64 },
}

impl Damage {
    fn apply(&self, path: &Path) {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        match self {
            Self::Cut(length) => file.set_len(*length).unwrap(),
            Self::Zeroed(page) => file.write_all_at(&[0; PAGE as usize], page * PAGE).unwrap(),
            Self::Random { at, seed, bytes } => {
                let noise: Vec<u8> = (1..=*bytes)
                    .map(|index| {
                        (seed
                            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                            .rotate_left(index as u32)
                            >> 24) as u8
                            | 1
                    })
                    .collect();
                file.write_all_at(&noise, *at).unwrap();
            }
        }
    }
}

/// Each case in a copy of its own; the copies lie in folders named by number.
fn copies(place: &Place, file: &str, cases: &[Damage], into: &Path) {
    for (number, damage) in cases.iter().enumerate() {
        let copy = into.join(format!("{number}"));
        std::fs::create_dir(&copy).unwrap();
        std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        for name in ["data.mdb", "control", "lock.mdb", "lock"] {
            std::fs::copy(place.folder.join(name), copy.join(name)).unwrap();
        }
        damage.apply(&copy.join(file));
    }
}

/// Opens each copy in child processes, so that a crash is seen.
fn survives(file: &str, cases: &[Damage]) {
    let place = whole();
    let parent = tempfile::tempdir().unwrap();
    for chunk in cases.chunks(CASES_PER_CHILD) {
        let folder = parent.path().join("cases");
        std::fs::create_dir(&folder).unwrap();
        copies(&place, file, chunk, &folder);
        let mut child = Process::start("damage::child", "damaged", &folder);
        for damage in chunk {
            let said = child.hear();
            assert_eq!(
                said.as_deref(),
                Some("survived"),
                "{file}, {damage:?}: {:?}",
                said.is_none().then(|| child.wait())
            );
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

fn numbered(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let folder = folder.to_owned();
    (0..)
        .map(move |number: u32| folder.join(number.to_string()))
        .take_while(|copy| copy.exists())
}

#[test]
fn child() {
    let Some(folder) = role("damaged") else {
        return;
    };
    for copy in numbered(&folder) {
        let store = EmbeddedStore::open(&copy, small()).unwrap();
        for index in 0..ENTRIES {
            if let Some(found) = get(&store, &key(&name(index))) {
                assert_eq!(found, value(index), "{}: a wrong value", copy.display());
            }
        }
        for index in 0..30 {
            set(&store, &key(&name(index)), value(index));
            assert_eq!(get(&store, &key(&name(index))).unwrap(), value(index));
        }
        say("survived");
    }
}

fn length(place: &Place) -> u64 {
    place.folder.join("data.mdb").metadata().unwrap().len()
}

#[test]
fn a_whole_file_is_not_set_aside() {
    let place = whole();
    for _ in 0..3 {
        let store = place.open(small());
        for index in 0..ENTRIES {
            assert_eq!(get(&store, &key(&name(index))).unwrap(), value(index));
        }
        set(&store, &key("/more"), "x");
    }
    assert!(!place.folder.join("damaged").exists());
}

/// LMDB leaves a shortened value its pages when both were written in one transaction: that is no damage.
#[test]
fn a_value_that_became_shorter_in_one_transaction_is_no_damage() {
    let place = Place::new();
    let store = place.open(small());
    runtime().block_on(async {
        use larder_core::Store as _;
        let both = [60_000, 9_000].map(|length| entry(&key("/a"), vec![7; length], 3_600));
        let outcomes = store.set_many(both.to_vec()).await.unwrap();
        assert!(outcomes.iter().all(larder_core::Written::is_stored));
    });
    drop(store);
    let found = get(&place.open(small()), &key("/a"));
    assert_eq!(found.map(|found| found.len()), Some(9_000));
    assert!(!place.folder.join("damaged").exists());
}

#[test]
fn a_file_cut_at_any_length_is_survived() {
    let length = length(&whole());
    let pages = length / PAGE;
    let odd = [
        1,
        15,
        100,
        PAGE - 1,
        PAGE,
        PAGE + 1,
        2 * PAGE - 1,
        2 * PAGE,
        3 * PAGE + 7,
        length - 1,
    ];
    let cuts = (2..pages)
        .step_by(usize::try_from(pages / 40).unwrap().max(1))
        .map(|page| page * PAGE);
    let cases: Vec<Damage> = odd.into_iter().chain(cuts).map(Damage::Cut).collect();
    survives("data.mdb", &cases);
}

#[test]
fn any_zeroed_page_is_survived() {
    let pages = length(&whole()) / PAGE;
    let step = usize::try_from(pages / 90).unwrap().max(1);
    let cases: Vec<Damage> = (0..8)
        .chain((8..pages).step_by(step))
        .map(Damage::Zeroed)
        .collect();
    survives("data.mdb", &cases);
}

#[test]
fn random_bytes_anywhere_are_survived() {
    let length = length(&whole());
    let mut chance = 11_u64;
    let cases: Vec<Damage> = (0..200)
        .map(|_| {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            Damage::Random {
                at: (chance >> 20) % (length - 64),
                seed: chance,
                bytes: 1 + (chance >> 60) * 4,
            }
        })
        .collect();
    survives("data.mdb", &cases);
}

#[test]
fn any_changed_byte_of_the_meta_pages_is_survived() {
    let bytes = (8..152).flat_map(|at| [at, at + PAGE]);
    let cases: Vec<Damage> = bytes
        .map(|at| Damage::Random {
            at,
            seed: at,
            bytes: 1,
        })
        .collect();
    survives("data.mdb", &cases);
}

#[test]
fn a_damaged_control_block_is_survived() {
    let words = (0..32).map(|word| Damage::Random {
        at: word * 8,
        seed: word + 1,
        bytes: 4,
    });
    let others = [
        Damage::Cut(0),
        Damage::Cut(10),
        Damage::Cut(PAGE),
        Damage::Zeroed(0),
        Damage::Zeroed(1),
    ];
    let cases: Vec<Damage> = words.chain(others).collect();
    survives("control", &cases);
}

#[test]
fn a_damaged_lock_file_is_survived() {
    let cases = [
        Damage::Cut(0),
        Damage::Cut(100),
        Damage::Zeroed(0),
        Damage::Random {
            at: 0,
            seed: 3,
            bytes: 64,
        },
    ];
    survives("lock.mdb", &cases);
}

#[test]
fn what_was_set_aside_is_kept_once_and_counted() {
    let place = whole();
    for _ in 0..2 {
        // The last pages may be free ones.
        Damage::Cut(length(&place) / 2).apply(&place.folder.join("data.mdb"));
        let store = place.open(small());
        let stats = runtime()
            .block_on(async { larder_core::Store::stats(&store).await })
            .unwrap();
        assert_eq!((stats.entries, stats.damaged), (Some(0), Some(1)));
        for index in 0..20 {
            set(&store, &key(&name(index)), value(index));
        }
        drop(store);
        assert_eq!(
            std::fs::read_dir(place.folder.join("damaged"))
                .unwrap()
                .count(),
            1
        );
    }
}

#[test]
fn a_damaged_control_block_is_no_silent_cold_start() {
    let place = whole();
    Damage::Zeroed(0).apply(&place.folder.join("control"));
    let store = place.open(small());
    let stats = runtime()
        .block_on(async { larder_core::Store::stats(&store).await })
        .unwrap();
    assert_eq!((stats.entries, stats.damaged), (Some(0), Some(1)));
    assert!(place.folder.join("damaged/data.mdb").exists());
}

/// The fault bites: LMDB alone dies of a file that was cut.
#[test]
fn bare_lmdb_dies_of_a_file_that_was_cut() {
    let place = whole();
    Damage::Cut(length(&place) / 4).apply(&place.folder.join("data.mdb"));
    let status = in_role("damage::bare", "bare-damaged", &place.folder)
        .status()
        .unwrap();
    assert!(status.signal().is_some(), "{status}");
}

#[test]
fn bare() {
    let Some(folder) = role("bare-damaged") else {
        return;
    };
    // SAFETY: none: that it is not safe is what is shown, in a process of its own.
    let env = unsafe { heed::EnvOpenOptions::new().max_dbs(2).open(folder) }.unwrap();
    let txn = env.read_txn().unwrap();
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let entries = opener.open_database::<heed::types::Bytes, heed::types::Bytes>(txn, None)?;
        heed::Result::Ok(heed::CommitOrAbort::<_, ()>::Commit(entries))
    });
    let entries = opened.unwrap().commit().flatten().unwrap();
    let txn = env.read_txn().unwrap();
    let bytes: usize = entries
        .iter(&txn)
        .unwrap()
        .map_while(Result::ok)
        .map(|(_, value)| value.iter().map(|byte| usize::from(*byte)).sum::<usize>())
        .sum();
    say(&bytes.to_string());
}
