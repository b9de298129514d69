//! Leases: one load of a key at a time, and what ends its right to fill.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{
    Acquired, Beside, ClearMode, FillRight, Guard, Key, Lease, Proof, Released, Service, Store,
    Stored, VersionName, Written,
};

use super::{PATIENCE, clear, entry, get, key, service, set, ttl, value};

const TIME: Duration = Duration::from_secs(10);
/// How long it is known at the least that a load ended with nothing to be stored.
const UNCACHED_FOR: Duration = Duration::from_millis(200);

async fn acquire(store: &dyn Store, key: &Key) -> Acquired {
    acquire_for(store, key, TIME).await
}

async fn acquire_for(store: &dyn Store, key: &Key, time: Duration) -> Acquired {
    let mut acquired = store
        .acquire(std::slice::from_ref(key), time)
        .await
        .unwrap();
    assert_eq!(acquired.len(), 1);
    acquired.remove(0)
}

/// The lease, which must be granted, and the value that was there.
async fn granted(store: &dyn Store, key: &Key) -> (Lease, Option<Stored>) {
    match acquire(store, key).await {
        Acquired::Granted { lease, found } => (lease, found),
        other => panic!("{key}: {other:?}"),
    }
}

/// By what the end of a lease is known that another has; a store that can't tell at first (its connection is young) can soon.
async fn held(store: &dyn Store, key: &Key) -> Proof {
    let began = std::time::Instant::now();
    loop {
        match acquire(store, key).await {
            Acquired::Held {
                proof: Some(proof), ..
            } => return proof,
            Acquired::Held { proof: None, .. } => {}
            other => panic!("{key}: {other:?}"),
        }
        assert!(began.elapsed() < PATIENCE, "{key}: its end is never known");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn is_held(store: &dyn Store, key: &Key) -> bool {
    matches!(acquire(store, key).await, Acquired::Held { .. })
}

async fn fill(store: &dyn Store, lease: &Lease, bytes: &'static str) -> Written {
    let guard = Guard::Lease(FillRight::new(), lease.clone());
    store
        .set(entry(&lease.key, bytes, ttl(300), guard))
        .await
        .unwrap()
}

pub(super) async fn one_of_all_has_a_lease(store: Arc<dyn Store>) {
    let key = key(&service("lease"), "/a");
    let asks = (0..20).map(|_| {
        let (store, key) = (Arc::clone(&store), key.clone());
        tokio::spawn(async move { acquire(&*store, &key).await })
    });
    let asks: Vec<_> = asks.collect();
    let mut leases = Vec::new();
    for ask in asks {
        match ask.await.unwrap() {
            Acquired::Granted { lease, found } => {
                assert_eq!(found, None);
                leases.push(lease);
            }
            Acquired::Held { left, .. } => assert!(left <= TIME, "{left:?}"),
            Acquired::Uncached { .. } => panic!("nobody loaded yet"),
        }
    }
    assert_eq!(leases.len(), 1);
    assert_eq!(fill(&*store, &leases[0], "1").await, Written::Stored);
    assert_eq!(value(&*store, &key).await.as_deref(), Some(&b"1"[..]));
    assert_eq!(
        fill(&*store, &leases[0], "2").await,
        Written::Refused,
        "a fill ends the lease"
    );
}

pub(super) async fn a_lease_tells_what_is_there(store: &dyn Store) {
    let key = key(&service("lease-found"), "/a");
    set(store, &key, "1").await;
    let (lease, found) = granted(store, &key).await;
    assert_eq!(found.unwrap().bytes, "1");
    assert_eq!(fill(store, &lease, "2").await, Written::Stored);
    assert_eq!(value(store, &key).await.as_deref(), Some(&b"2"[..]));
}

pub(super) async fn deletes_clears_and_sets_end_a_lease(store: &dyn Store) {
    let service = service("lease-ends");
    let pattern = format!("cache:{service}:*");
    for end in ["delete", "clear", "set"] {
        for is_there in [false, true] {
            let key = key(&service, &format!("/{end}/{is_there}"));
            if is_there {
                set(store, &key, "before").await;
            }
            let (lease, _) = granted(store, &key).await;
            let left = match end {
                "delete" => {
                    store.delete(std::slice::from_ref(&key)).await.unwrap();
                    None
                }
                "clear" => {
                    clear(store, &pattern, ClearMode::Delete).await;
                    None
                }
                _ => {
                    set(store, &key, "newer").await;
                    Some("newer")
                }
            };
            let what = format!("{end}, {is_there}");
            assert_eq!(
                fill(store, &lease, "late").await,
                Written::Refused,
                "{what}"
            );
            assert_eq!(
                store
                    .extend(std::slice::from_ref(&lease), TIME)
                    .await
                    .unwrap(),
                [false],
                "{what}"
            );
            let now = value(store, &key).await;
            assert_eq!(now.as_deref(), left.map(str::as_bytes), "{what}");
            let (next, _) = granted(store, &key).await;
            assert_eq!(
                fill(store, &lease, "late").await,
                Written::Refused,
                "{what}"
            );
            assert_eq!(fill(store, &next, "next").await, Written::Stored, "{what}");
        }
    }
}

pub(super) async fn a_dry_run_ends_no_lease(store: &dyn Store) {
    let service = service("lease-dry");
    let key = key(&service, "/a");
    let (lease, _) = granted(store, &key).await;
    clear(store, &format!("cache:{service}:*"), ClearMode::DryRun).await;
    assert_eq!(fill(store, &lease, "1").await, Written::Stored);
}

pub(super) async fn a_lease_ends_with_its_time_and_is_never_taken_again(store: &dyn Store) {
    let key = key(&service("lease-time"), "/a");
    let short = Duration::from_millis(60);
    let Acquired::Granted { lease, .. } = acquire_for(store, &key, short).await else {
        panic!("nobody else asked");
    };
    let began = std::time::Instant::now();
    let next = loop {
        match acquire(store, &key).await {
            Acquired::Granted { lease, .. } => break lease,
            Acquired::Held { left, proof, .. } => {
                assert!(left <= short, "{left:?}");
                if let Some(proof) = proof {
                    store.changed(proof, left).await.unwrap();
                }
                tokio::task::yield_now().await;
            }
            Acquired::Uncached { .. } => panic!("it was not released"),
        }
        assert!(began.elapsed() < PATIENCE);
    };
    assert_eq!(
        store
            .extend(&[lease.clone(), next.clone()], TIME)
            .await
            .unwrap(),
        [false, true]
    );
    assert_eq!(
        store
            .release(std::slice::from_ref(&lease), Released::Failed)
            .await
            .unwrap(),
        [false],
        "nobody ends another's lease"
    );
    assert_eq!(fill(store, &lease, "late").await, Written::Refused);
    assert_eq!(fill(store, &next, "1").await, Written::Stored);
}

pub(super) async fn an_extended_lease_outlives_its_first_time(store: &dyn Store) {
    let service = service("lease-extended");
    let time = Duration::from_millis(300);
    let mut keys = (0..20).map(|index| key(&service, &format!("/{index}")));
    // With another key where the first time was over before it could be extended.
    let (key, leases) = loop {
        let (key, began) = (keys.next().unwrap(), std::time::Instant::now());
        let Acquired::Granted { lease, .. } = acquire_for(store, &key, time).await else {
            panic!("nobody else asked");
        };
        let leases = [lease];
        match store.extend(&leases, TIME).await.unwrap()[..] {
            [true] => break (key, leases),
            _ => assert!(began.elapsed() >= time, "it was not extended"),
        }
    };
    let began = std::time::Instant::now();
    while began.elapsed() < time + Duration::from_millis(50) {
        assert!(is_held(store, &key).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fill(store, &leases[0], "1").await, Written::Stored);
}

pub(super) async fn a_released_lease_is_free(store: &dyn Store) {
    let service = service("lease-released");
    let failed = key(&service, "/failed");
    let (lease, _) = granted(store, &failed).await;
    let leases = [lease];
    assert_eq!(
        store.release(&leases, Released::Failed).await.unwrap(),
        [true]
    );
    assert_eq!(
        store.release(&leases, Released::Failed).await.unwrap(),
        [false]
    );
    granted(store, &failed).await;

    let mut keys = (0..20).map(|index| key(&service, &format!("/uncached/{index}")));
    // With another key where that was forgotten before it could be asked for.
    let (uncached, leases) = loop {
        let uncached = keys.next().unwrap();
        let (lease, _) = granted(store, &uncached).await;
        let leases = [lease];
        let began = std::time::Instant::now();
        assert_eq!(
            store.release(&leases, Released::Uncached).await.unwrap(),
            [true]
        );
        match acquire(store, &uncached).await {
            Acquired::Uncached { found: None } => break (uncached, leases),
            next => assert!(began.elapsed() >= UNCACHED_FOR, "{next:?}"),
        }
    };
    assert_eq!(fill(store, &leases[0], "late").await, Written::Refused);
    assert_eq!(get(store, &uncached).await, None);
    let began = std::time::Instant::now();
    while matches!(acquire(store, &uncached).await, Acquired::Uncached { .. }) {
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn many_leases_are_asked_for_at_once(store: &dyn Store) {
    let service = service("leases");
    let keys: Vec<Key> = (0..300).map(|n| key(&service, &format!("/{n}"))).collect();
    set(store, &keys[7], "7").await;
    let (other, _) = granted(store, &keys[5]).await;
    let acquired = store.acquire(&keys, TIME).await.unwrap();
    let mut leases = Vec::new();
    for (n, acquired) in acquired.into_iter().enumerate() {
        match acquired {
            Acquired::Granted { lease, found } => {
                assert_eq!(found.is_some(), n == 7, "{n}");
                assert_eq!(lease.key, keys[n]);
                leases.push(lease);
            }
            other => assert!(n == 5 && matches!(other, Acquired::Held { .. }), "{n}"),
        }
    }
    assert_eq!(leases.len(), 299);
    assert!(
        store
            .extend(&leases, TIME)
            .await
            .unwrap()
            .iter()
            .all(|held| *held)
    );
    let fills = leases.iter().map(|lease| {
        let guard = Guard::Lease(FillRight::new(), lease.clone());
        entry(&lease.key, "1", ttl(300), guard)
    });
    for written in store.set_many(fills.collect()).await.unwrap() {
        assert_eq!(written, Written::Stored);
    }
    assert_eq!(fill(store, &other, "1").await, Written::Stored);
    let released = store.release(&leases, Released::Failed).await.unwrap();
    assert!(released.iter().all(|held| !held), "the fills ended them");
}

/// Whoever waits for a lease is woken by what ends it, long before the time that it would wait for at the most.
pub(super) async fn who_waits_is_woken(store: Arc<dyn Store>) {
    let service = service("lease-waits");
    for end in ["fill", "delete", "release"] {
        let key = key(&service, &format!("/{end}"));
        let (lease, _) = granted(&*store, &key).await;
        let proof = held(&*store, &key).await;
        let waits = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let began = std::time::Instant::now();
                while store.holds(&proof) && began.elapsed() < PATIENCE {
                    store.changed(proof, PATIENCE).await.unwrap();
                }
                began.elapsed()
            })
        };
        tokio::task::yield_now().await;
        match end {
            "fill" => assert_eq!(fill(&*store, &lease, "1").await, Written::Stored),
            "delete" => {
                store.delete(std::slice::from_ref(&key)).await.unwrap();
            }
            _ => {
                store.release(&[lease], Released::Failed).await.unwrap();
            }
        }
        let waited = waits.await.unwrap();
        assert!(waited < PATIENCE / 2, "{end}: {waited:?}");
    }
}

/// Loads without end, while keys are deleted: once the delete has returned, no fill of a load from before it may be there.
pub(super) async fn no_leased_fill_overtakes_a_delete(store: Arc<dyn Store>) {
    let service = service("lease-race");
    for round in 0..60 {
        let key = key(&service, &format!("/{}", round % 5));
        let loads: Vec<_> = (0..3)
            .map(|_| {
                let (store, key) = (Arc::clone(&store), key.clone());
                tokio::spawn(async move {
                    if let Acquired::Granted { lease, .. } = acquire(&*store, &key).await {
                        tokio::task::yield_now().await;
                        let _ = fill(&*store, &lease, "old").await;
                    }
                })
            })
            .collect();
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        // A load that asks for its lease after the delete may fill: what it makes is new.
        let asked: Vec<_> = match acquire(&*store, &key).await {
            Acquired::Granted { lease, .. } => vec![lease],
            _ => Vec::new(),
        };
        store.delete(std::slice::from_ref(&key)).await.unwrap();
        for lease in &asked {
            assert_eq!(
                fill(&*store, lease, "old").await,
                Written::Refused,
                "round {round}"
            );
        }
        for load in loads {
            load.await.unwrap();
        }
        store.delete(std::slice::from_ref(&key)).await.unwrap();
    }
}

pub(super) async fn who_looks_sees_a_lease_and_makes_no_version(store: &dyn Store) {
    let key = key(&service("looked-at"), "/a");
    let names = [VersionName::Service, VersionName::of_endpoint("/a")];
    let look = async || store.beside(&key, &names).await.unwrap();
    let nothing = Beside {
        lease: None,
        versions: vec![None, None],
    };
    assert_eq!(look().await, nothing);
    assert_eq!(look().await, nothing, "looking made a version");
    let acquired = store
        .acquire(std::slice::from_ref(&key), Duration::from_secs(30))
        .await;
    let Some(Acquired::Granted { lease, .. }) = acquired.unwrap().pop() else {
        panic!("nobody else has it");
    };
    let told = store
        .versions(&Service::from(&key), &names[..1])
        .await
        .unwrap();
    let seen = look().await;
    assert_eq!(seen.versions, [Some(told[0].version), None]);
    let left = seen.lease.unwrap();
    assert!(
        left > Duration::from_secs(15) && left <= Duration::from_secs(30),
        "{left:?}"
    );
    let leases = [lease];
    assert_eq!(
        store.release(&leases, Released::Uncached).await,
        Ok(vec![true]),
        "looking ended it"
    );
    assert_eq!(look().await.lease, None, "what a load left is no lease");
}
