//! Killed by SIGKILL: what was answered to be pending is adopted by who lives, or by who starts next.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{Invalidation, Kept, Outbox, Service, Tag, VersionName};

use super::applied::Steerable;
use super::{FOLDER, Place, Process, ROLE, STORE, hides, keys, open, open_as, pattern, say, wait};

/// How many journals the roles `leaves_many` and `adopts` fight over.
const JOURNALS: usize = 40;

/// What a process does that a test starts and kills.
#[test]
fn the_other_process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let folder = std::path::PathBuf::from(std::env::var_os(FOLDER).unwrap());
    match role.as_str() {
        "adds" => {
            let outbox = open(&folder);
            add_all(&outbox);
            say("kept");
            wait();
            drop(outbox);
        }
        "adds_on_and_on" => {
            let outbox = open(&folder);
            for index in 0.. {
                assert_eq!(outbox.add(keys(&[&format!("/{index}")])), Kept::Pending);
                say(&index.to_string());
            }
        }
        "leaves_many" => {
            let add = |index| {
                let outbox = open(&folder);
                assert_eq!(outbox.add(keys(&[&format!("/{index}")])), Kept::Pending);
                outbox
            };
            let outboxes: Vec<_> = (0..JOURNALS).map(add).collect();
            say("kept");
            wait();
            drop(outboxes);
        }
        "adopts" => {
            say("ready");
            wait();
            let outbox = open(&folder);
            let is_taken = |index: &usize| hides(&outbox, &format!("/{index}"));
            let taken: Vec<_> = (0..JOURNALS)
                .filter(is_taken)
                .map(|i| i.to_string())
                .collect();
            say(&format!("{} {}", outbox.counts().adopted, taken.join(",")));
            wait();
        }
        "applies_half" => {
            let outbox = open(&folder);
            assert_eq!(outbox.add(keys(&["/a"])), Kept::Pending);
            assert_eq!(outbox.add(pattern("cache:svc:/b*")), Kept::Pending);
            say("kept");
            wait();
            let store = Steerable::default();
            store.refuse(&["cache:svc:/a"]);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            let applied = runtime.block_on(outbox.apply(&store));
            assert_eq!((applied.applied, applied.left), (1, 1));
            say("applied");
            wait();
        }
        unknown => panic!("{unknown}"),
    }
}

fn add_all(outbox: &Outbox) {
    assert_eq!(outbox.add(keys(&["/a"])), Kept::Pending);
    assert_eq!(outbox.add(pattern("cache:svc:/b*")), Kept::Pending);
    let (service, tag) = versions();
    let added = outbox.add(Invalidation::Versions(service, vec![tag]));
    assert_eq!(added, Kept::Pending);
}

fn versions() -> (Service, VersionName) {
    let tag = VersionName::Tag(Tag::new("product:1").unwrap());
    (Service::new("svc").unwrap(), tag)
}

fn has_all(outbox: &Outbox) -> bool {
    let (service, tag) = versions();
    hides(outbox, "/a") && hides(outbox, "/bcd") && outbox.hides_version(&service, &tag)
}

#[test]
fn a_restart_adopts_what_a_killed_process_left() {
    let place = Place::new();
    let mut killed = Process::start("adds", &place.folder);
    killed.expect("kept");
    killed.kill();
    let restarted = place.open();
    assert!(has_all(&restarted));
    assert_eq!(
        (restarted.counts().adopted, restarted.counts().pending),
        (1, 3)
    );
    assert_eq!(place.names().len(), 1, "copied into its own, and removed");
    drop(restarted);
    assert!(has_all(&place.open()), "and by the one after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sibling_that_lives_adopts_what_a_killed_process_left_and_applies_it() {
    let place = Place::new();
    let sibling = Arc::new(place.open());
    let mut killed = Process::start("adds", &place.folder);
    killed.expect("kept");
    assert_eq!(sibling.adopt(), 0, "its owner lives");
    let store = Arc::new(Steerable::default());
    store.refuse(&["*"]);
    let driver = tokio::spawn(sibling.run(Arc::clone(&store)));
    killed.kill();
    until("it is adopted", || has_all(&sibling)).await;
    store.refuse(&[]);
    until("it is applied", || sibling.is_empty()).await;
    until("nothing is left to adopt", || place.names().is_empty()).await;
    for name in ["cache:svc:/a", "cache:svc:/b*", "svc tag:product:1"] {
        assert_eq!(store.successes(name), 1, "{name}");
    }
    drop(sibling);
    driver.await.unwrap();
}

/// It looks every few seconds, and a busy machine takes its time.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "never so: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_process_of_another_store_leaves_it_alone() {
    let place = Place::new();
    let mut killed = Process::start("adds", &place.folder);
    killed.expect("kept");
    killed.kill();
    for other in ["127.0.0.1:6379/1", "127.0.0.1:6380/0", ""] {
        let other = open_as(&place.folder, other);
        assert!(other.is_empty() && other.adopt() == 0);
    }
    assert!(has_all(&open_as(&place.folder, STORE)));
}

#[test]
fn a_kill_at_any_instant_loses_nothing_that_was_answered() {
    let place = Place::new();
    for round in 0..15_u64 {
        let mut killed = Process::start("adds_on_and_on", &place.folder);
        killed.expect("0");
        // Not always at the same point of a write.
        std::thread::sleep(Duration::from_micros(round * 977 % 12_000));
        killed.kill();
        let mut last = 0;
        while let Some(said) = killed.hear() {
            // The last line may be cut.
            last = said.parse().unwrap_or(last).max(last);
        }
        let outbox = place.open();
        let lost: Vec<_> = (0..=last)
            .filter(|at| !hides(&outbox, &format!("/{at}")))
            .collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} of {last}");
        assert_eq!(outbox.counts().unreadable, 0);
    }
}

#[test]
fn two_that_adopt_at_once_take_each_journal_once() {
    for _ in 0..3 {
        let place = Place::new();
        let mut killed = Process::start("leaves_many", &place.folder);
        killed.expect("kept");
        let mut adopters = [(); 2].map(|()| Process::start("adopts", &place.folder));
        adopters
            .iter_mut()
            .for_each(|adopter| adopter.expect("ready"));
        killed.kill();
        adopters.iter_mut().for_each(Process::go_on);
        let (mut journals, mut taken) = (0, Vec::new());
        for adopter in &mut adopters {
            let said = adopter.hear().unwrap();
            let (adopted, keys) = said.split_once(' ').unwrap();
            journals += adopted.parse::<usize>().unwrap();
            let keys = keys.split(',').filter(|key| !key.is_empty());
            taken.extend(keys.map(|key| key.parse::<usize>().unwrap()));
        }
        // One may hide what the other has adopted just before: adopted each is once.
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken, (0..JOURNALS).collect::<Vec<_>>());
        assert_eq!(journals, JOURNALS);
    }
}

#[test]
fn a_crash_between_apply_and_removal_does_not_repeat_a_wide_clear() {
    let is_cleared_again = |kill_before_apply: bool| {
        let place = Place::new();
        let mut killed = Process::start("applies_half", &place.folder);
        killed.expect("kept");
        if !kill_before_apply {
            killed.go_on();
            killed.expect("applied");
        }
        killed.kill();
        let restarted = place.open();
        assert!(hides(&restarted, "/a"), "that was not applied");
        hides(&restarted, "/b")
    };
    assert!(is_cleared_again(true));
    assert!(!is_cleared_again(false));
}
