//! Reading: what of the L1 and of the store may be served, and for how long.

use std::time::Duration;

use bytes::Bytes;
use larder_model::Key;

use crate::cache::Inner;
use crate::clock::{Clock, CoarseClock};
use crate::counters::Count;
use crate::form::Readable;
use crate::frame::{FrameError, Freshness};
use crate::governor::Gate;
use crate::l1::Resident;
use crate::mutants::{Guard, is_off};
use crate::proof::Proofs;
use crate::random;
use crate::raw::Raw;
use crate::spans;
use crate::store::{StoreFuture, Stored, Ttl};
use crate::sweeps::Swept;
use crate::version::is_of_life;
use crate::versions::Proven;

/// How much earlier than its end an entry is loaded anew at the most, as a multiple of how long its load takes: with XFetch
/// the chance of more is e⁻¹⁶.
pub(crate) const EARLY: u32 = 16;

/// What a lookup may take.
pub(crate) enum Look<V> {
    /// A fresh value.
    Fresh(Found<V>),
    /// A value past its time, and what it may be served for.
    Stale(Found<V>, Freshness),
    /// Nothing.
    Nothing,
}

impl<V> Look<V> {
    /// The value, if it is fresh.
    pub(crate) fn fresh(self) -> Option<Found<V>> {
        match self {
            Self::Fresh(found) => Some(found),
            Self::Stale(..) | Self::Nothing => None,
        }
    }
}

/// The moment before a read is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// By the coarse clock; zero where nothing is kept of what is read.
    at: Duration,
    pub(crate) swept: Swept,
}

/// An entry that was read, to be judged.
pub(crate) struct Read {
    stored: Stored,
    asked: Asked,
    /// Whether the lookup that it was read for has not read it before: then it is counted why it can't be served.
    is_first: bool,
}

impl Read {
    pub(crate) fn first(stored: Stored, asked: Asked) -> Self {
        Self {
            stored,
            asked,
            is_first: true,
        }
    }

    pub(crate) fn again(stored: Stored, asked: Asked) -> Self {
        Self {
            is_first: false,
            ..Self::first(stored, asked)
        }
    }
}

/// A value that was read from the store.
pub(crate) struct Found<V> {
    pub(crate) value: V,
    /// How large it is, in bytes.
    pub(crate) bytes: u64,
    /// Its JSON, for one who lands with it.
    pub(crate) json: Option<Bytes>,
    /// How long it is fresh yet, if that is known.
    pub(crate) left: Option<Duration>,
    /// How old it is, if it says so.
    pub(crate) age: Option<Duration>,
    /// Whether it is to be loaded anew already.
    pub(crate) is_due_early: bool,
}

/// A value that the L1 had.
pub(crate) struct Near<V> {
    pub(crate) value: V,
    pub(crate) bytes: u64,
    pub(crate) left: Duration,
    pub(crate) is_due_early: bool,
}

impl Inner {
    /// The value that the L1 has, if it is known to be what the store has.
    #[inline]
    pub(crate) fn near<M: Readable>(&self, key: &Key, gate: Gate) -> Option<Near<M::Value>> {
        let kept = self.l1.as_ref()?.get(key)?;
        // First: an invalidation that hides nothing any more has ended its proofs.
        if self.is_hidden_near(key, &kept) {
            return None;
        }
        let left = kept.left(CoarseClock.now(), &*self.store)?;
        if left > M::longest(gate)?.get() {
            return None;
        }
        let (bytes, load_cost) = (kept.raw.bytes.len() as u64, kept.load_cost());
        let decoded = kept.decoded.as_deref();
        let value = match decoded.and_then(|value| value.downcast_ref::<M::Value>()) {
            Some(value) => value.clone(),
            None => M::read(self, kept.raw)?,
        };
        if left > M::ttl(&value, gate)?.get() {
            return None;
        }
        spans::is_near();
        Some(Near {
            value,
            bytes,
            left,
            is_due_early: is_due_early(load_cost, Some(left)),
        })
    }

