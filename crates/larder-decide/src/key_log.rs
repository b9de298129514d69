//! Which keys one instance was asked for since its last report: what makes a window's [`Evidence`].
//!
//! Keys that were seen twice of late are kept apart (hot), and all that is asked for them is recorded; of the others, only
//! those whose hash lies below a share of all. So what few keys carry is counted exactly, and what many carry is sampled.

use larder_model::{Checked, Evidence, KeyUse, MAX_RECORDS, OriginAnswer};

/// Keys are told apart in so many sets, by their hash.
const SETS: usize = 128;
/// Each set remembers so many that were seen once of late, and as many that were seen again since.
const HALF: usize = 4;
/// Of the records, so many are kept for keys that are not hot.
const COLD_RECORDS: usize = 64;

/// No share of keys is less: that of one hash.
pub(crate) const LEAST_SHARE: f64 = 1.0 / 4_294_967_296.0;

/// Whether a hash lies below a share of all.
#[must_use]
pub(crate) fn is_sampled(hash: u32, share: f64) -> bool {
    f64::from(hash) * LEAST_SHARE < share
}

/// What is remembered of a key.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// When it was last seen, in 1/25 s by the caller's clock.
    seen: u32,
    first: u32,
    since_before: Option<u32>,
    /// In this window.
    requests: u16,
    is_taken: bool,
}

impl Slot {
    fn record(&self, began: u32, is_hot: bool) -> KeyUse {
        let within = |at: u32| u16::try_from(at.saturating_sub(began)).unwrap_or(u16::MAX);
        KeyUse {
            hash: self.hash,
            requests: self.requests,
            first: within(self.first),
            last: within(self.seen).max(within(self.first)),
            since_before: self.since_before,
            is_hot,
        }
    }
}

/// One endpoint's keys, of late and in this window. Times are in 1/25 s, by a clock of the caller's that never goes back.
#[derive(Debug)]
pub struct KeyLog {
    /// Each set's hot half first.
    slots: Box<[[Slot; 2 * HALF]]>,
    /// Cold keys of this window that lost their slot.
    spilled: Vec<KeyUse>,
    answers: Vec<OriginAnswer>,
    erased: Vec<u32>,
    erased_more: bool,
    hot_requests: u64,
    cold_requests: u64,
    /// Of keys that are not hot, those below this share are recorded.
    share: f64,
    began: u32,
}

impl KeyLog {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(now: u32) -> Self {
        Self {
            slots: vec![[Slot::default(); 2 * HALF]; SETS].into(),
            spilled: Vec::new(),
            answers: Vec::new(),
            erased: Vec::new(),
            erased_more: false,
            hot_requests: 0,
            cold_requests: 0,
            share: 1.0,
            began: now,
        }
    }

    /// A key was asked for.
    pub fn saw(&mut self, hash: u32, now: u32) {
        let set = &mut self.slots[hash as usize % SETS];
        let found = set
            .iter()
            .position(|slot| slot.is_taken && slot.hash == hash);
        let Some(at) = found else {
            self.cold_requests += 1;
            return self.remember(hash, now);
        };
        let mut slot = set[at];
        if slot.requests == 0 {
            slot.first = now;
            slot.since_before = Some(now.saturating_sub(slot.seen));
        }
        slot.seen = now;
        if at < HALF {
            slot.requests = slot.requests.saturating_add(1);
            self.hot_requests += 1;
            set[at] = slot;
            return;
        }
        // Seen again: hot, and so is what it was asked for before in this window.
        self.cold_requests -= u64::from(slot.requests);
        slot.requests = slot.requests.saturating_add(1);
        self.hot_requests += u64::from(slot.requests);
        let coldest = oldest(&set[..HALF]);
        let demoted = std::mem::replace(&mut set[coldest], slot);
        set[at] = demoted;
        self.hot_requests -= u64::from(demoted.requests);
        self.cold_requests += u64::from(demoted.requests);
    }

    /// The origin answered for a key with what has this hash.
    pub fn answered(&mut self, hash: u32, body: u16, check: Option<Checked>, now: u32) {
        if self.answers.len() >= 4 * MAX_RECORDS {
            return;
        }
        let at = u16::try_from(now.saturating_sub(self.began)).unwrap_or(u16::MAX);
        self.answers.push(OriginAnswer {
            hash,
            body,
            at,
            check,
        });
    }

    /// A key was invalidated; `None`: more than one may have been.
    pub fn erased(&mut self, hash: Option<u32>) {
        match hash {
            Some(hash) if self.erased.len() < MAX_RECORDS => self.erased.push(hash),
            _ => self.erased_more = true,
        }
    }

