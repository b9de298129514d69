//! Clears remove what their pattern means, and count it.

use larder_core::{ClearMode, Guard, Key, Pattern, Store, Written};

use super::{clear, entry, get, key, scans::scan, service, set, ttl};

pub(super) async fn a_clear_removes_what_its_pattern_means(store: &dyn Store) {
    let service = service("clear");
    let meant: Vec<Key> = (0..5)
        .map(|index| key(&service, &format!("/products/{index}")))
        .collect();
    let other = key(&service, "/users/1");
    for key in meant.iter().chain([&other]) {
        set(store, key, "x").await;
    }
    let pattern = format!("cache:{service}:/products/*");
    assert_eq!(clear(store, &pattern, ClearMode::Delete).await, 5);
    assert_eq!(clear(store, &pattern, ClearMode::Delete).await, 0);
    for key in &meant {
        assert_eq!(get(store, key).await, None);
    }
    assert!(get(store, &other).await.is_some());
    assert_eq!(
        clear(store, &format!("cache:{service}:*"), ClearMode::Delete).await,
        1
    );
}

pub(super) async fn a_dry_run_removes_nothing(store: &dyn Store) {
    let service = service("dryrun");
    for index in 0..7 {
        set(store, &key(&service, &format!("/{index}")), "x").await;
    }
    let pattern = format!("cache:{service}:*");
    for _ in 0..2 {
        assert_eq!(clear(store, &pattern, ClearMode::DryRun).await, 7);
    }
    assert!(get(store, &key(&service, "/3")).await.is_some());
    assert_eq!(clear(store, &pattern, ClearMode::Delete).await, 7);
    assert_eq!(clear(store, &pattern, ClearMode::DryRun).await, 0);
}

pub(super) async fn patterns_mean_the_keys_that_redis_would(store: &dyn Store) {
    let service = service("glob");
    let endpoints = [
        "/a",
        "/ab",
        "/b",
        "/list?page=1",
        "/list?page=12",
        "/listXpage=1",
        "/x*y",
        "/x[y]",
    ];
    for endpoint in endpoints {
        set(store, &key(&service, endpoint), "x").await;
    }
    let literal = |endpoint: &str| {
        let key = key(&service, endpoint);
        Pattern::escape(key.as_str())
    };
    let cases = [
        (format!("cache:{service}:/?"), 2),
        (format!("cache:{service}:/a*"), 2),
        (format!("cache:{service}:/[ab]"), 2),
        (format!("cache:{service}:/[^a]"), 1),
        (format!("cache:{service}:/list?page=1"), 2),
        (format!("cache:{service}:/list\\?page=1"), 1),
        (format!("cache:{service}:/list\\?page=*"), 2),
        (format!("cache:{service}:*=1*"), 3),
        (literal("/list?page=1"), 1),
        (literal("/x*y"), 1),
        (literal("/x[y]"), 1),
        (format!("cache:{service}:/nothing*"), 0),
        (format!("cache:{service}:"), 0),
    ];
    for (pattern, expected) in cases {
        assert_eq!(
            clear(store, &pattern, ClearMode::DryRun).await,
            expected,
            "{pattern}"
        );
        let met = scan(store, Some(&pattern), 3).await;
        assert_eq!(met.len() as u64, expected, "scan of {pattern}");
    }
    assert_eq!(
        clear(store, &literal("/list?page=1"), ClearMode::Delete).await,
        1
    );
    assert!(get(store, &key(&service, "/listXpage=1")).await.is_some());
}

pub(super) async fn a_clear_leaves_other_services_alone(store: &dyn Store) {
    let service = service("own");
    // Neighbours in the order of keys, and a name that begins with the other one's.
    let others = [
        format!("{service}-b"),
        format!("{service}."),
        format!("{service}0"),
        format!("A{service}"),
    ];
    for name in others.iter().chain([&service]) {
        set(store, &key(name, "/a"), "x").await;
    }
    assert_eq!(
        clear(store, &format!("cache:{service}:*"), ClearMode::Delete).await,
        1
    );
    for other in &others {
        assert!(get(store, &key(other, "/a")).await.is_some(), "{other}");
        clear(store, &format!("cache:{other}:*"), ClearMode::Delete).await;
    }
}

pub(super) async fn a_large_clear_counts_all(store: &dyn Store) {
    const ENTRIES: usize = 6_000;
    let service = service("large");
    let keys: Vec<Key> = (0..ENTRIES)
        .map(|index| key(&service, &format!("/{index}")))
        .collect();
    for chunk in keys.chunks(500) {
        let entries = chunk
            .iter()
            .map(|key| entry(key, "x", ttl(300), Guard::Always))
            .collect();
        let outcomes = store.set_many(entries).await.unwrap();
        assert!(outcomes.iter().all(Written::is_stored));
    }
    let pattern = format!("cache:{service}:*");
    assert_eq!(
        clear(store, &pattern, ClearMode::DryRun).await,
        ENTRIES as u64
    );
    assert_eq!(
        clear(store, &pattern, ClearMode::Delete).await,
        ENTRIES as u64
    );
    assert!(scan(store, Some(&pattern), 1_000).await.is_empty());
}
