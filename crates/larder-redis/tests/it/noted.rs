//! Where nothing is kept in the process, servers note versions and leases, and no entries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{
    Acquired, FillRight, Guard, Key, NewEntry, Proof, Released, Service, Store as _, Ttl,
    VersionName,
};
use larder_redis::{Options, RedisStore};
use larder_testing::contract;
use larder_testing::redis::{RedisCluster, RedisServer};

use crate::rights::LEAST;
use crate::{connect_patiently, connect_with, entry, key};

const PATIENCE: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(60);

fn connect(url: &str) -> Arc<RedisStore> {
    let options = Options {
        deadline: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(10),
        notes_entries: false,
        ..Options::default()
    };
    connect_with(url, options)
}

fn service() -> Service {
    Service::new("svc").unwrap()
}

/// The version of the service, with a proof that holds as soon as there is one.
async fn version(store: &RedisStore) -> (u128, Proof) {
    let begin = Instant::now();
    loop {
        let told = store.versions(&service(), &[VersionName::Service]).await;
        let told = told.unwrap()[0];
        if let Some(proof) = told.proof.filter(|proof| store.holds(proof)) {
            return (told.version.value, proof);
        }
        assert!(begin.elapsed() < PATIENCE, "no version came with a proof");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn until_ended(store: &RedisStore, proof: &Proof) {
    let begin = Instant::now();
    while store.holds(proof) {
        assert!(begin.elapsed() < PATIENCE, "it never ended");
        store.changed(*proof, PATIENCE).await.unwrap();
    }
}

fn noted(server: &RedisServer) -> String {
    let stats = server.cli(&["INFO", "stats"]);
    let mut lines = stats.lines();
    let line = lines.find(|line| line.starts_with("tracking_total_keys:"));
    line.unwrap().trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    let (server, cluster) = (RedisServer::start(), RedisCluster::start());
    for url in [server.url(), cluster.url()] {
        let make = async || connect(&url) as _;
        contract::run(make).await;
        contract::run_leases(make).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_entry_is_noted_and_none_has_a_proof() {
    let server = RedisServer::start();
    let (store, noting) = (connect(&server.url()), connect_patiently(&server.url()));
    let keys: Vec<Key> = (0..100).map(|n| key(&format!("/{n}"))).collect();
    for key in &keys {
        assert!(store.set(entry(key, "1")).await.unwrap().is_stored());
    }
    // From here on its connection tells.
    version(&store).await;
    for key in &keys {
        let stored = store.get(key, Ttl::MAX).await.unwrap().unwrap();
        assert!(stored.proof.is_none());
    }
    for stored in store.get_many(&keys, Ttl::MAX).await.unwrap() {
        assert!(stored.unwrap().proof.is_none());
    }
    assert_eq!(noted(&server), "tracking_total_keys:1", "the version");
    // One that keeps what it reads has all of it noted.
    version(&noting).await;
    noting.get_many(&keys, Ttl::MAX).await.unwrap();
    assert_eq!(noted(&server), "tracking_total_keys:101");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_and_a_lease_are_told_of() {
    let server = RedisServer::start();
    let (store, other) = (connect(&server.url()), connect(&server.url()));
    let key = key("/a");
    for round in 0..20 {
        let (before, proof) = version(&store).await;
        // Entries that are read in between change nothing about it.
        store.get(&key, Ttl::MAX).await.unwrap();
        assert!(store.holds(&proof));
        other
            .renew(&service(), &[VersionName::Service])
            .await
            .unwrap();
        until_ended(&store, &proof).await;
        let (now, _) = version(&store).await;
        assert_ne!(now, before);

        let keys = std::slice::from_ref(&key);
        let Ok([Acquired::Granted { lease, .. }]) =
            <[Acquired; 1]>::try_from(other.acquire(keys, LEASE).await.unwrap())
        else {
            panic!("nobody else loads");
        };
        let Acquired::Held { proof, .. } = &store.acquire(keys, LEASE).await.unwrap()[0] else {
            panic!("it is held");
        };
        let proof = proof.expect("who waits is woken");
        assert!(store.holds(&proof));
        // What ends it with nothing that is stored, and what stores something.
        if round % 2 == 0 {
            let released = other.release(&[lease], Released::Failed).await;
            assert_eq!(released.unwrap(), [true]);
        } else {
            let fill = NewEntry {
                guard: Guard::Lease(FillRight::new(), lease),
                ..entry(&key, "1")
            };
            assert!(other.set(fill).await.unwrap().is_stored());
        }
        until_ended(&store, &proof).await;
    }
}

/// Redis refuses `CLIENT CACHING`, and then answers the read behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_have_reads_noted_gets_no_proofs() {
    let server = RedisServer::start();
    let mut rules = vec!["ACL", "SETUSER", "larder", "on", ">pass"];
    rules.extend(LEAST.split(' '));
    assert_eq!(server.cli(&rules), "OK");
    let url = format!("redis://larder:pass@127.0.0.1:{}", server.port());
    let (store, other) = (connect(&url), connect_patiently(&server.url()));
    let (before, proof) = version(&store).await;
    // The attack: it is forbidden while the connection lives, and its server goes on to say that it tells of changes.
    assert_eq!(
        server.cli(&["ACL", "SETUSER", "larder", "-client|caching"]),
        "OK"
    );
    for _ in 0..20 {
        let told = store.versions(&service(), &[VersionName::Service]).await;
        let told = told.unwrap()[0];
        assert_eq!(told.version.value, before, "it is read on");
        assert!(!told.proof.is_some_and(|proof| store.holds(&proof)));
        assert!(!store.holds(&proof));
    }
    other
        .renew(&service(), &[VersionName::Service])
        .await
        .unwrap();
    for store in [store, connect(&url)] {
        let told = store.versions(&service(), &[VersionName::Service]).await;
        let told = told.unwrap()[0];
        assert_ne!(told.version.value, before);
        assert!(!told.proof.is_some_and(|proof| store.holds(&proof)));
    }
}
