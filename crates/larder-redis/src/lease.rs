//! Leases: a random token beside each entry that is being loaded, in the entry's slot.

use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use larder_core::mutants::{Guard, is_off};
use larder_core::{Acquired, Key, Lease, Released, StoreError, Ttl};

use crate::command::{Command, Expect};
use crate::probe::shown_bytes;
use crate::read::Asked;
use crate::resp::Value;
use crate::scripts::{self, Call, Script};
use crate::servers::Answer;
use crate::store::{BATCH, RedisStore, random_hex};

/// What lies in a lease's place for a moment, when its load ended with nothing that is stored.
pub(crate) const UNCACHED: &str = "done:none";
/// For so many milliseconds.
const UNCACHED_MILLIS: &[u8] = b"200";
/// Commands that ask for one lease.
const QUESTIONS: usize = 5;

/// Where the lease of an entry lies.
pub(crate) fn lease_key(entry: &str) -> String {
    format!("larder:lease:{{{entry}}}")
}

/// A token, as it lies in a server.
pub(crate) fn token_text(token: u128) -> String {
    format!("{token:032x}")
}

/// What a lease remembers of the moment in which it was granted: [`Lease::expected`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Expected {
    /// The number of the connection over which it was granted. The server behind another one may have lost the delete
    /// that came since, and kept the lease.
    pub(crate) over: u64,
    /// When the entry that was there ends, in milliseconds of the store's clock.
    ends: u64,
    entry: Found,
}

/// What lay in the entry's place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Found {
    #[default]
    Nothing,
    /// These bytes, by their SHA-1.
    Bytes([u8; 40]),
    /// What could not be read: a list, or too much.
    Anything,
}

impl Expected {
    fn write(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(56);
        bytes.put_u64(self.over);
        bytes.put_u64(self.ends);
        match &self.entry {
            Found::Nothing => {}
            Found::Bytes(digest) => bytes.put_slice(digest),
            Found::Anything => bytes.put_u8(b'*'),
        }
        bytes.freeze()
    }

    /// `None` if no store on Redis granted the lease.
    pub(crate) fn read(lease: &Lease) -> Option<Self> {
        let bytes = lease.expected.as_deref()?;
        let (over, bytes) = bytes.split_first_chunk()?;
        let (ends, bytes) = bytes.split_first_chunk()?;
        Some(Self {
            over: u64::from_be_bytes(*over),
            ends: u64::from_be_bytes(*ends),
            entry: match bytes {
                [] => Found::Nothing,
                [b'*'] => Found::Anything,
                digest => Found::Bytes(digest.try_into().ok()?),
            },
        })
    }

    /// What [`scripts::FILL`] takes: nothing, `*`, or a digest; with a `?` before it if the entry may have come to its
    /// own end since.
    pub(crate) fn argument(&self, now: u64) -> Vec<u8> {
        match &self.entry {
            _ if is_off(Guard::FillExpectsEntry) => b"*".to_vec(),
            Found::Nothing => Vec::new(),
            Found::Anything => b"*".to_vec(),
            Found::Bytes(digest) if now >= self.ends => [b"?", &digest[..]].concat(),
            Found::Bytes(digest) => digest.to_vec(),
        }
    }
}

impl RedisStore {
    pub(crate) async fn ask_for_leases(
        &self,
        keys: &[Key],
        time: Duration,
    ) -> Result<Vec<Acquired>, StoreError> {
        self.prepare_all(keys.iter()).await;
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(BATCH / QUESTIONS) {
            let acquired = self.ask_for_batch(keys, time).await;
            let is_over = acquired.iter().all(Result::is_err);
            all.extend(acquired);
            if is_over {
                break;
            }
        }
        if let Some(Err(error)) = all.first()
            && all.iter().all(Result::is_err)
        {
            return Err(error.clone());
        }
        // Where no lease can be had, who waited loads for itself, and fills nothing.
        let none = |_| Acquired::Uncached { found: None };
        let mut all: Vec<Acquired> = all
            .into_iter()
            .map(|acquired| acquired.unwrap_or_else(none))
            .collect();
        all.resize(keys.len(), Acquired::Uncached { found: None });
        Ok(all)
    }

