//! A cache whose every call is written down.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Cache, Invalidated, Key, LoadError, Looked, Outcome, Skip, Written};
use serde::{Deserialize, Serialize};

use crate::event::{Event, Log, What};
use crate::instant::{Nanos, now};
use crate::keys::{self, Kind};
use crate::orders::Ended;

/// What is cached: it says when it was made.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Value {
    key: u32,
    load_begin: Nanos,
    made: Nanos,
    /// By a bare `set`, which is the caller's word.
    is_set: bool,
}

impl Value {
    /// What somebody sets: his word, whatever the origin says.
    pub(crate) fn said(key: usize, begin: Nanos) -> Self {
        Self {
            key: key as u32,
            load_begin: begin,
            made: begin,
            is_set: true,
        }
    }
}

/// The origin did not answer, as it was told.
#[derive(Debug)]
pub(crate) struct OriginFailed;

/// How a load goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) takes: Duration,
    pub(crate) fails: bool,
}

/// A cache, its keys, and where it is written down what they gave.
#[derive(Clone)]
pub(crate) struct Watched {
    cache: Cache,
    keys: Arc<[Key]>,
    log: Arc<Log>,
}

impl Watched {
    pub(crate) fn new(cache: Cache, log: Arc<Log>) -> anyhow::Result<Self> {
        let keys = (0..keys::KEYS).map(keys::key);
        Ok(Self {
            cache,
            keys: keys.collect::<Result<_, _>>()?,
            log,
        })
    }

    pub(crate) fn note(&self, what: What, subject: usize, begin: Nanos) -> io::Result<()> {
        self.log.write(Event {
            what,
            subject: subject as u32,
            begin,
            end: now(),
            load_begin: 0,
            made: 0,
        })
    }

    /// Writes down what a lookup gave.
    fn seen(&self, key: usize, begin: Nanos, seen: (What, Option<Value>)) -> io::Result<Ended> {
        let end = now();
        let (what, value) = seen;
        let what = match value {
            Some(value) if value.key as usize != key => What::Failed,
            Some(value) if value.is_set => What::Set,
            _ => what,
        };
        self.log.write(Event {
            what,
            subject: key as u32,
            begin,
            end,
            load_begin: value.map_or(0, |value| value.load_begin),
            made: value.map_or(0, |value| value.made),
        })?;
        Ok(match what {
            What::Failed => Ended::Failed,
            _ => Ended::Done,
        })
    }

    async fn load(self, key: usize, load: Load) -> Result<Value, OriginFailed> {
        let load_begin = now();
        tokio::time::sleep(load.takes).await;
        // The judge counts loads; that one could not be written down is seen at the next record.
        let _ = self.note(What::Load, key, load_begin);
        if load.fails {
            return Err(OriginFailed);
        }
        Ok(Value {
            key: key as u32,
            load_begin,
            made: now(),
            is_set: false,
        })
    }

    /// `get_or_load`.
    pub(crate) async fn look(&self, key: usize, load: Load) -> io::Result<Ended> {
        let begin = now();
        let own = self.clone();
        let loader = move || own.load(key, load);
        let answer = self.cache.get_or_load(&self.keys[key], loader).await;
        self.seen(
            key,
            begin,
            of(answer.map(|one| (one.outcome, Some(one.value)))),
        )
    }

    /// `get_or_load_many`.
    pub(crate) async fn look_many(&self, numbers: &[usize], load: Load) -> io::Result<()> {
        let begin = now();
        let asked: Vec<Key> = numbers.iter().map(|key| self.keys[*key].clone()).collect();
        let known: HashMap<Key, usize> =
            asked.iter().cloned().zip(numbers.iter().copied()).collect();
        let own = self.clone();
        let loader = move |missing: Vec<Key>| async move {
            let mut made = HashMap::new();
            let loads = missing
                .into_iter()
                .filter_map(|key| Some((known.get(&key).copied()?, key)));
            let loads: Vec<(usize, Key)> = loads.collect();
            // One call of the origin for all of them.
            let begin = now();
            tokio::time::sleep(load.takes).await;
            for (number, key) in loads {
                let _ = own.note(What::Load, number, begin);
                let value = Value {
                    key: number as u32,
                    load_begin: begin,
                    made: now(),
                    is_set: false,
                };
                made.insert(key, value);
            }
            match load.fails {
                true => Err(OriginFailed),
                false => Ok(made),
            }
        };
        let answers = self.cache.get_or_load_many(&asked, loader).await;
        let answers = match answers {
            Ok(answers) => answers
                .into_iter()
                .map(|one| of(Ok((one.outcome, one.value))))
                .collect(),
            Err(error) => vec![of(Err(error)); numbers.len()],
        };
        for (key, seen) in numbers.iter().zip(answers) {
            self.seen(*key, begin, seen)?;
        }
        Ok(())
    }

