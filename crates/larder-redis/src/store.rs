//! The store.

use std::time::Duration;

use larder_core::{
    Acquired, ClearMode, Cursor, Deleted, Key, Lease, NewEntry, Page, Pattern, Proof, Released,
    Service, Skip, Store, StoreError, StoreFuture, StoreStats, Stored, Told, Ttl, VersionName,
    Written,
};

use crate::command::{Command, Expect};
use crate::lives::Lives;
use crate::node::{Options, seed};
use crate::probe::shown_bytes;
use crate::resp::{Reader, Value};
use crate::servers::{Outcome, Servers};
use crate::survey::{self, Survey};
use crate::url::RedisUrl;

/// So many keys are asked for by one command at the most.
pub(crate) const BATCH: usize = 500;
/// So many bytes of values are sent in one batch, unless a single value has more.
const BATCH_BYTES: usize = 8 << 20;
/// A store on Redis or Valkey: one server, the master that Sentinels name, or the masters of a Cluster.
pub struct RedisStore {
    pub(crate) servers: Servers,
    lives: Lives,
    max_value_bytes: usize,
    /// How many values may be asked for by one command, so that its reply stays within its bounds.
    values_per_reply: usize,
}

impl RedisStore {
    /// Begins to connect, and returns at once; servers are used as soon as they are there. Needs a Tokio runtime, on which
    /// the connections then live.
    #[must_use]
    pub fn connect(url: RedisUrl, options: Options) -> Self {
        Self {
            max_value_bytes: options.max_value_bytes,
            values_per_reply: Reader::strings_per_reply(options.max_string()),
            servers: Servers::start(url, options),
            lives: Lives::new(seed()),
        }
    }

    /// What each of its servers tells of itself, for one who looks after them. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] if one does not answer. What it refuses to tell this user is left open.
    pub async fn survey(&self) -> Result<Vec<Survey>, StoreError> {
        let mut surveys = Vec::new();
        for node in self.servers.all().await? {
            surveys.push(survey::take(&node).await?);
        }
        Ok(surveys)
    }

    async fn read(&self, key: &Key, longest: Ttl) -> Result<Option<Stored>, StoreError> {
        let text = key.as_str().as_bytes();
        let get: [&[u8]; 2] = [b"GET", text];
        let get = Command::new(&get, Expect::Text);
        if self.lives.is_short(key, longest.get()) {
            return stored(self.servers.ask_one(get).await?, None);
        }
        // In this order: what is written in between then seems older, never younger.
        let pttl: [&[u8]; 2] = [b"PTTL", text];
        let pttl = Command::new(&pttl, Expect::Integer);
        let mut outcomes = self.servers.ask(&[pttl, get]).await;
        let get = outcomes.pop().unwrap_or(Ok(None))?;
        let life = self.settle_life(key, longest, outcomes.pop());
        stored(get, life)
    }

    /// What is left of an entry's life. One that is longer than it may be is cut.
    fn settle_life(&self, key: &Key, longest: Ttl, pttl: Option<Outcome>) -> Option<Duration> {
        let left = match pttl {
            Some(Ok(Some(Value::Integer(-1)))) => None,
            Some(Ok(Some(Value::Integer(millis)))) => {
                Some(Duration::from_millis(u64::try_from(millis).ok()?))
            }
            // Not told (a missing right, say), or there is no entry.
            _ => return None,
        };
        match left {
            Some(left) if left <= longest.get() => {
                self.lives.note(key, left);
                Some(left)
            }
            // Who only looks changes nothing.
            None if longest == Ttl::MAX => None,
            _ => {
                self.cut(key, longest);
                Some(longest.get())
            }
        }
    }

    /// Shortens an entry's life, without waiting for it.
    fn cut(&self, key: &Key, longest: Ttl) {
        let millis = longest.as_millis().to_string();
        let pexpire: [&[u8]; 4] = [
            b"PEXPIRE",
            key.as_str().as_bytes(),
            millis.as_bytes(),
            // Never lengthens a life that was shortened in between.
            b"LT",
        ];
        self.servers.tell(key.as_str().as_bytes(), |node| {
            let known = if node.knows_lt() { 4 } else { 3 };
            node.tell(Command::new(&pexpire[..known], Expect::Integer));
        });
    }

