//! The control block: what the processes that share a folder tell each other.

mod board;
mod marks;

/// What `board` is made of; under loom it is loom's.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::shared_memory::SharedMemory;
pub(crate) use board::{Changes, Seen};

/// Changes when the folder's form does.
const MAGIC: u64 = u64::from_le_bytes(*b"larder02");
/// The words before the marks: one page.
const FIRST_WORDS: usize = 512;
/// The words before the recency table.
const WORDS: usize = FIRST_WORDS + marks::MARKS;
/// An entry's recency never counts further.
const MOST_RECENT: u8 = 3;
/// One recency byte for so many bytes of the store: four for an entry of 1 KiB.
const BYTES_PER_RECENCY: u64 = 256;

/// The words, by place. Each stripe of counters has cache lines of its own.
#[derive(Clone, Copy)]
enum Word {
    Magic = 0,
    MaxBytes,
    Seed,
    BootIdHigh,
    BootIdLow,
    /// 1 after an orderly close, until the next open.
    Clean,
    ClosedAt,
    ClosedAtWall,
    /// What is added to the boot clock to get the store's time.
    TimeBase,
    PidNamespace,
    /// The process between begin and commit of a write; 0: none.
    Writing,
    TimeNamespace,
    Evictions = 16,
    Expired,
    Damaged,
    /// Chance, another one each time that somebody opens the folder alone; 0 when nobody new finds this block.
    Life = 24,
    /// The mark of all places.
    Epoch,
    Stripes = 32,
    /// How long the key is at which the hand stands; its bytes are behind.
    HandBytes = 288,
    Hand,
    /// What those wait on who wait for a change.
    Bell = 432,
    Marks = FIRST_WORDS as isize,
}

/// What there is room for of the hand's key: all of it, as keys are no longer.
const MOST_HAND_BYTES: usize = 1_024;
const STRIPES: usize = 16;
const STRIPE_WORDS: usize = 16;

/// What readers count.
#[derive(Clone, Copy)]
pub(crate) enum Lookup {
    Hit = 0,
    Miss,
}

/// What writers count.
#[derive(Clone, Copy)]
pub(crate) enum Removal {
    Evicted,
    Expired,
    Damaged,
}

/// The mapped control block.
pub(crate) struct Control {
    memory: SharedMemory,
}

impl Control {
    /// How long the file is for a store of this size.
    pub(crate) fn file_bytes(max_bytes: u64) -> u64 {
        let recency = (max_bytes / BYTES_PER_RECENCY).next_power_of_two();
        (WORDS * 8) as u64 + recency.clamp(1 << 12, 1 << 30)
    }

