//! The record of a decision: the figures that it was made from, what came out, why, and what would flip it. From its bytes
//! it is made anew, bit for bit.

use serde::{Deserialize, Serialize};

use crate::figures::{Figures, Limits, Standing, THETA};
use crate::ghost::TTLS;
use crate::rule::{
    Code, MIN_ANSWERS, bar_off, bar_on, best_hit_ratio, decide, dwell_ends, remembered_ms,
};

/// The engine's version: records and states of another one are not read.
pub const VERSION: u32 = 2;

/// A tick's decision, and all that it was made from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The engine's version.
    pub version: u32,
    /// Which tick.
    pub tick: u64,
    /// How many windows were taken in.
    pub windows: u32,
    /// What the policy left to the engine.
    pub limits: Limits,
    /// What was measured.
    pub figures: Figures,
    /// What was decided before.
    pub before: Standing,
    /// What is decided now.
    pub after: Standing,
    /// Why.
    pub code: Code,
}

/// What would have to be different for another decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Flip {
    /// Which figure.
    pub figure: &'static str,
    /// What it is.
    pub is: f64,
    /// What it would have to be.
    pub needed: f64,
    /// The same in a sentence.
    pub sentence: String,
}

impl Record {
    /// The record's exact bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Nothing in it can't be written.
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// What [`Record::to_bytes`] wrote; `None` if it is no record, or one of another version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let record: Self = postcard::from_bytes(bytes).ok()?;
        (record.version == VERSION).then_some(record)
    }

    /// Decides anew; whether exactly the same comes out.
    #[must_use]
    pub fn replays(&self) -> bool {
        let (after, code) = decide(&self.figures, &self.before, &self.limits);
        let again = Self {
            after,
            code,
            ..*self
        };
        again.to_bytes() == self.to_bytes()
    }

    /// Whether the endpoint is cached now: never where what is decided is only said.
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.after.is_on && self.limits.is_applied
    }

    /// Whether it is news: another decision, or another reason.
    #[must_use]
    pub fn is_news_after(&self, last: &Self) -> bool {
        !self.decides_as(last) || self.code != last.code
    }

    /// Whether it decides the same, within the same limits, for whatever reason.
    #[must_use]
    pub fn decides_as(&self, other: &Self) -> bool {
        (self.after.is_on, self.after.ttl, self.limits)
            == (other.after.is_on, other.after.ttl, other.limits)
    }

    /// Why, in one sentence with its figures.
    #[must_use]
    pub fn sentence(&self) -> String {
        let verb = match (self.limits.is_applied, self.after.is_on) {
            (true, true) => format!("on for {} s", short(self.after.ttl)),
            (true, false) => "off".to_owned(),
            (false, true) => format!("would be on for {} s", short(self.after.ttl)),
            (false, false) => "would be off".to_owned(),
        };
        format!("auto: {verb}, {}", self.because())
    }

    fn because(&self) -> String {
        let figures = &self.figures;
        let origin = &figures.origin;
        let mean = short(origin.mean);
        let longest = self.limits.max_ttl;
        let hits = |ttl: f64| percent(figures.hit_ratio(ttl));
        let ttl = self.after.ttl;
        match self.code {
            Code::Learning => self.learning(),
            Code::NoKeys => {
                "the measured requests carry no keys, so whether they repeat can't be known"
                    .to_owned()
            }
            Code::NoReuse => format!(
                "keys hardly repeat: {} of {} lookups would hit at {} s",
                hits(longest),
                short(figures.lookups),
                short(longest)
            ),
            Code::FastEnough => format!(
                "the origin takes {mean} ms on average over {} answers: at most {} ms saved a request is not worth it",
                short(origin.answers),
                short(figures.saving(1.0, origin.mean).max(0.0))
            ),
            Code::TooLittle => format!(
                "{}/s with an origin of {mean} ms: at most {} s of waiting saved per second, {THETA} needed",
                short(figures.lambda),
                short(figures.lambda * figures.saving(1.0, origin.mean) / 1_000.0)
            ),
            Code::ChangesTooOften if longest < 1.0 => format!(
                "the policy allows {longest} s, and nothing is decided for less than a second"
            ),
            Code::ChangesTooOften => format!(
                "what is under a key changes about every {}: even {} s would give more than {} stale hits",
                interval(figures),
                short(self.limits.min_ttl),
                percent(self.limits.budget)
            ),
            Code::BodyVaries => format!(
                "the answer differs in {} of {} repeats within a second: look at vary, user data, timestamps",
                short(figures.change.at_once[1]),
                short(figures.change.at_once[0])
            ),
            Code::Uncacheable => format!(
                "{} of {} requests may not be answered from the cache",
                short(figures.requests[0] - figures.requests[1]),
                short(figures.requests[0])
            ),
            Code::Pays => format!(
                "the origin takes {mean} ms on average over {} answers, at {}/s {} would hit at {} s: removes {} concurrent calls",
                short(origin.answers),
                short(figures.lambda),
                hits(ttl),
                short(ttl),
                short(figures.lambda * figures.hit_ratio(ttl) * origin.mean / 1_000.0)
            ),
            Code::TtlUp => format!(
                "TTL {} → {} s: {} → {} hits",
                short(self.before.ttl),
                short(ttl),
                hits(self.before.ttl),
                hits(ttl)
            ),
            Code::TtlDownChanges => format!(
                "TTL {} → {} s: what is under a key changes about every {}",
                short(self.before.ttl),
                short(ttl),
                interval(figures)
            ),
            Code::TtlDownNoGain => format!(
                "TTL {} → {} s: a shorter one hits as often, {}",
                short(self.before.ttl),
                short(ttl),
                hits(ttl)
            ),
            Code::StaleTrip => format!(
                "too many of the last answers had changed for a TTL of {} s, of which {} hits may be stale",
                short(self.before.ttl),
                percent(self.limits.budget)
            ),
            Code::NoLongerPays => format!(
                "it saves {} ms a request of an origin that took {} ms before caching",
                short(
                    figures
                        .saving(
                            best_hit_ratio(figures, &self.before),
                            remembered_ms(figures, &self.before)
                        )
                        .max(0.0)
                ),
                short(remembered_ms(figures, &self.before))
            ),
            Code::OriginFailing => format!(
                "{} of {} calls of the origin fail: nothing is decided meanwhile",
                short(figures.calls[1]),
                short(figures.calls[0])
            ),
            Code::Dwell => format!(
                "would be switched {}, waits {} s since it was of late ({} switches)",
                if self.after.is_on { "off" } else { "on" },
                short((dwell_ends(&self.after) - figures.now).max(0.0)),
                self.after.flips
            ),
            Code::EvidenceLost if !self.figures.is_silent(&self.after) => {
                "too little is known of changes by now, and no answer differed: what was decided holds"
                    .to_owned()
            }
            Code::EvidenceLost => format!(
                "the origin has not answered for {} s: what was decided holds",
                short(figures.now - figures.answered_at)
            ),
        }
    }

    fn learning(&self) -> String {
        let figures = &self.figures;
        if figures.origin.answers < MIN_ANSWERS {
            let seen = figures.origin.answers.floor();
            return format!("{seen} of {MIN_ANSWERS} answers of the origin were measured");
        }
        if figures.change.rate.is_finite() && figures.best_ttl(&self.limits).is_none() {
            return format!(
                "none of {} repeated answers differed, too few to allow {} s",
                short(figures.change.observed),
                short(self.limits.min_ttl.max(1.0))
            );
        }
        if figures.change.rate.is_finite() {
            return "it seems to pay: one more look".to_owned();
        }
        "no key was answered twice yet, so how often answers change is not known".to_owned()
    }

    /// The nearest figures that would make it another decision.
    #[must_use]
    pub fn flips(&self) -> Vec<Flip> {
        if self.after.is_on {
            self.flips_off()
        } else {
            self.flips_on()
        }
    }

    fn flips_on(&self) -> Vec<Flip> {
        let figures = &self.figures;
        let mut flips = Vec::new();
        let mut needs = |figure, is: f64, needed: f64, is_enough: bool, sentence: String| {
            if !is_enough && needed.is_finite() {
                flips.push(Flip {
                    figure,
                    is,
                    needed,
                    sentence,
                });
            }
        };
        let answers = figures.origin.answers;
        needs(
            "origin_answers",
            answers,
            MIN_ANSWERS,
            answers >= MIN_ANSWERS,
            format!(
                "on needs {MIN_ANSWERS} measured answers of the origin; there are {}",
                answers.floor()
            ),
        );
        if answers < MIN_ANSWERS {
            return flips;
        }
        let ttl = figures.best_ttl(&self.limits);
        let hits = figures.hit_ratio(ttl.unwrap_or(self.limits.max_ttl));
        let low = figures.origin.low;
        let slow = slow_enough(figures, hits);
        needs(
            "origin_ms_low",
            low,
            slow,
            low > slow,
            format!(
                "on if the origin surely took {} ms on average; it takes at least {} ms",
                short(slow),
                short(low)
            ),
        );
        let bar = bar_on(low, f64::INFINITY);
        let saving = figures.saving(hits, low);
        let busy = 1_000.0 * THETA / saving;
        needs(
            "requests_per_second",
            figures.lambda,
            busy,
            saving <= bar || figures.lambda > busy,
            format!(
                "on with {} requests a second; there are {}",
                short(busy),
                short(figures.lambda)
            ),
        );
        let reuse = (bar_on(low, figures.lambda) + figures.hit_ms) / low;
        needs(
            "hit_ratio",
            hits,
            reuse,
            hits > reuse || reuse > 1.0,
            format!(
                "on if {} of lookups would hit; {} would",
                percent(reuse),
                percent(hits)
            ),
        );
        let shortest = self.limits.min_ttl.max(1.0);
        let longest = figures.change.longest_ttl(self.limits.budget);
        needs(
            "longest_ttl_seconds",
            longest,
            shortest,
            longest >= shortest,
            format!(
                "on if changes were so rare that {} s kept the budget of {} stale hits; {} s would",
                short(shortest),
                percent(self.limits.budget),
                short(longest)
            ),
        );
        flips
    }

    fn flips_off(&self) -> Vec<Flip> {
        let figures = &self.figures;
        let hits = best_hit_ratio(figures, &self.after);
        let origin_ms = remembered_ms(figures, &self.after);
        // hL - Lh = max(.5, .025 L)
        let fast = ((0.5 + figures.hit_ms) / hits)
            .max(figures.hit_ms / (hits - 0.025).max(f64::MIN_POSITIVE));
        let reuse = (bar_off(origin_ms) + figures.hit_ms) / origin_ms;
        let shortest = self.limits.min_ttl.max(1.0);
        let longest = figures.change.longest_ttl(self.limits.budget);
        [
            Flip {
                figure: "origin_ms_high",
                is: origin_ms,
                needed: fast,
                sentence: format!("off if the origin surely took less than {} ms, before caching too; it may take {} ms", short(fast), short(origin_ms)),
            },
            Flip {
                figure: "hit_ratio",
                is: hits,
                needed: reuse,
                sentence: format!("off if fewer than {} of lookups hit; {} do", percent(reuse), percent(hits)),
            },
            Flip {
                figure: "longest_ttl_seconds",
                is: longest,
                needed: shortest,
                sentence: format!("off if changes were so frequent that even {} s broke the budget of {} stale hits; {} s keep it", short(shortest), percent(self.limits.budget), short(longest)),
            },
        ]
        .into_iter()
        .filter(|flip| flip.needed.is_finite() && flip.is.is_finite() && flip.needed > 0.0)
        .collect()
    }

    /// The figures by name, those that are numbers.
    #[must_use]
    pub fn named(&self) -> Vec<(String, f64)> {
        let figures = &self.figures;
        let change = &figures.change;
        let mut named: Vec<(String, f64)> = [
            ("requests_per_second", figures.lambda),
            ("lookups", figures.lookups),
            ("rho", figures.rho),
            ("key_share", figures.key_share),
            ("requests", figures.requests[0]),
            ("requests_with_keys", figures.requests[1]),
            ("origin_answers", figures.origin.answers),
            ("origin_ms_low", figures.origin.low),
            ("origin_ms_mean", figures.origin.mean),
            ("origin_ms_high", figures.origin.high),
            ("hit_ms", figures.hit_ms),
            ("repeats", change.observed),
            ("repeats_changed", change.changed),
            ("changes_per_second", change.rate),
            ("kappa", change.kappa),
            ("checks", change.checks),
            ("checks_stale", change.stale_checks),
            ("checks_expected_stale", change.expected),
            ("suspicion", change.suspicion),
            (
                "longest_ttl_seconds",
                change.longest_ttl(self.limits.budget),
            ),
            (
                "best_ttl_seconds",
                figures.best_ttl(&self.limits).unwrap_or(f64::NAN),
            ),
            ("measured_hit_ratio", figures.measured[0]),
            ("measured_lookups", figures.measured[1]),
            ("calls", figures.calls[0]),
            ("calls_failed", figures.calls[1]),
            ("flips", f64::from(self.after.flips)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let ghost = TTLS.iter().zip(figures.ghost);
        named.extend(ghost.map(|(ttl, hits)| (format!("ghost_hit_ratio_{ttl}s"), hits)));
        named.retain(|(_, value)| value.is_finite());
        named
    }
}

/// How slow the origin would have to be to go on: where `hL - Lh` is the highest of the three bars.
fn slow_enough(figures: &Figures, hits: f64) -> f64 {
    let by_traffic = (1_000.0 * THETA / figures.lambda + figures.hit_ms) / hits;
    let by_share = if hits > 0.05 {
        figures.hit_ms / (hits - 0.05)
    } else {
        f64::INFINITY
    };
    ((1.0 + figures.hit_ms) / hits)
        .max(by_traffic)
        .max(by_share)
}

fn interval(figures: &Figures) -> String {
    format!(
        "{} s",
        short(1.0 / (figures.change.rate * figures.change.kappa))
    )
}

fn percent(share: f64) -> String {
    format!("{} %", short(100.0 * share))
}

/// With three digits that count.
fn short(value: f64) -> String {
    let digits = if value.abs() >= 99.95 {
        0
    } else if value.abs() >= 9.995 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.004, 0.5, 1.0, 12.34, 799.96, 86_400.0].map(short);
        assert_eq!(texts, ["0", "0.5", "1", "12.3", "800", "86400"]);
    }
}