    async fn read_many(
        &self,
        keys: &[Key],
        longest: Ttl,
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            self.read_batch(keys, longest, &mut all).await?;
        }
        Ok(all)
    }

    /// Reads keys together. What a server that is away has in a Cluster is missing; it is an error where nothing can be read.
    async fn read_batch(
        &self,
        keys: &[Key],
        longest: Ttl,
        all: &mut Vec<Option<Stored>>,
    ) -> Result<(), StoreError> {
        let together = self.servers.keys_per_command().min(self.values_per_reply);
        let reads: Vec<Vec<&[u8]>> = keys
            .chunks(together)
            .map(|keys| {
                let word: &[u8] = if keys.len() == 1 { b"GET" } else { b"MGET" };
                let texts = keys.iter().map(|key| key.as_str().as_bytes());
                std::iter::once(word).chain(texts).collect()
            })
            .collect();
        let unknown: Vec<&Key> = keys
            .iter()
            .filter(|key| !self.lives.is_short(key, longest.get()))
            .collect();
        let pttls: Vec<[&[u8]; 2]> = unknown
            .iter()
            .map(|key| [&b"PTTL"[..], key.as_str().as_bytes()])
            .collect();
        let mut commands: Vec<Command<'_>> = pttls
            .iter()
            .map(|command| Command::new(command, Expect::Integer))
            .collect();
        commands.extend(reads.iter().map(|read| {
            let expect = match read.len() {
                2 => Expect::Text,
                _ => Expect::Array,
            };
            Command::new(read, expect)
        }));
        let mut outcomes = self.servers.ask(&commands).await;
        let replies = outcomes.split_off(unknown.len());
        for (key, pttl) in std::iter::zip(unknown, outcomes) {
            self.settle_life(key, longest, Some(pttl));
        }
        let mut failure = None;
        let mut is_any_read = keys.is_empty();
        for (read, reply) in std::iter::zip(&reads, replies) {
            let mut found = match reply.and_then(found) {
                Ok(found) => {
                    is_any_read = true;
                    found.into_iter()
                }
                Err(error) => {
                    failure = Some(error);
                    Vec::new().into_iter()
                }
            };
            all.extend(read[1..].iter().map(|_| found.next().flatten()));
        }
        match failure.filter(|_| !is_any_read) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// In batches; what comes behind one without an answer, or of which none could be sent, is not begun, so that a server
    /// that hangs costs one deadline.
    async fn write_many(&self, entries: &[NewEntry]) -> Vec<Written> {
        let mut written = Vec::with_capacity(entries.len());
        for batch in batches(entries) {
            let outcomes = self.write_batch(batch).await;
            let is_failed = |outcome: &Written| matches!(outcome, Written::Skipped(Skip::Store(_)));
            let is_over = outcomes.contains(&Written::Unknown) || outcomes.iter().all(is_failed);
            written.extend(outcomes);
            if is_over {
                break;
            }
        }
        written.resize(entries.len(), StoreError::NotBegun.into());
        written
    }

    async fn write_one(&self, entry: &NewEntry) -> Result<Written, StoreError> {
        if !self.fits(entry) {
            return Ok(Written::Skipped(Skip::TooLarge));
        }
        let seconds = entry.ttl.as_secs().to_string();
        let key = entry.key.as_str().as_bytes();
        let setex: [&[u8]; 4] = [b"SETEX", key, seconds.as_bytes(), &entry.bytes];
        let setex = Command {
            arguments: &setex,
            expect: Expect::Ok,
            guard: Some(&entry.guard),
        };
        let outcome = self.servers.ask_one(setex).await?;
        Ok(self.settle_write(entry, Ok(outcome)))
    }

    /// What could not be read back is not written.
    fn fits(&self, entry: &NewEntry) -> bool {
        entry.bytes.len() <= self.max_value_bytes
    }

    async fn write_batch(&self, entries: &[NewEntry]) -> Vec<Written> {
        let seconds: Vec<String> = entries
            .iter()
            .map(|entry| entry.ttl.as_secs().to_string())
            .collect();
        let setexs: Vec<[&[u8]; 4]> = std::iter::zip(entries, &seconds)
            .map(|(entry, seconds)| {
                let key = entry.key.as_str().as_bytes();
                [&b"SETEX"[..], key, seconds.as_bytes(), &entry.bytes]
            })
            .collect();
        let commands: Vec<Command<'_>> = std::iter::zip(entries, &setexs)
            .filter(|(entry, _)| self.fits(entry))
            .map(|(entry, setex)| Command {
                arguments: setex,
                expect: Expect::Ok,
                guard: Some(&entry.guard),
            })
            .collect();
        let mut outcomes = self.servers.ask(&commands).await.into_iter();
        let settle = |entry| match self.fits(entry) {
            true => self.settle_write(entry, outcomes.next().unwrap_or(Ok(None))),
            false => Written::Skipped(Skip::TooLarge),
        };
        entries.iter().map(settle).collect()
    }

    fn settle_write(&self, entry: &NewEntry, outcome: Outcome) -> Written {
        match outcome {
            Err(error) => error.into(),
            Ok(None) => Written::Refused,
            Ok(Some(Value::Error(error))) => StoreError::Refused(shown_bytes(&error)).into(),
            Ok(Some(_)) => {
                let life = Duration::from_secs(entry.ttl.as_secs());
                self.lives.note(&entry.key, life);
                Written::Stored
            }
        }
    }

    /// Deletes what can be deleted; an error if that is not all.
    pub(crate) async fn delete_all<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<u64, StoreError> {
        let keys: Vec<&[u8]> = keys.collect();
        let together = self.servers.keys_per_command().min(BATCH);
        let mut entries = 0;
        let mut failures = Vec::new();
        for keys in keys.chunks(BATCH) {
            let unlinks: Vec<Vec<&[u8]>> = keys
                .chunks(together)
                .map(|keys| {
                    std::iter::once(&b"UNLINK"[..])
                        .chain(keys.iter().copied())
                        .collect()
                })
                .collect();
            let commands = unlinks
                .iter()
                .map(|unlink| Command::new(unlink, Expect::Integer));
            let commands: Vec<Command<'_>> = commands.collect();
            for outcome in self.servers.ask(&commands).await {
                match outcome {
                    Ok(Some(Value::Integer(count))) => entries += u64::try_from(count).unwrap_or(0),
                    Ok(Some(Value::Error(error))) => {
                        failures.push(StoreError::Refused(shown_bytes(&error)));
                    }
                    Ok(_) => failures.push(StoreError::Refused("no reply".to_owned())),
                    Err(error) => failures.push(error),
                }
            }
            // A server that is away costs nothing, one that hangs a deadline.
            if failures.iter().any(StoreError::may_have_happened) {
                break;
            }
        }
        let worst = failures.iter().position(StoreError::may_have_happened);
        match failures.into_iter().nth(worst.unwrap_or(0)) {
            Some(failure) => Err(failure),
            None => Ok(entries),
        }
    }
}

