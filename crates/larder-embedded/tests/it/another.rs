//! Another process that has the store open, and does what it is told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_core::{
    Acquired, Beside, ClearMode, Cursor, Deleted, FillRight, Guard, Key, Lease, NewEntry, Page,
    Pattern, Proof, Released, Service, Store, StoreError, StoreFuture, StoreStats, Stored, Tag,
    Told, Ttl, VersionName, Written,
};
use larder_embedded::EmbeddedStore;

use crate::support::{Place, Process, listen, options, role, runtime, say};

/// The other process. Of a store's operations it does those that change something.
pub(crate) struct Another {
    process: Mutex<Process>,
}

impl Another {
    pub(crate) fn start(place: &Place) -> Arc<Self> {
        let mut process = Process::start("another::serve", "another", &place.folder);
        process.expect("serves");
        Arc::new(Self {
            process: Mutex::new(process),
        })
    }

    /// Has something done; answers what the other process says of it.
    pub(crate) fn ask(&self, what: &str) -> String {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.tell(what);
        process.hear().expect("it serves")
    }
}

/// What is told stands in words; the last one may have blanks.
fn serve_one(store: &EmbeddedStore, leases: &mut Vec<Lease>, line: &str) -> String {
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap_or_default();
    let (what, name, rest) = (word(), word(), word());
    let key = || Key::parse(name).unwrap();
    let set = |guard| {
        let entry = NewEntry {
            key: key(),
            bytes: rest.as_bytes().to_vec().into(),
            ttl: Ttl::MAX,
            guard,
        };
        runtime().block_on(async { format!("{:?}", store.set(entry).await.unwrap()) })
    };
    let lease_of = |leases: &[Lease]| {
        let own = leases.iter().rfind(|lease| lease.key == key());
        own.unwrap().clone()
    };
    match what {
        "set" => set(Guard::Always),
        "fill" => set(Guard::Lease(FillRight::new(), lease_of(leases))),
        "delete" => runtime().block_on(async {
            match store.delete(&[key()]).await {
                Ok(deleted) => deleted.entries.to_string(),
                Err(error) => error.to_string(),
            }
        }),
        "clear" => runtime().block_on(async {
            let pattern = Pattern::parse(name).unwrap();
            let cleared = store.clear(&pattern, ClearMode::Delete).await;
            cleared.unwrap().entries.to_string()
        }),
        "acquire" => runtime().block_on(async {
            let time = Duration::from_secs(3_600);
            match store.acquire(&[key()], time).await.unwrap().remove(0) {
                Acquired::Granted { lease, .. } => {
                    leases.push(lease);
                    "granted".to_owned()
                }
                Acquired::Held { .. } => "held".to_owned(),
                Acquired::Uncached { .. } => "uncached".to_owned(),
            }
        }),
        "release" => runtime().block_on(async {
            let released = store.release(&[lease_of(leases)], Released::Failed).await;
            format!("{:?}", released.unwrap())
        }),
        "renew" => runtime().block_on(async {
            let tag = VersionName::Tag(Tag::new(rest).unwrap());
            store
                .renew(&Service::new(name).unwrap(), &[tag])
                .await
                .unwrap();
            "renewed".to_owned()
        }),
        _ => panic!("{line}"),
    }
}

#[test]
fn serve() {
    let Some(folder) = role("another") else {
        return;
    };
    let store = EmbeddedStore::open(&folder, options()).unwrap();
    let mut leases = Vec::new();
    say("serves");
    loop {
        let line = listen();
        say(&serve_one(&store, &mut leases, &line));
    }
}

fn undone<T>() -> StoreFuture<'static, T> {
    StoreFuture::ready(Err(StoreError::Refused("only changes are served".into())))
}

/// What the contract of proofs asks of the other one.
impl Store for Another {
    fn set(&self, entry: NewEntry) -> StoreFuture<'_, Written> {
        let value = String::from_utf8(entry.bytes.to_vec()).unwrap();
        let said = self.ask(&format!("set {} {value}", entry.key));
        assert_eq!(said, "Stored");
        StoreFuture::ready(Ok(Written::Stored))
    }

    fn delete(&self, keys: &[Key]) -> StoreFuture<'_, Deleted> {
        let mut entries = 0;
        for key in keys {
            entries += self.ask(&format!("delete {key}")).parse::<u64>().unwrap();
        }
        StoreFuture::ready(Ok(Deleted { entries }))
    }

    fn clear(&self, pattern: &Pattern, _mode: ClearMode) -> StoreFuture<'_, Deleted> {
        let entries = self.ask(&format!("clear {pattern}")).parse().unwrap();
        StoreFuture::ready(Ok(Deleted { entries }))
    }

    fn get(&self, _key: &Key, _longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        undone()
    }

    fn get_many(&self, _keys: &[Key], _longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        undone()
    }

    fn set_many(&self, _entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        undone()
    }

    fn acquire(&self, _keys: &[Key], _time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        undone()
    }

    fn extend(&self, _leases: &[Lease], _time: Duration) -> StoreFuture<'_, Vec<bool>> {
        undone()
    }

    fn release(&self, _leases: &[Lease], _released: Released) -> StoreFuture<'_, Vec<bool>> {
        undone()
    }

    fn versions(&self, _service: &Service, _names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        undone()
    }

    fn renew(&self, _service: &Service, _names: &[VersionName]) -> StoreFuture<'_, ()> {
        undone()
    }

    fn beside(&self, _key: &Key, _names: &[VersionName]) -> StoreFuture<'_, Beside> {
        undone()
    }

    fn holds(&self, _proof: &Proof) -> bool {
        false
    }

    fn changed(&self, _proof: Proof, _most: Duration) -> StoreFuture<'_, ()> {
        undone()
    }

    fn incarnation(&self, _key: &Key) -> u64 {
        0
    }

    fn scan(
        &self,
        _pattern: Option<&Pattern>,
        _after: Option<Cursor>,
        _limit: usize,
    ) -> StoreFuture<'_, Page> {
        undone()
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        undone()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        undone()
    }

    fn name(&self) -> String {
        "another process".to_owned()
    }
}
