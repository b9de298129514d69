//! A tick's windows of one store, by key: shown to its ghost, and what its answers tell of changes.
//!
//! What is invalidated is no change. A window tells which keys were, but not when; and the answer that came after one may
//! arrive a tick before it or after it, of another instance. So answers of a key count for nothing in the tick in which it was
//! invalidated and in the one after; and where something was invalidated of late, answers that differ wait for a tick.

use std::collections::BTreeMap;

use larder_model::{OriginAnswer, PER_SECOND};

use crate::change::Observation;
use crate::engine::Arrived;
use crate::ghost::{Erased, Ghost, Use};

pub(crate) fn in_ghost_time(ms: u64, epoch_ms: u64) -> u32 {
    let ticks = ms.saturating_sub(epoch_ms) * u64::from(PER_SECOND) / 1_000;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// What the answers of a tick told.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) answers: Vec<Observation>,
    /// Ages of fresh entries that were checked, in seconds, and whether they had changed.
    pub(crate) checks: Vec<(f64, bool)>,
}

/// A tick's windows of one store, by key.
#[derive(Default)]
pub(crate) struct StoreTick {
    pub(crate) uses: BTreeMap<u32, Use>,
    answers: BTreeMap<u32, Vec<(u32, OriginAnswer)>>,
    erased: Erased,
}

impl StoreTick {
    pub(crate) fn gather(windows: &[Arrived], epoch_ms: u64) -> Self {
        let mut tick = Self::default();
        for arrived in windows {
            let Some(evidence) = &arrived.evidence else {
                continue;
            };
            let began = in_ghost_time(arrived.began_ms, epoch_ms);
            let at = |within: u16| began.saturating_add(u32::from(within));
            for key in &evidence.keys {
                let asked = Use {
                    requests: u32::from(key.requests),
                    first: at(key.first),
                    last: at(key.last),
                    since_before: key.since_before,
                    is_hot: key.is_hot,
                };
                let merge = |known: &mut Use| known.merge(&asked);
                tick.uses.entry(key.hash).and_modify(merge).or_insert(asked);
            }
            for answer in &evidence.answers {
                let answers = tick.answers.entry(answer.hash).or_default();
                answers.push((at(answer.at), *answer));
            }
            tick.erased.take(evidence);
        }
        tick.answers
            .values_mut()
            .for_each(|answers| answers.sort_by_key(|(at, answer)| (*at, answer.body)));
        for (hash, asked) in &mut tick.uses {
            if tick.erased.has(*hash) {
                asked.since_before = None;
            }
        }
        tick
    }

    /// Shows the windows to the ghost, and says what they tell; `weigh` says how many hits an answer stands for, by the gap and
    /// the requests since the one before.
    pub(crate) fn show(
        self,
        ghost: &mut Ghost,
        now: u32,
        seen: &mut Seen,
        weigh: impl Fn(f64, f64) -> f64,
    ) {
        ghost.erase(&self.erased);
        for (hash, asked) in &self.uses {
            ghost.ask(*hash, asked);
        }
        let held = std::mem::take(&mut ghost.held);
        let held = held.into_iter().filter(|(hash, _)| !self.erased.has(*hash));
        seen.answers.extend(held.map(|(_, observed)| observed));
        self.answer(ghost, now, seen, weigh);
        ghost.forget_answers(self.erased, now);
    }

    /// Compares each answer with the one before.
    fn answer(
        &self,
        ghost: &mut Ghost,
        now: u32,
        seen: &mut Seen,
        weigh: impl Fn(f64, f64) -> f64,
    ) {
        for (hash, answers) in &self.answers {
            let is_erased = self.erased.has(*hash) || ghost.was_erased(*hash);
            let asked = self.uses.get(hash);
            let loads = answers
                .iter()
                .filter(|(_, answer)| answer.check.is_none())
                .count();
            let hits = asked
                .map_or(0.0, |asked| f64::from(asked.requests) - loads as f64)
                .max(0.0);
            let mut left = hits;
            for (at, answer) in answers {
                let before = hits * asked.map_or(0.0, |asked| asked.part_before(*at));
                let hits_now = (before - (hits - left)).clamp(0.0, left);
                left -= hits_now;
                let key = ghost.keys.get_mut(hash);
                let before = key.and_then(|key| key.answered(answer.body, *at, hits_now));
                let checked = answer.check.map(|check| {
                    let age = f64::from(check.age) / f64::from(PER_SECOND);
                    seen.checks.push((age, check.has_changed));
                    (age, check.has_changed)
                });
                let (gap, has_changed, hits) = match (checked, before) {
                    (Some((age, has_changed)), before) => {
                        (age, has_changed, before.map_or(1.0, |it| it.2))
                    }
                    (None, Some(before)) if !is_erased => before,
                    _ => continue,
                };
                let observed = Observation {
                    gap,
                    has_changed,
                    hits: weigh(gap, hits),
                };
                if has_changed && checked.is_none() && ghost.has_room_to_hold(now) {
                    ghost.held.push((*hash, observed));
                } else {
                    seen.answers.push(observed);
                }
            }
            if let Some(key) = ghost.keys.get_mut(hash) {
                key.hits_since += left;
            }
        }
        for (hash, asked) in &self.uses {
            if !self.answers.contains_key(hash)
                && let Some(key) = ghost.keys.get_mut(hash)
            {
                key.hits_since += f64::from(asked.requests);
            }
        }
    }
}

// === impl Use ===

impl Use {
    /// Which part of its requests came before an instant, if they are evenly spread.
    fn part_before(&self, at: u32) -> f64 {
        let span = f64::from(self.last.saturating_sub(self.first)).max(1.0);
        (f64::from(at.saturating_sub(self.first)) / span).min(1.0)
    }
}
