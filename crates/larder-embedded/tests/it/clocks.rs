//! All processes have the same time: none finds more left of a life than another has just given.

use std::time::Duration;

use larder_core::{Store as _, Ttl};

use crate::support::{Place, Process, entry, key, listen, options, role, runtime, say, set};

const SECONDS: u64 = 60;
/// Over several hundred ticks of the coarse clock.
const TIMES: usize = 1_000;

#[test]
fn sets() {
    let Some(folder) = role("sets") else {
        return;
    };
    let store = larder_embedded::EmbeddedStore::open(&folder, options()).unwrap();
    say("ready");
    loop {
        let key = key(&listen());
        let written = runtime().block_on(async { store.set(entry(&key, "1", SECONDS)).await });
        assert!(written.unwrap().is_stored());
        say("set");
    }
}

#[test]
fn nothing_has_more_left_than_it_was_given() {
    let place = Place::new();
    let store = place.open(options());
    let mut other = Process::start("clocks::sets", "sets", &place.folder);
    other.expect("ready");
    set(&store, &key("/own"), "1");
    for number in 0..TIMES {
        let endpoint = format!("/{number}");
        // This process has looked at its clock in this tick, or has not.
        if number % 2 == 0 {
            let own = runtime().block_on(async { store.get(&key("/own"), Ttl::MAX).await });
            assert!(own.unwrap().is_some());
        }
        other.tell(&endpoint);
        other.expect("set");
        let found = runtime().block_on(async { store.get(&key(&endpoint), Ttl::MAX).await });
        let left = found.unwrap().unwrap().ttl.unwrap();
        assert!(left <= Duration::from_secs(SECONDS), "{number}: {left:?}");
    }
}
