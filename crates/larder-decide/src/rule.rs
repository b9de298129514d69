//! The rule: what the figures of a tick make of what was decided so far. Pure: the same figures give the same decision, bit
//! for bit.

use serde::{Deserialize, Serialize};

use crate::figures::{Before, Figures, LEAST_DWELL, Limits, Standing, THETA};

/// With fewer answers of the origin nothing is decided.
pub const MIN_ANSWERS: f64 = 30.0;
/// Caching goes on where it saves more milliseconds a request than this, or than this share of the origin's.
const ON: (f64, f64) = (1.0, 0.05);
/// It goes off where it saves less.
const OFF: (f64, f64) = (0.5, 0.025);
/// Ticks in a row that it takes to go on; off for want of a TTL; off for saving too little.
const TICKS: [u8; 3] = [2, 3, 6];
/// The least time that it stays on, and off, in seconds.
const DWELL: [f64; 2] = [120.0, 300.0];
const MOST_DWELL: f64 = 12.0;
/// `dwell` is halved after so many seconds without a switch.
const CALM: f64 = 3_600.0;
/// How it was before caching counts for so long, in seconds: a day.
const REMEMBERED: f64 = 86_400.0;
/// From this share of failed calls on nothing is decided.
const FAILING: f64 = 0.2;
/// So few calls prove no failure.
const FEW_CALLS: f64 = 5.0;
/// Measured hits count from so many lookups on.
const MEASURED: f64 = 200.0;
/// Answers within a second prove that bodies vary from so many on.
const VARIES: f64 = 100.0;

/// Why it was decided so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Too few answers of the origin were seen.
    Learning,
    /// Requests come without keys: whether they repeat can't be known.
    NoKeys,
    /// Keys hardly repeat.
    NoReuse,
    /// The origin is fast enough.
    FastEnough,
    /// There are too few requests.
    TooLittle,
    /// What is cached changes too often.
    ChangesTooOften,
    /// Answers differ at any age.
    BodyVaries,
    /// Most requests may not be answered from the cache.
    Uncacheable,
    /// Caching pays.
    Pays,
    /// A longer TTL has more hits.
    TtlUp,
    /// Changes are too frequent for the TTL.
    TtlDownChanges,
    /// A shorter TTL has as many hits.
    TtlDownNoGain,
    /// Too many hits were found to be stale.
    StaleTrip,
    /// Caching saves too little by now.
    NoLongerPays,
    /// The origin fails: nothing is decided meanwhile.
    OriginFailing,
    /// It would be switched, but was of late.
    Dwell,
    /// The origin has not answered for long.
    EvidenceLost,
}

impl Code {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::NoKeys => "no_keys",
            Self::NoReuse => "no_reuse",
            Self::FastEnough => "fast_enough",
            Self::TooLittle => "too_little",
            Self::ChangesTooOften => "changes_too_often",
            Self::BodyVaries => "body_varies",
            Self::Uncacheable => "uncacheable",
            Self::Pays => "pays",
            Self::TtlUp => "ttl_up",
            Self::TtlDownChanges => "ttl_down_changes",
            Self::TtlDownNoGain => "ttl_down_no_gain",
            Self::StaleTrip => "stale_trip",
            Self::NoLongerPays => "no_longer_pays",
            Self::OriginFailing => "origin_failing",
            Self::Dwell => "dwell",
            Self::EvidenceLost => "evidence_lost",
        }
    }
}

/// The milliseconds that caching has to save a request before it goes on.
pub(crate) fn bar_on(origin_ms: f64, lambda: f64) -> f64 {
    (ON.0).max(ON.1 * origin_ms).max(1_000.0 * THETA / lambda)
}

/// What the figures of a tick make of what was decided so far, and why.
#[must_use]
pub fn decide(figures: &Figures, before: &Standing, limits: &Limits) -> (Standing, Code) {
    let mut now = calmed(figures, before);
    if is_failing(figures) {
        return (now, Code::OriginFailing);
    }
    if figures.is_silent(&now) {
        return (now, Code::EvidenceLost);
    }
    let code = match now.is_on {
        true => stay_on(figures, &mut now, limits),
        false => stay_off(figures, &mut now, limits),
    };
    (now, code)
}

pub(crate) fn is_failing(figures: &Figures) -> bool {
    let [calls, errors] = figures.calls;
    calls >= FEW_CALLS && errors > FAILING * calls
}

