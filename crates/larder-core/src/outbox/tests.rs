//! Tombstones against a naive model, and what an outbox does without a disk.

use std::collections::HashMap;
use std::sync::Mutex;

use larder_model::{Pattern, Tag};
use proptest::prelude::*;

use super::*;
use crate::store::{StoreError, StoreFuture};

fn service(name: &str) -> Service {
    Service::new(name).unwrap()
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn tag(name: &str) -> VersionName {
    VersionName::Tag(Tag::new(name).unwrap())
}

/// Few, so that they meet each other.
fn all_items() -> Vec<Item> {
    let mut items = Vec::new();
    for of in ["svc", "svc.b"] {
        for path in ["/a", "/a/1", "/b", "/c"] {
            items.push(Item::Key(key(&format!("cache:{of}:{path}"))));
        }
        for pattern in ["*", "/a*", "/[bc]", "*1"] {
            let text = format!("cache:{of}:{pattern}");
            items.push(Item::Pattern(Pattern::parse(&text).unwrap()));
        }
        for name in [VersionName::Service, VersionName::Endpoint(7), tag("t")] {
            items.push(Item::Version(service(of), name));
        }
    }
    items
}

/// Whether whatever `asked` names (a key, a version) is invalidated by an item.
fn names(item: &Item, asked: &Item) -> bool {
    match (item, asked) {
        (Item::Pattern(pattern), Item::Key(key)) => pattern.matches(key.as_str()),
        (Item::Version(of, VersionName::Service), Item::Version(asked, _)) => of == asked,
        _ => item == asked,
    }
}

#[derive(Debug, Clone)]
enum Action {
    Add(usize),
    Begin,
    /// What was begun ends: by turns as the bits say.
    End(u32),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        4 => (0..all_items().len()).prop_map(Action::Add),
        1 => Just(Action::Begin),
        1 => any::<u32>().prop_map(Action::End),
    ];
    prop::collection::vec(action, 0..60)
}

/// All that was ever added, and all that was ever applied, with when each began.
#[derive(Default)]
struct Model {
    added: Vec<(usize, Item)>,
    applied: Vec<(usize, Item)>,
}

impl Model {
    /// Whether something that was added is applied by none of these that began after it.
    fn is_open(&self, asked: &Item, is_done_by: impl Fn(&Item, &Item) -> bool) -> bool {
        self.added.iter().any(|(added_at, item)| {
            names(item, asked)
                && !self
                    .applied
                    .iter()
                    .any(|(begun_at, done)| begun_at > added_at && is_done_by(done, item))
        })
    }
}

fn check(limits: Limits, is_exact: bool, actions: Vec<Action>) -> Result<(), TestCaseError> {
    let items = all_items();
    let mut tombstones = Tombstones::new(limits);
    let mut model = Model::default();
    let (mut begun, mut begun_at) = (Vec::new(), 0);
    for (now, action) in actions.into_iter().enumerate() {
        match action {
            Action::Add(index) => {
                model.added.push((now, items[index].clone()));
                tombstones.add(&items[index]);
                tombstones.collapse();
            }
            Action::Begin => (begun, begun_at) = (tombstones.begin(), now),
            Action::End(bits) => {
                let is_applied = |index: usize| bits >> (index % 32) & 1 == 1;
                let (mut applied, mut failed) = (Vec::new(), Vec::new());
                for (index, pending) in begun.drain(..).enumerate() {
                    let to = if is_applied(index) {
                        &mut applied
                    } else {
                        &mut failed
                    };
                    to.push(pending);
                }
                tombstones.applied(&applied);
                tombstones.failed(&failed);
                let done = applied.into_iter().map(|pending| (begun_at, pending.item));
                model.applied.extend(done);
            }
        }
        for asked in &items {
            let is_hidden = match asked {
                Item::Key(key) => tombstones.hides(key),
                Item::Version(service, name) => tombstones.hides_version(service, name),
                Item::Pattern(_) => continue,
            };
            let must_be = model.is_open(asked, |done, _| {
                // A clear of all of a service deletes what depends on its versions, too.
                names(done, asked)
                    || matches!((done, asked), (Item::Pattern(pattern), Item::Version(of, _))
                        if invalidation::is_of_service(pattern) && pattern.service() == of.as_str())
            });
            prop_assert!(is_hidden || !must_be, "{asked:?} is not hidden");
            let may_be = model.is_open(asked, |done, item| done == item);
            prop_assert!(!is_hidden || may_be || !is_exact, "{asked:?} is hidden");
        }
        let counted = tombstones.pending().len();
        prop_assert_eq!(tombstones.len(), counted);
        let is_small = tombstones.len() <= limits.entries.max(4);
        prop_assert!(is_small, "{} are pending", tombstones.len());
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_pending_is_hidden_and_nothing_else(actions in actions()) {
        check(Limits::default(), true, actions)?;
    }

    #[test]
    fn what_is_pending_is_hidden_when_it_collapses(actions in actions()) {
        let limits = Limits { entries: 6, bytes: 1 << 20, patterns: 2 };
        check(limits, false, actions)?;
    }
}

/// A store that a test steers, and what it was asked.
#[derive(Default)]
struct Steered {
    refused: Mutex<Vec<String>>,
    calls: Mutex<HashMap<String, usize>>,
    /// Called once, in the midst of an operation.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Steered {
    fn refuse(&self, names: &[&str]) {
        *self.refused.lock().unwrap() = names.iter().map(|name| (*name).to_owned()).collect();
    }

    fn calls(&self, name: &str) -> usize {
        self.calls.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    fn answer(&self, names: Vec<String>) -> StoreFuture<'_, ()> {
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().take() {
            meanwhile();
        }
        let refused = self.refused.lock().unwrap();
        let is_refused = names
            .iter()
            .any(|name| refused.contains(name) || refused.iter().any(|all| all == "*"));
        for name in names {
            *self.calls.lock().unwrap().entry(name).or_default() += 1;
        }
        StoreFuture::ready(if is_refused {
            Err(StoreError::Refused("by the test".to_owned()))
        } else {
            Ok(())
        })
    }
}

impl Apply for Steered {
    fn delete<'a>(&'a self, keys: &'a [Key]) -> StoreFuture<'a, ()> {
        self.answer(keys.iter().map(Key::to_string).collect())
    }

    fn clear<'a>(&'a self, pattern: &'a Pattern) -> StoreFuture<'a, ()> {
        self.answer(vec![pattern.to_string()])
    }

    fn renew<'a>(&'a self, service: &'a Service, names: &'a [VersionName]) -> StoreFuture<'a, ()> {
        let names = names.iter().map(|name| format!("{service} {name}"));
        self.answer(names.collect())
    }
}

