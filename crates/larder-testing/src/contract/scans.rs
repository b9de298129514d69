//! Scans meet every entry.

use std::collections::BTreeSet;
use std::time::Duration;

use larder_core::{Cursor, Key, Page, Pattern, Store};

use super::{key, service, set};

/// All keys that a scan meets.
pub(super) async fn scan(
    store: &dyn Store,
    pattern: Option<&str>,
    limit: usize,
) -> BTreeSet<String> {
    let pattern = pattern.map(|pattern| Pattern::parse(pattern).unwrap());
    let mut met = BTreeSet::new();
    let mut after: Option<Cursor> = None;
    for _ in 0..100_000 {
        let page: Page = store
            .scan(pattern.as_ref(), after.take(), limit)
            .await
            .unwrap();
        met.extend(
            page.entries
                .iter()
                .map(|entry| entry.key.as_str().to_owned()),
        );
        match page.next {
            Some(next) => after = Some(next),
            None => return met,
        }
    }
    panic!("the scan has no end");
}

pub(super) async fn a_scan_meets_every_entry(store: &dyn Store) {
    let service = service("scan");
    let keys: BTreeSet<String> = (0..250)
        .map(|index| key(&service, &format!("/{index}")).as_str().to_owned())
        .collect();
    for text in &keys {
        set(store, &Key::parse(text).unwrap(), "12345").await;
    }
    let pattern = format!("cache:{service}:*");
    for limit in [1, 7, 100, 10_000] {
        assert_eq!(
            scan(store, Some(&pattern), limit).await,
            keys,
            "limit {limit}"
        );
    }
    let parsed = Pattern::parse(&pattern).unwrap();
    let page = store.scan(Some(&parsed), None, 10_000).await.unwrap();
    for entry in page.entries {
        assert!(entry.bytes.is_none_or(|bytes| bytes == 5), "{entry:?}");
        assert!(
            entry
                .ttl
                .is_none_or(|left| left <= Duration::from_secs(300)),
            "{entry:?}"
        );
    }
}

pub(super) async fn a_scan_meets_all_services(store: &dyn Store) {
    let services = [service("scan-a"), service("scan-b")];
    for name in &services {
        set(store, &key(name, "/a"), "x").await;
    }
    let met = scan(store, None, 50).await;
    for name in &services {
        assert!(met.contains(key(name, "/a").as_str()), "{name}");
    }
}
