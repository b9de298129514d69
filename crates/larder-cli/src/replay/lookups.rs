//! Lookups of one step of the log's clock, in an order that is cheaper than the log's, where that changes nothing.
//!
//! Within a step the clock stands still. While no entry can be evicted, lookups of different keys neither see nor change what
//! the others do; those of one key stay in their order. So the requests of a step are looked up key by key: what was just
//! read lies in the processor's caches when it is read again, and the loads are written together (a write that is waited for
//! alone costs fifty times what a hit does). Where the store is so full that it might evict, each request is looked up alone, and
//! its load waited for, in the log's order.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::bail;
use larder_core::Key;

use crate::replay::endpoints::EndpointId;
use crate::replay::engine::Engine;

const PAGE_BYTES: u64 = 4_096;
/// What an entry may fill besides its value: a leaf and its share of branches, in both trees.
const WAY_PAGES: u64 = 3;
/// The store evicts from three quarters on, less five quarters of what a group of writes brings. Up to this share, with
/// [`pages`] for each entry, it can't come to that.
const SAFE_PARTS: (u64, u64) = (5, 8);
/// So many keys are looked up together at most; the store's queue takes 16,384 writes.
const MOST_KEYS: usize = 4_096;
/// So many bytes may be loaded together; the store's queue takes 64 MiB.
const MOST_BYTES: u64 = 8 << 20;

/// The requests of a step for one key.
struct Asked {
    key: Key,
    endpoint: EndpointId,
    /// What a load brings: as much as the first request's answer had.
    bytes: u64,
    times: u64,
}

/// A place for a lookup; used again, since a lookup is large.
type Place<F> = Pin<Box<Option<F>>>;

/// Lookups of an engine; `look_up` makes one, whose load brings so many bytes.
pub(crate) struct Lookups<'a, F, L> {
    engine: &'a Engine,
    look_up: L,
    asked: Vec<Asked>,
    by_key: HashMap<Key, usize>,
    bytes: u64,
    /// How many pages the asked keys may fill before the store might evict; and how many when it was last looked at.
    safe_pages: u64,
    room_pages: u64,
    idle: Vec<Place<F>>,
    under_way: Vec<(EndpointId, Place<F>)>,
    evictions: u64,
}

impl<'a, F, L> Lookups<'a, F, L>
where
    F: Future<Output = bool>,
    L: Fn(&Key, u64) -> F,
{
    pub(crate) async fn new(engine: &'a Engine, look_up: L) -> anyhow::Result<Self> {
        let mut lookups = Self {
            engine,
            look_up,
            asked: Vec::new(),
            by_key: HashMap::new(),
            bytes: 0,
            safe_pages: 0,
            room_pages: 0,
            idle: Vec::new(),
            under_way: Vec::new(),
            evictions: 0,
        };
        lookups.look_at_store().await?;
        Ok(lookups)
    }

    /// Asks for a key, now or in this step.
    pub(crate) async fn ask(
        &mut self,
        key: &Key,
        endpoint: EndpointId,
        bytes: u64,
    ) -> anyhow::Result<()> {
        if let Some(at) = self.by_key.get(key) {
            self.asked[*at].times += 1;
            return Ok(());
        }
        let pages = pages(bytes);
        let is_safe = |lookups: &Self| pages <= lookups.safe_pages && bytes <= MOST_BYTES;
        let is_full =
            self.asked.len() >= MOST_KEYS || self.bytes.saturating_add(bytes) > MOST_BYTES;
        if is_full || !is_safe(self) {
            self.settle().await?;
        }
        let asked = Asked {
            key: key.clone(),
            endpoint,
            bytes,
            times: 1,
        };
        if !is_safe(self) {
            return self.ask_alone(&asked).await;
        }
        self.safe_pages -= pages;
        self.bytes += bytes;
        self.by_key.insert(asked.key.clone(), self.asked.len());
        self.asked.push(asked);
        Ok(())
    }

    /// Looks up all that was asked for, and waits for the loads: to be called before the clock moves on.
    pub(crate) async fn settle(&mut self) -> anyhow::Result<()> {
        if self.asked.is_empty() {
            return Ok(());
        }
        self.by_key.clear();
        self.bytes = 0;
        let mut asked = std::mem::take(&mut self.asked);
        for asked in &mut asked {
            if self.begin(asked).await?.is_pending() {
                continue;
            }
            for _ in 1..std::mem::replace(&mut asked.times, 1) {
                self.ask_alone(asked).await?;
            }
        }
        self.land().await?;
        // Those whose first lookup had to load.
        for asked in &asked {
            for _ in 1..asked.times {
                self.ask_alone(asked).await?;
            }
        }
        asked.clear();
        self.asked = asked;
        self.safe_pages = self.room_pages;
        Ok(())
    }

    async fn ask_alone(&mut self, asked: &Asked) -> anyhow::Result<()> {
        if self.begin(asked).await?.is_pending() {
            self.land().await?;
            self.safe_pages = self.room_pages;
        }
        Ok(())
    }

    /// Begins a lookup: a hit is answered at once, a load goes on.
    async fn begin(&mut self, asked: &Asked) -> anyhow::Result<Poll<()>> {
        let mut place = self.idle.pop().unwrap_or_else(|| Box::pin(None));
        place.set(Some((self.look_up)(&asked.key, asked.bytes)));
        self.engine.recorder.drive(asked.endpoint);
        let polled = std::future::poll_fn(|context| Poll::Ready(poll(&mut place, context))).await;
        match polled {
            Poll::Ready(is_answered) => {
                self.put_back(place);
                check(is_answered).map(Poll::Ready)
            }
            Poll::Pending => {
                self.under_way.push((asked.endpoint, place));
                Ok(Poll::Pending)
            }
        }
    }

    /// Waits for all loads that are under way.
    async fn land(&mut self) -> anyhow::Result<()> {
        if self.under_way.is_empty() {
            return Ok(());
        }
        for (endpoint, mut place) in std::mem::take(&mut self.under_way) {
            let recorder = &self.engine.recorder;
            let is_answered = std::future::poll_fn(|context| {
                recorder.drive(endpoint);
                poll(&mut place, context)
            })
            .await;
            self.put_back(place);
            check(is_answered)?;
        }
        self.look_at_store().await
    }

    fn put_back(&mut self, mut place: Place<F>) {
        place.set(None);
        self.idle.push(place);
    }

    async fn look_at_store(&mut self) -> anyhow::Result<()> {
        let stats = self.engine.cache.stats().await?;
        let (parts, of) = SAFE_PARTS;
        let safe_bytes = stats.limit_bytes.unwrap_or(0) / of * parts;
        let used_bytes = stats.used_bytes.unwrap_or(u64::MAX);
        self.room_pages = safe_bytes.saturating_sub(used_bytes) / PAGE_BYTES;
        let evictions = stats.evictions.unwrap_or(0);
        if evictions > self.evictions {
            let more = evictions - self.evictions;
            self.engine.recorder.note_evictions(more);
            self.evictions = evictions;
        }
        Ok(())
    }
}

/// What an entry of so many bytes may fill, and what the store keeps free while it is written.
fn pages(bytes: u64) -> u64 {
    (bytes / PAGE_BYTES).saturating_mul(9) / 4 + WAY_PAGES
}

fn poll<F: Future>(place: &mut Place<F>, context: &mut Context<'_>) -> Poll<F::Output> {
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
