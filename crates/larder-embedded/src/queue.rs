//! What is to be written, in order; and who waits for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Acquired, Deleted, Key, Lease, NewEntry, Pattern, Proof, Released, StoreError, Told, Ttl,
    Written,
};
use tokio::sync::oneshot;

use crate::versions::VersionKey;

/// More operations than this are not queued.
const MAX_OPERATIONS: usize = 16_384;
/// More bytes than this are not queued.
const MAX_BYTES: usize = 64 << 20;

/// One operation.
pub(crate) enum Operation {
    Set(NewEntry),
    Delete(Key),
    Clear(Pattern),
    /// Ends an entry's life earlier: also that of one which another process wrote since, as the next read would.
    Cut(Key, Ttl),
    /// Removes a record that was found damaged, if it still is the same.
    Discard(Key, Bytes),
    Acquire(Key, Duration),
    Extend(Lease, Duration),
    Release(Lease, Released),
    /// Tells a version, and makes it if there is none.
    Tell(VersionKey),
    /// Lets a version live on.
    Prolong(VersionKey),
    Renew(VersionKey),
}

impl Operation {
    /// Whether it stores something new, and so needs room.
    pub(crate) fn needs_room(&self) -> bool {
        matches!(self, Self::Set(_) | Self::Acquire(..) | Self::Tell(_))
    }

    /// What it reads and has a proof of: under which key that stands.
    pub(crate) fn proven_key(&self) -> Option<&[u8]> {
        match self {
            Self::Acquire(key, _) => Some(key.as_str().as_bytes()),
            Self::Tell(key) => Some(key.as_bytes()),
            _ => None,
        }
    }
}

/// What became of it.
pub(crate) enum Outcome {
    Written(Written),
    Deleted(Deleted),
    Acquired(Acquired),
    /// Whether a lease held.
    Held(bool),
    Told(Told),
    Done,
    Failed(StoreError),
}

impl Outcome {
    /// Adds the proof of what was read.
    pub(crate) fn prove(&mut self, proven: Option<Proof>) {
        let found = match self {
            Self::Acquired(Acquired::Granted { found, .. } | Acquired::Uncached { found }) => found,
            Self::Acquired(Acquired::Held { proof, found, .. }) => {
                *proof = proven;
                found
            }
            Self::Told(told) => {
                told.proof = proven;
                return;
            }
            _ => return,
        };
        if let Some(found) = found {
            found.proof = proven;
        }
    }

    pub(crate) fn written(self) -> Result<Written, StoreError> {
        match self {
            Self::Written(written) => Ok(written),
            Self::Failed(error) => Err(error),
            _ => Ok(Written::Unknown),
        }
    }

    pub(crate) fn deleted(self) -> Result<Deleted, StoreError> {
        match self {
            Self::Deleted(deleted) => Ok(deleted),
            Self::Failed(error) => Err(error),
            _ => Ok(Deleted::default()),
        }
    }

    /// Whether a lease held.
    pub(crate) fn held(self) -> Result<bool, StoreError> {
        match self {
            Self::Held(held) => Ok(held),
            Self::Failed(error) => Err(error),
            _ => Ok(false),
        }
    }

    pub(crate) fn told(self) -> Result<Told, StoreError> {
        match self {
            Self::Told(told) => Ok(told),
            Self::Failed(error) => Err(error),
            _ => Err(unanswered()),
        }
    }
}

pub(crate) fn unanswered() -> StoreError {
    StoreError::Refused("the writer answered something else".to_owned())
}

/// An operation, with the one who waits for it.
pub(crate) struct Job {
    pub(crate) operation: Operation,
    ticket: Ticket,
    caller: Option<oneshot::Sender<Outcome>>,
}

impl Job {
    fn bytes(&self) -> usize {
        match &self.operation {
            Operation::Set(entry) => entry.bytes.len() + entry.key.as_str().len(),
            Operation::Discard(key, bytes) => bytes.len() + key.as_str().len(),
            _ => 0,
        }
    }

    /// Whether it is to be done: from now on its caller can't withdraw it.
    pub(crate) fn take(&self) -> bool {
        self.ticket.change(WAITING, TAKEN)
    }