fn calmed(figures: &Figures, before: &Standing) -> Standing {
    let mut now = *before;
    while figures.now - now.calm_since >= CALM && now.dwell > LEAST_DWELL {
        now.dwell = (now.dwell / 2.0).max(LEAST_DWELL);
        now.calm_since += CALM;
    }
    now
}

/// Whether it was switched so lately that it has to wait.
fn dwells(figures: &Figures, now: &Standing) -> bool {
    now.flips > 0 && figures.now < dwell_ends(now)
}

/// When it may be switched again.
pub(crate) fn dwell_ends(now: &Standing) -> f64 {
    let least = if now.is_on { DWELL[0] } else { DWELL[1] };
    now.changed_at + least * now.dwell
}

fn switch(figures: &Figures, now: &mut Standing, is_on: bool) {
    now.is_on = is_on;
    now.changed_at = figures.now;
    now.calm_since = figures.now;
    now.flips = now.flips.saturating_add(1);
    now.dwell = (now.dwell * 2.0).min(MOST_DWELL);
    now.ticks = [0; 3];
}

// === off ===

fn stay_off(figures: &Figures, now: &mut Standing, limits: &Limits) -> Code {
    let against = against(figures, limits);
    if let Some(code) = against {
        now.ticks[0] = 0;
        return code;
    }
    if dwells(figures, now) {
        return Code::Dwell;
    }
    now.ticks[0] = now.ticks[0].saturating_add(1);
    let Some(ttl) = figures
        .best_ttl(limits)
        .filter(|_| now.ticks[0] >= TICKS[0])
    else {
        return Code::Learning;
    };
    switch(figures, now, true);
    now.ttl = rounded(ttl);
    now.ttl_at = figures.now;
    now.before = Some(Before {
        origin_ms: figures.origin.mean,
        lambda: figures.lambda,
        at: figures.now,
    });
    Code::Pays
}

/// What speaks against caching; `None`: nothing.
fn against(figures: &Figures, limits: &Limits) -> Option<Code> {
    let [requests, with_keys] = figures.requests;
    if requests >= MIN_ANSWERS && with_keys < 0.05 * requests {
        let is_told = figures.untold < 0.5 * requests;
        return Some(if is_told {
            Code::Uncacheable
        } else {
            Code::NoKeys
        });
    }
    if figures.origin.answers < MIN_ANSWERS || figures.lookups < MIN_ANSWERS {
        return Some(Code::Learning);
    }
    if varies(figures, limits) {
        return Some(Code::BodyVaries);
    }
    let origin_ms = figures.origin.low;
    let bar = bar_on(origin_ms, figures.lambda);
    // With every hit that there could be.
    if figures.saving(1.0, origin_ms) <= bar {
        let is_slow = figures.saving(1.0, origin_ms) > (ON.0).max(ON.1 * origin_ms);
        return Some(if is_slow {
            Code::TooLittle
        } else {
            Code::FastEnough
        });
    }
    if figures.saving(figures.hit_ratio(limits.max_ttl), origin_ms) <= bar {
        return Some(Code::NoReuse);
    }
    let Some(ttl) = figures.best_ttl(limits) else {
        let could_learn = limits.max_ttl >= shortest(limits) && figures.change.changed <= 0.0;
        return Some(if could_learn {
            Code::Learning
        } else {
            Code::ChangesTooOften
        });
    };
    let is_enough = figures.saving(figures.hit_ratio(ttl), origin_ms) > bar;
    (!is_enough).then_some(Code::ChangesTooOften)
}

/// Whether more answers differ from one just before than the budget allows, beyond chance (Wilson's bound).
fn varies(figures: &Figures, limits: &Limits) -> bool {
    let [n, changed] = figures.change.at_once;
    n >= VARIES && wilson_low(changed, n) > limits.budget
}

fn wilson_low(hits: f64, n: f64) -> f64 {
    const Z: f64 = 2.58;
    let p = hits / n;
    let centre = p + Z * Z / (2.0 * n);
    let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    (centre - spread) / (1.0 + Z * Z / n)
}

// === on ===

/// No TTL is shorter, in seconds.
fn shortest(limits: &Limits) -> f64 {
    limits.min_ttl.max(1.0)
}

