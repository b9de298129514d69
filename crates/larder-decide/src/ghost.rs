//! The hit ratio that a cache would have, for each of nine TTLs at once, measured and not modelled: a ghost of the shared
//! store remembers of each key when it would have been filled. It needs no caching to be on.
//!
//! After SHARDS (Waldspurger et al., FAST '15) and its miniature caches; but the keys that carry most are kept exactly.

use std::collections::{BTreeMap, BTreeSet};

use larder_model::{Evidence, PER_SECOND};
use serde::{Deserialize, Serialize};

use crate::change::Observation;
use crate::key_log::{LEAST_SHARE, is_sampled};

/// The TTLs that are tried, in seconds.
pub const TTLS: [u32; 9] = [1, 2, 5, 10, 30, 60, 300, 900, 3_600];
/// So many hot keys are remembered, and as many others.
const MOST_KEYS: usize = 512;
/// What was counted loses half its weight in this time, in seconds, while there is enough of it.
const HALF_LIFE: f64 = 420.0;
/// Fewer requests don't fade.
const ENOUGH: f64 = 300.0;
/// A key that was not asked for so long is forgotten, in seconds: no TTL that is tried is longer.
const FORGET_AFTER: u32 = 3_600;
/// A ghost that nobody reported to for so long is given up, in seconds; and after it nothing is taken to be invalidated still.
const IN_USE: u32 = 3_600;
/// Of one tick's invalidations so many are told apart; with more, all keys are taken to be.
const MOST_ERASED: usize = 1_024;
/// So many answers wait for the next tick's invalidations.
const MOST_HELD: usize = 1_024;

/// What was invalidated in a tick.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Erased {
    hashes: BTreeSet<u32>,
    /// More than is listed.
    is_all: bool,
}

impl Erased {
    pub(crate) fn take(&mut self, evidence: &Evidence) {
        self.hashes.extend(&evidence.erased);
        self.is_all |= evidence.erased_more || self.hashes.len() > MOST_ERASED;
        if self.is_all {
            self.hashes.clear();
        }
    }

    pub(crate) fn has(&self, hash: u32) -> bool {
        self.is_all || self.hashes.contains(&hash)
    }

    fn is_empty(&self) -> bool {
        !self.is_all && self.hashes.is_empty()
    }
}

/// A key's lookups since the last tick, of all instances together. Times are in 1/25 s.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) requests: u32,
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) since_before: Option<u32>,
    pub(crate) is_hot: bool,
}

impl Use {
    /// Another instance's of the same key.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        if other.first < self.first {
            self.since_before = other.since_before.or(self.since_before);
        }
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.is_hot |= other.is_hot;
    }
}

/// What is remembered of a key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GhostKey {
    is_hot: bool,
    seen: u32,
    /// When it was last filled, had it each of the TTLs; `None`: never.
    fills: [Option<u32>; TTLS.len()],
    /// The origin's last answer, and when.
    body: Option<(u16, u32)>,
    /// The requests that it stood for since.
    pub(crate) hits_since: f64,
}

impl GhostKey {
    /// The origin answered, `hits` requests after the last time; how long after the answer before, whether it differs, and
    /// for how many requests that stood.
    pub(crate) fn answered(&mut self, body: u16, at: u32, hits: f64) -> Option<(f64, bool, f64)> {
        let hits = std::mem::take(&mut self.hits_since) + hits;
        let (before, known_at) = self.body.replace((body, at))?;
        let gap = f64::from(at.saturating_sub(known_at)) / f64::from(PER_SECOND);
        Some((gap, body != before, hits))
    }
}

/// Requests and misses, of one class of keys.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Class {
    /// All requests.
    requests: f64,
    /// Those whose keys were recorded.
    recorded: f64,
    misses: [f64; TTLS.len()],
}

impl Class {
    fn fade(&mut self, factor: f64) {
        self.requests *= factor;
        self.recorded *= factor;
        self.misses.iter_mut().for_each(|misses| *misses *= factor);
    }

    /// The misses of all requests; without a record every one is taken for one.
    fn all_misses(&self, at: usize) -> f64 {
        match self.recorded > 0.0 {
            true => self.requests * (self.misses[at] / self.recorded).min(1.0),
            false => self.requests,
        }
    }
}

/// The ghost of one store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ghost {
    pub(crate) keys: BTreeMap<u32, GhostKey>,
    hot: Class,
    cold: Class,
    /// Of the keys that are not hot, those below this share are remembered.
    pub(crate) share: f64,
    /// When it was last shown windows, and when something was last invalidated.
    reported: u32,
    erased_at: Option<u32>,
    /// What was invalidated when it was last shown windows.
    erased: Erased,
    /// Answers that differed then.
    pub(crate) held: Vec<(u32, Observation)>,
}

impl Default for Ghost {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            hot: Class::default(),
            cold: Class::default(),
            share: 1.0,
            reported: 0,
            erased_at: None,
            erased: Erased::default(),
            held: Vec::new(),
        }
    }
}

