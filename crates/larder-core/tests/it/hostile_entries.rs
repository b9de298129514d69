//! Entries are bytes that anybody may have written.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use larder_core::{
    Acquired, Cache, ClearMode, Cursor, Deleted, InProcess, Key, Lease, NewEntry, Outcome, Page,
    Pattern, Proof, Released, Service, Store, StoreFuture, StoreStats, Stored, Told, Ttl,
    VersionName, Written,
};
use serde_json::Value;

use crate::{Failed, key};

/// The in-process store, as if another program had written all of it.
struct Foreign(InProcess);

impl Store for Foreign {
    fn get(&self, key: &Key, longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        let found = self.0.get(key, longest);
        StoreFuture::pending(async move {
            let foreign = |stored| Stored {
                foreign: true,
                ..stored
            };
            Ok(found.await?.map(foreign))
        })
    }
    fn get_many(&self, keys: &[Key], longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        self.0.get_many(keys, longest)
    }
    fn set(&self, entry: NewEntry) -> StoreFuture<'_, Written> {
        self.0.set(entry)
    }
    fn set_many(&self, entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        self.0.set_many(entries)
    }
    fn delete(&self, keys: &[Key]) -> StoreFuture<'_, Deleted> {
        self.0.delete(keys)
    }
    fn clear(&self, pattern: &Pattern, mode: ClearMode) -> StoreFuture<'_, Deleted> {
        self.0.clear(pattern, mode)
    }
    fn acquire(&self, keys: &[Key], time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        let acquired = self.0.acquire(keys, time);
        StoreFuture::pending(async move {
            let foreign = |stored: Option<Stored>| {
                stored.map(|stored| Stored {
                    foreign: true,
                    ..stored
                })
            };
            let acquired = acquired.await?.into_iter().map(|acquired| match acquired {
                Acquired::Granted { lease, found } => Acquired::Granted {
                    lease,
                    found: foreign(found),
                },
                other => other,
            });
            Ok(acquired.collect())
        })
    }
    fn extend(&self, leases: &[Lease], time: Duration) -> StoreFuture<'_, Vec<bool>> {
        self.0.extend(leases, time)
    }
    fn release(&self, leases: &[Lease], released: Released) -> StoreFuture<'_, Vec<bool>> {
        self.0.release(leases, released)
    }
    fn versions(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        self.0.versions(service, names)
    }
    fn renew(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, ()> {
        self.0.renew(service, names)
    }
    fn beside(&self, key: &Key, names: &[VersionName]) -> StoreFuture<'_, larder_core::Beside> {
        self.0.beside(key, names)
    }
    fn holds(&self, proof: &Proof) -> bool {
        self.0.holds(proof)
    }
    fn changed(&self, proof: Proof, most: Duration) -> StoreFuture<'_, ()> {
        self.0.changed(proof, most)
    }
    fn incarnation(&self, key: &Key) -> u64 {
        self.0.incarnation(key)
    }
    fn scan(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
        limit: usize,
    ) -> StoreFuture<'_, Page> {
        self.0.scan(pattern, after, limit)
    }
    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.0.stats()
    }
    fn close(&self) -> StoreFuture<'_, ()> {
        self.0.close()
    }
    fn name(&self) -> String {
        "foreign".to_owned()
    }
}

async fn cache_with(text: &[u8]) -> Cache {
    let store = InProcess::new(64 << 20);
    let entry = NewEntry {
        key: key("/products"),
        bytes: Bytes::copy_from_slice(text),
        ttl: Ttl::new(Duration::from_secs(300)).unwrap(),
        guard: larder_core::Guard::Always,
    };
    assert!(store.set(entry).await.unwrap().is_stored());
    Cache::builder(Service::new("svc").unwrap())
        .store(Arc::new(Foreign(store)))
        .build()
}

async fn spliced(cache: &Cache) -> (Value, Outcome) {
    let loader = || async { Ok::<_, Failed>(["fresh"]) };
    let answer = cache
        .get_or_load_json(&key("/products"), loader)
        .await
        .unwrap();
    let whole = answer.value.between(r#"{"cached":true,"products":"#, "}");
    (serde_json::from_slice(&whole).unwrap(), answer.outcome)
}

/// What a check of the outermost bytes would let through (SECURITY SF-21).
const BREAKOUT: &[u8] = br#"[1],"cached":false,"x":[2]"#;

#[tokio::test]
async fn bytes_that_would_break_out_of_a_splice_are_a_miss() {
    // The attack, on the naive form:
    let naive = [br#"{"cached":true,"products":"#, BREAKOUT, b"}"].concat();
    let naive: Value = serde_json::from_slice(&naive).unwrap();
    assert_eq!(
        naive["cached"],
        Value::Bool(false),
        "a foreign field replaced ours"
    );

    let cache = cache_with(BREAKOUT).await;
    let (answer, outcome) = spliced(&cache).await;
    assert_eq!(outcome, Outcome::Miss);
    assert_eq!(
        answer,
        serde_json::json!({"cached": true, "products": ["fresh"]})
    );
    assert_eq!(cache.counts().undecodable, 1);
}

#[tokio::test]
async fn what_is_no_json_is_a_miss_and_counted() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    for text in [b"\xff\xfe".as_slice(), b"", b"{", deep.as_bytes()] {
        let cache = cache_with(text).await;
        assert_eq!(cache.get::<Value>(&key("/products")).await, None);
        assert_eq!(spliced(&cache).await.1, Outcome::Miss);
        assert_eq!(cache.counts().undecodable, 2);
    }
}

#[tokio::test]
async fn another_programs_json_is_read() {
    let cache = cache_with(br#" [ {"id": 1} ] "#).await;
    assert_eq!(spliced(&cache).await.1, Outcome::Hit);
    assert_eq!(spliced(&cache).await.1, Outcome::Hit);
}
