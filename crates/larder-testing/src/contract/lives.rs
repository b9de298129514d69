//! Entries end with their TTL, and reads shorten lives that are too long.

use std::time::{Duration, Instant};

use larder_core::{Key, Store};

use super::{PATIENCE, get, key, service, set_for, ttl, value};

pub(super) async fn an_entry_ends_with_its_ttl(store: &dyn Store) {
    let service = service("ttl");
    let (short, long) = (key(&service, "/short"), key(&service, "/long"));
    set_for(store, &long, "long", ttl(300)).await;
    let begin = Instant::now();
    set_for(store, &short, "short", ttl(1)).await;
    let left = get(store, &long).await.unwrap().ttl;
    if let Some(left) = left {
        // Stores may count whole seconds.
        assert!(
            left <= Duration::from_secs(300) && left > Duration::from_secs(290),
            "{left:?}"
        );
    }
    wait_until_gone(store, &short).await;
    assert!(
        begin.elapsed() >= Duration::from_millis(900),
        "gone too soon"
    );
    assert!(get(store, &long).await.is_some());
    assert_eq!(
        store.delete(&[short]).await.unwrap().entries,
        0,
        "an ended entry is none"
    );
}

pub(super) async fn a_replaced_entry_has_the_new_ttl(store: &dyn Store) {
    let service = service("newttl");
    let (longer, shorter) = (key(&service, "/longer"), key(&service, "/shorter"));
    set_for(store, &longer, "1", ttl(1)).await;
    set_for(store, &longer, "2", ttl(300)).await;
    set_for(store, &shorter, "1", ttl(300)).await;
    set_for(store, &shorter, "2", ttl(1)).await;
    wait_until_gone(store, &shorter).await;
    // More than the first second of the other is over as well.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(value(store, &longer).await.as_deref(), Some(&b"2"[..]));
}

pub(super) async fn a_read_cuts_what_lives_too_long(store: &dyn Store) {
    let service = service("cut");
    let (one, many) = (key(&service, "/one"), key(&service, "/many"));
    for key in [&one, &many] {
        set_for(store, key, "kept", ttl(300)).await;
    }
    let stored = store
        .get(&one, ttl(1))
        .await
        .unwrap()
        .expect("it is handed out");
    assert_eq!(stored.bytes, "kept");
    assert!(stored.ttl.is_none_or(|left| left <= Duration::from_secs(1)));
    let stored = store
        .get_many(std::slice::from_ref(&many), ttl(1))
        .await
        .unwrap();
    assert!(stored[0].is_some());
    wait_until_gone(store, &one).await;
    wait_until_gone(store, &many).await;
}

pub(super) async fn a_read_that_allows_more_lengthens_nothing(store: &dyn Store) {
    let service = service("lengthen");
    let key = key(&service, "/a");
    set_for(store, &key, "kept", ttl(300)).await;
    for longest in [1, 100, 200] {
        assert!(store.get(&key, ttl(longest)).await.unwrap().is_some());
    }
    wait_until_gone(store, &key).await;
}

/// Asks again until the entry is gone.
async fn wait_until_gone(store: &dyn Store, key: &Key) {
    let begin = Instant::now();
    while get(store, key).await.is_some() {
        assert!(begin.elapsed() < PATIENCE, "{key} outlived its TTL");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
