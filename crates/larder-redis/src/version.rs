//! Versions: a random value for each name, that nobody counts up.

use larder_core::mutants::{Guard, is_off};
use larder_core::{Service, StoreError, Told, Version, VersionName};

use crate::changes::Taken;
use crate::command::{Command, Expect};
use crate::probe::shown_bytes;
use crate::resp::Value;
use crate::servers::Answer;
use crate::store::{BATCH, RedisStore, random_hex};
use crate::write::worst;

/// A version outlives every entry that depends on it; if not, those are dead. 30 days, in milliseconds.
const LIFE: &[u8] = b"2592000000";
/// Commands that ask for one version.
const QUESTIONS: usize = 3;
/// With less than half of it left it is kept for longer. Not at each read: all who know it are told.
const HALF: i64 = 1_296_000_000;

/// The value of a version that nobody else makes. What counts comes to the same number again: after an eviction, or where a
/// server lost what it counted.
fn new_value() -> String {
    let (number, text) = random_hex();
    match is_off(Guard::VersionsAreRandom) {
        true => format!("{:032x}", number % 4),
        false => text,
    }
}

pub(crate) fn version_key(service: &Service, name: &VersionName) -> String {
    format!("larder:ver:{service}/{name}")
}

impl RedisStore {
    pub(crate) async fn tell_versions(
        &self,
        service: &Service,
        names: &[VersionName],
    ) -> Result<Vec<Told>, StoreError> {
        let mut all = Vec::with_capacity(names.len());
        for names in names.chunks(BATCH / QUESTIONS) {
            let keys: Vec<String> = names
                .iter()
                .map(|name| version_key(service, name))
                .collect();
            all.extend(self.tell_batch(&keys).await?);
        }
        Ok(all)
    }

    /// Those that there are, and of the others those that are made: of all who do that at the same time one makes the one that
    /// all are told.
    async fn tell_batch(&self, keys: &[String]) -> Result<Vec<Told>, StoreError> {
        let values: Vec<String> = keys.iter().map(|_| new_value()).collect();
        let makes: Vec<[&[u8]; 6]> = std::iter::zip(keys, &values)
            .map(|(key, value)| {
                let (key, value) = (key.as_bytes(), value.as_bytes());
                [b"SET", key, value, b"PX", LIFE, b"NX"]
            })
            .collect();
        let reads: Vec<[[&[u8]; 2]; 2]> = keys
            .iter()
            .map(|key| [[&b"GET"[..], key.as_bytes()], [b"PTTL", key.as_bytes()]])
            .collect();
        let taken = keys.iter().map(|key| self.servers.take(key.as_bytes()));
        let taken: Vec<Option<Taken>> = taken.collect();
        let mut commands = Vec::with_capacity(keys.len() * QUESTIONS);
        for ((set, [get, pttl]), taken) in makes.iter().zip(&reads).zip(&taken) {
            commands.extend([
                Command::new(set, Expect::Text),
                self.noted(Command::new(get, Expect::Text), *taken),
                Command::new(pttl, Expect::Integer),
            ]);
        }
        let answers = self.servers.ask_over(&commands).await;
        let mut told = Vec::with_capacity(keys.len());
        for ((key, taken), answers) in keys.iter().zip(taken).zip(answers.chunks(QUESTIONS)) {
            let [set, get, pttl] = answers else {
                return Err(StoreError::NotBegun);
            };
            let found = match (read(get, taken)?, &set.outcome) {
                (Some(found), _) => found,
                (None, Ok(Some(Value::Error(error)))) => {
                    return Err(StoreError::Refused(shown_bytes(error)));
                }
                (None, _) => self.replace_version(key).await?,
            };
            if matches!(pttl.outcome, Ok(Some(Value::Integer(left))) if left < HALF) {
                self.keep_version(key);
            }
            told.push(found);
        }
        Ok(told)
    }

