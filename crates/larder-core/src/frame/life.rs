//! How old an entry is, what it may be served for at that age, and when to load it anew before it is stale.

use std::time::Duration;

use super::Frame;

/// What an entry may be served for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Anything.
    Fresh,
    /// Anything, while it is loaded anew in the background.
    StaleWhileRevalidate,
    /// To stand in for a load that failed, or is slow.
    StaleIfError,
    /// Nothing.
    Over,
}

impl Frame {
    /// How long ago the entry was stored, by what the store says is left of its life (of which it was given
    /// [`Frame::total`]). No two machines' clocks are compared.
    ///
    /// `None` if that can't be: it has no end, or lives longer than it was given, so another program changed it. Then it
    /// is a miss.
    #[must_use]
    pub fn age(&self, left: Option<Duration>) -> Option<Duration> {
        self.total.checked_sub(left?)
    }

    /// What it may be served for at an age. Time alone decides here: an entry whose stamps or incarnation don't hold any
    /// more is dead at any age.
    #[must_use]
    pub fn freshness(&self, age: Duration) -> Freshness {
        if age >= self.total {
            return Freshness::Over;
        }
        if age < self.fresh {
            return Freshness::Fresh;
        }
        let stale = age - self.fresh;
        if stale < self.stale_while_revalidate {
            Freshness::StaleWhileRevalidate
        } else if stale < self.stale_if_error {
            Freshness::StaleIfError
        } else {
            Freshness::Over
        }
    }

    /// Is fresh no longer than this: what the policy in force says, which may have become shorter since it was stored.
    pub fn cut_to(&mut self, ttl: Duration) {
        self.fresh = self.fresh.min(ttl);
    }

    /// Whether a reader is to load the entry anew, at this age, though it may be fresh yet: XFetch (Vattani, Chierichetti,
    /// Lowenstein: *Optimal Probabilistic Cache Stampede Prevention*, VLDB 2015). The longer the load takes, and the nearer
    /// the end, the likelier; so that one of many readers does it before all of them must.
    ///
    /// `chance` is random, even in (0, 1]; a `beta` above 1 means earlier, below 1 later, 0 never before the end.
    #[must_use]
    pub fn is_due_early(&self, age: Duration, beta: f64, chance: f64) -> bool {
        let ahead = self.load_cost.as_secs_f64() * beta * -chance.ln();
        // Not a number, of a chance or a beta out of bounds, is not due.
        age.as_secs_f64() + ahead >= self.fresh.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::frame;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn age_is_what_is_gone_of_the_whole_life() {
        let frame = frame("1");
        assert_eq!(frame.age(Some(frame.total)), Some(Duration::ZERO));
        assert_eq!(frame.age(Some(secs(899))), Some(secs(1)));
        assert_eq!(frame.age(Some(Duration::ZERO)), Some(frame.total));
        // No end (PTTL -1), or a longer life than it was given (another program's EXPIRE).
        assert_eq!(frame.age(None), None);
        assert_eq!(frame.age(Some(frame.total + MS)), None);
        assert_eq!(frame.age(Some(Duration::MAX)), None);
    }

    #[test]
    fn each_allowance_ends_at_its_instant() {
        let frame = frame("1");
        for (age, freshness) in [
            (Duration::ZERO, Freshness::Fresh),
            (secs(300) - MS, Freshness::Fresh),
            (secs(300), Freshness::StaleWhileRevalidate),
            (secs(360) - MS, Freshness::StaleWhileRevalidate),
            (secs(360), Freshness::StaleIfError),
            (secs(900) - MS, Freshness::StaleIfError),
            (secs(900), Freshness::Over),
            (Duration::MAX, Freshness::Over),
        ] {
            assert_eq!(frame.freshness(age), freshness, "{age:?}");
        }
    }

    #[test]
    fn without_allowances_it_is_fresh_or_over() {
        let mut frame = frame("1");
        frame.stale_while_revalidate = Duration::ZERO;
        frame.stale_if_error = Duration::ZERO;
        assert_eq!(frame.freshness(secs(300) - MS), Freshness::Fresh);
        assert_eq!(frame.freshness(secs(300)), Freshness::Over);
        // Jitter took more of its life than of what it says of itself.
        frame.total = secs(290);
        assert_eq!(frame.freshness(secs(290)), Freshness::Over);
    }

    #[test]
    fn a_policy_that_became_shorter_moves_all_allowances() {
        let mut frame = frame("1");
        frame.cut_to(secs(400));
        assert_eq!(frame.fresh, secs(300));
        frame.cut_to(secs(10));
        assert_eq!(frame.freshness(secs(10)), Freshness::StaleWhileRevalidate);
        assert_eq!(frame.freshness(secs(70)), Freshness::StaleIfError);
        assert_eq!(frame.freshness(secs(610)), Freshness::Over);
        frame.cut_to(Duration::ZERO);
        assert_eq!(
            frame.freshness(Duration::ZERO),
            Freshness::StaleWhileRevalidate
        );
    }

    /// A reader at an age is early with the chance e^-((fresh - age) / (cost * beta)).
    #[test]
    fn early_loads_are_as_likely_as_the_paper_says() {
        let mut frame = frame("1");
        frame.load_cost = secs(10);
        let chances = 10_000;
        for (before_end, beta) in [(5, 1.0), (10, 1.0), (30, 1.0), (10, 2.0), (10, 0.5)] {
            let age = secs(300 - before_end);
            let due = (1..=chances)
                .filter(|chance| {
                    frame.is_due_early(age, beta, f64::from(*chance) / f64::from(chances))
                })
                .count();
            let share = due as f64 / f64::from(chances);
            let expected = (-(before_end as f64) / (10.0 * beta)).exp();
            assert!((share - expected).abs() < 0.001, "{share} {expected}");
        }
    }

    #[test]
    fn at_its_end_it_is_due_whatever_chance_says_and_before_only_by_chance() {
        let mut frame = frame("1");
        assert!(frame.is_due_early(secs(300), 1.0, 1.0));
        assert!(!frame.is_due_early(secs(300) - MS, 1.0, 1.0));
        assert!(!frame.is_due_early(secs(300) - MS, 0.0, 0.5));
        for nonsense in [f64::NAN, -1.0, f64::NEG_INFINITY] {
            assert!(!frame.is_due_early(Duration::ZERO, 1.0, nonsense));
            assert!(!frame.is_due_early(Duration::ZERO, nonsense, 0.5));
        }
        frame.load_cost = Duration::ZERO;
        assert!(!frame.is_due_early(secs(300) - MS, 1.0, f64::MIN_POSITIVE));
        assert!(!frame.is_due_early(secs(300) - MS, 1.0, 0.0));
    }
}
