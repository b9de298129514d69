//! LMDB, opened.

#![allow(unsafe_code)]

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithTls};

/// More than a process of Larder and its neighbours have threads.
pub(crate) const MAX_READERS: u32 = 2_048;
/// The databases that have a name: each stands as a key beside the entries.
pub(crate) const NAMED: [&str; 3] = ["expiry", "leases", "versions"];
/// What every entry's key begins with. The only other keys beside the entries are the named databases', and stand
/// behind them.
pub(crate) const ENTRY_PREFIX: &[u8] = b"cache:";

pub(crate) type Table = Database<'static, Bytes, Bytes>;

/// An open environment with its databases.
pub(crate) struct Lmdb {
    pub(crate) env: Env<WithTls>,
    /// Key → record. The unnamed database: so there is one tree to look into, and no name.
    pub(crate) entries: Table,
    /// When an entry may end, and its key's hash → key.
    pub(crate) expiry: Table,
    /// Entry's key → who may fill it. Outside the entries, so that no scan, no clear and no eviction meets them.
    pub(crate) leases: Table,
    /// What entries depend on → its version.
    pub(crate) versions: Table,
}

impl Lmdb {
    /// Opens the environment in a folder. `may_create` only where nobody else has it open: creating waits for other
    /// writers, and one of them may be stopped.
    pub(crate) fn open(folder: &Path, map_bytes: usize, may_create: bool) -> heed::Result<Self> {
        let mut options = EnvOpenOptions::new();
        options
            .map_size(map_bytes)
            .max_readers(MAX_READERS)
            .max_dbs(NAMED.len() as u32);
        // SAFETY: without NO_LOCK, WRITE_MAP and NO_TLS these flags lose what was not synced when the machine stops, no
        // more: a store that was not closed orderly before another boot is emptied before it is opened. The file is mapped
        // read-only; the first opener has walked it, nobody of Larder shortens it while it is open, and it lies in a folder of
        // this user alone.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC);
            options.open(folder)?
        };
        let [entries, expiry, leases, versions] = if may_create {
            create(&env)?
        } else {
            open(&env)?
        };
        Ok(Self {
            env,
            entries,
            expiry,
            leases,
            versions,
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
        // The names of the other databases are some too.
        Ok(self.entries.len(txn)?.saturating_sub(NAMED.len() as u64))
    }

    /// The pages that all databases fill.
    pub(crate) fn live_pages(&self, txn: &RoTxn<'_>) -> heed::Result<usize> {
        let all = [self.entries, self.expiry, self.leases, self.versions];
        all.iter().map(|table| pages(table, txn)).sum()
    }
}

/// The pages that a database fills.
pub(crate) fn pages(table: &Table, txn: &RoTxn<'_>) -> heed::Result<usize> {
    let stat = table.stat(txn)?;
    Ok(stat.branch_pages + stat.leaf_pages + stat.overflow_pages)
}

/// The entries, and those of [`NAMED`].
type Tables = [Table; 1 + NAMED.len()];

fn create(env: &Env<WithTls>) -> heed::Result<Tables> {
    let txn: RwTxn<'_> = env.write_txn()?;
    let created = env.create_databases_and_commit(txn, |opener, txn| {
        let mut create = |name| opener.create_database::<Bytes, Bytes>(txn, name);
        let entries = create(None)?;
        let [expiry, leases, versions] = NAMED.map(|name| create(Some(name)));
        let tables = [entries, expiry?, leases?, versions?];
        heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(tables))
    })?;
    match created {
        CommitOrAbort::Commit(tables) => Ok(tables),
        CommitOrAbort::Abort(()) => Err(heed::MdbError::NotFound.into()),
    }
}

fn open(env: &Env<WithTls>) -> heed::Result<Tables> {
    let txn = env.read_txn()?;
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let open = |name| opener.open_database::<Bytes, Bytes>(txn, name);
        let entries = open(None)?;
        let [expiry, leases, versions] = NAMED.map(|name| open(Some(name)));
        heed::Result::Ok(match (entries, expiry?, leases?, versions?) {
            (Some(entries), Some(expiry), Some(leases), Some(versions)) => {
                CommitOrAbort::Commit([entries, expiry, leases, versions])
            }
            _ => CommitOrAbort::Abort(()),
        })
    })?;
    match opened {
        CommitOrAbort::Commit(tables) => Ok(tables),
        CommitOrAbort::Abort(()) => Err(heed::MdbError::NotFound.into()),
    }
}
