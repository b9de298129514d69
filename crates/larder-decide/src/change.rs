//! How often what the origin answers changes, and so how long it may be kept: at most a given share of hits may be stale.
//!
//! For any stationary process of changes the chance that one happened by age `a` is at most `r a`, `r` being their rate:
//! of the hits on an entry that is kept for `T`, at most `r T / 2` are stale.

use serde::{Deserialize, Serialize};

/// Observations are told apart by the time between two answers: up to 1, 2, 5, … seconds, and beyond.
const GAPS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];
/// One observation stands for so many hits at the most.
const MOST_WEIGHT: f64 = 50.0;
/// And for as much of one at the least.
const LEAST_WEIGHT: f64 = 0.1;
/// Half-life of observations, in seconds: 24 h.
const HALF_LIFE: f64 = 86_400.0;
/// Half-life of what checks found, in seconds: 4 h.
const CHECKS_HALF_LIFE: f64 = 14_400.0;
/// How much of the budget a TTL is planned for, times two for `r T / 2`.
const PLANNED: f64 = 1.8;
/// A TTL is suspected if the rate seems to be so many times what fits the budget.
const SUSPECTED: f64 = 6.0;
/// The most that one tick adds to the suspicion: a change of all keys at once is one event.
const MOST_A_TICK: f64 = 3.0;
/// The suspicion at which the TTL is cut, beside the logarithm of how much was seen.
const TRIPS: f64 = 8.0;
/// Of what was seen before a trip, so much is kept.
const KEPT: f64 = 0.02;
/// Checks count as if so many before them had been stale as expected: a few are noise.
const AS_EXPECTED: f64 = 8.0;
/// Answers that differ within a second can't be helped by a TTL: the first bucket. Within five, a change in 300 s already
/// makes more than one in a hundred differ.
const AT_ONCE_BUCKETS: usize = 1;

/// Observations of one bucket of gaps.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Bucket {
    n: f64,
    changed: f64,
    weight: f64,
    weight_squares: f64,
    changed_weight: f64,
    /// Weight times gap, in seconds.
    exposure: f64,
}

impl Bucket {
    fn add(&mut self, other: &Self, share: f64) {
        self.n += share * other.n;
        self.changed += share * other.changed;
        self.weight += share * other.weight;
        self.weight_squares += share * other.weight_squares;
        self.changed_weight += share * other.changed_weight;
        self.exposure += share * other.exposure;
    }

    fn fade(&mut self, factor: f64) {
        *self = std::mem::take(self).times(factor);
    }

    fn times(self, factor: f64) -> Self {
        let mut scaled = Self::default();
        scaled.add(&self, factor);
        scaled
    }

    /// The changes that its observations saw, of which one counts for all between two answers.
    fn changes(&self) -> f64 {
        if self.changed <= 0.0 {
            return 0.0;
        }
        let unchanged = (self.n - self.changed + 0.5) / (self.n + 0.5);
        self.changed_weight * (self.n / self.changed) * -unchanged.ln()
    }
}

type Buckets = [Bucket; GAPS.len() + 1];

/// What an answer of the origin tells, whose key it had answered before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Observation {
    /// The time since the answer before, in seconds.
    pub(crate) gap: f64,
    pub(crate) has_changed: bool,
    /// The hits that were, or would have been, served in between.
    pub(crate) hits: f64,
}

/// All that is known of changes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Changes {
    buckets: Buckets,
    /// What was seen since there was no suspicion.
    lately: Buckets,
    suspicion: f64,
    /// Fresh entries that were checked, those that had changed, and how many were expected to have.
    checks: f64,
    stale_checks: f64,
    expected: f64,
}

/// The figures of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ChangeFigures {
    /// Answers whose key had been answered before; faded.
    pub observed: f64,
    /// Those that differed.
    pub changed: f64,
    /// Changes per second and key, weighted by the hits that they concern; infinite if nothing was observed.
    pub rate: f64,
    /// How much more changes the checks found than `rate` lets expect.
    pub kappa: f64,
    /// Fresh entries that were checked lately.
    pub checks: f64,
    /// Those that had changed.
    pub stale_checks: f64,
    /// How many were expected to have.
    pub expected: f64,
    /// How much the last answers speak for a rate that breaks the budget (a CUSUM).
    pub suspicion: f64,
    /// Whether the suspicion has just become a certainty.
    pub has_tripped: bool,
    /// Answers that came within a second of one before, and those among them that differed.
    pub at_once: [f64; 2],
}

impl ChangeFigures {
    /// The longest TTL that the staleness budget (a share of hits) allows, in seconds.
    #[must_use]
    pub fn longest_ttl(&self, budget: f64) -> f64 {
        PLANNED * budget / (self.rate * self.kappa)
    }
}

impl Changes {
    pub(crate) fn fade(&mut self, seconds: f64) {
        let factor = (-seconds / HALF_LIFE).exp2();
        let all = self.buckets.iter_mut().chain(&mut self.lately);
        all.for_each(|bucket| bucket.fade(factor));
        let factor = (-seconds / CHECKS_HALF_LIFE).exp2();
        for sum in [&mut self.checks, &mut self.stale_checks, &mut self.expected] {
            *sum *= factor;
        }
    }

    pub(crate) fn observe(&mut self, seen: &Observation) {
        let at = GAPS.iter().position(|most| seen.gap <= *most);
        let at = at.unwrap_or(GAPS.len());
        let weight = seen.hits.clamp(LEAST_WEIGHT, MOST_WEIGHT);
        let changed = f64::from(u8::from(seen.has_changed));
        let one = Bucket {
            n: 1.0,
            changed,
            weight,
            weight_squares: weight * weight,
            changed_weight: weight * changed,
            exposure: weight * seen.gap,
        };
        self.buckets[at].add(&one, 1.0);
        self.lately[at].add(&one, 1.0);
    }

