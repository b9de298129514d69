//! The reserve: pages that only deletes and clears may use.
//!
//! LMDB uses no page again that was freed since the oldest snapshot that somebody reads. A process that was stopped in
//! mid-read holds its snapshot until it goes on or ends, and each transaction of the others takes new pages meanwhile.
//! So sets are refused while there still is room to delete: what can't be deleted is stale. A delete takes about ten
//! pages; when the last of them come near, the store is emptied, and then there is nothing left that could be stale.

use crate::free_list;
use crate::opening::Opened;
use crate::readers::Held;
use crate::walk::Damage;

const PAGE_BYTES: u64 = 4_096;
/// The reserve is one part of so many of the store. The hand leaves a quarter free; the largest value takes an eighth.
const PARTS: u64 = 8;
/// What is kept for emptying the store: one part of so many. It took one in 43 of a store of 1 MiB, and no more than one in
/// 73 of those from 4 to 256 MiB, with values of 100 to 10,000 bytes.
const LAST_PARTS: u64 = 32;

/// Whether there is room beside the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// There is.
    Free,
    /// There will be, when some was made and what was freed of late may be used.
    Later,
    /// Not for as long as this snapshot is read.
    Held {
        by: Held,
        /// How many pages may be used to delete, before the store must be emptied.
        to_delete: u64,
    },
}

/// Looks whether there are so many pages beside the reserve. Only for who holds LMDB's lock of writers.
pub(crate) fn look(opened: &Opened, incoming_pages: u64) -> Result<Room, Damage> {
    let info = opened.lmdb.env.info();
    let pages = opened.control.max_bytes() / PAGE_BYTES;
    let never_used = pages.saturating_sub(info.last_page_number as u64 + 1);
    let wanted = pages / PARTS + incoming_pages;
    if never_used >= wanted {
        return Ok(Room::Free);
    }
    let usable_before = |transaction| {
        let enough = wanted - never_used;
        free_list::pages_freed_before(&opened.data, transaction, enough)
            .map(|freed| freed + never_used)
    };
    let last = info.last_txn_id as u64;
    let oldest = opened.readers.oldest();
    let usable = usable_before(oldest.map_or(last, |held| held.transaction.min(last)))?;
    if usable >= wanted {
        return Ok(Room::Free);
    }
    match oldest {
        Some(by) if by.transaction < last && usable_before(u64::MAX)? >= wanted => Ok(Room::Held {
            by,
            to_delete: usable.saturating_sub(pages / LAST_PARTS),
        }),
        _ => Ok(Room::Later),
    }
}
