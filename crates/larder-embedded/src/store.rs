//! The store.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use heed::RoTxn;
use larder_core::{
    Acquired, ClearMode, Cursor, Deleted, Key, Lease, NewEntry, Page, Pattern, Proof, Released,
    Service, Store, StoreError, StoreFuture, StoreStats, Stored, Told, Ttl, VersionName, Written,
};
use tokio::sync::oneshot;

use crate::clock::millis;
use crate::control::{Lookup, Removal, Seen};
use crate::folder::OpenError;
use crate::look;
use crate::opening::{Opened, Options};
use crate::progress::Progress;
use crate::queue::{Operation, Outcome, Queue, Ticket, unanswered};
use crate::record::{Record, hash};
use crate::versions::{self, VersionKey};
use crate::waiting::{POLL, Waiting};
use crate::writer::Writer;

const PAGE_BYTES: u64 = 4_096;
/// How long the end of a store waits for its writer, which may wait for one that was stopped.
const CLOSING: Duration = Duration::from_secs(1);

/// A store in a folder. Clones, and stores opened on the same folder, share it.
pub struct EmbeddedStore {
    pub(crate) opened: Arc<Opened>,
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    writer: Mutex<Option<JoinHandle<()>>>,
    is_closed: Arc<AtomicBool>,
}

impl EmbeddedStore {
    /// Opens the store in a folder, and makes it if there is none.
    ///
    /// # Errors
    /// An [`OpenError`] that says what to do.
    pub fn open(folder: &Path, options: Options) -> Result<Self, OpenError> {
        let session = Opened::open(folder, options)?;
        let opened = session.opened();
        let queue = Arc::new(Queue::default());
        let progress = Arc::new(Progress::new());
        let is_closed = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(
            session,
            Arc::clone(&queue),
            Arc::clone(&progress),
            Arc::clone(&is_closed),
        );
        let writer = std::thread::Builder::new()
            .name("larder-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| crate::folder::system(folder, "starting the writer thread", error))?;
        Ok(Self {
            opened,
            queue,
            progress,
            writer: Mutex::new(Some(writer)),
            is_closed,
        })
    }

    /// Which process is between begin and commit of a write; `None` if none is.
    #[must_use]
    pub fn writing_process(&self) -> Option<u64> {
        Some(self.opened.control.writing()).filter(|pid| *pid != 0)
    }

    fn read(&self, key: &Key, longest: Ttl) -> Result<Option<Stored>, StoreError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        let opened = &*self.opened;
        let bytes = key.as_str().as_bytes();
        let place = opened.control.place_to_read(bytes);
        let txn = self.read_txn()?;
        let key_hash = hash(bytes);
        let recency = opened.control.recency_of(key_hash);
        let found = opened.lmdb.entries.get(&txn, bytes).map_err(refused)?;
        let Some((value, left)) = found.and_then(|found| self.living(key, key_hash, found)) else {
            opened.control.count(Lookup::Miss);
            return Ok(None);
        };
        let bytes = Bytes::copy_from_slice(value);
        opened.control.count(Lookup::Hit);
        recency.raise();
        if left > longest.get() {
            self.queue
                .push_quietly(Operation::Cut(key.clone(), longest));
        }
        Ok(Some(Stored {
            framed: larder_core::is_framed(&bytes),
            bytes,
            ttl: Some(left.min(longest.get())),
            foreign: false,
            incarnation: 0,
            proof: opened
                .control
                .see(place)
                .proof(opened.life(), txn.id() as u64),
        }))
    }

    /// The versions that are there; `None` for one that is to be made.
    fn read_versions(&self, keys: &[VersionKey]) -> Result<Vec<Option<Told>>, StoreError> {
        let opened = &*self.opened;
        let see = |key: &VersionKey| opened.control.see(opened.control.place_of(key.as_bytes()));
        let seen: Vec<_> = keys.iter().map(see).collect();
        let txn = self.read_txn()?;
        let tell = |(key, seen): (&VersionKey, Seen)| {
            let bytes = opened.lmdb.versions.get(&txn, key.as_bytes());
            let found = versions::read(opened, key, bytes.map_err(refused)?);
            if found.as_ref().is_some_and(|found| found.is_old) {
                self.queue.push_quietly(Operation::Prolong(key.clone()));
            }
            Ok(found.map(|found| Told {
                version: found.version,
                proof: seen.proof(opened.life(), txn.id() as u64),
            }))
        };
        std::iter::zip(keys, seen).map(tell).collect()
    }