    /// Whether it removes what others may have.
    pub(crate) fn is_delete(&self) -> bool {
        matches!(
            self.operation,
            Operation::Delete(_) | Operation::Clear(_) | Operation::Renew(_)
        )
    }

    pub(crate) fn finish(self, outcome: Outcome) {
        if let Some(caller) = self.caller {
            // A caller that went away doesn't want to know.
            let _ = caller.send(outcome);
        }
    }
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Whether an operation was begun, or given up before.
#[derive(Clone, Default)]
pub(crate) struct Ticket(Arc<AtomicU8>);

impl Ticket {
    fn change(&self, from: u8, to: u8) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Gives the operation up; `false` if it was begun.
    pub(crate) fn withdraw(&self) -> bool {
        self.change(WAITING, WITHDRAWN)
    }
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
    is_closed: bool,
}

/// The operations that wait for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    not_empty: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues operations one behind the other, all or none; answers come back in their order.
    pub(crate) fn push(
        &self,
        operations: Vec<Operation>,
    ) -> Result<Vec<(Ticket, oneshot::Receiver<Outcome>)>, StoreError> {
        let mut waits = Vec::with_capacity(operations.len());
        let mut jobs = Vec::with_capacity(operations.len());
        for operation in operations {
            let (caller, receiver) = oneshot::channel();
            let ticket = Ticket::default();
            waits.push((ticket.clone(), receiver));
            jobs.push(Job {
                operation,
                ticket,
                caller: Some(caller),
            });
        }
        self.push_jobs(jobs)?;
        Ok(waits)
    }

    /// Queues an operation for which nobody waits; drops it if there is no room.
    pub(crate) fn push_quietly(&self, operation: Operation) {
        let job = Job {
            operation,
            ticket: Ticket::default(),
            caller: None,
        };
        let _ = self.push_jobs(vec![job]);
    }

    fn push_jobs(&self, jobs: Vec<Job>) -> Result<(), StoreError> {
        let bytes: usize = jobs.iter().map(Job::bytes).sum();
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(StoreError::Away("it was closed".to_owned()));
        }
        let is_full =
            waiting.jobs.len() + jobs.len() > MAX_OPERATIONS || waiting.bytes + bytes > MAX_BYTES;
        // One alone always fits: else a large batch never would.
        if is_full && !waiting.jobs.is_empty() {
            return Err(StoreError::Busy);
        }
        waiting.bytes += bytes;
        waiting.jobs.extend(jobs);
        drop(waiting);
        self.not_empty.notify_one();
        Ok(())
    }

    /// Waits for operations, but no longer than that, and takes the first ones, up to so many operations and bytes, but at
    /// least one if there are any; `None` when the queue is closed and empty.
    pub(crate) fn take(
        &self,
        most: usize,
        most_bytes: usize,
        longest: Duration,
    ) -> Option<Vec<Job>> {
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() {
            if waiting.is_closed {
                return None;
            }
            let (now, timeout) = self
                .not_empty
                .wait_timeout(waiting, longest)
                .unwrap_or_else(PoisonError::into_inner);
            waiting = now;
            if timeout.timed_out() && waiting.jobs.is_empty() && !waiting.is_closed {
                return Some(Vec::new());
            }
        }
        Some(waiting.take(most, most_bytes))
    }

    /// Takes those that wait now, as [`Queue::take`] does, up to the next clear.
    pub(crate) fn take_beside_clear(&self, most: usize, most_bytes: usize) -> Vec<Job> {
        let mut waiting = self.lock();
        match waiting.jobs.front() {
            Some(job) if !matches!(job.operation, Operation::Clear(_)) => {
                waiting.take(most, most_bytes)
            }
            _ => Vec::new(),
        }
    }

    /// Takes no more operations; those that wait are done.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.not_empty.notify_one();
    }
}

impl Waiting {
    fn take(&mut self, most: usize, most_bytes: usize) -> Vec<Job> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(job) = self.jobs.front() {
            let size = job.bytes();
            let is_clear = matches!(job.operation, Operation::Clear(_));
            let is_enough = taken.len() >= most || bytes + size > most_bytes || is_clear;
            if is_enough && !taken.is_empty() {
                break;
            }
            bytes += size;
            taken.extend(self.jobs.pop_front());
            if is_clear {
                // It takes transactions of its own.
                break;
            }
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }
}
