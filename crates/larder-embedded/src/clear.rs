//! How the writer removes many entries at once: what a pattern means, or all of them.

use std::sync::Arc;

use larder_core::mutants::{Guard, is_off};
use larder_core::{Deleted, Pattern, StoreError};

use crate::control::Removal;
use crate::evict::remove;
use crate::lmdb::{ENTRY_PREFIX, Table};
use crate::queue::{Job, Operation, Outcome};
use crate::record::{Header, hash};
use crate::reserve::Room;
use crate::writer::{Abort, DELETE_PAGES, TRIES, WAY_PAGES, Writer, Writing};

/// A clear removes so many entries in one transaction, then lets others write.
const CLEAR_OPERATIONS: usize = 2_048;
/// As many while a snapshot is held: the fewer transactions there are, the fewer pages they take from the reserve.
const HELD_CLEAR_OPERATIONS: usize = 8_192;

/// What a clear removes, one behind the other: a load whose lease it met fills nothing behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Leases,
    Entries,
}

impl Writer {
    /// Removes what a pattern means, in several transactions: the leases first.
    pub(crate) fn clear(&mut self, pattern: &Pattern) -> Outcome {
        let mut deleted = Deleted::default();
        let mut part = match is_off(Guard::ClearEndsLeases) {
            true => Part::Entries,
            false => Part::Leases,
        };
        let mut after: Option<Vec<u8>> = None;
        let mut attempt = 0;
        loop {
            self.progress.begin();
            match self.clear_some(part, pattern, after.as_deref(), attempt) {
                Ok((count, last)) => {
                    deleted.entries += count;
                    after = last;
                    attempt = 0;
                }
                Err(Abort::Full | Abort::Held(_)) if self.is_still_held() => {
                    return self.clear_all(pattern, (part, after), deleted);
                }
                Err(abort @ (Abort::Full | Abort::Held(_))) if attempt + 1 < TRIES => {
                    self.wait(&abort, attempt);
                    attempt += 1;
                    continue;
                }
                Err(Abort::Exhausted) => return self.clear_all(pattern, (part, after), deleted),
                Err(Abort::Full | Abort::Held(_)) => return Outcome::Failed(self.no_room()),
                Err(Abort::Other(error)) => return Outcome::Failed(error),
            }
            match (&after, part) {
                (None, Part::Entries) => return Outcome::Deleted(deleted),
                (None, Part::Leases) => part = Part::Entries,
                (Some(_), _) => self.write_beside_clear(),
            }
        }
    }

    /// Ends a clear by emptying the store.
    fn clear_all(
        &mut self,
        pattern: &Pattern,
        (part, after): (Part, Option<Vec<u8>>),
        mut deleted: Deleted,
    ) -> Outcome {
        let counted = self.count(pattern, after.filter(|_| part == Part::Entries));
        match counted.map_err(|error| StoreError::Refused(error.to_string())) {
            Ok(living) => deleted.entries += living,
            Err(error) => return Outcome::Failed(error),
        }
        match self.empty() {
            Ok(()) => Outcome::Deleted(deleted),
            Err(error) => Outcome::Failed(error),
        }
    }

    /// How many living entries a pattern means, behind a key.
    fn count(&self, pattern: &Pattern, mut after: Option<Vec<u8>>) -> heed::Result<u64> {
        let mut living = 0;
        loop {
            let txn = self.opened.lmdb.env.read_txn()?;
            let (meant, last) = crate::scanning::meant(
                &self.opened.lmdb.entries,
                &txn,
                pattern,
                after.as_deref(),
                CLEAR_OPERATIONS,
            )?;
            drop(txn);
            living += self.living(&meant)?;
            if last.is_none() {
                return Ok(living);
            }
            after = last;
        }
    }

    /// Removes some of what a pattern means, behind a key; answers how many living entries, and where to go on.
    ///
    /// Each transaction with entries ends all proofs: one may have been evicted that is still held, and a reader may have
    /// read what the next one removes.
    fn clear_some(
        &mut self,
        part: Part,
        pattern: &Pattern,
        after: Option<&[u8]>,
        attempt: usize,
    ) -> Result<(u64, Option<Vec<u8>>), Abort> {
        let opened = Arc::clone(&self.opened);
        let now = opened.now();
        let mut txn = opened.lmdb.env.write_txn()?;
        let _writing = Writing::begin(&opened);
        self.changes.clear();
        // A smaller transaction needs fewer pages, and what it frees serves the next one.
        let most = (self.clear_operations()? >> (attempt * 2)).max(1);
        let table = self.table(part);
        let (meant, last) = crate::scanning::meant(&table, &txn, pattern, after, most)?;
        if part == Part::Leases && meant.is_empty() {
            return Ok((0, last));
        }
        let mut living = 0;
        for key in &meant {
            if part == Part::Leases {
                table.delete(&mut txn, key)?;
                continue;
            }
            let header = table.get(&txn, key)?.and_then(Header::read);
            living += u64::from(header.is_some_and(|header| header.expires_at > now));
            remove(&opened, &mut txn, key)?;
        }
        match is_off(Guard::ClearEndsProofs) {
            true => self.changes.write(),
            false => self.changes.change_all(!meant.is_empty()),
        }
        self.announce(&txn);
        self.finish(txn)?;
        Ok((living, last))
    }

