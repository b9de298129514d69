//! What each operation does, in the transaction of its group.

use heed::RwTxn;
use larder_core::mutants::{Guard, is_off};
use larder_core::{Deleted, Key, NewEntry, Skip, Ttl, Written};

use crate::control::Removal;
use crate::evict::remove;
use crate::queue::{Operation, Outcome};
use crate::record::{Header, Record, expiry_key, hash};
use crate::writer::{Abort, Writer};

impl Writer {
    pub(crate) fn apply(
        &mut self,
        txn: &mut RwTxn<'_>,
        operation: &Operation,
    ) -> Result<Outcome, Abort> {
        Ok(match operation {
            Operation::Set(entry) => Outcome::Written(self.set(txn, entry)?),
            Operation::Delete(key) => Outcome::Deleted(self.delete(txn, key)?),
            Operation::Cut(key, life) => self.cut(txn, key, *life)?,
            Operation::Discard(key, bytes) => self.discard(txn, key, bytes)?,
            // Has transactions of its own.
            Operation::Clear(_) => Outcome::Deleted(Deleted::default()),
            Operation::Acquire(key, time) => self.acquire(txn, key, *time)?,
            Operation::Extend(lease, time) => self.extend(txn, lease, *time)?,
            Operation::Release(lease, released) => self.release(txn, lease, *released)?,
            Operation::Tell(key) => self.tell(txn, key)?,
            Operation::Prolong(key) => self.prolong(txn, key)?,
            Operation::Renew(key) => self.renew(txn, key)?,
        })
    }

    fn set(&mut self, txn: &mut RwTxn<'_>, entry: &NewEntry) -> Result<Written, Abort> {
        if !entry.guard.allows() {
            return Ok(Written::Refused);
        }
        let map_bytes = self.opened.control.max_bytes();
        if entry.bytes.len() as u64 > map_bytes / 8 {
            return Ok(Written::Skipped(Skip::TooLarge));
        }
        if let Some(lease) = entry.guard.lease()
            && !self.is_held(txn, lease)?
        {
            return Ok(Written::Refused);
        }
        let key = entry.key.as_str().as_bytes();
        let expires_at = self.opened.now().saturating_add(entry.ttl.as_millis());
        self.put(txn, key, expires_at, &entry.bytes)?;
        self.change_entry(txn, key, true)?;
        Ok(Written::Stored)
    }

    /// Writes a record. It stands once in the expiry index, at a time that is not after its end; where it had a place
    /// that does, it keeps it: then an overwrite costs nothing there.
    fn put(
        &mut self,
        txn: &mut RwTxn<'_>,
        key: &[u8],
        expires_at: u64,
        value: &[u8],
    ) -> Result<(), Abort> {
        let lmdb = &self.opened.lmdb;
        let old = lmdb.entries.get(txn, key)?.and_then(Header::read);
        let indexed_at = match old {
            Some(old) if old.indexed_at <= expires_at => old.indexed_at,
            _ => {
                if let Some(old) = old {
                    lmdb.expiry.delete(txn, &expiry_key(old.indexed_at, key))?;
                }
                lmdb.expiry.put(txn, &expiry_key(expires_at, key), key)?;
                expires_at
            }
        };
        let record = Record {
            expires_at,
            indexed_at,
            value,
        };
        record.put(&lmdb.entries, txn, key)?;
        Ok(())
    }

    pub(crate) fn delete(&mut self, txn: &mut RwTxn<'_>, key: &Key) -> Result<Deleted, Abort> {
        let key = key.as_str().as_bytes();
        let now = self.opened.now();
        let header = self.opened.lmdb.entries.get(txn, key)?.map(Header::read);
        let is_there = header.is_some();
        // Also of what is not there: others may have it yet, and a load may be about to fill it.
        match is_off(Guard::DeleteEndsLease) {
            true => self
                .changes
                .change(self.opened.control.place_of(key), is_there),
            false => self.change_entry(txn, key, is_there)?,
        }
        let Some(header) = header else {
            return Ok(Deleted::default());
        };
        remove(&self.opened, txn, key)?;
        let is_living = header.is_some_and(|header| header.expires_at > now);
        Ok(Deleted {
            entries: u64::from(is_living),
        })
    }

    fn cut(&mut self, txn: &mut RwTxn<'_>, key: &Key, life: Ttl) -> Result<Outcome, Abort> {
        let key = key.as_str().as_bytes();
        let ends_at = self.opened.now().saturating_add(life.as_millis());
        let bytes = self.opened.lmdb.entries.get(txn, key)?;
        let longer = bytes
            .and_then(|bytes| Record::read(hash(key), bytes))
            .filter(|record| record.expires_at > ends_at)
            .map(|record| record.value.to_vec());
        if let Some(value) = longer {
            self.put(txn, key, ends_at, &value)?;
            self.changes.change(self.opened.control.place_of(key), true);
        }
        Ok(Outcome::Written(Written::Stored))
    }

    fn discard(
        &mut self,
        txn: &mut RwTxn<'_>,
        key: &Key,
        damaged: &[u8],
    ) -> Result<Outcome, Abort> {
        let key = key.as_str().as_bytes();
        let is_same = self.opened.lmdb.entries.get(txn, key)? == Some(damaged);
        if is_same {
            remove(&self.opened, txn, key)?;
            self.changes.change(self.opened.control.place_of(key), true);
            self.opened.control.count_removed(Removal::Damaged, 1);
        }
        Ok(Outcome::Deleted(Deleted::default()))
    }
}