    /// What was seen since the last time. From now on, of the keys that are not hot, those below `share` are recorded.
    #[must_use]
    pub fn take(&mut self, share: f64, now: u32) -> Evidence {
        let mut cold = std::mem::take(&mut self.spilled);
        let mut hot = Vec::new();
        for set in &mut self.slots {
            for (at, slot) in set.iter_mut().enumerate() {
                if slot.requests > 0 {
                    let list = if at < HALF { &mut hot } else { &mut cold };
                    list.push(slot.record(self.began, at < HALF));
                    slot.requests = 0;
                }
            }
        }
        cold.retain(|record| is_sampled(record.hash, self.share));
        // The lowest hashes, so that what is left is a sample by key.
        let hot_room = MAX_RECORDS - cold.len().min(COLD_RECORDS);
        hot.sort_unstable_by_key(|record| record.hash);
        hot.truncate(hot_room);
        let mut recorded_share = self.share.max(LEAST_SHARE);
        let cold_room = MAX_RECORDS - hot.len();
        cold.sort_unstable_by_key(|record| record.hash);
        if let Some(cut) = cold.get(cold_room) {
            recorded_share = (f64::from(cut.hash) * LEAST_SHARE).max(LEAST_SHARE);
            cold.truncate(cold_room);
        }
        let mut keys = hot;
        keys.append(&mut cold);
        keys.sort_unstable_by_key(|record| record.hash);
        let mut answers = std::mem::take(&mut self.answers);
        let is_recorded = |hash: u32| keys.binary_search_by_key(&hash, |key| key.hash).is_ok();
        answers.retain(|answer| answer.check.is_some() || is_recorded(answer.hash));
        answers.truncate(MAX_RECORDS);
        let evidence = Evidence {
            hot_requests: std::mem::take(&mut self.hot_requests),
            cold_requests: std::mem::take(&mut self.cold_requests),
            share: recorded_share,
            keys,
            answers,
            erased: std::mem::take(&mut self.erased),
            erased_more: std::mem::take(&mut self.erased_more),
        };
        self.share = share;
        self.began = now;
        evidence
    }

    /// Puts a key that is not known in the place of the coldest that is not hot.
    fn remember(&mut self, hash: u32, now: u32) {
        let set = &mut self.slots[hash as usize % SETS];
        let at = HALF + oldest(&set[HALF..]);
        let slot = Slot {
            hash,
            seen: now,
            first: now,
            since_before: None,
            requests: 1,
            is_taken: true,
        };
        let lost = std::mem::replace(&mut set[at], slot);
        let is_wanted = lost.requests > 0 && is_sampled(lost.hash, self.share);
        if is_wanted && self.spilled.len() < 4 * MAX_RECORDS {
            self.spilled.push(lost.record(self.began, false));
        }
    }
}

/// The place that is free, or was not seen for longest.
fn oldest(slots: &[Slot]) -> usize {
    let age = |(_, slot): &(usize, &Slot)| (slot.is_taken, slot.seen);
    slots
        .iter()
        .enumerate()
        .min_by_key(age)
        .map_or(0, |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u32) -> u32 {
        key.wrapping_mul(2_654_435_769)
    }

    #[test]
    fn a_key_that_is_seen_again_is_hot_and_all_of_it_is_recorded() {
        let mut log = KeyLog::new(100);
        for at in [110, 135, 160] {
            log.saw(7, at);
        }
        let evidence = log.take(1.0, 225);
        let [key] = evidence.keys[..] else {
            panic!("{evidence:?}")
        };
        assert_eq!((key.requests, key.first, key.last), (3, 10, 60));
        assert_eq!((key.is_hot, key.since_before), (true, None));
        assert_eq!((evidence.hot_requests, evidence.cold_requests), (3, 0));
        log.saw(7, 260);
        let key = log.take(1.0, 350).keys[0];
        assert_eq!((key.first, key.since_before), (35, Some(100)));
    }

    #[test]
    fn a_flood_of_new_keys_takes_no_place_of_a_hot_one_and_is_a_sample() {
        let mut log = KeyLog::new(0);
        let hot: Vec<u32> = (0..100).map(hash).collect();
        for _ in 0..2 {
            hot.iter().for_each(|key| log.saw(*key, 1));
        }
        let _ = log.take(0.01, 2);
        for key in 1_000..101_000 {
            log.saw(hash(key), 3);
        }
        hot.iter().for_each(|key| log.saw(*key, 4));
        let evidence = log.take(0.01, 5);
        let is_hot = |record: &&KeyUse| record.is_hot;
        let found = evidence.keys.iter().filter(is_hot).count();
        assert!(found >= 85, "{found} of 100 are hot");
        assert_eq!(evidence.hot_requests + evidence.cold_requests, 100_100);
        assert!(evidence.is_plausible() && evidence.keys.len() <= MAX_RECORDS);
        let cold = evidence.keys.len() - found;
        let expected = evidence.share * 100_000.0;
        assert!(
            (expected * 0.7..expected * 1.3).contains(&(cold as f64)),
            "{cold} of {expected}"
        );
    }

    #[test]
    fn answers_are_those_of_recorded_keys_and_all_checks() {
        let mut log = KeyLog::new(0);
        let _ = log.take(0.0, 0);
        log.saw(8, 1);
        log.answered(8, 1, None, 1);
        let check = Checked {
            age: 50,
            has_changed: true,
        };
        log.answered(9, 2, Some(check), 2);
        log.erased(Some(9));
        let evidence = log.take(0.0, 3);
        assert_eq!(evidence.answers.len(), 1);
        assert_eq!(evidence.answers[0].check, Some(check));
        assert_eq!((evidence.erased, evidence.erased_more), (vec![9], false));
    }
}
