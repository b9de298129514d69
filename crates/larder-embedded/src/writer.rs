//! The one thread of a process that writes: in groups, each of them one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use heed::{MdbError, RwTxn};
use larder_core::StoreError;
use larder_core::mutants::{Guard, is_off};

use crate::control::Changes;
use crate::evict::{self, Incoming};
use crate::opening::{Opened, Session};
use crate::progress::Progress;
use crate::queue::{Job, Operation, Outcome, Queue};
use crate::readers::Held;
use crate::record::HEADER_BYTES;
use crate::reserve::{self, Room};

const PAGE_BYTES: usize = 4_096;
const GROUP_OPERATIONS: usize = 256;
/// A group has no more operations than one for so many pages, so that in a small store it leaves the reserve alone.
const PAGES_PER_OPERATION: usize = 32;
const GROUP_BYTES: usize = 4 << 20;
/// What a transaction changes besides leaves: the way to them in both trees, and the free list.
pub(crate) const WAY_PAGES: u64 = 16;
/// What a delete changes: a leaf in both trees.
pub(crate) const DELETE_PAGES: u64 = 2;
/// How often a group waits for readers when LMDB found no room.
pub(crate) const TRIES: usize = 6;
/// How many parts of the store stay, of as many as at first, each time that LMDB found no room although no reader holds it.
const KEPT: [usize; 5] = [6, 6, 4, 2, 0];
/// How long it waits for readers the first time; twice as long each time that follows. In all less than a deadline.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Every so many groups, the slots of dead readers are cleared.
const GROUPS_PER_READER_CHECK: u64 = 256;
/// How long it may go unnoticed that the folder was removed or exchanged.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The writer thread's own things.
pub(crate) struct Writer {
    pub(crate) opened: Arc<Opened>,
    /// Ends with the writer: what a store leaves behind still writes.
    session: Session,
    queue: Arc<Queue>,
    pub(crate) progress: Arc<Progress>,
    /// What the transaction that was begun changes.
    pub(crate) changes: Changes,
    /// Whether there are leases in the transaction that was begun: where there are none, an entry costs no look.
    pub(crate) has_leases: bool,
    /// The lease, and the version, that was looked at last in search of one that is over.
    pub(crate) lease_hand: Vec<u8>,
    pub(crate) version_hand: Vec<u8>,
    groups: u64,
    group_operations: usize,
    group_bytes: usize,
    /// A snapshot that did not end while sets waited for it: for as long as it is held, nothing waits again.
    pub(crate) held: Option<Held>,
    /// When the folder was last looked at.
    looked_at: Instant,
    /// The store's: reads end with it.
    is_closed: Arc<AtomicBool>,
}

/// Why a transaction did not commit.
pub(crate) enum Abort {
    /// LMDB found no room.
    Full,
    /// The reserve must be left alone, for as long as this snapshot is read.
    Held(Held),
    /// Only what it takes to empty the store is left.
    Exhausted,
    Other(StoreError),
}

impl From<heed::Error> for Abort {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Mdb(MdbError::MapFull) => Self::Full,
            heed::Error::Io(error) if is_full(&error) => Self::Other(StoreError::Full(format!(
                "the disk is full or fails ({error}): make room on it"
            ))),
            other => Self::Other(StoreError::Refused(other.to_string())),
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    // LMDB says EIO where a page was written in part.
    matches!(
        errno,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG | Errno::IO)
    )
}

impl Writer {
    pub(crate) fn new(
        session: Session,
        queue: Arc<Queue>,
        progress: Arc<Progress>,
        is_closed: Arc<AtomicBool>,
    ) -> Self {
        let opened = session.opened();
        let map_bytes = usize::try_from(opened.control.max_bytes()).unwrap_or(usize::MAX);
        Self {
            changes: Changes::default(),
            has_leases: true,
            lease_hand: Vec::new(),
            version_hand: Vec::new(),
            groups: 0,
            group_operations: GROUP_OPERATIONS
                .min(map_bytes / PAGE_BYTES / PAGES_PER_OPERATION)
                .max(1),
            group_bytes: GROUP_BYTES.min(map_bytes / 64),
            held: None,
            looked_at: Instant::now(),
            is_closed,
            session,
            opened,
            queue,
            progress,
        }
    }

