//! Deletes, and the right to fill that they end.

use std::sync::Arc;

use larder_core::{FillRight, Guard, Key, Store, Written};

use super::{entry, get, key, service, set, ttl, value};

pub(super) async fn a_delete_counts_what_was_there(store: &dyn Store) {
    let service = service("delete");
    let keys: Vec<Key> = (0..4)
        .map(|index| key(&service, &format!("/{index}")))
        .collect();
    assert_eq!(store.delete(&keys).await.unwrap().entries, 0);
    assert_eq!(store.delete(&[]).await.unwrap().entries, 0);
    set(store, &keys[1], "1").await;
    set(store, &keys[3], "3").await;
    let twice = [keys.clone(), keys.clone()].concat();
    assert_eq!(store.delete(&twice).await.unwrap().entries, 2);
    for key in &keys {
        assert_eq!(get(store, key).await, None);
    }
    set(store, &keys[1], "again").await;
    assert_eq!(value(store, &keys[1]).await.as_deref(), Some(&b"again"[..]));
}

pub(super) async fn an_ended_right_fills_nothing(store: &dyn Store) {
    let service = service("guard");
    let key = key(&service, "/a");
    let right = FillRight::new();
    let fill = |bytes: &'static str, right: &FillRight| {
        entry(&key, bytes, ttl(300), Guard::While(right.clone()))
    };
    assert!(store.set(fill("filled", &right)).await.unwrap().is_stored());
    right.end();
    assert_eq!(
        store.set(fill("late", &right)).await.unwrap(),
        Written::Refused
    );
    assert_eq!(
        value(store, &key).await.as_deref(),
        Some(&b"filled"[..]),
        "a refusal leaves what was there"
    );
    store.delete(std::slice::from_ref(&key)).await.unwrap();
    assert_eq!(
        store.set(fill("late", &right)).await.unwrap(),
        Written::Refused
    );
    assert_eq!(get(store, &key).await, None);
}

/// Fills without end, while rights are ended and keys deleted: once the delete has returned, no fill of before it may
/// be there.
pub(super) async fn no_fill_overtakes_a_delete(store: Arc<dyn Store>) {
    let service = service("race");
    for round in 0..150 {
        let key = key(&service, &format!("/{}", round % 5));
        let right = FillRight::new();
        let fillers: Vec<_> = (0..4)
            .map(|_| {
                let (store, key, right) = (Arc::clone(&store), key.clone(), right.clone());
                tokio::spawn(async move {
                    for _ in 0..3 {
                        let fill = entry(&key, "old", ttl(300), Guard::While(right.clone()));
                        let _ = store.set(fill).await;
                    }
                })
            })
            .collect();
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        right.end();
        store.delete(std::slice::from_ref(&key)).await.unwrap();
        assert_eq!(get(&*store, &key).await, None, "round {round}: at once");
        for filler in fillers {
            filler.await.unwrap();
        }
        assert_eq!(
            get(&*store, &key).await,
            None,
            "round {round}: after all fills"
        );
    }
}
