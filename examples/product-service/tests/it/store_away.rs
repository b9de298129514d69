//! With the store away every request succeeds.

use std::sync::Arc;
use std::time::Duration;

use larder::{
    Acquired, ClearMode, Cursor, Deleted, Key, Lease, NewEntry, Page, Pattern, Proof, Released,
    Service, Store, StoreError, StoreFuture, StoreStats, Stored, Told, Ttl, VersionName, Written,
};

use crate::{QUICK, Running};

/// A store that is away for good.
struct Away;

fn away<T>() -> StoreFuture<'static, T> {
    StoreFuture::ready(Err(StoreError::Away("connection refused".into())))
}

impl Store for Away {
    fn get(&self, _key: &Key, _longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        away()
    }

    fn get_many(&self, _keys: &[Key], _longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        away()
    }

    fn set(&self, _entry: NewEntry) -> StoreFuture<'_, Written> {
        away()
    }

    fn set_many(&self, _entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        away()
    }

    fn delete(&self, _keys: &[Key]) -> StoreFuture<'_, Deleted> {
        away()
    }

    fn clear(&self, _pattern: &Pattern, _mode: ClearMode) -> StoreFuture<'_, Deleted> {
        away()
    }

    fn acquire(&self, _keys: &[Key], _time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        away()
    }

    fn extend(&self, _leases: &[Lease], _time: Duration) -> StoreFuture<'_, Vec<bool>> {
        away()
    }

    fn release(&self, _leases: &[Lease], _released: Released) -> StoreFuture<'_, Vec<bool>> {
        away()
    }

    fn versions(&self, _service: &Service, _names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        away()
    }

    fn renew(&self, _service: &Service, _names: &[VersionName]) -> StoreFuture<'_, ()> {
        away()
    }

    fn beside(&self, _key: &Key, _names: &[VersionName]) -> StoreFuture<'_, larder::Beside> {
        away()
    }

    fn holds(&self, _proof: &Proof) -> bool {
        false
    }

    fn changed(&self, _proof: Proof, _most: Duration) -> StoreFuture<'_, ()> {
        away()
    }

    fn incarnation(&self, _key: &Key) -> u64 {
        0
    }

    fn scan(
        &self,
        _pattern: Option<&Pattern>,
        _after: Option<Cursor>,
        _limit: usize,
    ) -> StoreFuture<'_, Page> {
        away()
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        away()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        away()
    }

    fn name(&self) -> String {
        "away".into()
    }
}

#[tokio::test]
async fn every_request_succeeds_and_nothing_is_cached() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("products.db");
    let service = Running::start(&database, QUICK, Arc::new(Away)).await;
    for price in [1, 2] {
        let change = format!(r#"{{"price":{price}}}"#);
        assert_eq!(service.request("PUT", "/products/1", &change).await.0, 200);
        for target in ["/products", "/products/1"] {
            let (status, body) = service.get(target).await;
            assert_eq!(status, 200);
            assert!(
                body.starts_with(r#"{"cached":false"#)
                    && body.contains(&format!("\"price\":{price}}}")),
                "{body}"
            );
        }
    }
}