    /// `GET`s behind the `SET`: only what is read is tracked.
    async fn ask_for_batch(
        &self,
        keys: &[Key],
        time: Duration,
    ) -> Vec<Result<Acquired, StoreError>> {
        let millis = Ttl::new(time).map_or(1, Ttl::as_millis).to_string();
        let asks: Vec<(u128, String, String)> = keys
            .iter()
            .map(|key| {
                let (token, text) = random_hex();
                (token, text, lease_key(key.as_str()))
            })
            .collect();
        let sets: Vec<[&[u8]; 6]> = asks
            .iter()
            .map(|(_, token, lease)| {
                let (lease, token) = (lease.as_bytes(), token.as_bytes());
                [b"SET", lease, token, b"NX", b"PX", millis.as_bytes()]
            })
            .collect();
        let reads: Vec<[[&[u8]; 2]; 4]> = std::iter::zip(keys, &asks)
            .map(|(key, (_, _, lease))| {
                let (entry, lease) = (key.as_str().as_bytes(), lease.as_bytes());
                [
                    [b"GET", lease],
                    [b"PTTL", lease],
                    [b"PTTL", entry],
                    [b"GET", entry],
                ]
            })
            .collect();
        let taken = keys
            .iter()
            .map(|key| self.servers.take(key.as_str().as_bytes()));
        let (taken, sent) = (taken.collect::<Vec<_>>(), Instant::now());
        let mut commands = Vec::with_capacity(keys.len() * QUESTIONS);
        for ((set, [lease, lease_left, left, entry]), taken) in sets.iter().zip(&reads).zip(&taken)
        {
            commands.extend([
                Command::new(set, Expect::Text),
                self.noted(Command::new(lease, Expect::Text), *taken),
                Command::new(lease_left, Expect::Integer),
                Command::new(left, Expect::Integer),
                self.noted(Command::new(entry, Expect::Text), *taken),
            ]);
        }
        let mut answers = self.servers.ask_over(&commands).await.into_iter();
        let mut acquired = Vec::with_capacity(keys.len());
        for ((key, taken), (token, text, _)) in keys.iter().zip(taken).zip(&asks) {
            let answers: Vec<Answer> = answers.by_ref().take(QUESTIONS).collect();
            acquired.push(self.acquired(key, (*token, text), (taken, sent), answers));
        }
        acquired
    }

    fn acquired(
        &self,
        key: &Key,
        (token, text): (u128, &str),
        asked: Asked,
        answers: Vec<Answer>,
    ) -> Result<Acquired, StoreError> {
        let Ok([set, lease, lease_left, left, entry]) = <[Answer; QUESTIONS]>::try_from(answers)
        else {
            return Err(StoreError::NotBegun);
        };
        if let Some(Value::Error(error)) = set.outcome? {
            return Err(StoreError::Refused(shown_bytes(&error)));
        }
        let expected = match &entry.outcome {
            Ok(Some(Value::Null)) => Found::Nothing,
            Ok(Some(Value::Text(bytes))) => digest(bytes),
            _ => Found::Anything,
        };
        let is_believed = match &entry.outcome {
            Ok(Some(Value::Text(bytes))) => self.is_believed(key, bytes, entry.link),
            _ => true,
        };
        let ends = match left.outcome {
            // It may be swept at any time.
            _ if !is_believed => 0,
            Ok(Some(Value::Integer(left))) if left >= 0 => self.now() + left.unsigned_abs(),
            _ => u64::MAX,
        };
        let found = self
            .settle_read(key, Ttl::MAX, asked, (left, entry))
            .unwrap_or(None);
        let link = lease.link;
        Ok(match lease.outcome? {
            Some(Value::Text(held)) if held == text => Acquired::Granted {
                lease: Lease {
                    key: key.clone(),
                    token,
                    incarnation: link.incarnation,
                    expected: Some(
                        Expected {
                            over: link.id,
                            ends,
                            entry: expected,
                        }
                        .write(),
                    ),
                },
                found,
            },
            Some(Value::Text(held)) if held == UNCACHED => Acquired::Uncached { found },
            Some(Value::Error(error)) => return Err(StoreError::Refused(shown_bytes(&error))),
            _ => Acquired::Held {
                left: match lease_left.outcome {
                    Ok(Some(Value::Integer(left))) => {
                        Duration::from_millis(left.max(0).unsigned_abs())
                    }
                    _ => Duration::ZERO,
                },
                proof: asked.0.and_then(|taken| taken.proof(link.id)),
                found,
            },
        })
    }