    /// Writes until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        while let Some(jobs) = self.next() {
            let mut jobs: Vec<Job> = jobs.into_iter().filter(Job::take).collect();
            if self.is_exchanged(&jobs) {
                self.give_up(jobs);
                continue;
            }
            self.progress.begin();
            match jobs.first().map(|job| &job.operation) {
                Some(Operation::Clear(pattern)) => {
                    let outcome = self.clear(&pattern.clone());
                    if let Some(job) = jobs.pop() {
                        job.finish(outcome);
                    }
                }
                Some(_) => self.write_group(jobs),
                None => {}
            }
            self.progress.end();
        }
        self.progress.leave();
        drop(self.session);
    }

    fn next(&self) -> Option<Vec<Job>> {
        self.queue
            .take(self.group_operations, self.group_bytes, LOOK_EVERY)
    }

    /// Whether the folder was removed or exchanged: looked for now and then, and before each delete, which must reach all.
    fn is_exchanged(&mut self, jobs: &[Job]) -> bool {
        if self.looked_at.elapsed() >= LOOK_EVERY || jobs.iter().any(Job::is_delete) {
            self.opened.look();
            self.looked_at = Instant::now();
        }
        self.opened.is_exchanged()
    }

    /// Ends the use of a folder that is no more the store's.
    fn give_up(&self, jobs: Vec<Job>) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.queue.close();
        let error = StoreError::Disabled(self.opened.exchanged().to_string());
        for job in jobs {
            job.finish(Outcome::Failed(error.clone()));
        }
    }

    fn write_group(&mut self, jobs: Vec<Job>) {
        self.groups += 1;
        // Who holds a snapshot may have died since.
        if self.held.is_some() || self.groups.is_multiple_of(GROUPS_PER_READER_CHECK) {
            self.clear_stale_readers();
        }
        match self.try_group(&jobs) {
            Ok(outcomes) => {
                for (job, outcome) in std::iter::zip(jobs, outcomes) {
                    job.finish(outcome);
                }
            }
            // One of them may be what does not fit.
            Err(_) if jobs.len() > 1 => {
                for job in jobs {
                    self.progress.begin();
                    self.write_group(vec![job]);
                }
            }
            Err(error) => {
                for job in jobs {
                    job.finish(Outcome::Failed(error.clone()));
                }
            }
        }
    }

    /// Writes a group in one transaction, making more room each time that LMDB finds none.
    fn try_group(&mut self, jobs: &[Job]) -> Result<Vec<Outcome>, StoreError> {
        let incoming = incoming(jobs, self.opened.control.max_bytes() / 8);
        let (mut waits, mut frees) = (0, 0);
        while waits < TRIES {
            let abort = match self.commit(jobs, incoming) {
                Ok(outcomes) => return Ok(outcomes),
                Err(Abort::Other(error)) => return Err(error),
                Err(Abort::Exhausted) => return self.empty_for(jobs),
                Err(abort) => abort,
            };
            if self.is_still_held() {
                break;
            }
            match abort {
                Abort::Full if !self.is_held_back() => {
                    let Some(kept) = KEPT.get(frees) else { break };
                    self.free(incoming, *kept)?;
                    frees += 1;
                }
                abort => {
                    self.wait(&abort, waits);
                    waits += 1;
                }
            }
        }
        if self.is_held_back() {
            self.held = self.opened.readers.oldest();
        }
        Err(self.no_room())
    }

    /// A reader that lost the processor in mid-read keeps all that was freed since from being used: it needs a moment,
    /// more than it needs others' entries to go.
    pub(crate) fn wait(&mut self, abort: &Abort, attempt: usize) {
        self.clear_stale_readers();
        std::thread::sleep(FIRST_PAUSE * (1 << attempt));
        if let Abort::Held(held) = abort
            && attempt + 2 >= TRIES
        {
            self.note_held(*held);
        }
    }

    /// One transaction. While a snapshot is held, it does all but the sets.
    fn commit(&mut self, jobs: &[Job], incoming: Incoming) -> Result<Vec<Outcome>, Abort> {
        let opened = Arc::clone(&self.opened);
        let mut txn = opened.lmdb.env.write_txn()?;
        let _writing = Writing::begin(&opened);
        self.changes.clear();
        self.has_leases = opened.lmdb.leases.len(&txn)? > 0;
        let refusal = self.refusal(incoming, jobs.len() as u64 - incoming.records())?;
        if incoming.records() > 0 && refusal.is_none() {
            // What is deleted then may be what was evicted here.
            if evict::make_room(&opened, &mut txn, incoming)? {
                self.changes.write();
            }
        }
        let mut outcomes = Vec::with_capacity(jobs.len());
        let mut proven = Vec::new();
        for job in jobs {
            let outcome = match (&job.operation, &refusal) {
                (operation, Some(refusal)) if operation.needs_room() => {
                    Outcome::Failed(refusal.clone())
                }
                // What lives too long goes: that takes no room.
                (Operation::Cut(key, _), Some(_)) => Outcome::Deleted(self.delete(&mut txn, key)?),
                (Operation::Prolong(_), Some(_)) => Outcome::Done,
                (operation, _) => self.apply(&mut txn, operation)?,
            };
            if let Some(key) = job.operation.proven_key() {
                let place = opened.control.place_of(key);
                proven.push((outcomes.len(), self.changes.moment(place)));
            }
            outcomes.push(outcome);
        }
        let transaction = self.announce(&txn);
        for (index, moment) in proven {
            let at = (opened.life(), transaction);
            let proof = opened.control.proof_at(moment, at, &self.changes);
            outcomes[index].prove(proof);
        }
        self.finish(txn)?;
        Ok(outcomes)
    }

    /// Ends the proofs of what a transaction changes, before it does: it may be anything from now on. Answers its number.
    pub(crate) fn announce(&self, txn: &RwTxn<'_>) -> u64 {
        let transaction = txn.id() as u64;
        self.opened.control.announce(&self.changes, transaction);
        transaction
    }

    /// Commits a transaction whose changes were announced, and tells those who wait for them.
    pub(crate) fn finish(&self, txn: RwTxn<'_>) -> heed::Result<()> {
        if is_off(Guard::MarksAreCompared) {
            std::thread::sleep(Duration::from_millis(2));
        }
        txn.commit()?;
        if !self.changes.is_empty() {
            self.opened.control.ring();
        }
        Ok(())
    }

    /// Why sets are refused now, if they are.
    fn refusal(&mut self, incoming: Incoming, others: u64) -> Result<Option<StoreError>, Abort> {
        // Each entry may change a page of its own in both trees.
        let pages = match incoming.records() {
            0 => 0,
            _ => incoming.value_pages() as u64 + 2 * incoming.entries + incoming.beside,
        };
        match self.room(pages)? {
            Room::Free => Ok(None),
            Room::Later if incoming.records() == 0 => Ok(None),
            Room::Later => Err(Abort::Full),
            Room::Held { by, to_delete } => {
                let needed = WAY_PAGES + others * DELETE_PAGES;
                let is_exhausted = others > 0 && to_delete < needed;
                match self.held == Some(by) {
                    true if is_exhausted => Err(Abort::Exhausted),
                    true => Ok(Some(held_open(by))),
                    false if is_exhausted || incoming.records() > 0 => Err(Abort::Held(by)),
                    false => Ok(None),
                }
            }
        }
    }

    pub(crate) fn room(&mut self, pages: u64) -> Result<Room, Abort> {
        let room = reserve::look(&self.opened, pages)
            .map_err(|damage| Abort::Other(StoreError::Refused(damage)))?;
        if room == Room::Free {
            self.held = None;
        }
        Ok(room)
    }

    /// Whether a snapshot is held that older groups waited for in vain.
    pub(crate) fn is_still_held(&self) -> bool {
        self.held.is_some() && self.held == self.opened.readers.oldest()
    }

    /// Whether a snapshot is read that is older than the last transaction: then no eviction helps.
    fn is_held_back(&self) -> bool {
        let last = self.opened.lmdb.env.info().last_txn_id as u64;
        let oldest = self.opened.readers.oldest();
        oldest.is_some_and(|held| held.transaction < last)
    }

    fn note_held(&mut self, held: Held) {
        tracing::warn!(
            process = held.process,
            "a process that does not go on reads an old state of the embedded store, so nothing can be stored: continue that process (kill -CONT), or end it"
        );
        self.held = Some(held);
    }

    pub(crate) fn no_room(&self) -> StoreError {
        match self.opened.readers.oldest() {
            Some(held) => held_open(held),
            None => StoreError::Full("no room could be made".to_owned()),
        }
    }

    /// Makes the room that is missing, and keeps so many parts of the store: with none left, what is free lies in a row, too.
    fn free(&mut self, incoming: Incoming, kept: usize) -> Result<(), StoreError> {
        match self.try_to_free(incoming, kept) {
            // The next attempt will say so, if it needs more than there is.
            Err(Abort::Other(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn try_to_free(&mut self, incoming: Incoming, kept: usize) -> Result<(), Abort> {
        let opened = Arc::clone(&self.opened);
        let mut txn = opened.lmdb.env.write_txn()?;
        let _writing = Writing::begin(&opened);
        evict::make_room(&opened, &mut txn, incoming)?;
        evict::free(&opened, &mut txn, kept, KEPT[0])?;
        txn.commit()?;
        // LMDB uses what a transaction freed in the next but one, and counts none that changes nothing.
        let mut txn = opened.lmdb.env.write_txn()?;
        opened.lmdb.touch(&mut txn)?;
        txn.commit()?;
        Ok(())
    }

    /// A group of those that wait has its turn between two transactions of a clear. What is stored while that runs may
    /// stay, and a fill whose right has ended is refused now as later.
    pub(crate) fn write_beside_clear(&mut self) {
        let jobs = self
            .queue
            .take_beside_clear(self.group_operations, self.group_bytes);
        let jobs: Vec<Job> = jobs.into_iter().filter(Job::take).collect();
        if !jobs.is_empty() {
            self.progress.begin();
            self.write_group(jobs);
        }
    }

    pub(crate) fn clear_stale_readers(&self) {
        if let Err(error) = self.opened.lmdb.env.clear_stale_readers() {
            tracing::debug!(%error, "the slots of dead readers could not be cleared");
        }
    }
}

/// What a group stores. What is refused for its size drives out nothing.
fn incoming(jobs: &[Job], largest: u64) -> Incoming {
    let mut incoming = Incoming::default();
    for job in jobs {
        match &job.operation {
            Operation::Set(entry) if entry.bytes.len() as u64 <= largest => {
                incoming.bytes += entry.bytes.len() + entry.key.as_str().len() + HEADER_BYTES;
                incoming.entries += 1;
            }
            Operation::Acquire(..) | Operation::Tell(_) => incoming.beside += 1,
            _ => {}
        }
    }
    incoming
}

fn held_open(held: Held) -> StoreError {
    let process = held.process;
    StoreError::Full(format!(
        "process {process} does not go on with a read, and so keeps room from being used: continue it (kill -CONT {process}), or end it"
    ))
}

/// Says in the control block that this process is between begin and commit, until it is dropped.
pub(crate) struct Writing<'a>(&'a Opened);

impl<'a> Writing<'a> {
    pub(crate) fn begin(opened: &'a Opened) -> Self {
        opened.control.set_writing(u64::from(std::process::id()));
        Self(opened)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.control.set_writing(0);
    }
}
