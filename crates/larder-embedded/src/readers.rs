//! Who reads which snapshot: LMDB's table of readers, in the lock file that its processes share.
//!
//! The form is that of LMDB 0.9.70 (`MDB_txninfo` in `mdb.c`), on a 64-bit little-endian machine.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;

use crate::lmdb::MAX_READERS;
use crate::shared_memory::SharedMemory;

/// The words before the first reader: two mutexes, each with its padding. glibc's mutex is longer on ARM.
const HEAD_WORDS: usize = match cfg!(all(target_arch = "aarch64", target_env = "gnu")) {
    true => 24,
    false => 16,
};
/// How many readers there ever were at once, in the word's lower half.
const COUNT: usize = 2;
const READER_WORDS: usize = 8;
const WORDS: usize = HEAD_WORDS + MAX_READERS as usize * READER_WORDS;
/// What a reader's transaction is while it reads nothing.
const NONE: u64 = u64::MAX;

/// A reader's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The transaction that made it.
    pub(crate) transaction: u64,
    /// The process that reads it.
    pub(crate) process: u32,
}

/// The mapped table.
pub(crate) struct Readers {
    memory: SharedMemory,
}

impl Readers {
    /// Maps LMDB's lock file, whose blocks exist.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        Ok(Self {
            memory: SharedMemory::map(file, WORDS)?,
        })
    }

    /// The oldest snapshot that somebody reads.
    pub(crate) fn oldest(&self) -> Option<Held> {
        let (head, readers) = self.memory.words().split_at(HEAD_WORDS);
        let count = head[COUNT].load(Ordering::Acquire) as u32 as usize;
        let held = readers.chunks(READER_WORDS).take(count).map(|reader| Held {
            transaction: reader[0].load(Ordering::Acquire),
            process: reader[1].load(Ordering::Acquire) as u32,
        });
        held.filter(|held| held.process != 0 && held.transaction != NONE)
            .min_by_key(|held| held.transaction)
    }
}
