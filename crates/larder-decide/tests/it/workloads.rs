//! The workloads that the engine is held to, each over three seeds.

use larder_decide::simulation::workload::{Versions, Zipf, hash, steadily};
use larder_decide::simulation::{Setup, Trial};
use larder_decide::{Code, Limits};

use crate::{SEEDS, print};

#[test]
fn d1_a_steady_slow_origin_is_on_within_a_minute_and_stays_so() {
    for seed in SEEDS {
        let zipf = Zipf::new(50, 0.9);
        let workload = steadily(2.0, 24.0, seed, |_, random, request| {
            request.key = hash(zipf.draw(random) as u64);
            request.latency_ms = random.lognormal(700.0, 0.35);
        });
        let outcome = Trial::of(Setup::default(), workload);
        print("D1", &outcome);
        assert!(outcome.first_on() <= 60.0 && outcome.is_on());
        assert!(outcome.ttl() >= 900.0);
        assert_eq!((outcome.flips(), outcome.simulation.tally().stale), (1, 0));
        assert!(outcome.regret() <= 0.02, "{}", outcome.regret());
    }
}

#[test]
fn d1_with_a_minute_at_most_a_quarter_reaches_the_origin() {
    for seed in SEEDS {
        let zipf = Zipf::new(50, 0.9);
        let workload = steadily(2.0, 24.0, seed, |_, random, request| {
            request.key = hash(zipf.draw(random) as u64);
            request.latency_ms = random.lognormal(700.0, 0.35);
        });
        let limits = Limits {
            max_ttl: 60.0,
            ..Limits::default()
        };
        let setup = Setup {
            limits,
            ..Setup::default()
        };
        let outcome = Trial::of(setup, workload);
        print("D1, 60 s", &outcome);
        let share = outcome.simulation.tally().origin_share();
        assert!(share <= 0.26, "{share}");
        assert_eq!(outcome.flips(), 1);
    }
}

#[test]
fn d2_keys_that_never_repeat_are_never_cached() {
    for seed in SEEDS {
        let mut key = 0_u64;
        let workload = steadily(5.0, 12.0, seed, |_, random, request| {
            key += 1;
            request.key = hash(key);
            request.latency_ms = random.lognormal(900.0, 0.3);
        });
        let outcome = Trial::of(Setup::default(), workload);
        print("D2", &outcome);
        assert_eq!(outcome.flips(), 0);
        assert_eq!(outcome.simulation.last().unwrap().code, Code::NoReuse);
    }
}

#[test]
fn d3_a_few_hot_keys_among_unique_ones_are_worth_it() {
    for seed in SEEDS {
        let zipf = Zipf::new(20, 0.8);
        let mut unique = 1_000_u64;
        let workload = steadily(8.0, 12.0, seed, |_, random, request| {
            request.key = match random.chance() < 0.6 {
                true => {
                    unique += 1;
                    hash(unique)
                }
                false => hash(zipf.draw(random) as u64),
            };
            request.latency_ms = random.lognormal(400.0, 0.3);
        });
        let outcome = Trial::of(Setup::default(), workload);
        print("D3", &outcome);
        assert!(outcome.is_on() && outcome.ttl() >= 300.0);
        assert_eq!(outcome.flips(), 1);
        assert!(outcome.regret() <= 0.03, "{}", outcome.regret());
    }
}

#[test]
fn d4_changing_content_is_kept_as_long_as_the_budget_allows() {
    for seed in SEEDS {
        let zipf = Zipf::new(100, 0.9);
        let mut versions = Versions::new(100, 600.0, seed);
        let workload = steadily(10.0, 12.0, seed, |now, random, request| {
            let key = zipf.draw(random);
            request.key = hash(key as u64);
            request.body = versions.of(key, now);
            request.latency_ms = random.lognormal(300.0, 0.3);
        });
        let outcome = Trial::of(Setup::default(), workload);
        print("D4", &outcome);
        assert!(outcome.is_on() && (5.0..=14.0).contains(&outcome.ttl()));
        assert!(outcome.flips() == 1 && outcome.moves() <= 30);
        let stale = outcome.simulation.tally().stale_share();
        assert!(stale <= 0.01, "{stale}");
        assert!(outcome.regret() <= 0.05, "{}", outcome.regret());
    }
}

#[test]
fn d5_content_that_turns_volatile_is_given_up_within_minutes() {
    const TURNS: f64 = 4.0 * 3_600.0;
    for seed in SEEDS {
        let workload = steadily(5.0, 5.0, seed, |now, random, request| {
            request.key = hash((random.chance() * 20.0) as u64);
            request.body = if now < TURNS { 0 } else { (now - TURNS) as u32 };
            request.latency_ms = random.lognormal(500.0, 0.3);
        });
        let outcome = Trial::of(Setup::default(), workload);
        print("D5", &outcome);
        let since = |is_so: &dyn Fn(&larder_decide::Standing) -> bool| {
            let later = outcome
                .simulation
                .news()
                .iter()
                .filter(|one| one.figures.now > TURNS);
            let first = later.into_iter().find(|one| is_so(&one.after));
            first.map_or(f64::INFINITY, |one| one.figures.now - TURNS)
        };
        let (short, off) = (
            since(&|it| !it.is_on || it.ttl <= 5.0),
            since(&|it| !it.is_on),
        );
        println!("  short after {short} s, off after {off} s");
        assert!(short <= 90.0, "{short}");
        assert!(off <= 180.0, "{off}");
        assert_eq!(outcome.flips(), 2);
    }
}

#[test]
fn d6_an_origin_that_becomes_slow_is_cached_within_fifty_seconds() {
    const STEP: f64 = 3.0 * 3_600.0;
    for seed in SEEDS {
        let zipf = Zipf::new(50, 0.9);
        let workload = steadily(2.0, 6.0, seed, |now, random, request| {
            request.key = hash(zipf.draw(random) as u64);
            let mean = if now < STEP { 1.5 } else { 900.0 };
            request.latency_ms = random.lognormal(mean, 0.3);
        });
        let outcome = Trial::of(Setup::default(), workload);
        print("D6", &outcome);
        let after = outcome.first_on() - STEP;
        assert!((0.0..=50.0).contains(&after), "{after}");
        assert_eq!(outcome.flips(), 1);
        assert!(outcome.regret() <= 0.02, "{}", outcome.regret());
    }
}
