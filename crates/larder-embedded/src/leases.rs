//! Leases: who may fill what. They stand beside the entries, in a table of their own, under the entry's key.
//!
//! A lease is a record whose value is its token, or empty once its load ended with nothing that is stored. It ends by the
//! store's time, or by what the writer does in the same transaction as the change that ends it. Nothing evicts it.

use std::time::Duration;

use bytes::Bytes;
use heed::{RoTxn, RwTxn};
use larder_core::{Acquired, Key, Lease, Released, StoreError, Stored};

use crate::beside::{self, Sweep};
use crate::clock::millis;
use crate::lmdb::pages;
use crate::opening::Opened;
use crate::queue::Outcome;
use crate::record::{Record, hash};
use crate::writer::{Abort, Writer};

/// How long it is known that a load ended with nothing that is stored.
const UNCACHED_FOR: Duration = Duration::from_millis(200);
/// Leases may take one part of so many of the store. One takes 100 bytes and its key.
const PARTS: u64 = 16;
const PAGE_BYTES: u64 = 4_096;

/// A living lease, or what it left.
struct Held {
    /// `None` once its load ended with nothing that is stored.
    token: Option<u128>,
    left: Duration,
}

impl Writer {
    pub(crate) fn acquire(
        &mut self,
        txn: &mut RwTxn<'_>,
        key: &Key,
        time: Duration,
    ) -> Result<Outcome, Abort> {
        let bytes = key.as_str().as_bytes();
        let held = self.held_lease(txn, bytes)?;
        let found = self.found(txn, bytes)?;
        let proof = None;
        if let Some(Held { token, left }) = held {
            return Ok(Outcome::Acquired(match token {
                Some(_) => Acquired::Held { left, proof, found },
                None => Acquired::Uncached { found },
            }));
        }
        if let Err(error) = self.make_room_for_lease(txn)? {
            return Ok(Outcome::Failed(error));
        }
        let token = match beside::chance() {
            Ok(token) => token,
            Err(error) => return Ok(Outcome::Failed(error)),
        };
        self.put_lease(txn, bytes, &token.to_le_bytes(), time)?;
        let lease = Lease {
            key: key.clone(),
            token,
            incarnation: 0,
            // Nobody but Larder writes here, and all that it writes ends the lease.
            expected: None,
        };
        Ok(Outcome::Acquired(Acquired::Granted { lease, found }))
    }

    pub(crate) fn extend(
        &mut self,
        txn: &mut RwTxn<'_>,
        lease: &Lease,
        time: Duration,
    ) -> Result<Outcome, Abort> {
        let key = lease.key.as_str().as_bytes();
        let held = self.held_lease(txn, key)?;
        let Some(held) = held.filter(|held| held.token == Some(lease.token)) else {
            return Ok(Outcome::Held(false));
        };
        if held.left < time {
            self.put_lease(txn, key, &lease.token.to_le_bytes(), time)?;
        }
        Ok(Outcome::Held(true))
    }

    pub(crate) fn release(
        &mut self,
        txn: &mut RwTxn<'_>,
        lease: &Lease,
        released: Released,
    ) -> Result<Outcome, Abort> {
        let key = lease.key.as_str().as_bytes();
        if !self.is_held(txn, lease)? {
            return Ok(Outcome::Held(false));
        }
        match released {
            Released::Failed => {
                self.opened.lmdb.leases.delete(txn, key)?;
            }
            Released::Uncached => self.put_lease(txn, key, &[], UNCACHED_FOR)?,
        }
        let place = self.opened.control.place_of(key);
        self.changes.change(place, true);
        Ok(Outcome::Held(true))
    }

    /// Notes that an entry is changed, and ends its lease with it.
    pub(crate) fn change_entry(
        &mut self,
        txn: &mut RwTxn<'_>,
        key: &[u8],
        is_written: bool,
    ) -> heed::Result<()> {
        let was_held = self.has_leases && self.opened.lmdb.leases.delete(txn, key)?;
        let place = self.opened.control.place_of(key);
        self.changes.change(place, is_written || was_held);
        Ok(())
    }

    /// Whether a lease still holds.
    pub(crate) fn is_held(&self, txn: &RoTxn<'_>, lease: &Lease) -> Result<bool, Abort> {
        let held = self.held_lease(txn, lease.key.as_str().as_bytes())?;
        Ok(held.is_some_and(|held| held.token == Some(lease.token)))
    }

    fn held_lease(&self, txn: &RoTxn<'_>, key: &[u8]) -> heed::Result<Option<Held>> {
        let bytes = self.opened.lmdb.leases.get(txn, key)?;
        let record = bytes.and_then(|bytes| Record::read(hash(key), bytes));
        Ok(record.and_then(|record| {
            let token = record.value.try_into().ok().map(u128::from_le_bytes);
            let left = left(&record, self.opened.now())?;
            Some(Held { token, left })
        }))
    }

    fn put_lease(
        &mut self,
        txn: &mut RwTxn<'_>,
        key: &[u8],
        token: &[u8],
        time: Duration,
    ) -> heed::Result<()> {
        let until = self.opened.now().saturating_add(millis(time));
        let leases = self.opened.lmdb.leases;
        self.has_leases = true;
        self.changes.write();
        beside::put(&leases, txn, (key, until), token)
    }

    fn found(&self, txn: &RoTxn<'_>, key: &[u8]) -> heed::Result<Option<Stored>> {
        let bytes = self.opened.lmdb.entries.get(txn, key)?;
        let record = bytes.and_then(|bytes| Record::read(hash(key), bytes));
        Ok(record.and_then(|record| {
            Some(Stored {
                bytes: Bytes::copy_from_slice(record.value),
                framed: larder_core::is_framed(record.value),
                ttl: Some(left(&record, self.opened.now())?),
                foreign: false,
                incarnation: 0,
                proof: None,
            })
        }))
    }

    /// Removes leases that are over, those of processes that died: some with each new one.
    fn make_room_for_lease(
        &mut self,
        txn: &mut RwTxn<'_>,
    ) -> Result<Result<(), StoreError>, Abort> {
        let (leases, now) = (self.opened.lmdb.leases, self.opened.now());
        let is_over = |until| until <= now;
        beside::sweep(&leases, txn, &mut self.lease_hand, Sweep::Some, is_over)?;
        if !is_full(&self.opened, txn)? {
            return Ok(Ok(()));
        }
        beside::sweep(&leases, txn, &mut self.lease_hand, Sweep::Many, is_over)?;
        Ok(match is_full(&self.opened, txn)? {
            true => Err(StoreError::Full(
                "more loads are under way than the store has room for their leases: make it larger (LARDER_MAX_BYTES)".to_owned(),
            )),
            false => Ok(()),
        })
    }
}

/// What is left of a record's life, if anything.
fn left(record: &Record<'_>, now: u64) -> Option<Duration> {
    let left = record.expires_at.checked_sub(now)?;
    (left > 0).then(|| Duration::from_millis(left))
}

fn is_full(opened: &Opened, txn: &RoTxn<'_>) -> heed::Result<bool> {
    let most = opened.control.max_bytes() / PAGE_BYTES / PARTS;
    Ok(pages(&opened.lmdb.leases, txn)? as u64 >= most)
}