    fn table(&self, part: Part) -> Table {
        match part {
            Part::Leases => self.opened.lmdb.leases,
            Part::Entries => self.opened.lmdb.entries,
        }
    }

    /// How many entries a clear may remove in the transaction that was just begun.
    fn clear_operations(&mut self) -> Result<usize, Abort> {
        let Room::Held { by, to_delete } = self.room(0)? else {
            return Ok(CLEAR_OPERATIONS);
        };
        if to_delete > WAY_PAGES + DELETE_PAGES {
            let most = (to_delete - WAY_PAGES) / DELETE_PAGES;
            return Ok(usize::try_from(most)
                .unwrap_or(usize::MAX)
                .min(HELD_CLEAR_OPERATIONS));
        }
        match self.held == Some(by) {
            true => Err(Abort::Exhausted),
            false => Err(Abort::Held(by)),
        }
    }

    /// Does a group's deletes by emptying the store.
    pub(crate) fn empty_for(&mut self, jobs: &[Job]) -> Result<Vec<Outcome>, StoreError> {
        let outcomes = jobs.iter().map(|job| match &job.operation {
            operation if operation.needs_room() => Ok(Outcome::Failed(self.no_room())),
            Operation::Delete(key) => Ok(Outcome::Deleted(Deleted {
                entries: self.living(&[key.as_str().as_bytes()])?,
            })),
            // None holds any more.
            Operation::Extend(..) | Operation::Release(..) => Ok(Outcome::Held(false)),
            Operation::Renew(_) | Operation::Prolong(_) => Ok(Outcome::Done),
            _ => Ok(Outcome::Deleted(Deleted::default())),
        });
        let outcomes = outcomes.collect::<heed::Result<Vec<_>>>();
        let outcomes = outcomes.map_err(|error| StoreError::Refused(error.to_string()))?;
        self.empty()?;
        Ok(outcomes)
    }

    /// How many of the entries live.
    fn living(&self, keys: &[impl AsRef<[u8]>]) -> heed::Result<u64> {
        let (lmdb, now) = (&self.opened.lmdb, self.opened.now());
        let txn = lmdb.env.read_txn()?;
        let mut living = 0;
        for key in keys {
            let header = lmdb.entries.get(&txn, key.as_ref())?.and_then(Header::read);
            living += u64::from(header.is_some_and(|header| header.expires_at > now));
        }
        Ok(living)
    }

    /// Removes all entries, in as few transactions as there is room for.
    fn empty(&mut self) -> Result<(), StoreError> {
        let mut most = HELD_CLEAR_OPERATIONS;
        let mut removed = 0;
        loop {
            self.progress.begin();
            match self.remove_first(most) {
                Ok(0) => break,
                Ok(count) => removed += count as u64,
                Err(Abort::Full) if most > 1 => most /= 2,
                Err(Abort::Other(error)) => return Err(error),
                Err(_) => return Err(self.no_room()),
            }
        }
        if removed > 0 {
            self.opened.control.count_removed(Removal::Evicted, removed);
            tracing::warn!(
                removed,
                "the embedded store was emptied, because there was no room left to delete: a process holds it, as said before"
            );
        }
        Ok(())
    }

    /// Removes the first entries, and not their places in the expiry index: these lie on pages of their own, and do no
    /// harm. Leases and versions go as whole tables, which takes no pages.
    fn remove_first(&mut self, most: usize) -> Result<usize, Abort> {
        let opened = Arc::clone(&self.opened);
        let lmdb = &opened.lmdb;
        let mut txn = lmdb.env.write_txn()?;
        let _writing = Writing::begin(&opened);
        self.changes.clear();
        for table in [lmdb.leases, lmdb.versions] {
            if table.len(&txn)? > 0 {
                table.clear(&mut txn)?;
                self.changes.change_all(true);
            }
        }
        let entries = lmdb.entries.prefix_iter(&txn, ENTRY_PREFIX)?;
        let keys = entries
            .take(most)
            .map(|entry| entry.map(|(key, _)| key.to_vec()));
        let keys = keys.collect::<heed::Result<Vec<_>>>()?;
        for key in &keys {
            lmdb.entries.delete(&mut txn, key)?;
            opened.control.forget(hash(key));
        }
        self.changes.change_all(!keys.is_empty());
        self.announce(&txn);
        self.finish(txn)?;
        Ok(keys.len())
    }
}
