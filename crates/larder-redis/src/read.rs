//! Reads: an entry with what is left of its life, asked for together.

use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_core::{Key, StoreError, Stored, Ttl};

use crate::changes::Taken;
use crate::command::{Command, Expect};
use crate::connection::Link;
use crate::probe::shown_bytes;
use crate::resp::Value;
use crate::servers::{Answer, Outcome};
use crate::store::{BATCH, RedisStore};

/// What is left of an entry's life.
#[derive(Clone, Copy)]
enum Left {
    For(Duration),
    Endless,
    /// Not told (a missing right, say), or there was no entry.
    Unknown,
}

impl Left {
    fn of(pttl: &Outcome, sent: Instant) -> Self {
        match pttl {
            Ok(Some(value)) => Self::read(value, sent),
            _ => Self::Unknown,
        }
    }

    /// By the answer to a `PTTL` that was sent at this instant.
    fn read(pttl: &Value, sent: Instant) -> Self {
        match pttl {
            Value::Integer(-1) => Self::Endless,
            Value::Integer(millis) => match u64::try_from(*millis) {
                // It was told at some time since.
                Ok(millis) => {
                    Self::For(Duration::from_millis(millis).saturating_sub(sent.elapsed()))
                }
                Err(_) => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

/// What is noted before a read is sent.
pub(crate) type Asked = (Option<Taken>, Instant);

impl RedisStore {
    pub(crate) async fn read(&self, key: &Key, longest: Ttl) -> Result<Option<Stored>, StoreError> {
        self.prepare(key).await?;
        let words = key.as_str().as_bytes();
        let (taken, sent) = (self.take_entry(key), Instant::now());
        // In this order: what is written in between then seems older, never younger.
        let (pttl, get): ([&[u8]; 2], [&[u8]; 2]) = ([b"PTTL", words], [b"GET", words]);
        let commands = [
            Command::new(&pttl, Expect::Integer),
            Command::new(&get, Expect::Text),
        ];
        let (link, [pttl, get]) = self.servers.ask_both(&commands).await?;
        let left = Left::read(&pttl, sent);
        let entry = |bytes| self.found(key, longest, (bytes, left), (link, taken));
        Ok(text(Some(get))?.and_then(entry))
    }

    /// What a `PTTL` and a `GET` found.
    pub(crate) fn settle_read(
        &self,
        key: &Key,
        longest: Ttl,
        (taken, sent): Asked,
        (pttl, get): (Answer, Answer),
    ) -> Result<Option<Stored>, StoreError> {
        let left = Left::of(&pttl.outcome, sent);
        let value = get.outcome?;
        Ok(match text(value)? {
            Some(bytes) => self.found(key, longest, (bytes, left), (get.link, taken)),
            None => None,
        })
    }

    /// Whether a text that was found is an entry of the present life of its server, or one that tells itself whether it is.
    pub(crate) fn is_believed(&self, key: &Key, bytes: &[u8], link: Link) -> bool {
        larder_core::is_framed(bytes) || self.changes.lives.is_swept(key.service(), link)
    }

    /// An entry that was found. One whose life is longer than it may be is cut.
    fn found(
        &self,
        key: &Key,
        longest: Ttl,
        (bytes, left): (Bytes, Left),
        (link, taken): (Link, Option<Taken>),
    ) -> Option<Stored> {
        if !self.is_believed(key, &bytes, link) {
            if !self.sweeps {
                tracing::warn!(
                    "{key} is there, but may be of another life of the server: it is not read until a service has removed those that are; where the services keep them, set LARDER_AFTER_FAILOVER=keep here, too"
                );
            }
            return None;
        }
        let is_too_long = match left {
            Left::For(left) => left > longest.get(),
            // Who only looks changes nothing.
            Left::Endless => longest < Ttl::MAX,
            Left::Unknown => false,
        };
        if is_too_long {
            self.cut(key, longest);
        }
        Some(Stored {
            framed: larder_core::is_framed(&bytes),
            bytes,
            ttl: match left {
                _ if is_too_long => Some(longest.get()),
                Left::For(left) => Some(left),
                Left::Endless | Left::Unknown => None,
            },
            foreign: true,
            incarnation: link.incarnation,
            // Whoever keeps it must know when it ends.
            proof: match left {
                Left::Unknown => None,
                Left::For(_) | Left::Endless => taken.and_then(|taken| taken.proof(link.id)),
            },
        })
    }

    /// Shortens an entry's life, without waiting for it: also that of one which another process wrote since, as the next read would.
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

    pub(crate) async fn read_many(
        &self,
        keys: &[Key],
        longest: Ttl,
    ) -> Result<Vec<Option<Stored>>, StoreError> {
        self.prepare_all(keys.iter()).await;
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
        let pttls: Vec<[&[u8]; 2]> = keys
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
        let taken = keys.iter().map(|key| self.take_entry(key));
        let (mut taken, sent) = (taken.collect::<Vec<_>>().into_iter(), Instant::now());
        let mut pttls = self.servers.ask_over(&commands).await;
        let replies = pttls.split_off(keys.len());
        let mut pttls = pttls.into_iter();
        let mut failure = None;
        let mut is_any_read = keys.is_empty();
        for (keys, reply) in std::iter::zip(keys.chunks(together), replies) {
            let link = reply.link;
            let found = reply.outcome.and_then(texts);
            let found = found.unwrap_or_else(|error| {
                failure = Some(error);
                Vec::new()
            });
            is_any_read |= !found.is_empty();
            let mut found = found.into_iter();
            for (key, pttl) in std::iter::zip(keys, pttls.by_ref()) {
                let left = Left::of(&pttl.outcome, sent);
                let told = (link, taken.next().flatten());
                let found = found.next().flatten();
                all.push(found.and_then(|bytes| self.found(key, longest, (bytes, left), told)));
            }
        }
        match failure.filter(|_| !is_any_read) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// What a `GET` or an `MGET` found.
fn texts(value: Option<Value>) -> Result<Vec<Option<Bytes>>, StoreError> {
    match value {
        Some(Value::Array(values)) => {
            let values = values.into_iter();
            values.map(|value| text(Some(value))).collect()
        }
        value => Ok(vec![text(value)?]),
    }
}

/// What a `GET` found. Anything but a string that is short enough is as good as nothing.
fn text(value: Option<Value>) -> Result<Option<Bytes>, StoreError> {
    match value {
        Some(Value::Text(bytes)) => Ok(Some(bytes)),
        Some(Value::Error(error)) if !error.starts_with(b"WRONGTYPE") => {
            Err(StoreError::Refused(shown_bytes(&error)))
        }
        _ => Ok(None),
    }
}
