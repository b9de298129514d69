//! After a power cut nothing can be trusted; after an orderly reboot, all.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use larder_embedded::Options;

use crate::support::{HandClock, Place, Process, get, key, options, role, runtime, say, set};

/// Where the control block keeps the boot's id, whether the close was orderly, and the wall clock then.
const BOOT_ID_AT: u64 = 24;
const CLEAN_AT: u64 = 40;
const CLOSED_AT_WALL_AT: u64 = 56;

fn change(place: &Place, at: u64, change: impl FnOnce(u64) -> u64) {
    let path = place.folder.join("control");
    let control = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut word = [0; 8];
    control.read_exact_at(&mut word, at).unwrap();
    let changed = change(u64::from_le_bytes(word));
    control.write_all_at(&changed.to_le_bytes(), at).unwrap();
}

fn killed() -> Place {
    let place = Place::new();
    let mut child = Process::start("power_cut::child", "cut", &place.folder);
    child.expect("stored");
    child.signal(rustix::process::Signal::KILL);
    child.wait();
    place
}

#[test]
fn child() {
    let Some(folder) = role("cut") else { return };
    let store = larder_embedded::EmbeddedStore::open(&folder, options()).unwrap();
    set(&store, &key("/a"), "x");
    say("stored");
    crate::support::listen();
}

#[test]
fn another_boot_without_an_orderly_close_starts_cold() {
    let place = killed();
    change(&place, BOOT_ID_AT, |id| id ^ 1);
    let store = place.open(options());
    assert_eq!(get(&store, &key("/a")), None);
    set(&store, &key("/a"), "y");
    drop(store);
    assert_eq!(get(&place.open(options()), &key("/a")).unwrap(), "y");
}

#[test]
fn the_same_boot_without_an_orderly_close_does_not() {
    let place = killed();
    assert_eq!(get(&place.open(options()), &key("/a")).unwrap(), "x");
}

#[test]
fn another_boot_after_an_orderly_close_keeps_entries_and_their_time() {
    let place = Place::new();
    let with = |seconds| Options {
        clock: Arc::new(HandClock::at(seconds)),
        ..options()
    };
    let store = place.open(with(50_000));
    set(&store, &key("/a"), "x");
    drop(store);
    change(&place, BOOT_ID_AT, |id| id ^ 1);
    // The clock of the new boot begins again; it was off for a thousand seconds of the entry's hour.
    change(&place, CLOSED_AT_WALL_AT, |wall| wall - 1_000_000);
    let clock = HandClock::at(10);
    let store = place.open(Options {
        clock: Arc::new(clock.clone()),
        ..options()
    });
    let left = runtime().block_on(async {
        larder_core::Store::get(&store, &key("/a"), larder_core::Ttl::MAX).await
    });
    let left = left.unwrap().unwrap().ttl.unwrap().as_secs();
    assert!((2_590..=2_600).contains(&left), "{left} s are left");
    clock.advance(2_601);
    assert_eq!(get(&store, &key("/a")), None);
}

#[test]
fn a_wall_clock_that_went_back_over_a_reboot_starts_cold() {
    let place = Place::new();
    set(&place.open(options()), &key("/a"), "x");
    change(&place, BOOT_ID_AT, |id| id ^ 1);
    change(&place, CLOSED_AT_WALL_AT, |wall| wall + 3_600_000);
    assert_eq!(get(&place.open(options()), &key("/a")), None);
}

/// The mark of an orderly close must not outlive the next opening, whoever closes and opens at the same time.
#[test]
fn no_folder_that_is_open_is_marked_as_closed() {
    let place = Place::new();
    for _ in 0..20 {
        let closing = place.open(options());
        set(&closing, &key("/a"), "x");
        let thread = std::thread::spawn(move || drop(closing));
        let mut child = Process::start("power_cut::child", "cut", &place.folder);
        child.expect("stored");
        thread.join().unwrap();
        change(&place, CLEAN_AT, |clean| {
            assert_eq!(clean, 0, "it is open in another process");
            clean
        });
    }
}
