//! Figures over time, in a bounded number of stretches: when they become too many, they are made longer.

use crate::replay::tally::Tally;

/// How long a stretch may be, in seconds: each a multiple of the one before, so that stretches join without a rest. Behind
/// the last one they double.
const LENGTHS: [u64; 13] = [
    1, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400,
];
const MOST_STRETCHES: usize = 240;

/// What happened in a stretch of the log's time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// When it begins, in milliseconds since 1970.
    pub(crate) from_ms: u64,
    pub(crate) tally: Tally,
    pub(crate) evictions: u64,
}

/// Stretches one behind the other; those in which nothing happened are left out.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    seconds: u64,
    stretches: Vec<Stretch>,
}

impl Series {
    pub(crate) fn new() -> Self {
        Self {
            seconds: LENGTHS[0],
            stretches: Vec::new(),
        }
    }

    /// How long a stretch is, in seconds.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds
    }

    pub(crate) fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// The stretch of a time that is not before the last one asked for.
    pub(crate) fn at(&mut self, now_ms: u64) -> &mut Stretch {
        let from_ms = self.begin_of(now_ms);
        if self
            .stretches
            .last()
            .is_none_or(|last| last.from_ms < from_ms)
        {
            if self.stretches.len() >= MOST_STRETCHES {
                self.lengthen(MOST_STRETCHES / 2);
            }
            let from_ms = self.begin_of(now_ms);
            if self
                .stretches
                .last()
                .is_none_or(|last| last.from_ms < from_ms)
            {
                self.stretches.push(Stretch {
                    from_ms,
                    ..Stretch::default()
                });
            }
        }
        let last = self.stretches.len() - 1;
        &mut self.stretches[last]
    }

    /// The same in at most so many stretches.
    pub(crate) fn of_at_most(mut self, most: usize) -> Self {
        if self.stretches.len() > most {
            self.lengthen(most);
        }
        self
    }

    fn begin_of(&self, at_ms: u64) -> u64 {
        let length = self.seconds * 1_000;
        at_ms / length * length
    }

    /// Makes the stretches longer, until there are no more than so many.
    fn lengthen(&mut self, most: usize) {
        while self.stretches.len() > most {
            let next = LENGTHS.iter().find(|length| **length > self.seconds);
            self.seconds = next.copied().unwrap_or(self.seconds * 2);
            let mut joined: Vec<Stretch> = Vec::with_capacity(self.stretches.len());
            for stretch in std::mem::take(&mut self.stretches) {
                let from_ms = self.begin_of(stretch.from_ms);
                match joined.last_mut().filter(|last| last.from_ms == from_ms) {
                    Some(last) => {
                        last.tally.add(&stretch.tally);
                        last.evictions += stretch.evictions;
                    }
                    None => joined.push(Stretch { from_ms, ..stretch }),
                }
            }
            self.stretches = joined;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(series: &Series) -> u64 {
        let all = series.stretches().iter();
        all.map(|stretch| stretch.tally.hits).sum()
    }

    #[test]
    fn stretches_become_longer_and_nothing_is_lost() {
        for step_ms in [10, 1_000, 7_000, 3_600_000, 86_400_000] {
            let mut series = Series::new();
            for index in 0..10_000_u64 {
                series.at(1_700_000_000_000 + index * step_ms).tally.hits += 1;
                assert!(series.stretches().len() <= MOST_STRETCHES);
            }
            assert_eq!(hits(&series), 10_000, "{step_ms}");
            let few = series.clone().of_at_most(24);
            assert!(few.stretches().len() <= 24);
            assert_eq!(hits(&few), 10_000);
            let length = few.seconds() * 1_000;
            assert!(
                few.stretches()
                    .is_sorted_by(|one, two| one.from_ms < two.from_ms)
            );
            assert!(
                few.stretches()
                    .iter()
                    .all(|stretch| stretch.from_ms % length == 0)
            );
        }
        let lengths = LENGTHS.windows(2);
        assert!(lengths.into_iter().all(|pair| pair[1] % pair[0] == 0));
    }

    #[test]
    fn the_latest_time_there_is_has_a_place() {
        let mut series = Series::new();
        for at_ms in [0, 253_402_300_799_999] {
            series.at(at_ms).tally.misses += 1;
        }
        assert_eq!(series.of_at_most(1).stretches().len(), 1);
    }
}
