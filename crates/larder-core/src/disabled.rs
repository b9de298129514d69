//! What stands in for a store that can't be used at all: it holds nothing, and says why.

use std::time::Duration;

use larder_model::{Key, Pattern, Service};

use crate::beside::Beside;
use crate::lease::{Acquired, Lease, Released};
use crate::proof::Proof;
use crate::store::{
    ClearMode, Cursor, Deleted, NewEntry, Page, Store, StoreError, StoreFuture, StoreStats, Stored,
    Ttl, Written,
};
use crate::version::{Told, VersionName};

/// A store that holds nothing. Every lookup is a miss; everything else is [`StoreError::Disabled`], with the reason.
#[derive(Debug, Clone)]
pub struct Disabled {
    why: String,
}

impl Disabled {
    /// A store that can't be used, and why: a sentence that says what to do next.
    #[must_use]
    pub fn new(why: String) -> Self {
        Self { why }
    }

    fn refuse<T>(&self) -> StoreFuture<'_, T> {
        StoreFuture::ready(Err(StoreError::Disabled(self.why.clone())))
    }
}

impl Store for Disabled {
    fn get(&self, _key: &Key, _longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        StoreFuture::ready(Ok(None))
    }

    fn get_many(&self, keys: &[Key], _longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        StoreFuture::ready(Ok(vec![None; keys.len()]))
    }

    fn set(&self, _entry: NewEntry) -> StoreFuture<'_, Written> {
        self.refuse()
    }

    fn set_many(&self, _entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        self.refuse()
    }

    fn delete(&self, _keys: &[Key]) -> StoreFuture<'_, Deleted> {
        self.refuse()
    }

    fn clear(&self, _pattern: &Pattern, _mode: ClearMode) -> StoreFuture<'_, Deleted> {
        self.refuse()
    }

    fn acquire(&self, _keys: &[Key], _time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        self.refuse()
    }

    fn extend(&self, _leases: &[Lease], _time: Duration) -> StoreFuture<'_, Vec<bool>> {
        self.refuse()
    }

    fn release(&self, _leases: &[Lease], _released: Released) -> StoreFuture<'_, Vec<bool>> {
        self.refuse()
    }

    fn versions(&self, _service: &Service, _names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        self.refuse()
    }

    fn renew(&self, _service: &Service, _names: &[VersionName]) -> StoreFuture<'_, ()> {
        self.refuse()
    }

    fn beside(&self, _key: &Key, _names: &[VersionName]) -> StoreFuture<'_, Beside> {
        self.refuse()
    }

    fn holds(&self, _proof: &Proof) -> bool {
        false
    }

    fn changed(&self, _proof: Proof, _most: Duration) -> StoreFuture<'_, ()> {
        self.refuse()
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
        self.refuse()
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        self.refuse()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        StoreFuture::ready(Ok(()))
    }

    fn name(&self) -> String {
        format!("nothing ({})", self.why)
    }
}
