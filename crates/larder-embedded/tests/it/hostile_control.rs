//! Whatever another process writes into the control block, values are right or absent, and nobody crashes.

use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use larder_core::{
    Acquired, FillRight, Guard, Key, NewEntry, Proof, Service, Store, Tag, VersionName,
};
use larder_embedded::EmbeddedStore;

use crate::support::{Place, Process, entry, get, key, listen, options, role, runtime, say};

/// What stands before the marks, and how long these are.
const FIRST_BYTES: u64 = 4_096;
const MARKS_BYTES: u64 = 8 << 16;

#[test]
fn random_bytes_in_the_control_block_harm_nobody() {
    let place = Place::new();
    drop(place.open(options()));
    let mut children: Vec<Process> = (0..4)
        .map(|_| Process::start("hostile_control::child", "hostile", &place.folder))
        .collect();
    for child in &mut children {
        child.expect("works");
    }
    let control = std::fs::OpenOptions::new()
        .write(true)
        .open(place.folder.join("control"))
        .unwrap();
    let begin = Instant::now();
    let mut chance = 5_u64;
    while begin.elapsed() < Duration::from_millis(800) {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Half of it into the words that stand first, half into the marks behind them.
        let at = match chance >> 63 {
            0 => (chance >> 40) % 4_000,
            _ => FIRST_BYTES + (chance >> 40) % MARKS_BYTES,
        };
        control.write_all_at(&chance.to_be_bytes(), at).unwrap();
    }
    for child in &mut children {
        child.tell("end");
        child.expect("ended");
        assert!(child.wait().success());
    }
    // The next one starts, cold or not.
    let store = place.open(options());
    for index in 0..50 {
        let value = get(&store, &key(&format!("/{index}")));
        assert!(value.is_none_or(|value| value == format!("{index}")));
    }
}

#[test]
fn child() {
    let Some(folder) = role("hostile") else {
        return;
    };
    let store = EmbeddedStore::open(&folder, options()).unwrap();
    let stop = std::thread::spawn(listen);
    say("works");
    let mut round = 0_u64;
    while !stop.is_finished() {
        let index = round % 50;
        let name = key(&format!("/{index}"));
        let written =
            runtime().block_on(async { store.set(entry(&name, format!("{index}"), 60)).await });
        // Any limit may stand there now; but the writer must be alive to refuse.
        assert!(
            !matches!(&written, Err(larder_core::StoreError::Away(_))),
            "{written:?}"
        );
        let value = get(&store, &name);
        assert!(value.is_none_or(|value| value == format!("{index}")));
        let _ = runtime().block_on(async { store.stats().await });
        runtime().block_on(coordinate(&store, &name, index));
        round += 1;
    }
    say("ended");
}

/// Leases, versions and proofs: any answer will do, but there is one.
async fn coordinate(store: &EmbeddedStore, name: &Key, index: u64) {
    let time = Duration::from_millis(50);
    if let Ok(mut acquired) = store.acquire(std::slice::from_ref(name), time).await {
        match acquired.remove(0) {
            Acquired::Granted { lease, .. } => {
                let guard = Guard::Lease(FillRight::new(), lease);
                let fill = NewEntry {
                    guard,
                    ..entry(name, format!("{index}"), 60)
                };
                let _ = store.set(fill).await;
            }
            Acquired::Held {
                proof: Some(proof), ..
            } => store
                .changed(proof, Duration::from_millis(1))
                .await
                .unwrap(),
            _ => {}
        }
    }
    let tag = [VersionName::Tag(Tag::new("t").unwrap())];
    if let Ok(told) = store.versions(&Service::new("svc").unwrap(), &tag).await {
        let _ = told[0].proof.map(|proof| store.holds(&proof));
    }
    let any = Proof {
        place: (index as u32).wrapping_mul(0x9e37_79b9),
        source: index as u32,
        count: index,
        epoch: 0,
    };
    store.holds(&any);
}