    /// `get`.
    pub(crate) async fn peek(&self, key: usize) -> io::Result<Ended> {
        let begin = now();
        let value = self.cache.get::<Value>(&self.keys[key]).await;
        let what = value.map_or(What::Nothing, |_| What::Hit);
        self.seen(key, begin, (what, value))
    }

    /// `get_or_token`, and `set_if` where there is nothing.
    pub(crate) async fn look_by_token(&self, key: usize, load: Load) -> io::Result<()> {
        let begin = now();
        match self.cache.get_or_token::<Value>(&self.keys[key]).await {
            Looked::Hit(value) => {
                self.seen(key, begin, (What::Hit, Some(value)))?;
            }
            Looked::Miss(token) => {
                self.seen(key, begin, (What::Nothing, None))?;
                let fails = false;
                if let Ok(value) = self.clone().load(key, Load { fails, ..load }).await {
                    let _ = self.cache.set_if(token, &value, Kind::of(key).ttl()).await;
                }
            }
        }
        Ok(())
    }

    /// `set`.
    pub(crate) async fn set(&self, key: usize) -> io::Result<Ended> {
        let begin = now();
        let value = Value::said(key, begin);
        let ttl = Kind::of(key).ttl();
        let (what, ended) = match self.cache.set(&self.keys[key], &value, ttl).await {
            Written::Stored => (What::Stored, Ended::Done),
            // The old value is hidden, as by a delete.
            Written::Unknown | Written::Skipped(Skip::Store(_)) => {
                (What::DeletePending, Ended::Pending)
            }
            _ => return Ok(Ended::Pending),
        };
        self.note(what, key, begin)?;
        Ok(ended)
    }

    pub(crate) async fn delete(&self, key: usize) -> io::Result<Ended> {
        let begin = now();
        let invalidated = self.cache.delete(&self.keys[key]).await;
        let whats = (What::Deleted, What::DeletePending);
        self.settle(invalidated.is_done(), key, begin, whats)
    }

    pub(crate) async fn clear(&self, kind: Kind) -> anyhow::Result<Ended> {
        let pattern = keys::pattern(kind)?;
        let begin = now();
        let invalidated = self.cache.clear(&pattern).await;
        let whats = (What::Cleared, What::ClearPending);
        Ok(self.settle(invalidated.is_done(), kind as usize, begin, whats)?)
    }

    pub(crate) async fn tag(&self, tag: usize) -> anyhow::Result<Ended> {
        let name = keys::tag(tag)?;
        let begin = now();
        let invalidated = self.cache.invalidate_tag(&name).await;
        let whats = (What::TagDone, What::TagPending);
        Ok(self.settle(invalidated.is_done(), tag, begin, whats)?)
    }

    pub(crate) async fn endpoint(&self, kind: Kind) -> anyhow::Result<Ended> {
        let endpoint = keys::endpoint(kind)?;
        let begin = now();
        let invalidated = self.cache.invalidate_endpoint(&endpoint).await;
        let whats = [
            What::EndpointDone,
            What::EndpointSwept,
            What::EndpointPending,
        ];
        Ok(self
            .settle_swept(invalidated, kind as usize, begin, whats)
            .await?)
    }

    pub(crate) async fn service(&self) -> io::Result<Ended> {
        let begin = now();
        let invalidated = self.cache.invalidate_service().await;
        let whats = [What::ServiceDone, What::ServiceSwept, What::ServicePending];
        self.settle_swept(invalidated, 0, begin, whats).await
    }

    fn settle(
        &self,
        is_done: bool,
        subject: usize,
        begin: Nanos,
        (done, pending): (What, What),
    ) -> io::Result<Ended> {
        self.note(if is_done { done } else { pending }, subject, begin)?;
        Ok(if is_done { Ended::Done } else { Ended::Pending })
    }

    /// Done for framed entries at first, and for plain ones later.
    async fn settle_swept(
        &self,
        invalidated: Invalidated,
        subject: usize,
        begin: Nanos,
        [done, swept, pending]: [What; 3],
    ) -> io::Result<Ended> {
        let ended = self.settle(invalidated.is_done(), subject, begin, (done, pending))?;
        if ended == Ended::Done && invalidated.swept().await.is_done() {
            self.note(swept, subject, begin)?;
        }
        Ok(ended)
    }
}

/// What a lookup gave, in the words of the log.
fn of(answer: Result<(Outcome, Option<Value>), LoadError<OriginFailed>>) -> (What, Option<Value>) {
    match answer {
        Ok((_, None)) | Err(LoadError::Loader(_)) => (What::Nothing, None),
        Ok((Outcome::Hit, value)) => (What::Hit, value),
        Ok((Outcome::Stale, value)) => (What::Stale, value),
        Ok((Outcome::Miss | Outcome::Bypass, value)) => (What::Loaded, value),
        Err(_) => (What::Failed, None),
    }
}
