//! What holds for a store as a whole: many tasks at once, its figures, its name, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_core::{ClearMode, Guard, Skip, Store, StoreError, Ttl, Written};

use super::{PATIENCE, clear, entry, get, key, service, set, ttl, value};

pub(super) async fn many_tasks_work_at_once(store: Arc<dyn Store>) {
    let service = service("tasks");
    let is_wrong = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..100)
        .map(|task| {
            let (store, is_wrong) = (Arc::clone(&store), Arc::clone(&is_wrong));
            let own = key(&service, &format!("/own/{task}"));
            let shared = key(&service, &format!("/shared/{}", task % 5));
            tokio::spawn(async move {
                for round in 0..10 {
                    let bytes = format!("{task}-{round}");
                    set(&*store, &own, bytes.clone()).await;
                    set(&*store, &shared, format!("\"{shared}\"")).await;
                    let is_right = value(&*store, &own).await == Some(bytes.into());
                    let found = value(&*store, &shared).await;
                    let is_shared_right = found == Some(format!("\"{shared}\"").into());
                    is_wrong.fetch_or(!is_right || !is_shared_right, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(
        !is_wrong.load(Ordering::Relaxed),
        "a task read what it did not write"
    );
    assert_eq!(
        clear(&*store, &format!("cache:{service}:*"), ClearMode::Delete).await,
        105
    );
}

pub(super) async fn figures_are_plausible(store: &dyn Store) {
    let service = service("stats");
    let key = key(&service, "/a");
    let before = store.stats().await.unwrap();
    assert_eq!(get(store, &key).await, None);
    set(store, &key, "x").await;
    assert!(get(store, &key).await.is_some());
    let after = store.stats().await.unwrap();
    assert!(after.entries.is_none_or(|entries| entries >= 1));
    if let (Some(used), Some(limit)) = (after.used_bytes, after.limit_bytes) {
        assert!(
            used > 0 && (limit == 0 || used <= limit),
            "{used} of {limit}"
        );
    }
    for (before, after) in [(before.hits, after.hits), (before.misses, after.misses)] {
        assert_eq!(before.is_some(), after.is_some());
        if let (Some(before), Some(after)) = (before, after) {
            assert!(after > before, "{before} → {after}");
        }
    }
    store.delete(&[key]).await.unwrap();
}

pub(super) fn it_has_a_name_without_a_secret(store: &dyn Store) {
    let name = store.name();
    assert!(!name.is_empty() && !name.contains("password"), "{name}");
}

/// After it was closed a store may answer or refuse, but it comes to an end.
pub(super) async fn it_can_be_closed_twice(store: &dyn Store) {
    let service = service("close");
    let key = key(&service, "/a");
    set(store, &key, "x").await;
    for _ in 0..2 {
        store.close().await.unwrap();
    }
    let late = async {
        let _ = store.get(&key, Ttl::MAX).await;
        match store
            .set(entry(&key, "late", ttl(300), Guard::Always))
            .await
        {
            Ok(Written::Stored) | Err(_) => {}
            Ok(Written::Skipped(Skip::Store(StoreError::Away(_) | StoreError::Disabled(_)))) => {}
            Ok(other) => panic!("after the close: {other}"),
        }
    };
    tokio::time::timeout(PATIENCE, late)
        .await
        .expect("an operation after the close hangs");
}