    /// Whether what the L1 has was invalidated by this process, and the store does not know it yet.
    #[inline]
    fn is_hidden_near(&self, key: &Key, kept: &Resident) -> bool {
        // What depends on a version is read again while one may be pending: then its stamps are looked at.
        (!self.outbox.is_empty() && (kept.is_stamped() || self.outbox.hides(key)))
            || (!kept.is_stamped() && self.sweeps.hides(key))
    }

    /// Now, before a read is sent.
    #[inline]
    pub(crate) fn asked(&self) -> Asked {
        // Only what is kept needs the time.
        let at = self.l1.as_ref().map(|_| CoarseClock.now());
        Asked {
            at: at.unwrap_or_default(),
            swept: self.sweeps.swept(),
        }
    }

    /// What the store has under a key; nothing if it is slow or away.
    #[inline]
    pub(crate) async fn look<M: Readable>(&self, key: &Key, gate: Gate) -> Look<M::Value> {
        if M::longest(gate).is_none() {
            return Look::Nothing;
        }
        if self.outbox.hides(key) {
            self.counters.add(Count::Hidden);
            return Look::Nothing;
        }
        let asked = self.asked();
        // Not cut by this read: how old a framed entry is, is told by what is left of its life.
        let answer = match self.store.get(key, Ttl::MAX) {
            // Not awaited: to be moved into the caller's future and out again costs more than what there is to wait for.
            StoreFuture::Ready(Some(answer)) => answer,
            pending => pending.await,
        };
        if is_off(Guard::SweptReadsHide) {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        match answer {
            Ok(Some(stored)) => self.judge::<M>(key, gate, Read::first(stored, asked)).await,
            Ok(None) => Look::Nothing,
            Err(error) => {
                self.note_error(&error);
                Look::Nothing
            }
        }
    }

    /// What an entry may be served for.
    #[inline]
    pub(crate) async fn judge<M: Readable>(
        &self,
        key: &Key,
        gate: Gate,
        read: Read,
    ) -> Look<M::Value> {
        let (look, cut) = self.judge_uncut::<M>(key, gate, read).await;
        if let Some(ttl) = cut {
            self.cut(key, ttl).await;
        }
        look
    }

    /// [`Inner::judge`], with the life that the entry is to be cut to if it has a longer one.
    #[inline]
    pub(crate) async fn judge_uncut<M: Readable>(
        &self,
        key: &Key,
        gate: Gate,
        read: Read,
    ) -> (Look<M::Value>, Option<Ttl>) {
        if read.stored.framed || self.frames.is_sealing() {
            // Boxed: the plain form is what most have, and its future stays small.
            let look = Box::pin(self.judge_framed::<M>(key, gate, read)).await;
            return (look, None);
        }
        self.judge_plain::<M>(key, gate, read)
            .unwrap_or((Look::Nothing, None))
    }

    #[inline]
    fn judge_plain<M: Readable>(
        &self,
        key: &Key,
        gate: Gate,
        read: Read,
    ) -> Option<(Look<M::Value>, Option<Ttl>)> {
        let Read {
            stored,
            asked,
            is_first,
        } = read;
        if self.sweeps.hides_read(key, asked.swept) {
            self.counters.add(Count::Hidden);
            return None;
        }
        let (left, bytes) = (stored.ttl, stored.bytes.len() as u64);
        let l1 = self.l1.as_ref().filter(|_| stored.proof.is_some());
        // Shared only where somebody needs it: a count that is shared is not free.
        let json = (l1.is_some() || !is_first).then(|| stored.bytes.clone());
        let raw = Raw {
            bytes: stored.bytes,
            is_foreign: stored.foreign,
        };
        let Some(value) = M::read(self, raw) else {
            if is_first {
                self.counters.add(Count::Undecodable);
            }
            return None;
        };
        let ttl = M::ttl(&value, gate)?;
        let outlives = ttl < Ttl::MAX && left.is_none_or(|left| left > ttl.get());
        let cut = outlives.then_some(ttl);
        let left = left.map(|left| left.min(ttl.get()));
        let load_cost = self.load_costs.of(key, left);
        if let (Some(proof), Some(left), Some(l1), Some(json)) = (stored.proof, left, l1, &json)
            && l1.wants(key, json.len())
        {
            let raw = Raw {
                bytes: json.clone(),
                is_foreign: stored.foreign,
            };
            let proofs = Proofs::new(proof, &[]);
            let kept = Resident::new::<M>(&value, raw, (asked.at, left), load_cost, proofs);
            l1.keep(key, kept);
        }
        let found = Found {
            value,
            bytes,
            json,
            left,
            age: None,
            is_due_early: is_due_early(load_cost, left),
        };
        Some((Look::Fresh(found), cut))
    }

    async fn judge_framed<M: Readable>(&self, key: &Key, gate: Gate, read: Read) -> Look<M::Value> {
        let is_first = read.is_first;
        match self.try_framed::<M>(key, gate, read).await {
            Ok(look) => look,
            Err(count) => {
                if is_first {
                    self.counters.add(count);
                }
                Look::Nothing
            }
        }
    }

    /// Why a framed entry is not served is counted.
    async fn try_framed<M: Readable>(
        &self,
        key: &Key,
        gate: Gate,
        read: Read,
    ) -> Result<Look<M::Value>, Count> {
        let Read { stored, asked, .. } = read;
        let frame = self.frames.decode(key, &stored.bytes, gate.max_value_bytes);
        let mut frame = frame.map_err(|error| {
            tracing::debug!(%key, error = error.as_str(), "an entry can't be read");
            match error {
                FrameError::Unsealed | FrameError::OtherKey | FrameError::Seal => Count::Unsealed,
                _ => Count::Undecodable,
            }
        })?;
        if !is_of_life(frame.incarnation, stored.incarnation)
            && !is_off(Guard::IncarnationIsCompared)
        {
            return Err(Count::Dead);
        }
        let age = frame.age(stored.ttl).ok_or(Count::Undecodable)?;
        let mut age = match is_off(Guard::AgeCounts) {
            true => Duration::ZERO,
            false => age,
        };
        let service = self.service_of(key);
        let mut proven = self.holds_up(&service, &frame.stamps).await;
        if proven.is_none() && is_off(Guard::StaleNeedsVersions) {
            (age, proven) = (age.max(frame.fresh), Some(Proven(None)));
        }
        let proven = proven.ok_or(Count::Dead)?;
        let raw = Raw {
            bytes: frame.payload.clone(),
            is_foreign: false,
        };
        let value = M::read(self, raw.clone()).ok_or(Count::Undecodable)?;
        let Some(ttl) = M::ttl(&value, gate) else {
            return Ok(Look::Nothing);
        };
        frame.cut_to(ttl.get());
        frame.stale_while_revalidate = frame
            .stale_while_revalidate
            .min(gate.stale_while_revalidate);
        frame.stale_if_error = frame.stale_if_error.min(gate.stale_if_error);
        let freshness = frame.freshness(age);
        let left = frame.fresh.saturating_sub(age);
        let found = Found {
            bytes: frame.payload.len() as u64,
            json: Some(frame.payload),
            left: Some(left),
            age: Some(age),
            is_due_early: freshness == Freshness::Fresh
                && is_due_early(frame.load_cost, Some(left)),
            value,
        };
        match freshness {
            Freshness::Fresh => {
                if let (Some(proof), Some(versions), Some(l1)) = (stored.proof, proven.0, &self.l1)
                    && l1.wants(key, raw.bytes.len())
                {
                    let (at, proofs) = ((asked.at, left), Proofs::new(proof, &versions));
                    let kept = Resident::new::<M>(&found.value, raw, at, frame.load_cost, proofs);
                    l1.keep(key, kept);
                }
                Ok(Look::Fresh(found))
            }
            Freshness::Over => Ok(Look::Nothing),
            stale => Ok(Look::Stale(found, stale)),
        }
    }

    /// Cuts an entry's life.
    pub(crate) async fn cut(&self, key: &Key, ttl: Ttl) {
        // A read cuts.
        if let Err(error) = self.store.get(key, ttl).await {
            self.note_error(&error);
        }
    }
}

/// Whether a fresh value with so much of its time left is to be loaded anew by this reader: see `Frame::is_due_early`.
#[inline]
fn is_due_early(load_cost: Duration, left: Option<Duration>) -> bool {
    left.is_some_and(|left| {
        left < load_cost * EARLY && {
            let ahead = load_cost.mul_f64(-random::chance().ln());
            ahead >= left
        }
    })
}
