//! Going over entries and keys in order: in parts, so that no snapshot is held for long.

use std::ops::Bound;
use std::time::Duration;

use heed::RoTxn;
use larder_core::{Cursor, Key, Page, Pattern, ScannedEntry, StoreError};

use crate::lmdb::{ENTRY_PREFIX, Table};
use crate::record::{HEADER_BYTES, Header};
use crate::store::{EmbeddedStore, refused};

/// A scan holds its snapshot for at most so many entries: LMDB can't use again what a snapshot needs.
const SCANNED_AT_ONCE: usize = 10_000;

impl EmbeddedStore {
    /// How many living entries a pattern means.
    pub(crate) fn count(&self, pattern: &Pattern) -> Result<u64, StoreError> {
        let now = self.opened.now();
        let mut entries = 0;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let txn = self.read_txn()?;
            let (meant, next) = meant(
                &self.opened.lmdb.entries,
                &txn,
                pattern,
                after.as_deref(),
                SCANNED_AT_ONCE,
            )
            .map_err(refused)?;
            for key in meant {
                let bytes = self.opened.lmdb.entries.get(&txn, &key).map_err(refused)?;
                let header = bytes.and_then(Header::read);
                entries += u64::from(header.is_some_and(|header| header.expires_at > now));
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(entries),
            }
        }
    }

    /// The next living entries, in the order of their keys.
    pub(crate) fn page(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let txn = self.read_txn()?;
        let now = self.opened.now();
        let prefix = pattern.map_or(ENTRY_PREFIX, |pattern| pattern.literal_prefix().as_bytes());
        let after = after.map(|cursor| cursor.0.into_bytes());
        let begin = match &after {
            Some(after) => Bound::Excluded(after.as_slice()),
            None => Bound::Included(prefix),
        };
        let mut page = Page::default();
        let range = (begin, Bound::Unbounded);
        let entries = self
            .opened
            .lmdb
            .entries
            .range(&txn, &range)
            .map_err(refused)?;
        for (looked_at, entry) in entries.enumerate() {
            let (key, bytes) = entry.map_err(refused)?;
            if !key.starts_with(prefix) {
                return Ok(page);
            }
            page.entries.extend(scanned(key, bytes, pattern, now));
            if page.entries.len() >= limit.max(1) || looked_at + 1 >= SCANNED_AT_ONCE {
                page.next = Some(Cursor(String::from_utf8_lossy(key).into_owned()));
                return Ok(page);
            }
        }
        Ok(page)
    }
}

/// Keys, and the one behind which there are more.
type Keys = (Vec<Vec<u8>>, Option<Vec<u8>>);

/// The keys of a table that a pattern means, behind a key: at most so many; and where to go on, `None` at the end.
pub(crate) fn meant(
    table: &Table,
    txn: &RoTxn<'_>,
    pattern: &Pattern,
    after: Option<&[u8]>,
    most: usize,
) -> heed::Result<Keys> {
    let prefix = pattern.literal_prefix().as_bytes();
    let begin = match after {
        Some(after) => Bound::Excluded(after),
        None => Bound::Included(prefix),
    };
    let mut meant = Vec::new();
    let range = (begin, Bound::Unbounded);
    for (looked_at, entry) in table.range(txn, &range)?.enumerate() {
        let (key, _) = entry?;
        if !key.starts_with(prefix) {
            return Ok((meant, None));
        }
        if std::str::from_utf8(key).is_ok_and(|key| pattern.matches(key)) {
            meant.push(key.to_vec());
        }
        if meant.len() >= most || looked_at + 1 >= SCANNED_AT_ONCE {
            return Ok((meant, Some(key.to_vec())));
        }
    }
    Ok((meant, None))
}

fn scanned(key: &[u8], bytes: &[u8], pattern: Option<&Pattern>, now: u64) -> Option<ScannedEntry> {
    let text = std::str::from_utf8(key).ok()?;
    if pattern.is_some_and(|pattern| !pattern.matches(text)) {
        return None;
    }
    let header = Header::read(bytes)?;
    let left = header
        .expires_at
        .checked_sub(now)
        .filter(|left| *left > 0)?;
    Some(ScannedEntry {
        key: Key::parse(text).ok()?,
        ttl: Some(Duration::from_millis(left)),
        bytes: Some(bytes.len().saturating_sub(HEADER_BYTES) as u64),
    })
}
