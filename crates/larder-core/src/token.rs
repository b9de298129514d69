//! Reads that hand out the right to fill, for callers who load by themselves.

use std::fmt;
use std::time::Duration;

use larder_model::{Key, Outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Cache, Inner, read_typed};
use crate::counters::Count;
use crate::flight::FillRight;
use crate::form::Undecoded;
use crate::governor::Event;
use crate::json::Json;
use crate::lease::{Acquired, Lease, Released};
use crate::read::Read;
use crate::store::{Guard, NewEntry, Skip, Written};

/// What [`Cache::get_or_token`] found.
#[derive(Debug)]
pub enum Looked<T> {
    /// The value.
    Hit(T),
    /// There is none: whoever makes it may store it with this, by [`Cache::set_if`].
    Miss(Token),
}

/// The right to fill one key, for the time of the policy's `load_timeout`: until a `delete`, a `clear` or a `set` of the key,
/// in whichever process, ends it. One that is dropped unused is given back.
#[must_use = "others wait for it until its time is over"]
pub struct Token {
    key: Key,
    /// `None` if another one has the lease, or the store could not be asked: then it fills nothing.
    lease: Option<Lease>,
    cache: Cache,
}

impl Token {
    /// Of which key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("key", &self.key)
            .field("may_fill", &self.lease.is_some())
            .finish_non_exhaustive()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let (Some(lease), Ok(runtime)) = (self.lease.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let inner = std::sync::Arc::clone(&self.cache.inner);
        runtime.spawn(async move {
            let _ = inner.store.release(&[lease], Released::Failed).await;
        });
    }
}

impl Cache {
    /// [`Cache::get`]; where there is nothing, with the right to fill. To be asked for before the value is made: what is stored
    /// with it by [`Cache::set_if`] is then never older than an invalidation.
    ///
    /// Who asks meanwhile gets a right that fills nothing: only one at a time has it, and nobody waits for him here. A
    /// [`Cache::get_or_load`] does wait.
    pub async fn get_or_token<T: DeserializeOwned>(&self, key: &Key) -> Looked<T> {
        let inner = &*self.inner;
        if !inner.governor.gate(key).cache_enabled {
            inner.counters.add(Count::Bypasses);
            inner.report(key, Event::of(Outcome::Bypass, 0));
            return Looked::Miss(self.token(key, None));
        }
        if let Some(value) = inner.get(key, read_typed).await {
            return Looked::Hit(value);
        }
        if inner.outbox.hides(key) {
            return Looked::Miss(self.token(key, None));
        }
        let time = inner.governor.policy(key).load_timeout();
        let asked = inner.asked();
        let acquired = inner.store.acquire(std::slice::from_ref(key), time).await;
        let lease = match acquired.map(|mut acquired| acquired.pop()) {
            Ok(Some(Acquired::Granted { lease, found })) => {
                let token = self.token(key, Some(lease));
                // Filled since it was read: the token is given back.
                if let Some(stored) = found {
                    let gate = inner.governor.gate(key).plain();
                    let read = Read::again(stored, asked);
                    let look = inner.judge::<Undecoded>(key, gate, read).await;
                    let found = look.fresh().and_then(|found| read_typed(found.value));
                    if let Some(value) = found {
                        return Looked::Hit(value);
                    }
                }
                return Looked::Miss(token);
            }
            Ok(_) => None,
            Err(error) => {
                inner.note_error(&error);
                None
            }
        };
        Looked::Miss(self.token(key, lease))
    }

    fn token(&self, key: &Key, lease: Option<Lease>) -> Token {
        Token {
            key: key.clone(),
            lease,
            cache: self.clone(),
        }
    }

    /// Stores a value for a time, if nothing invalidated the key since the token was handed out. In the plain form: what the
    /// policy says of stale serving and of tags is for values that Larder loads.
    pub async fn set_if<T: Serialize + ?Sized>(
        &self,
        mut token: Token,
        value: &T,
        ttl: Duration,
    ) -> Written {
        let inner = &*self.inner;
        let Ok(json) = Json::of(value) else {
            return Written::Skipped(Skip::NotSerialisable);
        };
        match inner.leased_entry(&mut token, json, ttl) {
            Ok(entry) => {
                let written = inner.store.set(entry).await;
                inner.settle_write(written)
            }
            Err(Some(skip)) => Written::Skipped(skip),
            Err(None) => {
                inner.counters.add(Count::Refused);
                Written::Refused
            }
        }
    }
}

impl Inner {
    /// What a token fills; `None` as the reason where it has no right to.
    fn leased_entry(
        &self,
        token: &mut Token,
        json: Json,
        ttl: Duration,
    ) -> Result<NewEntry, Option<Skip>> {
        let entry = self.new_entry(&token.key, json.into_bytes(), ttl)?;
        let lease = token.lease.take().ok_or(None)?;
        Ok(NewEntry {
            guard: Guard::Lease(FillRight::new(), lease),
            ..entry
        })
    }
}