fn stay_on(figures: &Figures, now: &mut Standing, limits: &Limits) -> Code {
    let shortest = shortest(limits);
    if varies(figures, limits) {
        switch(figures, now, false);
        return Code::BodyVaries;
    }
    if figures.change.has_tripped {
        return trip(figures, now, shortest, limits);
    }
    let is_held = limits.max_ttl >= shortest && figures.is_unproven(now.ttl, limits.budget);
    if is_held {
        now.ttl = now.ttl.min(limits.max_ttl);
    }
    let longest = match is_held {
        true => Some(now.ttl),
        false => figures.longest_ttl(limits),
    };
    let Some(longest) = longest else {
        now.ticks[1] = now.ticks[1].saturating_add(1);
        if now.ticks[1] >= TICKS[1] {
            switch(figures, now, false);
            return Code::ChangesTooOften;
        }
        return shorten(figures, now, shortest);
    };
    now.ticks[1] = 0;
    // Before all that may have to wait: what is stale never does.
    if now.ttl > 1.25 * longest {
        return shorten(figures, now, longest);
    }
    if !still_pays(figures, now) {
        now.ticks[2] = now.ticks[2].saturating_add(1);
        if now.ticks[2] >= TICKS[2] {
            if dwells(figures, now) {
                return Code::Dwell;
            }
            switch(figures, now, false);
            return Code::NoLongerPays;
        }
    } else {
        now.ticks[2] = 0;
    }
    match is_held {
        true => Code::EvidenceLost,
        false => move_ttl(figures, now, limits, longest),
    }
}

/// Too many hits were stale: a quarter of the TTL, or none.
fn trip(figures: &Figures, now: &mut Standing, shortest: f64, limits: &Limits) -> Code {
    if now.ttl <= shortest {
        switch(figures, now, false);
        return Code::StaleTrip;
    }
    let longest = figures.longest_ttl(limits).unwrap_or(shortest);
    set_ttl(figures, now, (now.ttl / 4.0).min(longest).max(shortest));
    Code::StaleTrip
}

fn shorten(figures: &Figures, now: &mut Standing, ttl: f64) -> Code {
    if ttl >= now.ttl {
        return Code::Pays;
    }
    set_ttl(figures, now, ttl);
    Code::TtlDownChanges
}

fn move_ttl(figures: &Figures, now: &mut Standing, limits: &Limits, longest: f64) -> Code {
    let Some(best) = figures.best_ttl(limits) else {
        return Code::Pays;
    };
    let (gained, had) = (figures.hit_ratio(best), figures.hit_ratio(now.ttl));
    let since = figures.now - now.ttl_at;
    // What changes bound is worth less distance: each step towards it has more hits. What the policy bounds does not move.
    let is_far = match best >= longest {
        true => best >= 1.25 * now.ttl && gained >= had + 0.01,
        false => best >= 1.5 * now.ttl && gained >= had + 0.01,
    };
    let is_worth_it = is_far || best >= limits.max_ttl || since >= CALM;
    if best > now.ttl && is_worth_it && since >= 60.0 {
        set_ttl(figures, now, best.min(4.0 * now.ttl));
        return Code::TtlUp;
    }
    if best <= now.ttl / 2.0 && (gained - had).abs() <= 0.005 && since >= 3_600.0 {
        set_ttl(figures, now, best);
        return Code::TtlDownNoGain;
    }
    Code::Pays
}

fn set_ttl(figures: &Figures, now: &mut Standing, ttl: f64) {
    now.ttl = rounded(ttl);
    now.ttl_at = figures.now;
}

/// Whether it still saves something, were the origin as slow as it was before caching helped: traffic alone never
/// switches it off.
fn still_pays(figures: &Figures, now: &Standing) -> bool {
    if figures.origin.answers < MIN_ANSWERS || figures.lookups < MIN_ANSWERS {
        return true;
    }
    let origin_ms = remembered_ms(figures, now);
    figures.saving(best_hit_ratio(figures, now), origin_ms) >= bar_off(origin_ms)
}

pub(crate) fn bar_off(origin_ms: f64) -> f64 {
    (OFF.0).max(OFF.1 * origin_ms)
}

/// The ghost's hit ratio, or the measured one where that is higher.
pub(crate) fn best_hit_ratio(figures: &Figures, now: &Standing) -> f64 {
    let [measured, lookups] = figures.measured;
    let ghost = figures.hit_ratio(now.ttl);
    if lookups >= MEASURED {
        ghost.max(measured)
    } else {
        ghost
    }
}

/// The origin's latency as it may be, or as it was before caching while as much is asked for.
pub(crate) fn remembered_ms(figures: &Figures, now: &Standing) -> f64 {
    let counts = |before: &Before| {
        figures.lambda >= before.lambda / 2.0 && figures.now - before.at < REMEMBERED
    };
    let before = now
        .before
        .filter(counts)
        .map_or(0.0, |before| before.origin_ms);
    figures.origin.high.max(before)
}

