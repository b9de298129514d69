//! What stands under a key: a header with a checksum, and the value.
//!
//! ```text
//! 0      form (1)
//! 1..8   zero
//! 8..16  checksum: of the key, and of all that follows (xxh3-64)
//! 16..24 when the entry ends, in milliseconds of the store's time
//! 24..32 under which time it stands in the expiry index
//! 32..   the value
//! ```
//! All numbers are little-endian.

use std::io::Write as _;

use heed::RwTxn;
use twox_hash::XxHash3_64;

use crate::lmdb::Table;

const FORM: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 32;

/// A record that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) expires_at: u64,
    pub(crate) indexed_at: u64,
    pub(crate) value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the record of a key with this hash; `None` if it is damaged, or of another form.
    pub(crate) fn read(key_hash: u64, bytes: &'a [u8]) -> Option<Self> {
        let header = Header::read(bytes)?;
        let is_whole = number(bytes, 8)? == checksum(key_hash, bytes.get(16..)?);
        is_whole.then_some(Self {
            expires_at: header.expires_at,
            indexed_at: header.indexed_at,
            value: bytes.get(HEADER_BYTES..)?,
        })
    }

    /// Puts the record under a key, into LMDB's page itself.
    pub(crate) fn put(&self, table: &Table, txn: &mut RwTxn<'_>, key: &[u8]) -> heed::Result<()> {
        let bytes = HEADER_BYTES + self.value.len();
        table.put_reserved(txn, key, bytes, |space| {
            space.write_all(&self.header())?;
            space.write_all(self.value)?;
            write_checksum(hash(key), space.written_mut());
            Ok(())
        })
    }

    /// The header, without its checksum.
    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[0] = FORM;
        header[16..24].copy_from_slice(&self.expires_at.to_le_bytes());
        header[24..].copy_from_slice(&self.indexed_at.to_le_bytes());
        header
    }
}

/// Writes the checksum of a record that is whole but for that.
fn write_checksum(key_hash: u64, record: &mut [u8]) {
    let checksum = checksum(key_hash, &record[16..]);
    record[8..16].copy_from_slice(&checksum.to_le_bytes());
}

/// A record's times, where its value doesn't matter: not checked against the checksum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) expires_at: u64,
    pub(crate) indexed_at: u64,
}

impl Header {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if *bytes.first()? != FORM {
            return None;
        }
        Some(Self {
            expires_at: number(bytes, 16)?,
            indexed_at: number(bytes, 24)?,
        })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// A key's hash: what the record's checksum, its place in the expiry index and its recency begin with.
pub(crate) fn hash(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key)
}

/// Two hashes of whole slices: hashing both as one stream took 1.4 times as long, for a value of 1 KiB.
fn checksum(key_hash: u64, rest: &[u8]) -> u64 {
    XxHash3_64::oneshot(rest) ^ key_hash.rotate_left(32)
}

/// Where an entry stands in the expiry index: in the order of time, apart by key.
pub(crate) fn expiry_key(indexed_at: u64, key: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&indexed_at.to_be_bytes());
    out[8..].copy_from_slice(&hash(key).to_be_bytes());
    out
}

/// The time of a place in the expiry index.
pub(crate) fn expiry_time(expiry_key: &[u8]) -> Option<u64> {
    let bytes = expiry_key.get(..8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_any_changed_bit_is_noticed() {
        let record = Record {
            expires_at: 7,
            indexed_at: 5,
            value: b"[1,2,3]",
        };
        let mut bytes = [&record.header(), record.value].concat();
        write_checksum(hash(b"cache:svc:/a"), &mut bytes);
        assert_eq!(Record::read(hash(b"cache:svc:/a"), &bytes), Some(record));
        assert_eq!(Record::read(hash(b"cache:svc:/b"), &bytes), None);
        for end in 0..bytes.len() {
            assert_eq!(Record::read(hash(b"cache:svc:/a"), &bytes[..end]), None);
        }
        // The bytes that are always zero are not part of it.
        for bit in (0..8).chain(64..bytes.len() * 8) {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                Record::read(hash(b"cache:svc:/a"), &bytes),
                None,
                "bit {bit}"
            );
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
