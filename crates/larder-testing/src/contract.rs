//! The contract of a store: what each of them promises in `larder_core::Store`, as checks that each of them passes.
//!
//! Every check works under a service name of its own, so it can run on a server that others use too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{
    ClearMode, Cursor, FillRight, Guard, Key, NewEntry, Page, Pattern, Skip, Store, StoreError,
    Stored, Ttl, Written,
};

/// How long a check polls for what must come true.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest key and value that every store takes.
const KEY_BYTES: usize = 1_024;
const VALUE_BYTES: usize = 1 << 20;

/// Runs the whole contract; `make` gives a store that works, the same or a new one each time.
///
/// # Panics
/// Where a promise is not kept.
pub async fn run<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Store>>,
{
    values_come_back_byte_for_byte(&*make().await).await;
    a_set_replaces_what_was_there(&*make().await).await;
    an_entry_ends_with_its_ttl(&*make().await).await;
    a_replaced_entry_has_the_new_ttl(&*make().await).await;
    a_read_cuts_what_lives_too_long(&*make().await).await;
    many_are_read_in_their_order(&*make().await).await;
    many_are_set_with_an_outcome_each(&*make().await).await;
    a_delete_counts_what_was_there(&*make().await).await;
    an_ended_right_fills_nothing(&*make().await).await;
    no_fill_overtakes_a_delete(make().await).await;
    a_clear_removes_what_its_pattern_means(&*make().await).await;
    a_dry_run_removes_nothing(&*make().await).await;
    patterns_mean_the_keys_that_redis_would(&*make().await).await;
    a_clear_leaves_other_services_alone(&*make().await).await;
    a_large_clear_counts_all(&*make().await).await;
    a_scan_meets_every_entry(&*make().await).await;
    a_scan_meets_all_services(&*make().await).await;
    the_longest_keys_and_large_values_are_kept(&*make().await).await;
    many_tasks_work_at_once(make().await).await;
    figures_are_plausible(&*make().await).await;
    it_has_a_name_without_a_secret(&*make().await);
    it_can_be_closed_twice(&*make().await).await;
}

/// A service name that no other check has.
fn service(check: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since_1970 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!(
        "{check}-{process:x}-{:x}-{count:x}",
        since_1970.as_nanos() as u64
    )
}

fn key(service: &str, endpoint: &str) -> Key {
    Key::new(service, endpoint).unwrap()
}

fn ttl(seconds: u64) -> Ttl {
    Ttl::new(Duration::from_secs(seconds)).unwrap()
}

fn entry(key: &Key, bytes: impl Into<Bytes>, ttl: Ttl, guard: Guard) -> NewEntry {
    NewEntry {
        key: key.clone(),
        bytes: bytes.into(),
        ttl,
        guard,
    }
}

async fn set(store: &dyn Store, key: &Key, bytes: impl Into<Bytes>) {
    set_for(store, key, bytes, ttl(300)).await;
}

async fn set_for(store: &dyn Store, key: &Key, bytes: impl Into<Bytes>, ttl: Ttl) {
    let written = store
        .set(entry(key, bytes, ttl, Guard::Always))
        .await
        .unwrap();
    assert_eq!(written, Written::Stored, "set {key}");
}

async fn get(store: &dyn Store, key: &Key) -> Option<Stored> {
    store.get(key, Ttl::MAX).await.unwrap()
}

async fn value(store: &dyn Store, key: &Key) -> Option<Bytes> {
    get(store, key).await.map(|stored| stored.bytes)
}

async fn clear(store: &dyn Store, pattern: &str, mode: ClearMode) -> u64 {
    let pattern = Pattern::parse(pattern).unwrap();
    store.clear(&pattern, mode).await.unwrap().entries
}

/// Asks again until the entry is gone.
async fn wait_until_gone(store: &dyn Store, key: &Key) {
    let begin = Instant::now();
    while get(store, key).await.is_some() {
        assert!(begin.elapsed() < PATIENCE, "{key} outlived its TTL");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn values_come_back_byte_for_byte(store: &dyn Store) {
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

async fn a_set_replaces_what_was_there(store: &dyn Store) {
    let service = service("replace");
    let key = key(&service, "/a");
    for bytes in ["short", "a much longer value than before", "", "x"] {
        set(store, &key, bytes).await;
        assert_eq!(value(store, &key).await.as_deref(), Some(bytes.as_bytes()));
    }
}

async fn an_entry_ends_with_its_ttl(store: &dyn Store) {
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

async fn a_replaced_entry_has_the_new_ttl(store: &dyn Store) {
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

async fn a_read_cuts_what_lives_too_long(store: &dyn Store) {
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

async fn many_are_read_in_their_order(store: &dyn Store) {
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

async fn many_are_set_with_an_outcome_each(store: &dyn Store) {
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

async fn a_delete_counts_what_was_there(store: &dyn Store) {
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

async fn an_ended_right_fills_nothing(store: &dyn Store) {
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
async fn no_fill_overtakes_a_delete(store: Arc<dyn Store>) {
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

async fn a_clear_removes_what_its_pattern_means(store: &dyn Store) {
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

async fn a_dry_run_removes_nothing(store: &dyn Store) {
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

async fn patterns_mean_the_keys_that_redis_would(store: &dyn Store) {
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

async fn a_clear_leaves_other_services_alone(store: &dyn Store) {
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

async fn a_large_clear_counts_all(store: &dyn Store) {
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

/// All keys that a scan meets.
async fn scan(store: &dyn Store, pattern: Option<&str>, limit: usize) -> BTreeSet<String> {
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

async fn a_scan_meets_every_entry(store: &dyn Store) {
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

async fn a_scan_meets_all_services(store: &dyn Store) {
    let services = [service("scan-a"), service("scan-b")];
    for name in &services {
        set(store, &key(name, "/a"), "x").await;
    }
    let met = scan(store, None, 50).await;
    for name in &services {
        assert!(met.contains(key(name, "/a").as_str()), "{name}");
    }
}

async fn the_longest_keys_and_large_values_are_kept(store: &dyn Store) {
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

async fn many_tasks_work_at_once(store: Arc<dyn Store>) {
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

async fn figures_are_plausible(store: &dyn Store) {
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

fn it_has_a_name_without_a_secret(store: &dyn Store) {
    let name = store.name();
    assert!(!name.is_empty() && !name.contains("password"), "{name}");
}

/// After it was closed a store may answer or refuse, but it comes to an end.
async fn it_can_be_closed_twice(store: &dyn Store) {
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
