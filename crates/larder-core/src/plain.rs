//! Plain reads: what is there, and nothing is loaded.

use larder_model::{Key, Outcome};

use crate::cache::Inner;
use crate::counters::Count;
use crate::form::Undecoded;
use crate::governor::{Event, Gate};
use crate::raw::Raw;
use crate::read::Read;
use crate::store::{StoreFuture, Stored, Ttl};

impl Inner {
    // What a hit goes through is inlined: a value that was just written and is moved on by other widths makes the processor
    // wait, 5 to 8 ns each time.
    #[inline]
    pub(crate) async fn get<T>(
        &self,
        key: &Key,
        decode: impl FnOnce(Raw) -> Option<T>,
    ) -> Option<T> {
        let gate = self.governor.gate(key);
        if !gate.cache_enabled {
            self.bypass(key);
            return None;
        }
        let gate = gate.plain();
        if let Some(near) = self.near::<Undecoded>(key, gate) {
            self.counters.add(Count::HitsNear);
            return self.settle_read(key, Some(near.value), decode);
        }
        if self.l1.is_none() {
            return self.get_far(key, gate, decode).await;
        }
        let found = self.look::<Undecoded>(key, gate).await.fresh();
        self.settle_read(key, found.map(|found| found.value), decode)
    }

    /// [`Inner::get`] where nothing is kept in this process: a plain entry is handed on as it was read, without a judgement
    /// that would move it about.
    #[inline]
    async fn get_far<T>(
        &self,
        key: &Key,
        gate: Gate,
        decode: impl FnOnce(Raw) -> Option<T>,
    ) -> Option<T> {
        if self.outbox.hides(key) {
            self.counters.add(Count::Hidden);
            return self.settle_read(key, None, decode);
        }
        let when = self.asked();
        let answer = match self.store.get(key, Ttl::MAX) {
            // Not awaited: to be moved into the caller's future and out again costs more than what there is to wait for.
            StoreFuture::Ready(Some(answer)) => answer,
            pending => pending.await,
        };
        let stored = match answer {
            Ok(Some(stored)) => stored,
            Ok(None) => return self.settle_read(key, None, decode),
            Err(error) => {
                self.note_error(&error);
                return self.settle_read(key, None, decode);
            }
        };
        if !stored.framed && !self.frames.is_sealing() && !self.sweeps.hides_read(key, when.swept) {
            let raw = Raw {
                bytes: stored.bytes,
                is_foreign: stored.foreign,
            };
            return self.settle_read(key, Some(raw), decode);
        }
        let read = Read::first(stored, when);
        let look = Box::pin(self.judge::<Undecoded>(key, gate, read)).await;
        self.settle_read(key, look.fresh().map(|found| found.value), decode)
    }

    pub(crate) async fn get_many<T>(
        &self,
        keys: &[Key],
        decode: impl Fn(Raw) -> Option<T>,
    ) -> Vec<Option<T>> {
        let mut values = Vec::with_capacity(keys.len());
        let mut asked = Vec::new();
        for key in keys {
            let gate = self.governor.gate(key);
            if !gate.cache_enabled {
                self.bypass(key);
                values.push(None);
                continue;
            }
            let near = self.near::<Undecoded>(key, gate.plain());
            match near {
                Some(near) => {
                    self.counters.add(Count::HitsNear);
                    values.push(self.settle_read(key, Some(near.value), &decode));
                }
                None => {
                    asked.push((values.len(), key.clone()));
                    values.push(None);
                }
            }
        }
        let asked_when = self.asked();
        let missing: Vec<Key> = asked.iter().map(|(_, key)| key.clone()).collect();
        let stored = self.read_many(&missing, Ttl::MAX).await;
        for ((index, key), stored) in asked.into_iter().zip(stored) {
            let gate = self.governor.gate(&key).plain();
            let found = match stored {
                Some(stored) => {
                    let look = self
                        .judge::<Undecoded>(&key, gate, Read::first(stored, asked_when))
                        .await;
                    look.fresh().map(|found| found.value)
                }
                None => None,
            };
            values[index] = self.settle_read(&key, found, &decode);
        }
        values
    }

    /// Counts and reports that the cache was not asked.
    fn bypass(&self, key: &Key) {
        self.counters.add(Count::Bypasses);
        self.report(key, Event::of(Outcome::Bypass, 0));
    }

    /// Counts and reports what a plain read found.
    #[inline]
    fn settle_read<T>(
        &self,
        key: &Key,
        raw: Option<Raw>,
        decode: impl FnOnce(Raw) -> Option<T>,
    ) -> Option<T> {
        let bytes = raw.as_ref().map_or(0, |raw| raw.bytes.len() as u64);
        let is_there = raw.is_some();
        match raw.and_then(decode) {
            Some(value) => {
                self.counters.add(Count::Hits);
                self.report(key, Event::of(Outcome::Hit, bytes));
                Some(value)
            }
            None => {
                if is_there {
                    self.counters.add(Count::Undecodable);
                }
                self.counters.add(Count::Misses);
                self.report(key, Event::of(Outcome::Miss, 0));
                None
            }
        }
    }

    /// What the store has under keys; nothing of what is pending, and nothing if the store is slow or away.
    pub(crate) async fn read_many(&self, keys: &[Key], longest: Ttl) -> Vec<Option<Stored>> {
        if keys.is_empty() {
            return Vec::new();
        }
        // Before they are read: what is hidden no more then is gone.
        let hidden: Vec<bool> = keys.iter().map(|key| self.outbox.hides(key)).collect();
        match self.store.get_many(keys, longest).await {
            Ok(stored) => {
                let shown =
                    |(is_hidden, stored): (bool, Option<Stored>)| stored.filter(|_| !is_hidden);
                hidden.into_iter().zip(stored).map(shown).collect()
            }
            Err(error) => {
                self.note_error(&error);
                vec![None; keys.len()]
            }
        }
    }
}