/// The entries in parts, each small enough to be on its way at once.
fn batches(mut entries: &[NewEntry]) -> impl Iterator<Item = &[NewEntry]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |entry: &&NewEntry| {
            bytes += entry.bytes.len();
            bytes <= BATCH_BYTES
        };
        let count = entries.iter().take(BATCH).take_while(fits).count().max(1);
        let batch;
        (batch, entries) = entries.split_at_checked(count)?;
        Some(batch)
    })
}

/// What a `GET` or an `MGET` found.
fn found(value: Option<Value>) -> Result<Vec<Option<Stored>>, StoreError> {
    match value {
        Some(Value::Array(values)) => {
            let values = values.into_iter();
            values.map(|value| stored(Some(value), None)).collect()
        }
        value => Ok(vec![stored(value, None)?]),
    }
}

/// What a `GET` found. Anything but a string that is short enough is as good as nothing.
fn stored(value: Option<Value>, ttl: Option<Duration>) -> Result<Option<Stored>, StoreError> {
    match value {
        Some(Value::Text(bytes)) => Ok(Some(Stored {
            bytes,
            ttl,
            foreign: true,
            incarnation: 0,
            proof: None,
        })),
        Some(Value::Error(error)) if !error.starts_with(b"WRONGTYPE") => {
            Err(StoreError::Refused(shown_bytes(&error)))
        }
        _ => Ok(None),
    }
}