fn outbox() -> Outbox {
    Outbox::new(service("svc"), Limits::default())
}

fn keys(paths: &[&str]) -> Invalidation {
    let key = |path: &&str| Key::new("svc", path).unwrap();
    Invalidation::Keys(paths.iter().map(key).collect())
}

fn pattern(text: &str) -> Invalidation {
    Invalidation::Pattern(Pattern::parse(text).unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_is_hidden_no_more() {
    let (outbox, store) = (outbox(), Steered::default());
    let volatile = Kept::PendingVolatile(Volatile::NoJournal);
    assert_eq!(outbox.add(keys(&["/a", "/b", "/a"])), volatile);
    assert_eq!(outbox.add(pattern("cache:svc:/c*")), volatile);
    let versions = vec![tag("t"), VersionName::Endpoint(1)];
    assert_eq!(
        outbox.add(Invalidation::Versions(service("svc"), versions)),
        volatile
    );
    assert!(outbox.hides(&key("cache:svc:/a")) && outbox.hides(&key("cache:svc:/cd")));
    assert!(!outbox.hides(&key("cache:svc:/d")) && !outbox.hides(&key("cache:other:/a")));
    assert!(outbox.hides_version(&service("svc"), &tag("t")));
    assert!(!outbox.hides_version(&service("svc"), &VersionName::Service));
    let applied = outbox.apply(&store).await;
    assert_eq!((applied.applied, applied.left), (5, 0));
    assert!(outbox.is_empty() && !outbox.hides(&key("cache:svc:/a")));
    for name in [
        "cache:svc:/a",
        "cache:svc:/b",
        "cache:svc:/c*",
        "svc tag:t",
        "svc endpoint:1",
    ] {
        assert_eq!(store.calls(name), 1, "{name}");
    }
    assert_eq!(outbox.apply(&store).await, Applied::default());
}

#[tokio::test(start_paused = true)]
async fn what_the_store_refuses_stays_and_keeps_nothing_else() {
    let (outbox, store) = (outbox(), Steered::default());
    let paths: Vec<String> = (0..1_200).map(|index| format!("/{index}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let _ = outbox.add(keys(&paths));
    store.refuse(&["cache:svc:/7"]);
    let applied = outbox.apply(&store).await;
    assert_eq!((applied.applied, applied.left), (1_199, 1));
    assert!(matches!(applied.error, Some(StoreError::Refused(_))));
    assert!(outbox.hides(&key("cache:svc:/7")) && !outbox.hides(&key("cache:svc:/8")));
    store.refuse(&[]);
    assert_eq!(outbox.apply(&store).await.left, 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_not_asked_for_everything() {
    let (outbox, store) = (outbox(), Steered::default());
    let paths: Vec<String> = (0..9_000).map(|index| format!("/{index}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let _ = outbox.add(keys(&paths));
    let _ = outbox.add(pattern("cache:svc:/x*"));
    store.refuse(&["*"]);
    let applied = outbox.apply(&store).await;
    assert_eq!((applied.applied, applied.left), (0, 9_001));
    assert_eq!(store.calls("cache:svc:/x*"), 0);
    let most = paths
        .iter()
        .map(|path| store.calls(&format!("cache:svc:{path}")));
    assert!(most.max() <= Some(16));
}

#[tokio::test(start_paused = true)]
async fn what_is_added_while_it_is_applied_is_applied_once_more() {
    let (outbox, store) = (Arc::new(outbox()), Steered::default());
    for (invalidation, name) in [
        (keys(&["/a"]), "cache:svc:/a"),
        (pattern("cache:svc:*"), "cache:svc:*"),
    ] {
        let _ = outbox.add(invalidation.clone());
        let again = Arc::clone(&outbox);
        let meanwhile = Box::new(move || drop(again.add(invalidation)));
        *store.meanwhile.lock().unwrap() = Some(meanwhile);
        let applied = outbox.apply(&store).await;
        assert_eq!(applied.left, 1, "{name}");
        assert!(outbox.hides(&key("cache:svc:/a")), "{name}");
        assert_eq!(outbox.apply(&store).await.left, 0, "{name}");
        assert_eq!(store.calls(name), 2, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_added_while_all_is_cleared_is_deleted_after_it() {
    let (outbox, store) = (Arc::new(outbox()), Steered::default());
    let _ = outbox.add(pattern("cache:svc:*"));
    let again = Arc::clone(&outbox);
    *store.meanwhile.lock().unwrap() = Some(Box::new(move || drop(again.add(keys(&["/a"])))));
    assert_eq!(outbox.apply(&store).await.left, 1);
    assert!(outbox.hides(&key("cache:svc:/a")) && !outbox.hides(&key("cache:svc:/b")));
    let _ = outbox.apply(&store).await;
    assert_eq!(
        (store.calls("cache:svc:/a"), store.calls("cache:svc:*")),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_newer_set_makes_a_pending_delete_needless_and_an_older_one_does_not() {
    let (outbox, store) = (outbox(), Steered::default());
    let a = key("cache:svc:/a");
    let before_all = outbox.moment();
    let _ = outbox.add(keys(&["/a", "/b"]));
    outbox.supersede(&a, before_all);
    assert!(outbox.hides(&a), "the delete came after the set began");
    let between = outbox.moment();
    let _ = outbox.add(keys(&["/a"]));
    outbox.supersede(&a, between);
    assert!(outbox.hides(&a), "it was deleted again since");
    outbox.supersede(&a, outbox.moment());
    assert!(!outbox.hides(&a) && outbox.hides(&key("cache:svc:/b")));
    let _ = outbox.apply(&store).await;
    assert_eq!(
        (store.calls("cache:svc:/a"), store.calls("cache:svc:/b")),
        (0, 1)
    );
    let _ = outbox.add(pattern("cache:svc:/a*"));
    outbox.supersede(&a, outbox.moment());
    assert!(outbox.hides(&a), "a pattern means more than the key");
}

#[tokio::test(start_paused = true)]
async fn too_many_parts_become_all_of_their_service() {
    let limits = Limits {
        entries: 100,
        ..Limits::default()
    };
    let (outbox, store) = (Outbox::new(service("svc"), limits), Steered::default());
    let _ = outbox.add(Invalidation::Keys(vec![key("cache:other:/a")]));
    for index in 0..200 {
        let _ = outbox.add(keys(&[&format!("/{index}")]));
        let counts = outbox.counts();
        assert!(counts.pending <= 100, "{counts:?}");
    }
    assert_eq!((outbox.counts().collapsed, outbox.counts().pending), (1, 3));
    assert!(outbox.hides(&key("cache:svc:/never-named")));
    assert!(outbox.hides_version(&service("svc"), &tag("any")));
    assert!(!outbox.hides(&key("cache:other:/b")));
    assert_eq!(outbox.apply(&store).await.left, 0);
    for name in ["cache:svc:*", "svc service", "cache:other:/a"] {
        assert_eq!(store.calls(name), 1, "{name}");
    }
}

#[test]
fn too_many_bytes_or_patterns_become_all_of_their_service() {
    let limits = Limits {
        bytes: 10_000,
        ..Limits::default()
    };
    let by_bytes = Outbox::new(service("svc"), limits);
    let by_patterns = outbox();
    for index in 0..65 {
        let _ = by_bytes.add(keys(&[&format!("/{index}{}", "x".repeat(500))]));
        let _ = by_patterns.add(pattern(&format!("cache:svc:/{index}/*")));
    }
    assert_eq!(by_bytes.counts().collapsed, 1);
    assert_eq!(
        (by_patterns.counts().collapsed, by_patterns.counts().pending),
        (1, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn the_driver_applies_what_is_added_and_ends_with_the_outbox() {
    let (outbox, store) = (Arc::new(outbox()), Arc::new(Steered::default()));
    let driver = tokio::spawn(outbox.run(Arc::clone(&store)));
    store.refuse(&["*"]);
    let _ = outbox.add(keys(&["/a"]));
    let begin = tokio::time::Instant::now();
    while store.calls("cache:svc:/a") < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let took = begin.elapsed().as_secs_f64();
    // 6 pauses from 50 ms to 1.6 s, then of 2 s, each shortened by up to a half.
    assert!((14.0..32.0).contains(&took), "{took} s");
    assert!(outbox.hides(&key("cache:svc:/a")));
    store.refuse(&[]);
    while !outbox.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    drop(outbox);
    driver.await.unwrap();
}
