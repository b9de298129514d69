//! Whose journal is adopted, and what becomes of it.

use std::os::unix::fs::PermissionsExt as _;

use larder_core::{Kept, Outbox, OutboxLimits, Service, Volatile};

use super::{Place, hides, keys, open_as, pattern};

#[test]
fn an_outbox_adopts_what_another_left_when_it_was_dropped_and_not_before() {
    let place = Place::new();
    let (living, dead) = (place.open(), place.open());
    assert_eq!(living.add(keys(&["/a"])), Kept::Pending);
    assert_eq!(dead.add(keys(&["/b"])), Kept::Pending);
    assert_eq!((living.adopt(), dead.adopt()), (0, 0));
    drop(dead);
    assert_eq!(living.adopt(), 1);
    assert!(hides(&living, "/a") && hides(&living, "/b"));
    assert_eq!(place.names().len(), 1);
    assert_eq!(living.adopt(), 0);
}

/// Who is started again after a sibling adopted what it left, and before that is applied, serves nothing of it.
#[test]
fn who_starts_again_hides_what_a_living_one_adopted_of_it() {
    let place = Place::new();
    let (sibling, dead) = (place.open(), place.open());
    assert_eq!(dead.add(keys(&["/a"])), Kept::Pending);
    drop(dead);
    assert_eq!(sibling.adopt(), 1);
    let again = place.open();
    assert!(hides(&again, "/a") && !hides(&again, "/b"));
    assert_eq!(again.counts().adopted, 0);
    drop(sibling);
    assert!(hides(&place.open(), "/a") && hides(&again, "/a"));
}

#[test]
fn a_journal_is_this_users_alone_and_tells_nothing_of_the_store() {
    let place = Place::new();
    let outbox = open_as(&place.folder, "canary.example:6379/3");
    assert_eq!(outbox.add(keys(&["/a"])), Kept::Pending);
    let name = place.names().remove(0);
    assert!(!name.contains("canary"), "{name}");
    let (hash, rest) = name.split_once('-').unwrap();
    assert_eq!(hash.len(), 32);
    assert!(rest.starts_with(&std::process::id().to_string()), "{name}");
    let text = std::fs::read_to_string(place.journal()).unwrap();
    assert!(
        text.contains("cache:svc:/a") && !text.contains("canary"),
        "{text}"
    );
    for (path, mode) in [(place.journal(), 0o600), (place.folder.clone(), 0o700)] {
        let status = std::fs::metadata(&path).unwrap();
        assert_eq!(
            status.permissions().mode() & 0o777,
            mode,
            "{}",
            path.display()
        );
    }
}

#[test]
fn without_a_folder_it_is_kept_in_memory_and_says_so() {
    let outbox = Outbox::new(Service::new("svc").unwrap(), OutboxLimits::default());
    let kept = outbox.add(pattern("cache:svc:/a*"));
    assert_eq!(kept, Kept::PendingVolatile(Volatile::NoJournal));
    assert!(hides(&outbox, "/a") && outbox.adopt() == 0);
}

#[test]
fn what_collapsed_is_adopted_as_all_of_the_service() {
    let place = Place::new();
    let limits = OutboxLimits {
        entries: 50,
        ..OutboxLimits::default()
    };
    let service = Service::new("svc").unwrap();
    let outbox = Outbox::open(&place.folder, super::STORE, service, limits);
    for index in 0..60 {
        assert_eq!(outbox.add(keys(&[&format!("/{index}")])), Kept::Pending);
    }
    drop(outbox);
    let next = place.open();
    assert_eq!(next.counts().pending, 2);
    assert!(hides(&next, "/0") && hides(&next, "/never-named"));
}

#[test]
fn nothing_is_lost_between_those_who_add_and_adopt_and_end() {
    const EACH: usize = 400;
    let place = Place::new();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let place = &place;
            scope.spawn(move || {
                for index in 0..EACH {
                    let outbox = place.open();
                    let path = format!("/{thread}/{index}");
                    assert_eq!(outbox.add(keys(&[&path])), Kept::Pending);
                }
            });
        }
    });
    let last = place.open();
    let paths = (0..3).flat_map(|thread| (0..EACH).map(move |index| format!("/{thread}/{index}")));
    let lost: Vec<_> = paths.filter(|path| !hides(&last, path)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(place.names().len(), 1);
}
