//! The one thread of a process that writes: in groups, each of them one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use heed::{MdbError, RwTxn};
use larder_core::{Deleted, Key, NewEntry, Pattern, Skip, StoreError, Ttl, Written};

use crate::clock::millis;
use crate::control::Removal;
use crate::evict::{Hand, remove};
use crate::opening::Opened;
use crate::queue::{Job, Operation, Outcome, Queue};
use crate::record::{HEADER_BYTES, Header, Record, expiry_key, hash};

const GROUP_OPERATIONS: usize = 256;
const GROUP_BYTES: usize = 4 << 20;
/// A clear removes so many entries in one transaction, then lets others write.
const CLEAR_OPERATIONS: usize = 2_048;
/// How often a group is tried again when LMDB found no room.
const TRIES: usize = 6;
/// How many parts of the store stay at each try, of as many as at the first. Most often a moment is all that is needed.
const KEPT: [usize; TRIES] = [6, 6, 6, 4, 2, 0];
/// How long it waits before the second try; twice as long before each that follows. In all less than a deadline.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// Every so many groups, the slots of dead readers are cleared.
const GROUPS_PER_READER_CHECK: u64 = 256;

/// What the writer is doing, for those who wait for it.
pub(crate) struct Progress {
    began: Instant,
    /// When it began what it is doing, in milliseconds since `began`, and one more; 0: it waits for work.
    busy_since: AtomicU64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            busy_since: AtomicU64::new(0),
        }
    }

    fn begin(&self) {
        self.busy_since
            .store(millis(self.began.elapsed()) + 1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// For how long it has been at the same step, in milliseconds.
    pub(crate) fn busy_for(&self) -> u64 {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => 0,
            since => (millis(self.began.elapsed()) + 1).saturating_sub(since),
        }
    }
}

/// The writer thread's own things.
pub(crate) struct Writer {
    opened: Arc<Opened>,
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    hand: Hand,
    record: Vec<u8>,
    groups: u64,
    group_bytes: usize,
}

/// Why a transaction did not commit.
enum Abort {
    /// LMDB found no room.
    Full,
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
    pub(crate) fn new(opened: Arc<Opened>, queue: Arc<Queue>, progress: Arc<Progress>) -> Self {
        let map_bytes = usize::try_from(opened.control.max_bytes()).unwrap_or(usize::MAX);
        Self {
            hand: Hand::new(),
            record: Vec::new(),
            groups: 0,
            group_bytes: GROUP_BYTES.min(map_bytes / 64),
            opened,
            queue,
            progress,
        }
    }

