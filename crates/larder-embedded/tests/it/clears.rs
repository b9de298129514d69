//! A large clear leaves the others their turns.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{ClearMode, Pattern, Store, Written};
use larder_embedded::Options;
use larder_testing::stalls::once_of_three;

use crate::support::{Place, entry, key, options};

const ENTRIES: usize = 60_000;

#[test]
fn a_large_clear_leaves_other_writes_their_turns() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    // Where the machine stands still for a moment, a write has no turn either.
    once_of_three(|| runtime.block_on(writes_have_their_turns()));
}

async fn writes_have_their_turns() -> Result<(), String> {
    let place = Place::new();
    let filling = place.open(options());
    for chunk in (0..ENTRIES).collect::<Vec<_>>().chunks(1_000) {
        let entries = chunk
            .iter()
            .map(|index| entry(&key(&format!("/cleared/{index}")), "x", 3_600));
        let outcomes = filling.set_many(entries.collect()).await.unwrap();
        assert!(outcomes.iter().all(Written::is_stored));
    }
    drop(filling);
    // Shorter than the clear takes, and longer than any one transaction.
    let store = Arc::new(place.open(Options {
        deadline: Duration::from_millis(250),
        ..options()
    }));
    let clearing = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let pattern = Pattern::parse("cache:svc:/cleared/*").unwrap();
            store.clear(&pattern, ClearMode::Delete).await
        }
    });
    let mut beside = 0;
    while !clearing.is_finished() {
        let name = key(&format!("/beside/{beside}"));
        let written = store.set(entry(&name, "x", 60)).await;
        if written != Ok(Written::Stored) {
            return Err(format!("after {beside} writes: {written:?}"));
        }
        let deleted = store.delete(&[name]).await;
        let deleted = deleted.map_err(|error| format!("after {beside} writes: {error}"))?;
        assert_eq!(deleted.entries, 1);
        beside += 1;
    }
    assert_eq!(clearing.await.unwrap().unwrap().entries, ENTRIES as u64);
    assert_eq!(store.stats().await.unwrap().entries, Some(0));
    match beside >= 5 {
        true => Ok(()),
        false => Err(format!("{beside} writes beside it")),
    }
}