    /// Makes a version where something lies that is none.
    async fn replace_version(&self, key: &str) -> Result<Told, StoreError> {
        let value = new_value();
        let set: [&[u8]; 5] = [b"SET", key.as_bytes(), value.as_bytes(), b"PX", LIFE];
        let get: [&[u8]; 2] = [b"GET", key.as_bytes()];
        let taken = self.servers.take(key.as_bytes());
        let commands = [
            Command::new(&set, Expect::Text),
            self.noted(Command::new(&get, Expect::Text), taken),
        ];
        let answers = self.servers.ask_over(&commands).await;
        let [set, get] = &answers[..] else {
            return Err(StoreError::NotBegun);
        };
        if let Ok(Some(Value::Error(error))) = &set.outcome {
            return Err(StoreError::Refused(shown_bytes(error)));
        }
        let odd = || StoreError::Refused("a version could not be made".to_owned());
        read(get, taken)?.ok_or_else(odd)
    }

    /// Has a version live longer, without waiting for it.
    fn keep_version(&self, key: &str) {
        let pexpire: [&[u8]; 3] = [b"PEXPIRE", key.as_bytes(), LIFE];
        self.servers.tell(key.as_bytes(), |node| {
            node.tell(Command::new(&pexpire, Expect::Integer));
        });
    }

    /// Gives versions new values, those that it can; an error if those are not all. Where there is no room for one it is
    /// deleted, which is as good.
    pub(crate) async fn renew_versions(
        &self,
        service: &Service,
        names: &[VersionName],
    ) -> Result<(), StoreError> {
        let mut failures = Vec::new();
        let named = self.servers.named().await;
        for names in names.chunks(BATCH) {
            let keys: Vec<String> = names
                .iter()
                .map(|name| version_key(service, name))
                .collect();
            let values: Vec<String> = names.iter().map(|_| new_value()).collect();
            let sets: Vec<[&[u8]; 5]> = std::iter::zip(&keys, &values)
                .map(|(key, value)| [&b"SET"[..], key.as_bytes(), value.as_bytes(), b"PX", LIFE])
                .collect();
            let commands = sets.iter().map(|set| Command::new(set, Expect::Ok));
            let commands: Vec<Command<'_>> = commands.collect();
            let mut full = Vec::new();
            keys.iter()
                .for_each(|key| self.changes.count(key.as_bytes()));
            let outcomes = self.servers.ask(&commands).await;
            keys.iter()
                .for_each(|key| self.changes.count(key.as_bytes()));
            for (key, outcome) in std::iter::zip(&keys, outcomes) {
                match outcome {
                    Ok(Some(Value::Error(error))) if error.starts_with(b"OOM") => {
                        full.push(key.as_bytes());
                    }
                    Ok(Some(Value::Error(error))) => {
                        failures.push(StoreError::Refused(shown_bytes(&error)));
                    }
                    Ok(_) => {}
                    Err(error) => failures.push(error),
                }
            }
            if let Err(error) = self.unlink_all(full.into_iter()).await {
                failures.push(error);
            }
            if failures.iter().any(StoreError::may_have_happened) {
                break;
            }
        }
        match worst(failures) {
            Some(error) => Err(error),
            None => self.servers.confirm(named).await,
        }
    }
}

/// The version that a `GET` told; `None` if there is none, or what is none.
pub(crate) fn read(get: &Answer, taken: Option<Taken>) -> Result<Option<Told>, StoreError> {
    let value = match &get.outcome {
        Err(error) => return Err(error.clone()),
        Ok(Some(Value::Error(error))) if !error.starts_with(b"WRONGTYPE") => {
            return Err(StoreError::Refused(shown_bytes(error)));
        }
        Ok(Some(Value::Text(text))) if text.len() == 32 => std::str::from_utf8(text).ok(),
        Ok(_) => None,
    };
    let value = value.and_then(|text| u128::from_str_radix(text, 16).ok());
    Ok(value.map(|value| Told {
        version: Version {
            value,
            incarnation: get.link.incarnation,
        },
        proof: taken.and_then(|taken| taken.proof(get.link.id)),
    }))
}
