//! Bare `heed`, as its documentation has it, with the flags of Larder's embedded store.

use std::path::Path;

use heed::types::Bytes as HeedBytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};
use larder_bench_load::{
    Act, Error, Key, Prepared, keys, nanos_each, requests, serve, value, values_to_set,
};

/// So many are put into one transaction.
const GROUP: usize = 128;
const MAP_BYTES: usize = 16 << 30;

fn main() -> Result<(), Error> {
    // As in a service, and as on Larder's side: in a process of one thread glibc's allocator takes no locks.
    std::thread::spawn(std::thread::park);
    serve(std::env::args().skip(1), |scene| {
        let all = keys(scene.keys)?;
        let requests = requests(scene.keys, scene.operations);
        let (act, value_bytes) = (scene.act, scene.value_bytes);
        let bare = Bare::open(Path::new(&scene.place))?;
        if scene.fill {
            bare.put_all(all.iter().map(|key| (key, value(key, value_bytes))))?;
        }
        let grown_bytes = bare.env.real_disk_size()?;
        let values = values_to_set(scene, &all);
        let round = move || {
            let mut result = Ok(());
            let nanos = nanos_each(requests.len(), || {
                let asked = requests.iter().map(|request| *request as usize);
                result = match act {
                    Act::Hit => bare.look_up(asked.map(|at| &all[at])),
                    Act::Set => bare.put_all(asked.map(|at| (&all[at], &values[at]))),
                };
            });
            result.map(|()| nanos)
        };
        Ok(Prepared { grown_bytes, round })
    })
}

struct Bare {
    env: Env,
    entries: Database<'static, HeedBytes, HeedBytes>,
}

impl Bare {
    fn open(folder: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(folder)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        // SAFETY: a folder of this benchmark alone, which loses nothing if the machine stops.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC);
            options.open(folder)?
        };
        let txn = env.write_txn()?;
        let created = env.create_databases_and_commit(txn, |opener, txn| {
            let entries = opener.create_database::<HeedBytes, HeedBytes>(txn, None)?;
            heed::Result::Ok(heed::CommitOrAbort::<_, ()>::Commit(entries))
        })?;
        let heed::CommitOrAbort::Commit(entries) = created else {
            return Err("the database was not made".into());
        };
        Ok(Self { env, entries })
    }

    fn put_all<'a>(
        &self,
        entries: impl Iterator<Item = (&'a Key, impl AsRef<[u8]>)>,
    ) -> Result<(), Error> {
        let mut entries = entries.peekable();
        while entries.peek().is_some() {
            let mut txn = self.env.write_txn()?;
            for (key, value) in entries.by_ref().take(GROUP) {
                self.entries
                    .put(&mut txn, key.as_str().as_bytes(), value.as_ref())?;
            }
            txn.commit()?;
        }
        Ok(())
    }

    fn look_up<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Result<(), Error> {
        for key in keys {
            let found = self.look_up_one(key)?;
            assert!(std::hint::black_box(found).is_some());
        }
        Ok(())
    }

    fn look_up_one(&self, key: &Key) -> Result<Option<Vec<u8>>, Error> {
        let txn = self.env.read_txn()?;
        Ok(self
            .entries
            .get(&txn, key.as_str().as_bytes())?
            .map(<[u8]>::to_vec))
    }
}
