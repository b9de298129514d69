//! Whatever another process writes into the control block, values are right or absent, and nobody crashes.

use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use larder_core::Store;
use larder_embedded::EmbeddedStore;

use crate::support::{Place, Process, entry, get, key, listen, options, role, runtime, say};

#[test]
fn random_bytes_in_the_control_block_harm_nobody() {
    let place = Place::new();
    drop(place.open(options()));
    let mut children: Vec<Process> = (0..3)
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
        control
            .write_all_at(&chance.to_be_bytes(), (chance >> 40) % 4_000)
            .unwrap();
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
        round += 1;
    }
    say("ended");
}
