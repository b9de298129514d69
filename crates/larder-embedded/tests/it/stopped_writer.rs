//! A process that was stopped inside its transaction: others lose their deadline at the most, and read on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Skip, Store, StoreError, Written};
use larder_embedded::{EmbeddedStore, Options};
use larder_testing::stalls::Stalls;
use rustix::process::Signal;

use crate::support::{
    Place, Process, entry, get, key, options, role, runtime, say, set, wait_until,
};

const DEADLINE: Duration = Duration::from_millis(200);
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_millis(800);

/// Stops the writer while it holds LMDB's lock. It may have given that back just before it says so; a store of its own
/// finds out, and is kept because its end waits for its writer.
fn stop_inside(place: &Place, store: &EmbeddedStore, writer: &Process) -> Vec<EmbeddedStore> {
    let mut probes = Vec::new();
    wait_until("the other process is stopped in its transaction", || {
        writer.stop();
        if store.writing_process() == Some(u64::from(writer.pid())) {
            let probe = place.open(options_with_deadline());
            let probed =
                runtime().block_on(async { probe.set(entry(&key("/probe"), "x", 60)).await });
            probes.push(probe);
            if probed.is_err() {
                return true;
            }
        }
        writer.signal(Signal::CONT);
        false
    });
    probes
}

fn options_with_deadline() -> Options {
    Options {
        deadline: DEADLINE,
        ..options()
    }
}

#[test]
fn others_pay_their_deadline_and_read_on() {
    let place = Place::new();
    let store = place.open(options_with_deadline());
    let mut writer = Process::start("stopped_writer::writer", "stop", &place.folder);
    writer.expect("writes");
    let _probe = stop_inside(&place, &store, &writer);

    let mut bare = Process::start("stopped_writer::bare", "bare", &place.folder);
    bare.expect("begins");

    let try_to_set = |name: &str| {
        let begin = Instant::now();
        let written = runtime().block_on(async { store.set(entry(&key(name), "x", 60)).await });
        (written, begin.elapsed())
    };
    let stalls = Stalls::watch();
    let (written, took) = try_to_set("/first");
    let most = DEADLINE + SLACK + stalls.end();
    assert!(written.is_err(), "{written:?}");
    assert!(took >= DEADLINE && took < most, "{took:?} {most:?}");
    // From when the writer itself has waited for so long.
    wait_until("writes fail at once", || {
        let (written, took) = try_to_set("/second");
        assert_eq!(written, Err(StoreError::NotBegun));
        took < DEADLINE / 2
    });
    let (begin, stalls) = (Instant::now(), Stalls::watch());
    assert!(get(&store, &key("/0")).is_some(), "reads go on");
    assert!(begin.elapsed() < DEADLINE + stalls.end());
    let deleted = runtime().block_on(async { store.delete(&[key("/0")]).await });
    assert!(deleted.is_err());
    assert!(!bare.has_said_more(), "bare LMDB waits for ever");

    writer.signal(Signal::CONT);
    bare.expect("has begun");
    wait_until("writes work again", || {
        matches!(try_to_set("/third").0, Ok(Written::Stored))
    });
    assert_eq!(
        get(&store, &key("/second")),
        None,
        "what had not begun never happens"
    );
}

#[test]
fn closing_does_not_wait_for_it() {
    let place = Place::new();
    let store = Arc::new(place.open(options_with_deadline()));
    let mut writer = Process::start("stopped_writer::writer", "stop", &place.folder);
    writer.expect("writes");
    let _probe = stop_inside(&place, &store, &writer);
    let written = runtime().block_on(async { store.set(entry(&key("/a"), "x", 60)).await });
    assert!(matches!(
        written,
        Err(_) | Ok(Written::Unknown | Written::Skipped(Skip::Store(_)))
    ));
    let (begin, stalls) = (Instant::now(), Stalls::watch());
    runtime().block_on(async { store.close().await }).unwrap();
    drop(store);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(4) + stalls.end(), "{took:?}");
}

#[test]
fn writer() {
    let Some(folder) = role("stop") else { return };
    let store = EmbeddedStore::open(&folder, options()).unwrap();
    set(&store, &key("/0"), "x");
    say("writes");
    runtime().block_on(async {
        loop {
            let entries =
                (1..64).map(|index| entry(&key(&format!("/{index}")), vec![7; 8_000], 3_600));
            // It may have to wait for others.
            let _ = store.set_many(entries.collect()).await;
        }
    });
}

#[test]
fn bare() {
    let Some(folder) = role("bare") else { return };
    // SAFETY: the file is LMDB's, whole, and open in other processes through LMDB alone.
    let env = unsafe { heed::EnvOpenOptions::new().max_dbs(2).open(folder) }.unwrap();
    say("begins");
    let txn = env.write_txn().unwrap();
    txn.abort();
    say("has begun");
}
