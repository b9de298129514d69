//! Room is made before LMDB is full: what has expired goes first, then what was not read of late.
//!
//! A hand goes round over the entries in the order of their keys, as in the CLOCK algorithm (Corbató 1968), but with a small count
//! in place of one bit (as in GCLOCK, Smith 1978): a read raises an entry's count, the passing hand lowers it, and an
//! entry that it finds at 0 goes. New entries begin at 0, so what is asked for once doesn't drive out what is asked for
//! often. The hand's place and the counts lie in memory that the processes share. Two entries may share a count too, which
//! keeps one of them a little longer.

use heed::RwTxn;

use crate::control::Removal;
use crate::lmdb::ENTRY_PREFIX;
use crate::opening::Opened;
use crate::record::{Header, Record, expiry_key, expiry_time, hash};

const PAGE_BYTES: usize = 4_096;
/// So many entries are looked for at once.
const BATCH: usize = 64;
/// Rounds of the hand without anything to remove: then nothing can be done.
const MOST_ROUNDS: usize = 5;
/// So many expired entries are removed in one transaction, unless there is need for more room.
const EXPIRED_AT_ONCE: usize = 1_024;

/// What a group of operations is to store.
#[derive(Clone, Copy, Default)]
pub(crate) struct Incoming {
    pub(crate) bytes: usize,
    pub(crate) entries: u64,
    /// Leases and versions, or less: they may be there.
    pub(crate) beside: u64,
}

impl Incoming {
    /// How many of all kinds.
    pub(crate) fn records(self) -> u64 {
        self.entries + self.beside
    }

    /// How many pages its values take, more or less.
    pub(crate) fn value_pages(self) -> usize {
        self.bytes / PAGE_BYTES * 5 / 4 + 2
    }
}

/// Makes room for what is to be stored. Answers whether anything was removed.
pub(crate) fn make_room(
    opened: &Opened,
    txn: &mut RwTxn<'_>,
    incoming: Incoming,
) -> heed::Result<bool> {
    let pages = usize::try_from(opened.control.max_bytes()).unwrap_or(usize::MAX) / PAGE_BYTES;
    // A page that a transaction changes is written anew, and its old place is free two transactions later; long
    // values need free pages in a row; and what is freed while somebody reads is free when that ends.
    let most = pages - pages / 4;
    let most = most.saturating_sub(incoming.value_pages());
    shrink(opened, txn, most, incoming.entries)
}

/// Keeps `kept` of `parts` of the store.
pub(crate) fn free(
    opened: &Opened,
    txn: &mut RwTxn<'_>,
    kept: usize,
    parts: usize,
) -> heed::Result<bool> {
    let live = opened.lmdb.live_pages(txn)?;
    shrink(opened, txn, live * kept / parts, 0)
}

fn shrink(
    opened: &Opened,
    txn: &mut RwTxn<'_>,
    pages: usize,
    incoming_entries: u64,
) -> heed::Result<bool> {
    let before = opened.lmdb.entries.len(txn)?;
    // The rest has its turn with the next groups; but nothing that lives goes before what has expired.
    while expire(opened, txn)? && is_over(opened, txn, pages, incoming_entries)? {}
    let mut idle_rounds = 0;
    while is_over(opened, txn, pages, incoming_entries)? && idle_rounds < MOST_ROUNDS {
        let (victims, came_round) = victims(opened, txn)?;
        for key in &victims {
            remove(opened, txn, key)?;
        }
        opened
            .control
            .count_removed(Removal::Evicted, victims.len() as u64);
        idle_rounds = match (victims.is_empty(), came_round) {
            (true, true) => idle_rounds + 1,
            (true, false) => idle_rounds,
            (false, _) => 0,
        };
    }
    Ok(opened.lmdb.entries.len(txn)? != before)
}