/// Down to tenths of a second, or to seconds from ten on.
fn rounded(ttl: f64) -> f64 {
    if ttl < 10.0 {
        (ttl * 10.0).floor() / 10.0
    } else {
        ttl.floor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::ChangeFigures;
    use crate::latency::Bounds;

    fn figures() -> Figures {
        Figures {
            now: 1_000.0,
            lambda: 2.0,
            lookups: 500.0,
            ghost: [0.1, 0.2, 0.4, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97],
            rho: 1.0,
            key_share: 1.0,
            requests: [500.0, 500.0],
            origin: Bounds {
                answers: 100.0,
                low: 650.0,
                mean: 700.0,
                high: 750.0,
            },
            hit_ms: 0.5,
            change: ChangeFigures {
                observed: 100.0,
                rate: 1.0 / 60_000.0,
                kappa: 1.0,
                ..ChangeFigures::default()
            },
            calls: [20.0, 0.0],
            answered_at: 1_000.0,
            ..Figures::default()
        }
    }

    fn on() -> Standing {
        let limits = Limits::default();
        let (once, code) = decide(&figures(), &Standing::default(), &limits);
        assert_eq!(
            (once.is_on, code),
            (false, Code::Learning),
            "one tick decides nothing"
        );
        let (twice, code) = decide(&figures(), &once, &limits);
        assert_eq!((twice.is_on, code), (true, Code::Pays));
        twice
    }

    /// What speaks against caching when something about the figures is different.
    fn code(change: impl Fn(&mut Figures)) -> Code {
        let mut different = figures();
        change(&mut different);
        let (now, code) = decide(&different, &Standing::default(), &Limits::default());
        assert!(!now.is_on);
        code
    }

    #[test]
    fn what_pays_is_cached_for_the_shortest_time_that_has_nearly_all_hits() {
        assert_eq!(on().ttl, 900.0);
        assert_eq!(on().before.unwrap().origin_ms, 700.0);
    }

    #[test]
    fn each_reason_against_it_is_told_apart() {
        assert_eq!(code(|f| f.origin.answers = 29.0), Code::Learning);
        assert_eq!(code(|f| f.requests[1] = 0.0), Code::Uncacheable);
        let untold = |f: &mut Figures| (f.requests[1], f.untold) = (0.0, 500.0);
        assert_eq!(code(untold), Code::NoKeys);
        assert_eq!(code(|f| f.requests[1] = 20.0), Code::Uncacheable);
        assert_eq!(code(|f| f.ghost = [0.0; 9]), Code::NoReuse);
        assert_eq!(code(|f| f.origin.low = 1.4), Code::FastEnough);
        assert_eq!(code(|f| f.lambda = 0.01), Code::TooLittle);
        assert_eq!(code(|f| f.change.rate = 1.0), Code::Learning);
        let changing = |f: &mut Figures| (f.change.rate, f.change.changed) = (1.0, 9.0);
        assert_eq!(code(changing), Code::ChangesTooOften);
        assert_eq!(code(|f| f.change.rate = f64::INFINITY), Code::Learning);
        assert_eq!(code(|f| f.change.at_once = [100.0, 20.0]), Code::BodyVaries);
        assert_eq!(code(|f| f.calls = [20.0, 5.0]), Code::OriginFailing);
    }

    #[test]
    fn traffic_alone_never_switches_it_off_and_a_fast_origin_does_after_six_ticks() {
        let mut now = on();
        for tick in 0..1_000 {
            let mut night = figures();
            night.now += 300.0 + 10.0 * f64::from(tick);
            (night.lambda, night.answered_at) = (0.0001, night.now);
            now = decide(&night, &now, &Limits::default()).0;
        }
        assert!(now.is_on);
        let mut fast = figures();
        fast.lambda = 0.5;
        fast.origin = Bounds {
            answers: 100.0,
            low: 0.5,
            mean: 0.6,
            high: 0.7,
        };
        fast.now = 20_000.0;
        fast.answered_at = fast.now;
        for tick in 0..6 {
            assert!(now.is_on, "{tick}");
            now = decide(&fast, &now, &Limits::default()).0;
        }
        assert!(!now.is_on);
    }

    #[test]
    fn what_caching_made_fast_is_not_taken_for_fast() {
        let mut now = on();
        let mut unloaded = figures();
        unloaded.origin = Bounds {
            answers: 100.0,
            low: 0.5,
            mean: 0.6,
            high: 0.7,
        };
        for tick in 0..1_000 {
            unloaded.now = 1_400.0 + 10.0 * f64::from(tick);
            unloaded.answered_at = unloaded.now;
            now = decide(&unloaded, &now, &Limits::default()).0;
            assert!(now.is_on, "{tick}");
        }
    }

    #[test]
    fn changes_shorten_at_once_and_end_it_after_three_ticks() {
        let mut volatile = figures();
        volatile.change.rate = 0.018 / 5.0;
        let (now, code) = decide(&volatile, &on(), &Limits::default());
        assert_eq!((now.ttl, code), (5.0, Code::TtlDownChanges));
        volatile.change.rate = 1.0;
        let ticks = (0..3).fold(now, |now, _| decide(&volatile, &now, &Limits::default()).0);
        assert!(!ticks.is_on);
    }

    #[test]
    fn what_is_stale_does_not_wait_where_it_would_be_switched_off_and_may_not_yet() {
        let mut now = on();
        (now.ticks[2], now.flips, now.dwell) = (5, 3, MOST_DWELL);
        let mut both = figures();
        both.hit_ms = 700.0;
        both.now += 10.0;
        assert_eq!(decide(&both, &now, &Limits::default()).1, Code::Dwell);
        both.change.rate = 0.018 / 5.0;
        let (after, code) = decide(&both, &now, &Limits::default());
        assert_eq!((after.ttl, code), (5.0, Code::TtlDownChanges));
    }

    #[test]
    fn without_evidence_what_was_decided_holds_and_a_change_is_evidence() {
        let limits = Limits::default();
        let mut lost = figures();
        lost.is_resumed = true;
        lost.change = ChangeFigures {
            rate: f64::INFINITY,
            kappa: 1.0,
            ..ChangeFigures::default()
        };
        let mut now = on();
        for tick in 1..100 {
            lost.now = 1_000.0 + 10.0 * f64::from(tick);
            lost.answered_at = lost.now;
            let (after, code) = decide(&lost, &now, &limits);
            assert_eq!(
                (after.is_on, after.ttl, code),
                (true, 900.0, Code::EvidenceLost)
            );
            now = after;
            // A few answers that did not differ are not enough either.
            (lost.change.observed, lost.change.rate) = (3.0, 1.0);
        }
        let shorter = Limits {
            max_ttl: 60.0,
            ..limits
        };
        assert_eq!(decide(&lost, &now, &shorter).0.ttl, 60.0);
        let later = Figures {
            is_resumed: false,
            ..lost
        };
        assert_eq!(decide(&later, &now, &limits).1, Code::TtlDownChanges);
        lost.change.changed = 1.0;
        assert_eq!(decide(&lost, &now, &limits).1, Code::TtlDownChanges);
    }

    #[test]
    fn a_trip_takes_three_quarters_of_the_ttl_and_at_a_second_ends_it_however_lately_it_was_switched()
     {
        let mut stale = figures();
        stale.change.has_tripped = true;
        let (now, code) = decide(&stale, &on(), &Limits::default());
        assert_eq!((now.ttl, code), (225.0, Code::StaleTrip));
        let shortest = Standing { ttl: 1.0, ..now };
        assert!(!decide(&stale, &shortest, &Limits::default()).0.is_on);
    }

    #[test]
    fn a_switch_back_waits_longer_each_time_and_calm_hours_make_up_for_it() {
        let mut now = on();
        let mut at = 1_000.0;
        for _ in 0..6 {
            switch(
                &Figures {
                    now: at,
                    ..figures()
                },
                &mut now,
                true,
            );
            at += 1.0;
        }
        assert_eq!(now.dwell, MOST_DWELL);
        let calm = Figures {
            now: at + 10.0 * CALM,
            ..figures()
        };
        assert_eq!(calmed(&calm, &now).dwell, LEAST_DWELL);
        now.is_on = false;
        let (still, code) = decide(
            &Figures {
                now: at,
                answered_at: at,
                ..figures()
            },
            &now,
            &Limits::default(),
        );
        assert_eq!((still.is_on, code), (false, Code::Dwell));
    }

    #[test]
    fn a_policy_s_bounds_hold() {
        let limits = Limits {
            max_ttl: 60.0,
            ..Limits::default()
        };
        assert_eq!(figures().best_ttl(&limits), Some(60.0));
        let limits = Limits {
            min_ttl: 2_000.0,
            ..Limits::default()
        };
        assert_eq!(figures().best_ttl(&limits), None);
    }
}
