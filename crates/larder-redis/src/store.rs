//! The store.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    ClearMode, Cursor, Deleted, Key, NewEntry, Page, Pattern, ScannedEntry, Skip, Store,
    StoreError, StoreFuture, StoreStats, Stored, Ttl, Written,
};

use crate::command::{Command, Expect};
use crate::lives::Lives;
use crate::node::{Node, Options, seed};
use crate::probe::shown_bytes;
use crate::resp::Value;
use crate::survey::{self, Survey};
use crate::url::RedisUrl;

/// So many keys are asked for by one command at the most.
const BATCH: usize = 500;
/// So many bytes of values are sent in one batch, unless a single value has more.
const BATCH_BYTES: usize = 8 << 20;
/// How many keys a server looks at for one answer to `SCAN`.
const SCAN_COUNT: &[u8] = b"1000";

/// A store on one Redis or Valkey server.
pub struct RedisStore {
    node: Node,
    lives: Lives,
}

impl RedisStore {
    /// Begins to connect, and returns at once; the server is used as soon as it is there. Needs a Tokio runtime, on which
    /// the connection then lives.
    #[must_use]
    pub fn connect(url: RedisUrl, options: Options) -> Self {
        Self {
            node: Node::start(url, options),
            lives: Lives::new(seed()),
        }
    }

    /// What each of its servers tells of itself, for one who looks after them. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] if one does not answer. What it refuses to tell this user is left open.
    pub async fn survey(&self) -> Result<Vec<Survey>, StoreError> {
        Ok(vec![survey::take(&self.node).await?])
    }

    /// One command, one reply.
    async fn ask(&self, arguments: &[&[u8]], expect: Expect) -> Result<Value, StoreError> {
        match self.node.ask_one(Command::new(arguments, expect)).await? {
            Some(Value::Error(error)) => Err(StoreError::Refused(shown_bytes(&error))),
            Some(value) => Ok(value),
            None => Err(StoreError::Refused("no reply".to_owned())),
        }
    }

    async fn read(&self, key: &Key, longest: Ttl) -> Result<Option<Stored>, StoreError> {
        let text = key.as_str().as_bytes();
        let get: [&[u8]; 2] = [b"GET", text];
        let get = Command::new(&get, Expect::Text);
        if self.lives.is_short(key, longest.get()) {
            return stored(self.node.ask_one(get).await?, None);
        }
        // In this order: what is written in between then seems older, never younger.
        let pttl: [&[u8]; 2] = [b"PTTL", text];
        let pttl = Command::new(&pttl, Expect::Integer);
        let mut values = self.node.ask(&[pttl, get]).await?.into_iter().flatten();
        let life = self.settle_life(key, longest, values.next().as_ref());
        stored(values.next(), life)
    }

