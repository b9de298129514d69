//! What is stored comes back: alone, in numbers, small and large.

use bytes::Bytes;
use larder_core::{ClearMode, FillRight, Guard, Key, Store, Ttl, Written};

use super::{clear, entry, get, key, scans::scan, service, set, ttl, value};

/// The largest key and value that every store takes.
const KEY_BYTES: usize = 1_024;
const VALUE_BYTES: usize = 1 << 20;

pub(super) async fn values_come_back_byte_for_byte(store: &dyn Store) {
    let service = service("bytes");
    let every_byte: Vec<u8> = (0..=255).collect();
    let values: [&[u8]; 10] = [
        b"",
        b"null",
        b"0",
        b"false",
        b"\"\"",
        b"[]",
        b"{\"a\": 1}\n",
        b"\r\n$5\r\nhello\r\n",
        "\"\u{fe}\u{ff}é\u{1f980}\"".as_bytes(),
        &every_byte,
    ];
    for (index, bytes) in values.into_iter().enumerate() {
        let key = key(&service, &format!("/{index}"));
        assert_eq!(get(store, &key).await, None);
        set(store, &key, Bytes::copy_from_slice(bytes)).await;
        assert_eq!(
            value(store, &key).await.as_deref(),
            Some(bytes),
            "value {index}"
        );
    }
}

pub(super) async fn a_set_replaces_what_was_there(store: &dyn Store) {
    let service = service("replace");
    let key = key(&service, "/a");
    for bytes in ["short", "a much longer value than before", "", "x"] {
        set(store, &key, bytes).await;
        assert_eq!(value(store, &key).await.as_deref(), Some(bytes.as_bytes()));
    }
}

pub(super) async fn many_are_read_in_their_order(store: &dyn Store) {
    let service = service("many");
    let keys: Vec<Key> = (0..8)
        .map(|index| key(&service, &format!("/{index}")))
        .collect();
    for index in [0, 2, 5] {
        set(store, &keys[index], format!("v{index}")).await;
    }
    let order = [5, 1, 0, 5, 7, 2, 0];
    let asked: Vec<Key> = order.iter().map(|index| keys[*index].clone()).collect();
    let found = store.get_many(&asked, Ttl::MAX).await.unwrap();
    let found: Vec<Option<Bytes>> = found
        .into_iter()
        .map(|found| found.map(|found| found.bytes))
        .collect();
    let expected: Vec<Option<Bytes>> = order
        .iter()
        .map(|index| {
            [0, 2, 5]
                .contains(index)
                .then(|| format!("v{index}").into())
        })
        .collect();
    assert_eq!(found, expected);
    assert!(store.get_many(&[], Ttl::MAX).await.unwrap().is_empty());
}

pub(super) async fn many_are_set_with_an_outcome_each(store: &dyn Store) {
    let service = service("setmany");
    let ended = FillRight::new();
    ended.end();
    let keys: Vec<Key> = (0..600)
        .map(|index| key(&service, &format!("/{index}")))
        .collect();
    let is_refused = |index: usize| index % 3 == 1;
    let entries = keys.iter().enumerate().map(|(index, key)| {
        let right = if is_refused(index) {
            ended.clone()
        } else {
            FillRight::new()
        };
        let guard = if index % 3 == 0 {
            Guard::Always
        } else {
            Guard::While(right)
        };
        entry(key, format!("{index}"), ttl(300), guard)
    });
    let outcomes = store.set_many(entries.collect()).await.unwrap();
    assert_eq!(outcomes.len(), keys.len());
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let expected = if is_refused(index) {
            Written::Refused
        } else {
            Written::Stored
        };
        assert_eq!(outcome, expected, "entry {index}");
    }
    let found = store.get_many(&keys, Ttl::MAX).await.unwrap();
    for (index, found) in found.into_iter().enumerate() {
        let expected = (!is_refused(index)).then(|| Bytes::from(format!("{index}")));
        assert_eq!(found.map(|found| found.bytes), expected, "entry {index}");
    }
    // Of two under one key the later one stays.
    let twice = ["first", "second"].map(|bytes| entry(&keys[0], bytes, ttl(300), Guard::Always));
    let outcomes = store.set_many(twice.to_vec()).await.unwrap();
    assert_eq!(outcomes, [Written::Stored, Written::Stored]);
    assert_eq!(
        value(store, &keys[0]).await.as_deref(),
        Some(&b"second"[..])
    );
    assert!(store.set_many(Vec::new()).await.unwrap().is_empty());
}

pub(super) async fn the_longest_keys_and_large_values_are_kept(store: &dyn Store) {
    let service = service("long");
    let room = KEY_BYTES - "cache::/".len() - service.len();
    let keys: Vec<Key> = ["a", "b"]
        .into_iter()
        .map(|last| key(&service, &format!("/{}{last}", "k".repeat(room - 1))))
        .collect();
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(key.as_str().len(), KEY_BYTES);
        set(store, key, format!("{index}")).await;
    }
    for (index, key) in keys.iter().enumerate() {
        assert_eq!(value(store, key).await, Some(format!("{index}").into()));
    }
    let met = scan(store, Some(&format!("cache:{service}:*")), 1).await;
    assert_eq!(met.len(), 2);
    let large = key(&service, "/large");
    let bytes: Bytes = (0..VALUE_BYTES).map(|index| (index % 251) as u8).collect();
    set(store, &large, bytes.clone()).await;
    assert_eq!(value(store, &large).await, Some(bytes));
    assert_eq!(
        clear(store, &format!("cache:{service}:*"), ClearMode::Delete).await,
        3
    );
}