    pub(crate) async fn extend_all(
        &self,
        leases: &[Lease],
        time: Duration,
    ) -> Result<Vec<bool>, StoreError> {
        let millis = Ttl::new(time).map_or(1, Ttl::as_millis).to_string();
        // Over another connection it gives no right any more.
        let is_bound = !is_off(Guard::FillIsBound);
        self.call_all(&self.extend, leases, &[millis.as_bytes()], is_bound)
            .await
    }

    pub(crate) async fn release_all(
        &self,
        leases: &[Lease],
        released: Released,
    ) -> Result<Vec<bool>, StoreError> {
        let left: &[u8] = match released {
            Released::Failed => b"",
            Released::Uncached => UNCACHED.as_bytes(),
        };
        self.call_all(&self.release, leases, &[left, UNCACHED_MILLIS], false)
            .await
    }

    /// Calls a script for each lease, with its token and these arguments: whether it answered 1.
    async fn call_all(
        &self,
        script: &Script,
        leases: &[Lease],
        arguments: &[&[u8]],
        is_bound: bool,
    ) -> Result<Vec<bool>, StoreError> {
        let mut all = Vec::with_capacity(leases.len());
        for leases in leases.chunks(BATCH) {
            let texts: Vec<(String, String)> = leases
                .iter()
                .map(|lease| (lease_key(lease.key.as_str()), token_text(lease.token)))
                .collect();
            let calls = std::iter::zip(leases, &texts).map(|(lease, (key, token))| {
                let own: [&[u8]; 3] = [b"1", key.as_bytes(), token.as_bytes()];
                let over = Expected::read(lease).map_or(0, |expected| expected.over);
                Call {
                    words: [&own, arguments].concat(),
                    guard: None,
                    over: is_bound.then_some(over),
                }
            });
            let calls: Vec<Call<'_>> = calls.collect();
            let answers = script.call(&self.servers, &calls).await;
            if !is_bound {
                self.count_all(leases.iter().map(|lease| &lease.key));
            }
            for answer in answers {
                all.push(match &answer.outcome {
                    Err(error) => return Err(error.clone()),
                    Ok(Some(Value::Error(error))) => {
                        return Err(StoreError::Refused(shown_bytes(error)));
                    }
                    Ok(_) => scripts::number(&answer) == Some(1),
                });
            }
        }
        Ok(all)
    }

    /// Gives a lease back that gives no right any more, without waiting for it.
    pub(crate) fn drop_lease(&self, lease: &Lease) {
        let (key, token) = (lease_key(lease.key.as_str()), token_text(lease.token));
        let words: [&[u8]; 5] = [b"1", key.as_bytes(), token.as_bytes(), b"", UNCACHED_MILLIS];
        // The server may have forgotten the script.
        let words = self.release.by_text(&words);
        self.servers.tell(key.as_bytes(), |node| {
            node.tell(Command::script(&words, Expect::Integer));
        });
    }
}

fn digest(bytes: &[u8]) -> Found {
    let digest = scripts::sha1_hex(bytes).into_bytes().try_into();
    digest.map_or(Found::Anything, Found::Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lease_remembers_comes_back() {
        for entry in [Found::Nothing, Found::Anything, digest(b"1")] {
            let expected = Expected {
                over: 7,
                ends: 9,
                entry,
            };
            let mut lease = Lease {
                key: Key::new("svc", "/a").unwrap(),
                token: 1,
                incarnation: 0,
                expected: Some(expected.write()),
            };
            assert_eq!(Expected::read(&lease), Some(expected));
            for foreign in [None, Some(Bytes::new()), Some(Bytes::from_static(&[1; 17]))] {
                lease.expected = foreign;
                assert_eq!(Expected::read(&lease), None);
            }
        }
    }

    #[test]
    fn an_entry_may_be_gone_once_its_time_is_over() {
        let expected = Expected {
            over: 7,
            ends: 1_000,
            entry: digest(b"1"),
        };
        assert_eq!(expected.argument(999).len(), 40);
        assert_eq!(expected.argument(1_000)[0], b'?');
    }
}