    /// What is left of an entry's life. One that is longer than it may be is cut.
    fn settle_life(&self, key: &Key, longest: Ttl, pttl: Option<&Value>) -> Option<Duration> {
        let left = match pttl {
            Some(Value::Integer(-1)) => None,
            Some(Value::Integer(millis)) => {
                Some(Duration::from_millis(u64::try_from(*millis).ok()?))
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
        let known = if self.node.knows_lt() { 4 } else { 3 };
        self.node
            .tell(Command::new(&pexpire[..known], Expect::Integer));
    }

    async fn read_many(
        &self,
        keys: &[Key],
        longest: Ttl,
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            let mgets: Vec<Vec<&[u8]>> = keys
                .chunks(self.node.values_per_reply())
                .map(|keys| {
                    let texts = keys.iter().map(|key| key.as_str().as_bytes());
                    std::iter::once(&b"MGET"[..]).chain(texts).collect()
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
            commands.extend(mgets.iter().map(|mget| Command::new(mget, Expect::Array)));
            let mut values = self.node.ask(&commands).await?;
            let replies = values.split_off(unknown.len());
            for (key, pttl) in std::iter::zip(unknown, &values) {
                self.settle_life(key, longest, pttl.as_ref());
            }
            for (mget, reply) in std::iter::zip(&mgets, replies) {
                let found = match reply {
                    Some(Value::Array(found)) => found,
                    Some(Value::Error(error)) => {
                        return Err(StoreError::Refused(shown_bytes(&error)));
                    }
                    _ => Vec::new(),
                };
                let mut found = found.into_iter();
                for _ in &mget[1..] {
                    all.push(stored(found.next(), None)?);
                }
            }
        }
        Ok(all)
    }

    /// In batches; what comes behind one that failed is not begun, so that a server that hangs costs one deadline.
    async fn write_many(&self, entries: &[NewEntry]) -> Vec<Written> {
        let mut written = Vec::with_capacity(entries.len());
        for batch in batches(entries) {
            match self.write_batch(batch).await {
                Ok(batch) => written.extend(batch),
                Err(error) => {
                    written.extend(batch.iter().map(|_| Written::from(error.clone())));
                    break;
                }
            }
        }
        written.resize(entries.len(), StoreError::NotBegun.into());
        written
    }

    async fn write_batch(&self, entries: &[NewEntry]) -> Result<Vec<Written>, StoreError> {
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
        // What could not be read back is not written.
        let fits = |entry: &NewEntry| entry.bytes.len() <= self.node.max_value_bytes();
        let commands: Vec<Command<'_>> = std::iter::zip(entries, &setexs)
            .filter(|(entry, _)| fits(entry))
            .map(|(entry, setex)| Command {
                arguments: setex,
                expect: Expect::Ok,
                guard: Some(&entry.guard),
            })
            .collect();
        let mut values = self.node.ask(&commands).await?.into_iter();
        let settle = |entry| match fits(entry) {
            true => self.settle_write(entry, values.next().flatten()),
            false => Written::Skipped(Skip::TooLarge),
        };
        Ok(entries.iter().map(settle).collect())
    }

    fn settle_write(&self, entry: &NewEntry, value: Option<Value>) -> Written {
        match value {
            None => Written::Refused,
            Some(Value::Error(error)) => StoreError::Refused(shown_bytes(&error)).into(),
            Some(_) => {
                let life = Duration::from_secs(entry.ttl.as_secs());
                self.lives.note(&entry.key, life);
                Written::Stored
            }
        }
    }

    async fn delete_all<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<u64, StoreError> {
        let keys: Vec<&[u8]> = keys.collect();
        let mut entries = 0;
        for keys in keys.chunks(BATCH) {
            let mut unlink: Vec<&[u8]> = vec![b"UNLINK"];
            unlink.extend(keys);
            if let Value::Integer(count) = self.ask(&unlink, Expect::Integer).await? {
                entries += u64::try_from(count).unwrap_or(0);
            }
        }
        Ok(entries)
    }

    /// One step of a `SCAN`: the keys that it met, and where it goes on.
    async fn scan_step(
        &self,
        cursor: &[u8],
        pattern: &[u8],
    ) -> Result<(Vec<Bytes>, Bytes), StoreError> {
        let scan: [&[u8]; 6] = [b"SCAN", cursor, b"MATCH", pattern, b"COUNT", SCAN_COUNT];
        let reply = self.ask(&scan, Expect::Array).await?;
        let odd = || StoreError::Refused("SCAN gave an odd answer".to_owned());
        let Value::Array(parts) = reply else {
            return Err(odd());
        };
        let [Value::Text(next), Value::Array(keys)] = &parts[..] else {
            return Err(odd());
        };
        let texts = keys.iter().filter_map(|key| match key {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        });
        Ok((texts.collect(), next.clone()))
    }

    async fn clear_all(&self, pattern: &Pattern, mode: ClearMode) -> Result<Deleted, StoreError> {
        let mut cursor = Bytes::from_static(b"0");
        let mut entries = 0;
        // A scan may meet a key twice: deleted ones it can't, counted ones must not count twice.
        let mut counted = HashSet::new();
        let hasher = RandomState::new();
        for _ in 0..self.steps_of_a_scan().await? {
            let (keys, next) = self.scan_step(&cursor, pattern.as_str().as_bytes()).await?;
            match mode {
                ClearMode::Delete if !keys.is_empty() => {
                    entries += self.delete_all(keys.iter().map(|key| &key[..])).await?;
                }
                ClearMode::Delete => {}
                ClearMode::DryRun => counted.extend(keys.iter().map(|key| hasher.hash_one(key))),
            }
            if next == "0" {
                return Ok(Deleted {
                    entries: entries + counted.len() as u64,
                });
            }
            cursor = next;
        }
        Err(StoreError::Refused(
            "SCAN came to no end: not all entries were met".to_owned(),
        ))
    }

    /// More than a scan of this database takes, even of a table that has shrunk to a hundredth.
    async fn steps_of_a_scan(&self) -> Result<u64, StoreError> {
        match self.ask(&[b"DBSIZE"], Expect::Integer).await? {
            Value::Integer(keys) => Ok(10_000 + u64::try_from(keys).unwrap_or(0) / 10),
            _ => Ok(u64::MAX),
        }
    }

    async fn page(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
    ) -> Result<Page, StoreError> {
        let cursor = after.map_or_else(|| "0".to_owned(), |cursor| cursor.0);
        let pattern = pattern.map_or("cache:*", Pattern::as_str);
        let (keys, next) = self
            .scan_step(cursor.as_bytes(), pattern.as_bytes())
            .await?;
        let keys: Vec<Key> = keys
            .iter()
            .filter_map(|key| Key::parse(std::str::from_utf8(key).ok()?).ok())
            .collect();
        let mut entries = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH) {
            entries.extend(self.describe(keys).await?);
        }
        let next = (next != "0").then(|| Cursor(String::from_utf8_lossy(&next).into_owned()));
        Ok(Page { entries, next })
    }

    /// How long entries live and how large they are.
    async fn describe(&self, keys: &[Key]) -> Result<Vec<ScannedEntry>, StoreError> {
        let asked: Vec<[[&[u8]; 2]; 2]> = keys
            .iter()
            .map(|key| {
                let key = key.as_str().as_bytes();
                [[&b"PTTL"[..], key], [&b"STRLEN"[..], key]]
            })
            .collect();
        let commands: Vec<Command<'_>> = asked
            .iter()
            .flatten()
            .map(|command| Command::new(command, Expect::Integer))
            .collect();
        let values = self.node.ask(&commands).await?;
        let mut entries = Vec::with_capacity(keys.len());
        for (key, told) in std::iter::zip(keys, values.chunks(2)) {
            let number = |value: Option<&Option<Value>>| match value {
                Some(Some(Value::Integer(number))) => Some(*number),
                // A missing right, or a value of another type.
                _ => None,
            };
            let ttl = number(told.first());
            // It ended in between.
            if ttl == Some(-2) {
                continue;
            }
            let millis = ttl.and_then(|ttl| u64::try_from(ttl).ok());
            entries.push(ScannedEntry {
                key: key.clone(),
                ttl: millis.map(Duration::from_millis),
                bytes: number(told.get(1)).and_then(|bytes| u64::try_from(bytes).ok()),
            });
        }
        Ok(entries)
    }

    async fn read_stats(&self) -> Result<StoreStats, StoreError> {
        let info = Command::new(&[b"INFO"], Expect::Text);
        let dbsize = Command::new(&[b"DBSIZE"], Expect::Integer);
        let mut values = self.node.ask(&[info, dbsize]).await?.into_iter().flatten();
        let info = match values.next() {
            Some(Value::Text(info)) => String::from_utf8_lossy(&info).into_owned(),
            _ => String::new(),
        };
        let field = |name: &str| -> Option<u64> {
            let line = info.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(':')?.trim().parse().ok()
        };
        let entries = match values.next() {
            Some(Value::Integer(count)) => u64::try_from(count).ok(),
            _ => None,
        };
        Ok(StoreStats {
            entries,
            used_bytes: field("used_memory"),
            limit_bytes: field("maxmemory").filter(|limit| *limit > 0),
            hits: field("keyspace_hits"),
            misses: field("keyspace_misses"),
            evictions: field("evicted_keys"),
            expired: field("expired_keys"),
            damaged: None,
        })
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

/// What a `GET` found. Anything but a string that is short enough is as good as nothing.
fn stored(value: Option<Value>, ttl: Option<Duration>) -> Result<Option<Stored>, StoreError> {
    match value {
        Some(Value::Text(bytes)) => Ok(Some(Stored {
            bytes,
            ttl,
            foreign: true,
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
        StoreFuture::pending(async move {
            let mut written = self.write_batch(std::slice::from_ref(&entry)).await?;
            Ok(written.pop().unwrap_or(Written::Unknown))
        })
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
        self.node.close();
        StoreFuture::ready(Ok(()))
    }

    fn name(&self) -> String {
        self.node.url().to_string()
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
