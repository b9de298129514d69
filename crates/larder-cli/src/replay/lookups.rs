//! Lookups in the log's order, with their writes in groups where that changes nothing.
//!
//! A write that is waited for costs a way to the writer's thread and back, twenty times what a hit does. So those that load
//! go on while later lines are looked up, and are waited for before anything could tell the difference: before another
//! lookup of the same key, before the clock moves on, and as soon as the store is so full that it might have to evict. Within
//! that, lookups of other keys neither see a write nor change what it does, so the outcome is that of one lookup after the other.

use std::collections::HashSet;
use std::pin::Pin;
use std::task::Poll;

use anyhow::bail;
use larder_core::Key;

use crate::replay::endpoints::EndpointId;
use crate::replay::engine::Engine;

const PAGE_BYTES: u64 = 4_096;
/// What an entry may change besides its value: leaves and the way to them, in both trees.
const WAY_PAGES: u64 = 8;
/// The store evicts from three quarters on, less what a group brings. Up to this share nothing can go.
const SAFE_PARTS: (u64, u64) = (1, 2);
/// No more loads than this are under way, nor more bytes: the store's queue takes 64 MiB.
const MOST_UNDER_WAY: usize = 1_024;
const MOST_BYTES: u64 = 8 << 20;

/// A place for a lookup; used again, since a lookup is large.
type Place<F> = Pin<Box<Option<F>>>;

/// Lookups of an engine.
pub(crate) struct Lookups<'a, F> {
    engine: &'a Engine,
    idle: Vec<Place<F>>,
    under_way: Vec<(EndpointId, Place<F>)>,
    keys: HashSet<Key>,
    bytes: u64,
    /// How many pages may be filled before the store might evict.
    safe_pages: u64,
    evictions: u64,
}

impl<'a, F: Future<Output = bool>> Lookups<'a, F> {
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            idle: Vec::new(),
            under_way: Vec::new(),
            keys: HashSet::new(),
            bytes: 0,
            safe_pages: 0,
            evictions: 0,
        }
    }

    /// Asks for a key; `look_up` makes the lookup of it, and a load brings so many bytes.
    pub(crate) async fn ask(
        &mut self,
        key: Key,
        endpoint: EndpointId,
        bytes: u64,
        look_up: impl FnOnce(Key) -> F,
    ) -> anyhow::Result<()> {
        if !self.keys.is_empty() && self.keys.contains(&key) {
            self.settle().await?;
        }
        let mut place = self.idle.pop().unwrap_or_else(|| Box::pin(None));
        place.set(Some(look_up(key.clone())));
        self.engine.recorder.drive(endpoint);
        let polled = std::future::poll_fn(|context| Poll::Ready(poll(&mut place, context))).await;
        if let Poll::Ready(is_answered) = polled {
            place.set(None);
            self.idle.push(place);
            return check(is_answered);
        }
        self.under_way.push((endpoint, place));
        self.keys.insert(key);
        self.bytes = self.bytes.saturating_add(bytes);
        let pages = bytes / PAGE_BYTES + WAY_PAGES;
        let is_safe = pages <= self.safe_pages;
        self.safe_pages = self.safe_pages.saturating_sub(pages);
        let is_full = self.under_way.len() >= MOST_UNDER_WAY || self.bytes >= MOST_BYTES;
        if !is_safe || is_full {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for all that are under way.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<()> {
        if self.under_way.is_empty() {
            return Ok(());
        }
        for (endpoint, mut place) in self.under_way.drain(..) {
            let recorder = &self.engine.recorder;
            let is_answered = std::future::poll_fn(|context| {
                recorder.drive(endpoint);
                poll(&mut place, context)
            })
            .await;
            place.set(None);
            self.idle.push(place);
            check(is_answered)?;
        }
        self.keys.clear();
        self.bytes = 0;
        self.look_at_store().await
    }

    async fn look_at_store(&mut self) -> anyhow::Result<()> {
        let stats = self.engine.cache.stats().await?;
        let (parts, of) = SAFE_PARTS;
        let limit = stats.limit_bytes.unwrap_or(0) / of * parts;
        self.safe_pages = limit.saturating_sub(stats.used_bytes.unwrap_or(limit)) / PAGE_BYTES;
        let evictions = stats.evictions.unwrap_or(0);
        if evictions > self.evictions {
            self.engine.recorder.note_evictions(evictions - self.evictions);
            self.evictions = evictions;
        }
        Ok(())
    }
}

fn poll<F: Future>(place: &mut Place<F>, context: &mut std::task::Context<'_>) -> Poll<F::Output> {
    match place.as_mut().as_pin_mut() {
        Some(lookup) => lookup.poll(context),
        // A place that is driven has a lookup.
        None => Poll::Pending,
    }
}

fn check(is_answered: bool) -> anyhow::Result<()> {
    if !is_answered {
        bail!("a made-up answer did not come: the machine is too slow to replay this log");
    }
    Ok(())
}