    /// Maps the file; what it holds may be anything.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        Ok(Self {
            memory: SharedMemory::map(file, WORDS)?,
        })
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        &self.memory.words()[word as usize]
    }

    fn load(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    fn store(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    /// Whether the block was made by this version of Larder, and whole.
    pub(crate) fn is_valid(&self, file_bytes: u64) -> bool {
        self.load(Word::Magic) == MAGIC && Self::file_bytes(self.max_bytes()) == file_bytes
    }

    /// Fills a block that is all zero.
    pub(crate) fn initialise(&self, max_bytes: u64, seed: u64) {
        self.store(Word::MaxBytes, max_bytes);
        self.store(Word::Seed, seed);
        self.word(Word::Magic).store(MAGIC, Ordering::Release);
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.load(Word::MaxBytes)
    }

    pub(crate) fn boot_id(&self) -> u128 {
        u128::from(self.load(Word::BootIdHigh)) << 64 | u128::from(self.load(Word::BootIdLow))
    }

    pub(crate) fn set_boot_id(&self, boot_id: u128) {
        self.store(Word::BootIdHigh, (boot_id >> 64) as u64);
        self.store(Word::BootIdLow, boot_id as u64);
    }

    /// The store's time and the wall clock's at the last close, if that was orderly.
    pub(crate) fn closed_at(&self) -> Option<(u64, u64)> {
        let is_clean = self.load(Word::Clean) == 1;
        is_clean.then(|| (self.load(Word::ClosedAt), self.load(Word::ClosedAtWall)))
    }

    pub(crate) fn set_closed(&self, at: u64, at_wall: u64) {
        self.store(Word::ClosedAt, at);
        self.store(Word::ClosedAtWall, at_wall);
        self.word(Word::Clean).store(1, Ordering::Release);
    }

    pub(crate) fn set_open(&self) {
        self.store(Word::Clean, 0);
        self.store(Word::Writing, 0);
    }

    pub(crate) fn time_base(&self) -> u64 {
        self.load(Word::TimeBase)
    }

    pub(crate) fn set_time_base(&self, base: u64) {
        self.store(Word::TimeBase, base);
    }

    pub(crate) fn pid_namespace(&self) -> u64 {
        self.load(Word::PidNamespace)
    }

    pub(crate) fn set_pid_namespace(&self, inode: u64) {
        self.store(Word::PidNamespace, inode);
    }

    /// Of those who have, or had, the folder open; 0: it was not said.
    pub(crate) fn time_namespace(&self) -> u64 {
        self.load(Word::TimeNamespace)
    }

    pub(crate) fn set_time_namespace(&self, inode: u64) {
        self.store(Word::TimeNamespace, inode);
    }

    /// The process that is between begin and commit of a write; 0: none.
    pub(crate) fn writing(&self) -> u64 {
        self.load(Word::Writing)
    }

    pub(crate) fn set_writing(&self, pid: u64) {
        self.store(Word::Writing, pid);
    }

    fn hand_words(&self) -> &[AtomicU64] {
        &self.memory.words()[Word::Hand as usize..][..MOST_HAND_BYTES / 8]
    }

    /// The key that the hand passed last. Only for who holds LMDB's lock of writers; one that died in mid-write leaves any
    /// bytes, which are a place too.
    pub(crate) fn hand(&self) -> Vec<u8> {
        let bytes = usize::try_from(self.load(Word::HandBytes)).unwrap_or(usize::MAX);
        let bytes = bytes.min(MOST_HAND_BYTES);
        let words = self.hand_words().iter().take(bytes.div_ceil(8));
        let mut key: Vec<u8> = words
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .collect();
        key.truncate(bytes);
        key
    }

    /// Moves the hand behind a key.
    pub(crate) fn set_hand(&self, key: &[u8]) {
        let key = &key[..key.len().min(MOST_HAND_BYTES)];
        for (word, bytes) in self.hand_words().iter().zip(key.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(whole), Ordering::Relaxed);
        }
        self.store(Word::HandBytes, key.len() as u64);
    }

    fn stripe(&self, stripe: usize, lookup: Lookup) -> &AtomicU64 {
        let at = Word::Stripes as usize + stripe * STRIPE_WORDS + lookup as usize;
        &self.memory.words()[at]
    }

    #[inline]
    pub(crate) fn count(&self, lookup: Lookup) {
        self.stripe(my_stripe(), lookup)
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lookups(&self, lookup: Lookup) -> u64 {
        let counts = (0..STRIPES).map(|stripe| self.stripe(stripe, lookup).load(Ordering::Relaxed));
        counts.fold(0, u64::wrapping_add)
    }

    fn removals_word(&self, removal: Removal) -> &AtomicU64 {
        self.word(match removal {
            Removal::Evicted => Word::Evictions,
            Removal::Expired => Word::Expired,
            Removal::Damaged => Word::Damaged,
        })
    }

    pub(crate) fn count_removed(&self, removal: Removal, count: u64) {
        self.removals_word(removal)
            .fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn removed(&self, removal: Removal) -> u64 {
        self.removals_word(removal).load(Ordering::Relaxed)
    }

    fn recency(&self, key_hash: u64) -> &AtomicU8 {
        let table = self.memory.bytes();
        // The seed keeps those who choose keys from choosing places; the table's length is a power of two, and never 0.
        let mixed = (key_hash ^ self.load(Word::Seed)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &table[(mixed >> 20) as usize & (table.len() - 1)]
    }

    /// Where an entry's recency is counted. The processor fetches it while the entry is looked up: it lies anywhere in
    /// a table larger than the caches.
    pub(crate) fn recency_of(&self, key_hash: u64) -> Recency<'_> {
        let at = self.recency(key_hash);
        SharedMemory::prefetch(at);
        Recency(at)
    }

    /// Lowers an entry's recency, and says whether it had any.
    pub(crate) fn cool(&self, key_hash: u64) -> bool {
        let recency = self.recency(key_hash);
        let now = recency.load(Ordering::Relaxed);
        recency.store(now.saturating_sub(1).min(MOST_RECENT), Ordering::Relaxed);
        now > 0
    }

    /// Forgets an entry that is no more.
    pub(crate) fn forget(&self, key_hash: u64) {
        self.recency(key_hash).store(0, Ordering::Relaxed);
    }
}

/// How often an entry was read of late.
pub(crate) struct Recency<'a>(&'a AtomicU8);

impl Recency<'_> {
    /// Notes that the entry was read. A count that two readers lose does no harm.
    pub(crate) fn raise(&self) {
        let now = self.0.load(Ordering::Relaxed);
        if now < MOST_RECENT {
            self.0.store(now + 1, Ordering::Relaxed);
        }
    }
}

/// This thread's stripe: threads and processes take them by chance.
fn my_stripe() -> usize {
    thread_local! {
        static MINE: usize = {
            let mut random = [0];
            // Without chance all count in one stripe, which is slower and right.
            let _ = getrandom::fill(&mut random);
            usize::from(random[0]) % STRIPES
        };
    }
    MINE.with(|mine| *mine)
}