    /// Has the versions that are missing made, and puts them into their places.
    fn make_versions(
        &self,
        keys: &[VersionKey],
        told: Vec<Option<Told>>,
    ) -> StoreFuture<'_, Vec<Told>> {
        let missing = std::iter::zip(keys, &told).filter(|(_, told)| told.is_none());
        let operations: Vec<_> = missing
            .map(|(key, _)| Operation::Tell(key.clone()))
            .collect();
        if operations.is_empty() {
            return StoreFuture::ready(Ok(told.into_iter().flatten().collect()));
        }
        let outcomes = self.submit(operations);
        StoreFuture::pending(async move {
            let mut made = outcomes.await?.into_iter();
            let mut all = Vec::with_capacity(told.len());
            for told in told {
                all.push(match told {
                    Some(found) => found,
                    None => made
                        .next()
                        .map_or_else(|| Err(unanswered()), Outcome::told)?,
                });
            }
            Ok(all)
        })
    }

    // Inlined: as a result that is moved once more it cost 14 ns of a hit.
    #[inline]
    pub(crate) fn read_txn(&self) -> Result<RoTxn<'_, heed::WithTls>, StoreError> {
        match self.opened.lmdb.env.read_txn() {
            Ok(txn) => Ok(txn),
            Err(error) => self.read_txn_again(error),
        }
    }

    #[cold]
    fn read_txn_again(&self, error: heed::Error) -> Result<RoTxn<'_, heed::WithTls>, StoreError> {
        let env = &self.opened.lmdb.env;
        match error {
            heed::Error::Mdb(heed::MdbError::ReadersFull) => {
                env.clear_stale_readers().map_err(refused)?;
                env.read_txn().map_err(refused)
            }
            error => Err(refused(error)),
        }
    }

    /// The value of a record and what is left of its life, if it is whole and its time is not over.
    fn living<'a>(
        &self,
        key: &Key,
        key_hash: u64,
        found: &'a [u8],
    ) -> Option<(&'a [u8], Duration)> {
        let Some(record) = Record::read(key_hash, found) else {
            let damaged = Bytes::copy_from_slice(found);
            self.queue
                .push_quietly(Operation::Discard(key.clone(), damaged));
            return None;
        };
        let left = record
            .expires_at
            .checked_sub(self.opened.now())
            .filter(|left| *left > 0)?;
        Some((record.value, Duration::from_millis(left)))
    }

    /// Has operations done by the writer; answers in their order.
    fn submit(&self, operations: Vec<Operation>) -> StoreFuture<'_, Vec<Outcome>> {
        let deadline = self.opened.options.deadline;
        if self.opened.is_exchanged() {
            let why = self.opened.exchanged().to_string();
            return StoreFuture::ready(Err(StoreError::Disabled(why)));
        }
        if self.is_closed.load(Ordering::Relaxed) {
            return StoreFuture::ready(Err(closed()));
        }
        if self.progress.busy_for() > millis(deadline) {
            return StoreFuture::ready(Err(StoreError::NotBegun));
        }
        let waits = match self.queue.push(operations) {
            Ok(waits) => waits,
            Err(error) => return StoreFuture::ready(Err(error)),
        };
        StoreFuture::pending(async move {
            let give_up = tokio::time::Instant::now() + deadline;
            let mut outcomes = Vec::with_capacity(waits.len());
            for (ticket, wait) in waits {
                outcomes.push(self.wait(ticket, wait, give_up).await);
            }
            Ok(outcomes)
        })
    }

    /// Waits for one outcome: until the deadline for its beginning, and then for as long as the writer gets on.
    async fn wait(
        &self,
        ticket: Ticket,
        mut wait: oneshot::Receiver<Outcome>,
        mut give_up: tokio::time::Instant,
    ) -> Outcome {
        let deadline = self.opened.options.deadline;
        loop {
            match tokio::time::timeout_at(give_up, &mut wait).await {
                Ok(Ok(outcome)) => return outcome,
                Ok(Err(_writer_is_gone)) => return Outcome::Failed(closed()),
                Err(_late) if ticket.withdraw() => return Outcome::Failed(StoreError::NotBegun),
                Err(_late) if self.progress.busy_for() >= millis(deadline) => {
                    return Outcome::Failed(StoreError::TimedOut);
                }
                Err(_late) => give_up = tokio::time::Instant::now() + deadline,
            }
        }
    }

    fn while_open<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.is_closed.load(Ordering::Relaxed) {
            true => Err(closed()),
            false => read(),
        }
    }

    fn read_stats(&self) -> Result<StoreStats, StoreError> {
        let opened = &*self.opened;
        let txn = self.read_txn()?;
        let pages = opened.lmdb.live_pages(&txn).map_err(refused)?;
        let control = &opened.control;
        Ok(StoreStats {
            entries: Some(opened.lmdb.len(&txn).map_err(refused)?),
            used_bytes: Some(pages as u64 * PAGE_BYTES),
            limit_bytes: Some(control.max_bytes()),
            hits: Some(control.lookups(Lookup::Hit)),
            misses: Some(control.lookups(Lookup::Miss)),
            evictions: Some(control.removed(Removal::Evicted)),
            expired: Some(control.removed(Removal::Expired)),
            damaged: Some(control.removed(Removal::Damaged)),
        })
    }

    /// Ends the writer, and with the last one of this process the use of the folder; a writer that does not come to an end
    /// is left behind, and keeps the folder's lock.
    fn end(&self) {
        self.queue.close();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(writer) = writer else { return };
        let begin = Instant::now();
        let is_late = || !self.progress.is_leaving() && begin.elapsed() >= CLOSING;
        while !writer.is_finished() && !is_late() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if writer.is_finished() {
            // A panic of the writer was printed by it.
            let _ = writer.join();
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) fn refused(error: heed::Error) -> StoreError {
    StoreError::Refused(error.to_string())
}

fn closed() -> StoreError {
    StoreError::Away("it was closed, or its folder was removed".to_owned())
}

impl Store for EmbeddedStore {
    fn get(&self, key: &Key, longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        StoreFuture::ready(self.read(key, longest))
    }

    fn get_many(&self, keys: &[Key], longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        StoreFuture::ready(keys.iter().map(|key| self.read(key, longest)).collect())
    }

    fn set(&self, entry: NewEntry) -> StoreFuture<'_, Written> {
        let outcomes = self.submit(vec![Operation::Set(entry)]);
        StoreFuture::pending(async move {
            let outcome = outcomes.await?.pop();
            outcome.map_or(Ok(Written::Unknown), Outcome::written)
        })
    }

    fn set_many(&self, entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        let outcomes = self.submit(entries.into_iter().map(Operation::Set).collect());
        StoreFuture::pending(async move {
            let outcomes = outcomes.await?.into_iter();
            Ok(outcomes
                .map(|outcome| outcome.written().unwrap_or_else(Written::from))
                .collect())
        })
    }

    fn delete(&self, keys: &[Key]) -> StoreFuture<'_, Deleted> {
        let outcomes = self.submit(keys.iter().cloned().map(Operation::Delete).collect());
        StoreFuture::pending(async move {
            let mut all = Deleted::default();
            for outcome in outcomes.await? {
                all.entries += outcome.deleted()?.entries;
            }
            Ok(all)
        })
    }

    fn clear(&self, pattern: &Pattern, mode: ClearMode) -> StoreFuture<'_, Deleted> {
        if mode == ClearMode::DryRun {
            let counted = self.while_open(|| self.count(pattern));
            return StoreFuture::ready(counted.map(|entries| Deleted { entries }));
        }
        let outcomes = self.submit(vec![Operation::Clear(pattern.clone())]);
        StoreFuture::pending(async move {
            let outcome = outcomes.await?.pop();
            outcome.map_or(Ok(Deleted::default()), Outcome::deleted)
        })
    }

    fn acquire(&self, keys: &[Key], time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        let acquire = |key: &Key| Operation::Acquire(key.clone(), time);
        let outcomes = self.submit(keys.iter().map(acquire).collect());
        StoreFuture::pending(async move {
            let mut all = Vec::new();
            let mut failed = None;
            for outcome in outcomes.await? {
                match outcome {
                    Outcome::Acquired(acquired) => all.push(acquired),
                    Outcome::Failed(error) => failed = Some(error),
                    _ => failed = Some(unanswered()),
                }
            }
            let Some(error) = failed else { return Ok(all) };
            // Nobody learns of those that were granted.
            for acquired in all {
                if let Acquired::Granted { lease, .. } = acquired {
                    let release = Operation::Release(lease, Released::Failed);
                    self.queue.push_quietly(release);
                }
            }
            Err(error)
        })
    }

    fn extend(&self, leases: &[Lease], time: Duration) -> StoreFuture<'_, Vec<bool>> {
        let extend = |lease: &Lease| Operation::Extend(lease.clone(), time);
        let outcomes = self.submit(leases.iter().map(extend).collect());
        StoreFuture::pending(
            async move { outcomes.await?.into_iter().map(Outcome::held).collect() },
        )
    }

    fn release(&self, leases: &[Lease], released: Released) -> StoreFuture<'_, Vec<bool>> {
        let release = |lease: &Lease| Operation::Release(lease.clone(), released);
        let outcomes = self.submit(leases.iter().map(release).collect());
        StoreFuture::pending(
            async move { outcomes.await?.into_iter().map(Outcome::held).collect() },
        )
    }

    fn versions(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        let key = |name| VersionKey::new(service, name);
        let keys: Vec<_> = names.iter().map(key).collect();
        match self.while_open(|| self.read_versions(&keys)) {
            Ok(told) => self.make_versions(&keys, told),
            Err(error) => StoreFuture::ready(Err(error)),
        }
    }

    fn renew(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, ()> {
        let renew = |name| Operation::Renew(VersionKey::new(service, name));
        let outcomes = self.submit(names.iter().map(renew).collect());
        StoreFuture::pending(async move {
            for outcome in outcomes.await? {
                if let Outcome::Failed(error) = outcome {
                    return Err(error);
                }
            }
            Ok(())
        })
    }

    #[inline]
    fn beside(&self, key: &Key, names: &[VersionName]) -> StoreFuture<'_, larder_core::Beside> {
        StoreFuture::ready(self.while_open(|| {
            let txn = self.read_txn()?;
            look::beside(&self.opened, &txn, key, names).map_err(refused)
        }))
    }

    fn holds(&self, proof: &Proof) -> bool {
        !self.is_closed.load(Ordering::Relaxed) && self.opened.holds(proof)
    }

    fn changed(&self, proof: Proof, most: Duration) -> StoreFuture<'_, ()> {
        StoreFuture::pending(async move {
            // Who listens is there before the proof is looked at: no change comes between.
            let woken = Waiting::enter(&self.opened, proof);
            if !self.holds(&proof) {
                return Ok(());
            }
            match woken {
                Some(woken) => drop(tokio::time::timeout(most, woken).await),
                None => tokio::time::sleep(most.min(POLL)).await,
            }
            Ok(())
        })
    }

    /// What is lost here is lost whole, entries and versions together: there are no lives to tell apart.
    fn incarnation(&self, _key: &Key) -> u64 {
        0
    }

    fn scan(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
        limit: usize,
    ) -> StoreFuture<'_, Page> {
        StoreFuture::ready(self.while_open(|| self.page(pattern, after, limit)))
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        StoreFuture::ready(self.while_open(|| self.read_stats()))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.is_closed.store(true, Ordering::Relaxed);
        self.opened.waiting.end();
        self.end();
        StoreFuture::ready(Ok(()))
    }

    fn name(&self) -> String {
        format!(
            "the embedded store in {}",
            self.opened.folder.path().display()
        )
    }
}
