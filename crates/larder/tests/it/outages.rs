//! An invalidation during an outage: its process is killed before the store is back, and the old value is served by nobody
//! who knows of it.

use larder::{PolicyPatch, Tag};
use larder_testing::redis::{RedisServer, wait_until};

use crate::among_others;
use crate::origin::Origin;
use crate::worker::{Names, Order, Seen, Setup, Worker};

const ENDPOINT: &str = "/a";

/// What there is to invalidate by, and whether it needs framed entries.
fn all() -> [(Names, bool); 6] {
    [
        (Names::Key(ENDPOINT.to_owned()), false),
        (Names::Pattern("cache:shop:/a*".to_owned()), false),
        (Names::Endpoint(ENDPOINT.to_owned()), false),
        (Names::Service, false),
        (Names::Tag("tag".to_owned()), true),
        (Names::Set(ENDPOINT.to_owned(), "new".to_owned()), false),
    ]
}

struct Scene {
    folder: tempfile::TempDir,
    redis: RedisServer,
    setup: Setup,
    origin: Origin,
}

impl Scene {
    fn new(is_framed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = RedisServer::start();
        let tags = is_framed.then(|| vec![Tag::new("tag").unwrap()]);
        let setup = Setup {
            policy: PolicyPatch {
                tags,
                ..PolicyPatch::default()
            },
            load_ms: 0,
            redis_url: Some(redis.url()),
            is_patient: false,
            // So that nothing but what is pending keeps the old value away.
            is_keeping: true,
            in_foreground: false,
        };
        let origin = Origin::in_folder(folder.path());
        Self {
            folder,
            redis,
            setup,
            origin,
        }
    }

    fn start(&self) -> Worker {
        Worker::start(self.folder.path(), &self.setup)
    }

    /// The old value lies in the store.
    fn store_old(&self, worker: &mut Worker) {
        self.origin.change("old");
        let key = format!("cache:shop:{ENDPOINT}");
        wait_until("it is stored", || {
            let seen: Seen = worker.ask(&look());
            assert_eq!(seen.values, [("old".to_owned(), 1)].into());
            self.redis.cli(&["EXISTS", &key]) == "1"
        });
        self.origin.change("new");
    }
}

fn look() -> Order {
    Order::Look {
        endpoint: ENDPOINT.to_owned(),
        tasks: 1,
    }
}

fn watch(worker: &mut Worker) {
    let endpoint = ENDPOINT.to_owned();
    worker.ask::<()>(&Order::Watch { endpoint });
}

/// What was seen since; at least so many lookups.
fn watched(worker: &mut Worker, least: u64) -> Seen {
    let mut seen = Seen::default();
    wait_until("it looks up", || {
        seen.add(worker.ask(&Order::Watched));
        seen.count() >= least
    });
    seen
}

/// Hits of the new value, and nothing but the new value.
fn settles(worker: &mut Worker, names: &Names) {
    wait_until("it is cached again", || {
        let seen = watched(worker, 10);
        assert_only_new(&seen, names);
        seen.outcomes.contains_key("hit")
    });
}

fn assert_only_new(seen: &Seen, names: &Names) {
    let others = seen.values.keys().find(|value| *value != "new");
    assert_eq!(others, None, "{names:?}: {:?}", seen.values);
}

fn is_done(worker: &mut Worker, names: &Names) -> bool {
    worker.ask(&Order::Invalidate(names.clone()))
}

#[test]
fn who_was_killed_and_comes_back_never_serves_it_again() {
    let _room = among_others();
    for (names, is_framed) in all() {
        let scene = Scene::new(is_framed);
        let mut worker = scene.start();
        scene.store_old(&mut worker);
        scene.redis.pause();
        assert!(!is_done(&mut worker, &names), "{names:?} is pending");
        worker.kill();
        let mut worker = scene.start();
        watch(&mut worker);
        assert_only_new(&watched(&mut worker, 10), &names);
        scene.redis.resume();
        settles(&mut worker, &names);
    }
}

/// The server is killed too, and comes back with what it had before.
#[test]
fn nor_from_a_server_that_comes_back_with_it() {
    let _room = among_others();
    for (names, is_framed) in all() {
        let mut scene = Scene::new(is_framed);
        let mut worker = scene.start();
        scene.store_old(&mut worker);
        assert_eq!(scene.redis.cli(&["SAVE"]), "OK");
        scene.redis.kill();
        assert!(!is_done(&mut worker, &names), "{names:?} is pending");
        worker.kill();
        let mut worker = scene.start();
        watch(&mut worker);
        assert_only_new(&watched(&mut worker, 10), &names);
        scene.redis.restart();
        settles(&mut worker, &names);
    }
}

/// Nor does the server: it was killed before it could do what a socket still held, and comes back with what it had before.
#[test]
fn another_process_adopts_it_if_it_does_not_come_back() {
    let _room = among_others();
    for (names, is_framed) in all() {
        let mut scene = Scene::new(is_framed);
        let (mut worker, mut sibling) = (scene.start(), scene.start());
        scene.store_old(&mut worker);
        watch(&mut sibling);
        assert_eq!(scene.redis.cli(&["SAVE"]), "OK");
        scene.redis.kill();
        assert!(!is_done(&mut worker, &names), "{names:?} is pending");
        worker.kill();
        scene.redis.restart();
        // What it did not know of yet, it may have served until here.
        wait_until("it is told to the store", || {
            let seen = watched(&mut sibling, 10);
            seen.outcomes.contains_key("hit") && !seen.values.contains_key("old")
        });
        settles(&mut sibling, &names);
        // And who comes later finds nothing else either.
        let mut late = scene.start();
        let seen: Seen = late.ask(&look());
        assert_only_new(&seen, &names);
    }
}

/// The naive form: without what the journal holds, the old value is served again, whatever was named.
#[test]
fn without_a_journal_it_comes_back() {
    let _room = among_others();
    for (names, is_framed) in all() {
        let mut scene = Scene::new(is_framed);
        let mut worker = scene.start();
        scene.store_old(&mut worker);
        assert_eq!(scene.redis.cli(&["SAVE"]), "OK");
        scene.redis.kill();
        assert!(!is_done(&mut worker, &names), "{names:?} is pending");
        worker.kill();
        // Nobody runs who could have adopted it.
        std::fs::remove_dir_all(scene.folder.path().join("larder/journal")).unwrap();
        scene.redis.restart();
        let mut worker = scene.start();
        wait_until("it is served", || {
            let seen: Seen = worker.ask(&look());
            seen.values.contains_key("old")
        });
    }
}