impl Store for RedisStore {
    fn get(&self, key: &Key, longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        let key = key.clone();
        StoreFuture::pending(async move { self.read(&key, longest).await })
    }

    fn get_many(&self, keys: &[Key], longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        let keys = keys.to_vec();
        StoreFuture::pending(async move { self.read_many(&keys, longest).await })
    }

    fn set(&self, entry: NewEntry) -> StoreFuture<'_, Written> {
        StoreFuture::pending(async move { self.write_one(&entry).await })
    }

    fn set_many(&self, entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        StoreFuture::pending(async move { Ok(self.write_many(&entries).await) })
    }

    fn delete(&self, keys: &[Key]) -> StoreFuture<'_, Deleted> {
        let keys = keys.to_vec();
        StoreFuture::pending(async move {
            let texts = keys.iter().map(|key| key.as_str().as_bytes());
            let entries = self.delete_all(texts).await?;
            Ok(Deleted { entries })
        })
    }

    fn clear(&self, pattern: &Pattern, mode: ClearMode) -> StoreFuture<'_, Deleted> {
        let pattern = pattern.clone();
        StoreFuture::pending(async move { self.clear_all(&pattern, mode).await })
    }

    fn acquire(&self, keys: &[Key], _time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        let grant = |key: &Key| Acquired::Granted {
            lease: Lease {
                key: key.clone(),
                token: 0,
                incarnation: 0,
                expected: None,
            },
            found: None,
        };
        StoreFuture::ready(Ok(keys.iter().map(grant).collect()))
    }

    fn extend(&self, leases: &[Lease], _time: Duration) -> StoreFuture<'_, Vec<bool>> {
        StoreFuture::ready(Ok(vec![true; leases.len()]))
    }

    fn release(&self, leases: &[Lease], _released: Released) -> StoreFuture<'_, Vec<bool>> {
        StoreFuture::ready(Ok(vec![true; leases.len()]))
    }

    fn versions(&self, _service: &Service, _names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        StoreFuture::ready(Err(StoreError::NotBegun))
    }

    fn renew(&self, _service: &Service, _names: &[VersionName]) -> StoreFuture<'_, ()> {
        StoreFuture::ready(Err(StoreError::NotBegun))
    }

    fn holds(&self, _proof: &Proof) -> bool {
        false
    }

    fn changed(&self, _proof: Proof, _most: Duration) -> StoreFuture<'_, ()> {
        StoreFuture::ready(Ok(()))
    }

    fn incarnation(&self, _key: &Key) -> u64 {
        0
    }

    fn scan(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
        _limit: usize,
    ) -> StoreFuture<'_, Page> {
        let pattern = pattern.cloned();
        StoreFuture::pending(async move { self.page(pattern.as_ref(), after).await })
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        StoreFuture::pending(self.read_stats())
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.servers.close();
        StoreFuture::ready(Ok(()))
    }

    fn name(&self) -> String {
        self.servers.url().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_core::Guard;

    use super::*;

    #[test]
    fn a_batch_has_no_more_entries_and_bytes_than_may_be_on_their_way() {
        let entries = |count: usize, bytes: usize| -> Vec<NewEntry> {
            let entry = NewEntry {
                key: Key::new("svc", "/a").unwrap(),
                bytes: vec![b'1'; bytes].into(),
                ttl: Ttl::new(Duration::from_secs(1)).unwrap(),
                guard: Guard::Always,
            };
            vec![entry; count]
        };
        let sizes = |count, bytes| -> Vec<usize> {
            batches(&entries(count, bytes)).map(<[_]>::len).collect()
        };
        assert!(sizes(0, 1).is_empty());
        assert_eq!(sizes(1_001, 1), [500, 500, 1]);
        assert_eq!(sizes(20, 1 << 20), [8, 8, 4]);
        assert_eq!(sizes(2, 9 << 20), [1, 1]);
    }
}
