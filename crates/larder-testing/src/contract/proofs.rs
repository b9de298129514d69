//! Proofs: what was read is so until they hold no more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{ClearMode, Key, Proof, Store};

use super::{PATIENCE, clear, get, key, service, set};

/// The proof of an entry; a store that gives none at first (its connection is young) gives one soon.
async fn proof(store: &dyn Store, key: &Key) -> Proof {
    let began = Instant::now();
    loop {
        if let Some(proof) = get(store, key).await.unwrap().proof
            && store.holds(&proof)
        {
            return proof;
        }
        assert!(began.elapsed() < PATIENCE, "no read came with a proof");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// In the process that made the change, at once.
pub(super) async fn a_change_ends_the_proof(store: &dyn Store) {
    let service = service("proof");
    for change in ["set", "delete", "clear"] {
        let key = key(&service, &format!("/{change}"));
        set(store, &key, "1").await;
        let proof = proof(store, &key).await;
        match change {
            "set" => set(store, &key, "2").await,
            "delete" => {
                store.delete(std::slice::from_ref(&key)).await.unwrap();
            }
            _ => {
                clear(store, &format!("cache:{service}:*"), ClearMode::Delete).await;
            }
        }
        assert!(!store.holds(&proof), "{change}");
    }
}

/// In others that use the same store, soon.
pub(super) async fn anothers_change_ends_the_proof(one: Arc<dyn Store>, other: Arc<dyn Store>) {
    let service = service("proof-other");
    for change in ["set", "delete", "clear"] {
        let key = key(&service, &format!("/{change}"));
        set(&*other, &key, "1").await;
        let proof = proof(&*one, &key).await;
        match change {
            "set" => set(&*other, &key, "2").await,
            "delete" => {
                other.delete(std::slice::from_ref(&key)).await.unwrap();
            }
            _ => {
                clear(&*other, &format!("cache:{service}:*"), ClearMode::Delete).await;
            }
        }
        let began = Instant::now();
        while one.holds(&proof) {
            assert!(began.elapsed() < PATIENCE, "{change}: it never ended");
            tokio::task::yield_now().await;
        }
    }
}

/// A read that began before a change and ends after it has a proof that does not hold, or the new value.
pub(super) async fn no_proof_holds_for_an_old_value(store: Arc<dyn Store>) {
    let service = service("proof-race");
    let key = key(&service, "/a");
    set(&*store, &key, "0").await;
    for round in 1..200_u32 {
        let reads: Vec<_> = (0..4)
            .map(|_| {
                let (store, key) = (Arc::clone(&store), key.clone());
                tokio::spawn(async move { get(&*store, &key).await })
            })
            .collect();
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        set(&*store, &key, round.to_string()).await;
        for read in reads {
            let stored = read.await.unwrap().unwrap();
            let is_old = stored.bytes != round.to_string();
            let holds = stored.proof.is_some_and(|proof| store.holds(&proof));
            assert!(!(is_old && holds), "round {round}: {:?}", stored.bytes);
        }
    }
}