    /// A fresh entry was looked at.
    pub(crate) fn check(&mut self, age: f64, has_changed: bool, rate: f64) {
        self.checks += 1.0;
        self.stale_checks += f64::from(u8::from(has_changed));
        let expected = 1.0 - (-rate * age).exp();
        if expected.is_finite() {
            self.expected += expected;
        }
    }

    /// Weighs the answers of a tick, made while entries live for `ttl` seconds; whether they prove that this is too long.
    pub(crate) fn suspect(&mut self, seen: &[Observation], ttl: f64, budget: f64) -> bool {
        let before = self.suspicion;
        for one in seen {
            let usual = 2.0 * budget * one.gap / ttl;
            let (p0, p1) = (1.0 - (-usual).exp(), 1.0 - (-usual * SUSPECTED).exp());
            let step = match one.has_changed {
                true => (p1 / p0.max(f64::MIN_POSITIVE)).ln(),
                false => {
                    ((1.0 - p1).max(f64::MIN_POSITIVE) / (1.0 - p0).max(f64::MIN_POSITIVE)).ln()
                }
            };
            self.suspicion = (self.suspicion + step).max(0.0);
            if self.suspicion == 0.0 {
                self.lately = Buckets::default();
            }
        }
        self.suspicion = self.suspicion.min(before + MOST_A_TICK);
        let trips = self.suspicion > TRIPS + (1.0 + seen.len() as f64).ln();
        if trips {
            self.trip();
        }
        trips
    }

    fn trip(&mut self) {
        for (bucket, lately) in self.buckets.iter_mut().zip(&self.lately) {
            let mut before = *bucket;
            before.add(lately, -1.0);
            *bucket = before.times(KEPT);
            bucket.add(lately, 1.0);
        }
        self.lately = Buckets::default();
        self.suspicion = 0.0;
        (self.checks, self.stale_checks, self.expected) = (0.0, 0.0, 0.0);
    }

    pub(crate) fn suspicion(&self) -> f64 {
        self.suspicion
    }

    pub(crate) fn figures(&self, has_tripped: bool) -> ChangeFigures {
        let sum = |of: fn(&Bucket) -> f64| self.buckets.iter().map(of).sum::<f64>();
        let at_once = &self.buckets[..AT_ONCE_BUCKETS];
        ChangeFigures {
            observed: sum(|bucket| bucket.n),
            changed: sum(|bucket| bucket.changed),
            rate: self.rate(),
            kappa: (self.stale_checks + AS_EXPECTED) / (self.expected + AS_EXPECTED),
            checks: self.checks,
            stale_checks: self.stale_checks,
            expected: self.expected,
            suspicion: self.suspicion,
            has_tripped,
            at_once: [
                at_once.iter().map(|bucket| bucket.n).sum(),
                at_once.iter().map(|bucket| bucket.changed).sum(),
            ],
        }
    }

    /// One estimate for each bucket: the gaps of different keys are no sample of one process. One change more than was
    /// seen is always taken to have happened.
    pub(crate) fn rate(&self) -> f64 {
        let sum = |of: fn(&Bucket) -> f64| self.buckets.iter().map(of).sum::<f64>();
        let (weight, exposure) = (sum(|bucket| bucket.weight), sum(|bucket| bucket.exposure));
        if weight <= 0.0 || exposure <= 0.0 {
            return f64::INFINITY;
        }
        let one = sum(|bucket| bucket.weight_squares) / weight;
        let overall = (sum(Bucket::changes) + one) / exposure;
        let of = |bucket: &Bucket| {
            bucket.weight * (bucket.changes() + one) / (bucket.exposure + one / overall)
        };
        self.buckets.iter().map(of).sum::<f64>() / weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(gap: f64, has_changed: bool) -> Observation {
        Observation {
            gap,
            has_changed,
            hits: 1.0,
        }
    }

    #[test]
    fn without_evidence_nothing_may_be_kept_and_with_more_of_it_for_longer() {
        let mut changes = Changes::default();
        assert_eq!(changes.figures(false).longest_ttl(0.01), 0.0);
        let mut before = 0.0;
        for _ in 0..100 {
            changes.observe(&seen(60.0, false));
            let ttl = changes.figures(false).longest_ttl(0.01);
            assert!(ttl > before, "{ttl} after {before}");
            before = ttl;
        }
        assert!((100.0..=220.0).contains(&before), "{before}");
    }

    #[test]
    fn two_classes_of_gaps_are_not_averaged() {
        let mut changes = Changes::default();
        // By an average of gaps this would be a rate of .0017.
        for index in 0..10_000 {
            changes.observe(&seen(0.2, index % 500 == 0));
            changes.observe(&seen(600.0, index % 400 != 0));
        }
        let rate = changes.rate();
        assert!((0.008..0.012).contains(&rate), "{rate}");
    }

    #[test]
    fn what_breaks_the_budget_trips_and_what_keeps_it_never_does() {
        let mut changes = Changes::default();
        for tick in 0..10_000 {
            // One change in 600 s, kept for 10 s: .8 % of hits are stale.
            let answers: Vec<_> = (0..10)
                .map(|index| seen(10.0, (tick * 10 + index) % 60 == 0))
                .collect();
            assert!(!changes.suspect(&answers, 10.0, 0.01), "tripped at {tick}");
        }
        let ticks = (0..20).position(|_| changes.suspect(&[seen(200.0, true); 3], 3_600.0, 0.01));
        assert!(ticks.is_some_and(|ticks| ticks < 5), "{ticks:?}");
        assert_eq!(changes.suspicion(), 0.0);
    }
}