impl Ghost {
    /// Lets what was counted fade.
    pub(crate) fn fade(&mut self, seconds: f64) {
        if self.requests() > ENOUGH {
            let factor = (-seconds / HALF_LIFE).exp2();
            self.hot.fade(factor);
            self.cold.fade(factor);
        }
    }

    pub(crate) fn count(&mut self, hot: f64, cold: f64) {
        self.hot.requests += hot;
        self.cold.requests += cold;
    }

    /// Takes over that of the keys that are not hot, only those below this share were recorded.
    pub(crate) fn narrow(&mut self, share: f64) {
        let share = share.max(LEAST_SHARE);
        if share < self.share {
            self.share = share;
            self.keys
                .retain(|hash, key| key.is_hot || is_sampled(*hash, share));
        }
    }

    /// Lets a key be asked for.
    pub(crate) fn ask(&mut self, hash: u32, asked: &Use) {
        if !asked.is_hot && !is_sampled(hash, self.share) {
            return;
        }
        let key = self.keys.entry(hash).or_insert(GhostKey {
            is_hot: asked.is_hot,
            seen: asked.first,
            fills: [None; TTLS.len()],
            body: None,
            hits_since: 0.0,
        });
        let class = if asked.is_hot {
            &mut self.hot
        } else {
            &mut self.cold
        };
        class.recorded += f64::from(asked.requests);
        key.is_hot = asked.is_hot;
        for (at, ttl) in TTLS.iter().enumerate() {
            let misses = misses(&mut key.fills[at], ttl * PER_SECOND, asked);
            class.misses[at] += misses;
        }
        key.seen = key.seen.max(asked.last);
    }

    /// Forgets what invalidations removed: the keys are filled anew.
    pub(crate) fn erase(&mut self, erased: &Erased) {
        for (hash, key) in &mut self.keys {
            if erased.has(*hash) {
                key.fills = [None; TTLS.len()];
                (key.body, key.hits_since) = (None, 0.0);
            }
        }
    }

    /// Forgets what a tick's answers were of keys that were invalidated in it, or in the one before: they may be older.
    pub(crate) fn forget_answers(&mut self, erased: Erased, now: u32) {
        for (hash, key) in &mut self.keys {
            if erased.has(*hash) || self.erased.has(*hash) {
                (key.body, key.hits_since) = (None, 0.0);
            }
        }
        if !erased.is_empty() {
            self.erased_at = Some(now);
        }
        self.erased = erased;
    }

    /// Whether a key was invalidated when windows were last shown.
    pub(crate) fn was_erased(&self, hash: u32) -> bool {
        self.erased.has(hash)
    }

    /// Whether an answer that differs is to wait for the next tick's invalidations.
    pub(crate) fn has_room_to_hold(&self, now: u32) -> bool {
        let is_recent = |at: u32| now.saturating_sub(at) < IN_USE * PER_SECOND;
        self.erased_at.is_some_and(is_recent) && self.held.len() < MOST_HELD
    }

    /// Whether windows were shown to it of late.
    pub(crate) fn is_in_use(&self, now: u32) -> bool {
        now.saturating_sub(self.reported) < IN_USE * PER_SECOND
    }

    /// Forgets what was long not asked for, keeps within its bounds, and finds how many keys are to be recorded.
    pub(crate) fn prune(&mut self, now: u32) {
        self.reported = now;
        let is_recent = |seen: u32| now.saturating_sub(seen) < FORGET_AFTER * PER_SECOND;
        self.keys.retain(|_, key| is_recent(key.seen));
        let mut hot: Vec<(u32, u32)> = self
            .keys
            .iter()
            .filter(|(_, key)| key.is_hot)
            .map(|(hash, key)| (key.seen, *hash))
            .collect();
        if hot.len() > MOST_KEYS {
            hot.sort_unstable();
            for (_, hash) in &hot[..hot.len() - MOST_KEYS] {
                self.keys.remove(hash);
            }
        }
        let mut cold = self.keys.len() - hot.len().min(MOST_KEYS);
        let mut share = self.share;
        while cold > MOST_KEYS && share > LEAST_SHARE {
            share *= 0.8;
            let is_kept = |hash: u32| is_sampled(hash, share);
            cold = self
                .keys
                .iter()
                .filter(|(hash, key)| !key.is_hot && is_kept(**hash))
                .count();
        }
        self.narrow(share);
        if cold < MOST_KEYS / 3 {
            self.share = (self.share * 1.25).clamp(LEAST_SHARE, 1.0);
        }
    }

    pub(crate) fn requests(&self) -> f64 {
        self.hot.requests + self.cold.requests
    }

    /// The hits that each TTL would have of [`Ghost::requests`]; a longer TTL never has fewer.
    pub(crate) fn hits(&self) -> [f64; TTLS.len()] {
        let mut most = 0.0_f64;
        std::array::from_fn(|at| {
            let misses = self.hot.all_misses(at) + self.cold.all_misses(at);
            most = most.max(self.requests() - misses);
            most
        })
    }
}

/// What stores with each of the TTLs really had, faded as a ghost fades: what it is compared with.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    lookups: f64,
    hits: [f64; TTLS.len()],
}

