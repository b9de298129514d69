//! Versions: what many entries depend on together. They stand beside the entries, in a table of their own.
//!
//! A version that is not there gets a new value when it is next asked for, whyever it is gone: renewed, over, or removed to make
//! room. So what is removed kills the entries that depend on it, and nothing revives them.

use std::time::Duration;

use heed::RwTxn;
use larder_core::{Service, Told, Version, VersionName};

use crate::beside::{self, Sweep};
use crate::lmdb::pages;
use crate::opening::Opened;
use crate::queue::Outcome;
use crate::record::{Record, hash};
use crate::writer::{Abort, Writer};

/// A version that nobody asks for lives so long, so that dead tags go.
const LIFE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Versions may take one part of so many of the store; beyond that, some go with each new one.
const PARTS: u64 = 8;
const PAGE_BYTES: u64 = 4_096;

/// Under which key a version stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionKey(String);

impl VersionKey {
    pub(crate) fn new(service: &Service, name: &VersionName) -> Self {
        Self(format!("larder:ver:{service}/{name}"))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// A version as it was read.
pub(crate) struct Read {
    pub(crate) version: Version,
    /// Whether it is to be prolonged.
    pub(crate) is_old: bool,
}

/// Reads a version's record; `None` if there is none, or its life is over.
pub(crate) fn read(opened: &Opened, key: &VersionKey, bytes: Option<&[u8]>) -> Option<Read> {
    let record = Record::read(hash(key.as_bytes()), bytes?)?;
    let left = record.expires_at.checked_sub(opened.now())?;
    let value = u128::from_le_bytes(record.value.try_into().ok()?);
    let version = Version {
        value,
        incarnation: 0,
    };
    (left > 0).then_some(Read {
        version,
        is_old: Duration::from_millis(left) < LIFE / 2,
    })
}

impl Writer {
    /// Tells a version, and makes it if there is none.
    pub(crate) fn tell(&mut self, txn: &mut RwTxn<'_>, key: &VersionKey) -> Result<Outcome, Abort> {
        let versions = self.opened.lmdb.versions;
        let found = read(&self.opened, key, versions.get(txn, key.as_bytes())?);
        let version = match found {
            Some(found) => found.version,
            None => {
                self.make_room_for_version(txn)?;
                let value = match beside::chance() {
                    Ok(value) => value,
                    Err(error) => return Ok(Outcome::Failed(error)),
                };
                self.put_version(txn, key, value)?;
                let place = self.opened.control.place_of(key.as_bytes());
                self.changes.change(place, true);
                Version {
                    value,
                    incarnation: 0,
                }
            }
        };
        let proof = None;
        Ok(Outcome::Told(Told { version, proof }))
    }

    /// Lets a version live on.
    pub(crate) fn prolong(
        &mut self,
        txn: &mut RwTxn<'_>,
        key: &VersionKey,
    ) -> Result<Outcome, Abort> {
        let bytes = self.opened.lmdb.versions.get(txn, key.as_bytes())?;
        if let Some(found) = read(&self.opened, key, bytes).filter(|found| found.is_old) {
            self.put_version(txn, key, found.version.value)?;
        }
        Ok(Outcome::Done)
    }

    /// Removes a version: the next one who asks makes another. That takes no room.
    pub(crate) fn renew(
        &mut self,
        txn: &mut RwTxn<'_>,
        key: &VersionKey,
    ) -> Result<Outcome, Abort> {
        let was_there = self.opened.lmdb.versions.delete(txn, key.as_bytes())?;
        let place = self.opened.control.place_of(key.as_bytes());
        self.changes.change(place, was_there);
        Ok(Outcome::Done)
    }

    fn put_version(
        &mut self,
        txn: &mut RwTxn<'_>,
        key: &VersionKey,
        value: u128,
    ) -> heed::Result<()> {
        let until = self.opened.now().saturating_add(crate::clock::millis(LIFE));
        let versions = self.opened.lmdb.versions;
        let place = (key.as_bytes(), until);
        beside::put(&versions, txn, place, &value.to_le_bytes())
    }

    fn make_room_for_version(&mut self, txn: &mut RwTxn<'_>) -> heed::Result<()> {
        let (versions, now) = (self.opened.lmdb.versions, self.opened.now());
        let most = self.opened.control.max_bytes() / PAGE_BYTES / PARTS;
        let is_full = pages(&versions, txn)? as u64 >= most;
        let is_over = |until| until <= now || is_full;
        beside::sweep(&versions, txn, &mut self.version_hand, Sweep::Some, is_over)
    }
}
