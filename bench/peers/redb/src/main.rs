//! `redb` without durability, which is how it is fastest.

use std::path::Path;

use larder_bench_load::{
    Act, Error, Key, Prepared, keys, nanos_each, requests, serve, value, values_to_set,
};
use redb::{Database, Durability, ReadableDatabase as _, TableDefinition};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
/// So many are put into one transaction.
const GROUP: usize = 128;

fn main() -> Result<(), Error> {
    serve(std::env::args().skip(1), |scene| {
        let all = keys(scene.keys)?;
        let requests = requests(scene.keys, scene.operations);
        let (act, value_bytes) = (scene.act, scene.value_bytes);
        std::fs::create_dir_all(&scene.place)?;
        let file = Path::new(&scene.place).join("entries.redb");
        let database = Database::builder().create(&file)?;
        if scene.fill {
            put_all(
                &database,
                all.iter().map(|key| (key, value(key, value_bytes))),
            )?;
        }
        let grown_bytes = std::fs::metadata(&file)?.len();
        let values = values_to_set(scene, &all);
        let round = move || {
            let mut result = Ok(());
            let nanos = nanos_each(requests.len(), || {
                let asked = requests.iter().map(|request| *request as usize);
                result = match act {
                    Act::Hit => look_up(&database, asked.map(|at| &all[at])),
                    Act::Set => put_all(&database, asked.map(|at| (&all[at], &values[at]))),
                };
            });
            result.map(|()| nanos)
        };
        Ok(Prepared { grown_bytes, round })
    })
}

fn put_all<'a>(
    database: &Database,
    entries: impl Iterator<Item = (&'a Key, impl AsRef<[u8]>)>,
) -> Result<(), Error> {
    let mut entries = entries.peekable();
    while entries.peek().is_some() {
        let mut txn = database.begin_write()?;
        txn.set_durability(Durability::None)?;
        {
            let mut table = txn.open_table(ENTRIES)?;
            for (key, value) in entries.by_ref().take(GROUP) {
                table.insert(key.as_str().as_bytes(), value.as_ref())?;
            }
        }
        txn.commit()?;
    }
    Ok(())
}

fn look_up<'a>(database: &Database, keys: impl Iterator<Item = &'a Key>) -> Result<(), Error> {
    for key in keys {
        let entries = database.begin_read()?.open_table(ENTRIES)?;
        let found = entries
            .get(key.as_str().as_bytes())?
            .map(|found| found.value().to_vec());
        assert!(std::hint::black_box(found).is_some());
    }
    Ok(())
}
