//! Looks at what stands beside an entry, without a change.

use std::time::Duration;

use heed::RoTxn;
use larder_core::{Beside, Key, Service, VersionName};

use crate::opening::Opened;
use crate::record::{Record, hash};
use crate::versions::{self, VersionKey};

pub(crate) fn beside(
    opened: &Opened,
    txn: &RoTxn<'_>,
    key: &Key,
    names: &[VersionName],
) -> heed::Result<Beside> {
    let bytes = key.as_str().as_bytes();
    let lease = opened.lmdb.leases.get(txn, bytes)?;
    let lease = lease.and_then(|lease| Record::read(hash(bytes), lease));
    // One without a token is what a load left.
    let lease = lease.filter(|lease| !lease.value.is_empty());
    let left = lease.and_then(|lease| lease.expires_at.checked_sub(opened.now()));
    let service = Service::from(key);
    let mut told = Vec::with_capacity(names.len());
    for name in names {
        let place = VersionKey::new(&service, name);
        let found = opened.lmdb.versions.get(txn, place.as_bytes())?;
        told.push(versions::read(opened, &place, found).map(|found| found.version));
    }
    Ok(Beside {
        lease: left.filter(|left| *left > 0).map(Duration::from_millis),
        versions: told,
    })
}