impl Truth {
    /// A lookup, so long after the one before, and which TTLs it hit with.
    pub(crate) fn count(&mut self, seconds: f64, hits: [bool; TTLS.len()]) {
        if self.lookups > ENOUGH {
            let factor = (-seconds / HALF_LIFE).exp2();
            self.lookups *= factor;
            self.hits.iter_mut().for_each(|sum| *sum *= factor);
        }
        self.lookups += 1.0;
        for (sum, is_hit) in self.hits.iter_mut().zip(hits) {
            *sum += f64::from(u8::from(is_hit));
        }
    }

    pub(crate) fn lookups(&self) -> f64 {
        self.lookups
    }

    /// How far a ghost is off, at the worst of the TTLs that are so long.
    pub(crate) fn error(&self, ghost: &[f64; TTLS.len()], from_seconds: u32) -> f64 {
        let of = |at: usize| (ghost[at] - self.hits[at] / self.lookups).abs();
        let long = (0..TTLS.len()).filter(|at| TTLS[*at] >= from_seconds);
        long.map(of).fold(0.0, f64::max)
    }
}

/// How many of the requests for a key a TTL would have missed, taken to be evenly spread from the first to the last.
fn misses(fill: &mut Option<u32>, ttl: u32, asked: &Use) -> f64 {
    let mut misses = 0.0;
    let is_fresh = |filled: u32| asked.first < filled.saturating_add(ttl);
    let mut filled = match (*fill, asked.since_before) {
        (Some(at), _) if is_fresh(at) => at,
        // The instance saw it, and nothing is known of its fill. Asked for every `before`, it is filled once in `ttl + before`.
        (None, Some(before)) if before < ttl => {
            misses += f64::from(before) / f64::from(before + ttl);
            asked.first.saturating_sub(before)
        }
        _ => {
            misses += 1.0;
            asked.first
        }
    };
    let span = u64::from(asked.last.saturating_sub(asked.first));
    let steps = u64::from(asked.requests.saturating_sub(1));
    if steps > 0 && span > 0 {
        loop {
            let due = u64::from(filled.saturating_add(ttl).saturating_sub(asked.first));
            let step = (due * steps).div_ceil(span);
            if step > steps {
                break;
            }
            misses += 1.0;
            let at = asked.first + u32::try_from(step * span / steps).unwrap_or(u32::MAX);
            // A step forward, however it is rounded.
            filled = at.max(filled.saturating_add(1));
        }
    }
    *fill = Some(filled);
    misses.min(f64::from(asked.requests))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(requests: u32, first: u32, last: u32) -> Use {
        Use {
            requests,
            first,
            last,
            since_before: None,
            is_hot: true,
        }
    }

    #[test]
    fn a_ttl_misses_when_its_fill_is_over() {
        let mut fill = None;
        assert_eq!(misses(&mut fill, 50, &asked(1, 0, 0)), 1.0);
        assert_eq!(misses(&mut fill, 50, &asked(1, 49, 49)), 0.0);
        assert_eq!(misses(&mut fill, 50, &asked(1, 50, 50)), 1.0);
        assert_eq!(fill, Some(50));
        // Eleven requests, one each 25: at 100 the fill of 50 is over, at 150 the next, …
        assert_eq!(misses(&mut fill, 50, &asked(11, 75, 325)), 5.0);
    }

    #[test]
    fn what_the_instance_saw_before_counts_where_nothing_is_known() {
        let known = Use {
            since_before: Some(30),
            ..asked(1, 100, 100)
        };
        assert_eq!(misses(&mut None, 50, &known), 30.0 / 80.0);
        assert_eq!(misses(&mut None, 25, &known), 1.0);
    }

    #[test]
    fn it_stays_within_its_bounds_under_a_flood_and_says_what_to_record() {
        let mut ghost = Ghost::default();
        for tick in 0..40_u32 {
            for key in 0..500_u32 {
                let hash = (tick * 500 + key).wrapping_mul(2_654_435_769);
                let cold = Use {
                    is_hot: key % 5 == 0,
                    ..asked(1, tick * 250, tick * 250)
                };
                ghost.ask(hash, &cold);
            }
            ghost.count(100.0, 400.0);
            ghost.prune(tick * 250);
            assert!(ghost.keys.len() <= 2 * MOST_KEYS, "{}", ghost.keys.len());
        }
        assert!((0.01..0.1).contains(&ghost.share), "{}", ghost.share);
        assert!(
            ghost.hits()[8] / ghost.requests() < 0.01,
            "no key came twice"
        );
    }

    #[test]
    fn an_invalidated_key_is_a_miss_and_has_no_answer_to_compare_with() {
        let mut ghost = Ghost::default();
        ghost.count(2.0, 0.0);
        ghost.ask(1, &asked(1, 0, 0));
        ghost.keys.get_mut(&1).unwrap().body = Some((7, 0));
        let mut erased = Erased::default();
        erased.hashes.insert(1);
        ghost.erase(&erased);
        assert_eq!(ghost.keys[&1].body, None);
        ghost.ask(1, &asked(1, 5, 5));
        assert!(ghost.hits()[8] < 0.5);
    }
}
