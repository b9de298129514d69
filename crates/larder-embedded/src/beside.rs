//! What stands beside the entries, leases and versions: records in tables of their own, that nothing evicts with the entries.

use std::ops::Bound;

use heed::RwTxn;
use larder_core::StoreError;

use crate::lmdb::Table;
use crate::record::{Header, Record};

/// A table with fewer records is left alone.
const FEW: u64 = 256;

/// How many records a sweep looks at.
#[derive(Clone, Copy)]
pub(crate) enum Sweep {
    /// More than one is put meanwhile, so that it keeps up; none while there are few.
    Some,
    /// As many as a transaction may remove.
    Many,
}

/// Puts a record that ends then, under a key.
pub(crate) fn put(
    table: &Table,
    txn: &mut RwTxn<'_>,
    (key, expires_at): (&[u8], u64),
    value: &[u8],
) -> heed::Result<()> {
    let record = Record {
        expires_at,
        // It stands in no index.
        indexed_at: 0,
        value,
    };
    record.put(table, txn, key)
}

/// Looks at the next records behind a hand, and removes those that `is_over` says to, by when they end; at the end of the table the
/// hand goes back to its beginning.
pub(crate) fn sweep(
    table: &Table,
    txn: &mut RwTxn<'_>,
    hand: &mut Vec<u8>,
    sweep: Sweep,
    is_over: impl Fn(u64) -> bool,
) -> heed::Result<()> {
    let most = match sweep {
        Sweep::Some if table.len(txn)? < FEW => return Ok(()),
        Sweep::Some => 2,
        Sweep::Many => 1_024,
    };
    let begin = match hand.is_empty() {
        true => Bound::Unbounded,
        false => Bound::Excluded(hand.as_slice()),
    };
    let mut over = Vec::new();
    let mut last = None;
    let mut looked_at = 0;
    for record in table.range(txn, &(begin, Bound::Unbounded))?.take(most) {
        let (key, bytes) = record?;
        // What is no record is of no use.
        if Header::read(bytes).is_none_or(|header| is_over(header.expires_at)) {
            over.push(key.to_vec());
        }
        last = Some(key);
        looked_at += 1;
    }
    let next = last.filter(|_| looked_at == most).unwrap_or_default();
    *hand = next.to_vec();
    for key in over {
        table.delete(txn, &key)?;
    }
    Ok(())
}

/// 128 bits that nobody can foresee.
pub(crate) fn chance() -> Result<u128, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| StoreError::Refused(format!("the system gives no chance: {error}")))?;
    Ok(u128::from_le_bytes(bytes))
}
