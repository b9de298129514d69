//! LMDB, opened.

#![allow(unsafe_code)]

use std::path::Path;

use heed::types::Bytes;
use heed::{
    CommitOrAbort, Database, DatabaseStat, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithTls,
};

/// More than a process of Larder and its neighbours have threads.
pub(crate) const MAX_READERS: u32 = 2_048;
const DATABASES: u32 = 1;
/// What every entry's key begins with. The only other key beside the entries is the expiry index's name, and stands
/// behind them.
pub(crate) const ENTRY_PREFIX: &[u8] = b"cache:";

pub(crate) type Table = Database<'static, Bytes, Bytes>;

/// An open environment with its two databases.
pub(crate) struct Lmdb {
    pub(crate) env: Env<WithTls>,
    /// Key → record. The unnamed database: so there is one tree to look into, and no name.
    pub(crate) entries: Table,
    /// When an entry may end, and its key's hash → key.
    pub(crate) expiry: Table,
}

impl Lmdb {
    /// Opens the environment in a folder. `may_create` only where nobody else has it open: creating waits for other
    /// writers, and one of them may be stopped.
    pub(crate) fn open(folder: &Path, map_bytes: usize, may_create: bool) -> heed::Result<Self> {
        let mut options = EnvOpenOptions::new();
        options
            .map_size(map_bytes)
            .max_readers(MAX_READERS)
            .max_dbs(DATABASES);
        // SAFETY: without NO_LOCK, WRITE_MAP and NO_TLS these flags lose what was not synced when the machine stops, no
        // more: a store that was not closed orderly before another boot is emptied before it is opened. The file is mapped
        // read-only; the first opener has walked it, nobody of Larder shortens it while it is open, and it lies in a folder of
        // this user alone.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC);
            options.open(folder)?
        };
        let (entries, expiry) = if may_create {
            create(&env)?
        } else {
            open(&env)?
        };
        Ok(Self {
            env,
            entries,
            expiry,
        })
    }

    /// Makes a transaction one that changed something.
    pub(crate) fn touch(&self, txn: &mut RwTxn<'_>) -> heed::Result<()> {
        // Before any time that an entry ends at.
        const PLACE: [u8; 16] = [0; 16];
        self.expiry.put(txn, &PLACE, b"-")?;
        self.expiry.delete(txn, &PLACE)?;
        Ok(())
    }

    /// How many entries there are, expired ones included.
    pub(crate) fn len(&self, txn: &RoTxn<'_>) -> heed::Result<u64> {
        // The name of the expiry index is one too.
        Ok(self.entries.len(txn)?.saturating_sub(1))
    }

    /// The pages that both databases fill.
    pub(crate) fn live_pages(&self, txn: &RoTxn<'_>) -> heed::Result<usize> {
        Ok(pages(&self.entries.stat(txn)?) + pages(&self.expiry.stat(txn)?))
    }
}

fn pages(stat: &DatabaseStat) -> usize {
    stat.branch_pages + stat.leaf_pages + stat.overflow_pages
}

fn create(env: &Env<WithTls>) -> heed::Result<(Table, Table)> {
    let txn: RwTxn<'_> = env.write_txn()?;
    let created = env.create_databases_and_commit(txn, |opener, txn| {
        let entries = opener.create_database::<Bytes, Bytes>(txn, None)?;
        let expiry = opener.create_database::<Bytes, Bytes>(txn, Some("expiry"))?;
        heed::Result::Ok(CommitOrAbort::<_, ()>::Commit((entries, expiry)))
    })?;
    match created {
        CommitOrAbort::Commit(tables) => Ok(tables),
        CommitOrAbort::Abort(()) => Err(heed::MdbError::NotFound.into()),
    }
}

fn open(env: &Env<WithTls>) -> heed::Result<(Table, Table)> {
    let txn = env.read_txn()?;
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let entries = opener.open_database::<Bytes, Bytes>(txn, None)?;
        let expiry = opener.open_database::<Bytes, Bytes>(txn, Some("expiry"))?;
        heed::Result::Ok(match (entries, expiry) {
            (Some(entries), Some(expiry)) => CommitOrAbort::Commit((entries, expiry)),
            _ => CommitOrAbort::Abort(()),
        })
    })?;
    match opened {
        CommitOrAbort::Commit(tables) => Ok(tables),
        CommitOrAbort::Abort(()) => Err(heed::MdbError::NotFound.into()),
    }
}