    /// Writes until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        while let Some(jobs) = self.queue.take(GROUP_OPERATIONS, self.group_bytes) {
            let mut jobs: Vec<Job> = jobs.into_iter().filter(Job::take).collect();
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
    }

    fn write_group(&mut self, jobs: Vec<Job>) {
        self.groups += 1;
        if self.groups.is_multiple_of(GROUPS_PER_READER_CHECK) {
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
        // What is refused for its size drives out nothing.
        let largest = self.opened.control.max_bytes() / 8;
        let incoming: usize = jobs
            .iter()
            .filter(|job| !matches!(&job.operation, Operation::Set(entry) if entry.bytes.len() as u64 > largest))
            .map(|job| incoming_bytes(&job.operation))
            .sum();
        for attempt in 0..TRIES {
            match self.commit(jobs, incoming, attempt) {
                Ok(outcomes) => return Ok(outcomes),
                Err(Abort::Full) => {
                    self.clear_stale_readers();
                    // A reader that lost the processor in mid-read keeps all that was freed since from being used: it
                    // needs a moment, more than it needs others' entries to go.
                    std::thread::sleep(FIRST_PAUSE * (1 << attempt));
                }
                Err(Abort::Other(error)) => return Err(error),
            }
        }
        Err(StoreError::Full(
            "no room could be made: a reader that was stopped may hold it".to_owned(),
        ))
    }

    fn commit(
        &mut self,
        jobs: &[Job],
        incoming: usize,
        attempt: usize,
    ) -> Result<Vec<Outcome>, Abort> {
        let opened = Arc::clone(&self.opened);
        if attempt > 0 {
            self.free(attempt)?;
        }
        let mut txn = opened.lmdb.env.write_txn()?;
        let _writing = Writing::begin(&opened);
        if incoming > 0 {
            let is_set = |job: &&Job| matches!(job.operation, Operation::Set(_));
            let entries = jobs.iter().filter(is_set).count() as u64;
            self.hand.make_room(&opened, &mut txn, incoming, entries)?;
        }
        let mut outcomes = Vec::with_capacity(jobs.len());
        for job in jobs {
            outcomes.push(self.apply(&mut txn, &job.operation)?);
        }
        txn.commit()?;
        Ok(outcomes)
    }

    /// Frees a part of the store that grows with the attempts, and is all of it at the last one: then what is free lies in
    /// a row, too.
    fn free(&mut self, attempt: usize) -> Result<(), Abort> {
        let opened = Arc::clone(&self.opened);
        let kept = KEPT[attempt.min(TRIES - 1)];
        let mut txn = opened.lmdb.env.write_txn()?;
        let _writing = Writing::begin(&opened);
        self.hand.free(&opened, &mut txn, kept, KEPT[0])?;
        txn.commit()?;
        // LMDB uses what a transaction freed in the next but one, and counts none that changes nothing.
        let mut txn = opened.lmdb.env.write_txn()?;
        opened.lmdb.touch(&mut txn)?;
        txn.commit()?;
        Ok(())
    }

    fn apply(&mut self, txn: &mut RwTxn<'_>, operation: &Operation) -> Result<Outcome, Abort> {
        Ok(match operation {
            Operation::Set(entry) => Outcome::Written(self.set(txn, entry)?),
            Operation::Delete(key) => Outcome::Deleted(self.delete(txn, key)?),
            Operation::Cut(key, life) => self.cut(txn, key, *life)?,
            Operation::Discard(key, bytes) => self.discard(txn, key, bytes)?,
            // Has transactions of its own.
            Operation::Clear(_) => Outcome::Deleted(Deleted::default()),
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
        let expires_at = self.opened.now().saturating_add(entry.ttl.as_millis());
        self.put(txn, entry.key.as_str().as_bytes(), expires_at, &entry.bytes)?;
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
        record.write(hash(key), &mut self.record);
        lmdb.entries.put(txn, key, &self.record)?;
        Ok(())
    }

    fn delete(&mut self, txn: &mut RwTxn<'_>, key: &Key) -> Result<Deleted, Abort> {
        let key = key.as_str().as_bytes();
        let now = self.opened.now();
        let header = self.opened.lmdb.entries.get(txn, key)?.map(Header::read);
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
            self.opened.control.count_removed(Removal::Damaged, 1);
        }
        Ok(Outcome::Deleted(Deleted::default()))
    }

    /// A group of those that wait has its turn between two transactions of a clear. What is stored while that runs may
    /// stay, and a fill whose right has ended is refused now as later.
    fn write_beside_clear(&mut self) {
        let jobs = self
            .queue
            .take_beside_clear(GROUP_OPERATIONS, self.group_bytes);
        let jobs: Vec<Job> = jobs.into_iter().filter(Job::take).collect();
        if !jobs.is_empty() {
            self.progress.begin();
            self.write_group(jobs);
        }
    }

    /// Removes what a pattern means, in several transactions.
    fn clear(&mut self, pattern: &Pattern) -> Outcome {
        let mut deleted = Deleted::default();
        let mut after: Option<Vec<u8>> = None;
        let mut attempt = 0;
        loop {
            self.progress.begin();
            match self.clear_some(pattern, after.as_deref(), CLEAR_OPERATIONS >> (attempt * 2)) {
                Ok((count, last)) => {
                    deleted.entries += count;
                    after = last;
                    attempt = 0;
                }
                // A smaller transaction needs fewer pages, and what it frees serves the next one.
                Err(Abort::Full) if attempt + 1 < TRIES => {
                    attempt += 1;
                    self.clear_stale_readers();
                    continue;
                }
                Err(Abort::Full) => {
                    return Outcome::Failed(StoreError::Full(
                        "there was no room even to delete".to_owned(),
                    ));
                }
                Err(Abort::Other(error)) => return Outcome::Failed(error),
            }
            if after.is_none() {
                return Outcome::Deleted(deleted);
            }
            self.write_beside_clear();
        }
    }

    /// Removes some of what a pattern means, behind a key; answers how many living ones, and where to go on.
    fn clear_some(
        &mut self,
        pattern: &Pattern,
        after: Option<&[u8]>,
        most: usize,
    ) -> Result<(u64, Option<Vec<u8>>), Abort> {
        let opened = Arc::clone(&self.opened);
        let now = opened.now();
        let mut txn = opened.lmdb.env.write_txn()?;
        let _writing = Writing::begin(&opened);
        let (meant, last) = crate::store::meant(&opened, &txn, pattern, after, most.max(1))?;
        let mut living = 0;
        for key in &meant {
            let header = opened.lmdb.entries.get(&txn, key)?.and_then(Header::read);
            living += u64::from(header.is_some_and(|header| header.expires_at > now));
            remove(&opened, &mut txn, key)?;
        }
        txn.commit()?;
        Ok((living, last))
    }

    fn clear_stale_readers(&self) {
        if let Err(error) = self.opened.lmdb.env.clear_stale_readers() {
            tracing::debug!(%error, "the slots of dead readers could not be cleared");
        }
    }
}

fn incoming_bytes(operation: &Operation) -> usize {
    match operation {
        Operation::Set(entry) => entry.bytes.len() + entry.key.as_str().len() + HEADER_BYTES,
        Operation::Delete(_)
        | Operation::Clear(_)
        | Operation::Cut(..)
        | Operation::Discard(..) => 0,
    }
}

/// Says in the control block that this process is between begin and commit, until it is dropped.
struct Writing<'a>(&'a Opened);

impl<'a> Writing<'a> {
    fn begin(opened: &'a Opened) -> Self {
        opened.control.set_writing(u64::from(std::process::id()));
        Self(opened)
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.control.set_writing(0);
    }
}