/// The next entries that were not read of late, and whether the hand came round to the beginning.
fn victims(opened: &Opened, txn: &RwTxn<'_>) -> heed::Result<(Vec<Vec<u8>>, bool)> {
    // The processes share the hand: else those that live shortly would all begin at the first key.
    let hand = opened.control.hand();
    // Anything may stand in shared memory, and LMDB takes no empty key.
    let hand = match hand.starts_with(ENTRY_PREFIX) {
        true => hand.as_slice(),
        false => ENTRY_PREFIX,
    };
    let behind = (std::ops::Bound::Excluded(hand), std::ops::Bound::Unbounded);
    let mut victims = Vec::with_capacity(BATCH);
    let mut last = None;
    let most = match opened.options.max_entries {
        // One at a time, so that none goes without need.
        Some(_) => 1,
        None => BATCH,
    };
    for entry in opened.lmdb.entries.range(txn, &behind)? {
        let (key, _) = entry?;
        if !key.starts_with(ENTRY_PREFIX) {
            break;
        }
        if !opened.control.cool(hash(key)) {
            victims.push(key.to_vec());
        }
        if victims.len() >= most {
            last = Some(key.to_vec());
            break;
        }
    }
    let came_round = last.is_none();
    let last = last.as_deref().unwrap_or(ENTRY_PREFIX);
    opened.control.set_hand(last);
    Ok((victims, came_round))
}

fn is_over(
    opened: &Opened,
    txn: &RwTxn<'_>,
    pages: usize,
    incoming_entries: u64,
) -> heed::Result<bool> {
    if opened.lmdb.live_pages(txn)? > pages {
        return Ok(true);
    }
    match opened.options.max_entries {
        Some(most) => {
            let entries = opened.lmdb.len(txn)?;
            Ok(entries > 0 && entries + incoming_entries > most)
        }
        None => Ok(false),
    }
}

/// Removes what has expired, up to [`EXPIRED_AT_ONCE`]; answers whether there may be more. What was given a longer life
/// since it was put into the index gets a new place there.
fn expire(opened: &Opened, txn: &mut RwTxn<'_>) -> heed::Result<bool> {
    let now = opened.now();
    let mut expired = 0;
    let mut is_more = true;
    for _ in 0..EXPIRED_AT_ONCE {
        let due = opened.lmdb.expiry.first(txn)?;
        let Some((place, key)) =
            due.filter(|(place, _)| expiry_time(place).is_some_and(|time| time <= now))
        else {
            is_more = false;
            break;
        };
        let (place, key) = (place.to_vec(), key.to_vec());
        opened.lmdb.expiry.delete(txn, &place)?;
        let bytes = opened.lmdb.entries.get(txn, &key)?;
        let Some(header) = bytes.and_then(Header::read) else {
            continue;
        };
        let is_here = expiry_time(&place) == Some(header.indexed_at);
        if !is_here {
            continue;
        }
        if header.expires_at <= now {
            opened.lmdb.entries.delete(txn, &key)?;
            opened.control.forget(hash(&key));
            expired += 1;
            continue;
        }
        let living = bytes
            .and_then(|bytes| Record::read(hash(&key), bytes))
            .map(|record| (record.expires_at, record.value.to_vec()));
        match living {
            Some((expires_at, value)) => {
                let record = Record {
                    expires_at,
                    indexed_at: expires_at,
                    value: &value,
                };
                record.put(&opened.lmdb.entries, txn, &key)?;
                let place = expiry_key(expires_at, &key);
                opened.lmdb.expiry.put(txn, &place, &key)?;
            }
            None => {
                opened.lmdb.entries.delete(txn, &key)?;
            }
        }
    }
    opened.control.count_removed(Removal::Expired, expired);
    Ok(is_more)
}

/// Removes an entry and its place in the expiry index.
pub(crate) fn remove(opened: &Opened, txn: &mut RwTxn<'_>, key: &[u8]) -> heed::Result<()> {
    let header = opened.lmdb.entries.get(txn, key)?.and_then(Header::read);
    if let Some(header) = header {
        let place = expiry_key(header.indexed_at, key);
        opened.lmdb.expiry.delete(txn, &place)?;
    }
    opened.lmdb.entries.delete(txn, key)?;
    opened.control.forget(hash(key));
    Ok(())
}
