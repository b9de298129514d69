//! Windows that come late, twice or never, restarts, failing origins, floods: nothing of it makes the engine change its
//! mind.

use larder_decide::simulation::workload::{Arrivals, Random, Zipf, hash, steadily};
use larder_decide::simulation::{Faults, Request, Setup, Simulation, Trial};
use larder_decide::{Code, Limits};

use crate::{MINUTE, print};

fn steady(hours: f64, seed: u64) -> impl Iterator<Item = Request> {
    let zipf = Zipf::new(50, 0.9);
    steadily(2.0, hours, seed, move |_, random, request| {
        request.key = hash(zipf.draw(random) as u64);
        request.latency_ms = random.lognormal(700.0, 0.35);
    })
}

#[test]
fn lost_late_and_doubled_windows_and_restarts_on_sixteen_instances_flip_nothing() {
    let faults = Faults {
        lost: 0.1,
        doubled: 0.2,
        late: 0.3,
        late_ms: 90_000,
        restart_ms: 17 * MINUTE,
        replace_ms: 7 * MINUTE,
    };
    let setup = Setup {
        instances: 16,
        faults,
        ..Setup::default()
    };
    let outcome = Trial::of(setup, steady(24.0, 1));
    print("faults", &outcome);
    assert!(outcome.is_on() && outcome.flips() == 1);
    assert!(outcome.first_on() <= 120.0, "{}", outcome.first_on());
    assert!(outcome.regret() <= 0.02, "{}", outcome.regret());
}

#[test]
fn stores_that_are_not_shared_are_not_taken_for_one() {
    let setup = Setup {
        instances: 4,
        is_shared: false,
        ..Setup::default()
    };
    let mut simulation = Simulation::new(setup, 0);
    steady(2.0, 1).for_each(|request| {
        simulation.step(&request);
    });
    let figures = simulation.last().unwrap().figures;
    let [measured, lookups] = figures.measured;
    assert!(lookups > 200.0);
    let ttl = simulation.engine().standing().ttl;
    println!(
        "measured {measured:.3}, by the ghosts {:.3}",
        figures.hit_ratio(ttl)
    );
    assert!((figures.hit_ratio(ttl) - measured).abs() <= 0.05);
}

#[test]
fn seven_days_of_steady_noise_flip_once() {
    let mut simulation = Simulation::new(Setup::default(), 0);
    steady(7.0 * 24.0, 5).for_each(|request| {
        simulation.step(&request);
    });
    assert_eq!(simulation.engine().standing().flips, 1);
}

#[test]
fn nights_do_not_switch_it_off() {
    let zipf = Zipf::new(50, 0.9);
    let day = |now: f64| 1.0 + (now / 86_400.0 * std::f64::consts::TAU).sin();
    let workload = Arrivals {
        random: Random(1),
        at: 0.0,
        until: 3.0 * 86_400.0,
        rate: move |now| 0.02 + 2.0 * day(now),
        make: |_: f64, random: &mut Random, request: &mut Request| {
            request.key = hash(zipf.draw(random) as u64);
            request.latency_ms = random.lognormal(300.0, 0.3);
        },
    };
    let outcome = Trial::of(Setup::default(), workload);
    print("nights", &outcome);
    assert!(outcome.flips() == 1 && outcome.is_on());
    assert!(outcome.regret() <= 0.05, "{}", outcome.regret());
}

#[test]
fn an_origin_that_is_slow_only_under_load_stays_cached() {
    let zipf = Zipf::new(200, 0.9);
    let mut simulation = Simulation::new(Setup::default(), 0);
    let workload = steadily(10.0, 6.0, 1, |_, random, request| {
        request.key = hash(zipf.draw(random) as u64);
        request.latency_ms = random.lognormal(1.0, 0.3);
    });
    for mut request in workload {
        // Three milliseconds where nobody asks, seconds under its full load.
        request.latency_ms *= 3.0 + 20.0 * simulation.origin_rate().powi(2);
        simulation.step(&request);
    }
    let standing = simulation.engine().standing();
    println!(
        "load: {standing:?}, origin {:.4}",
        simulation.tally().origin_share()
    );
    assert!(standing.is_on && standing.flips == 1);
}

#[test]
fn while_the_origin_fails_nothing_is_decided() {
    let (from, until) = (2.0 * 3_600.0, 2.0 * 3_600.0 + 900.0);
    let zipf = Zipf::new(50, 0.9);
    let workload = steadily(2.0, 4.0, 1, |now, random, request| {
        request.key = hash(zipf.draw(random) as u64);
        request.is_error = (from..until).contains(&now);
        request.latency_ms = if request.is_error {
            3.0
        } else {
            random.lognormal(700.0, 0.3)
        };
    });
    let limits = Limits {
        max_ttl: 60.0,
        ..Limits::default()
    };
    let outcome = Trial::of(
        Setup {
            limits,
            ..Setup::default()
        },
        workload,
    );
    assert_eq!(outcome.flips(), 1);
    let codes = outcome.simulation.news().iter().map(|one| one.code);
    assert!(codes.into_iter().any(|code| code == Code::OriginFailing));
}

#[test]
fn a_flood_of_unique_keys_does_not_switch_it_off() {
    let zipf = Zipf::new(50, 0.9);
    let mut unique = 1_000_u64;
    let workload = Arrivals {
        random: Random(1),
        at: 0.0,
        until: 4.0 * 3_600.0,
        rate: |now: f64| if now < 7_200.0 { 5.0 } else { 50.0 },
        make: |now: f64, random: &mut Random, request: &mut Request| {
            let is_flood = now >= 7_200.0 && random.chance() < 0.9;
            unique += u64::from(is_flood);
            request.key = if is_flood {
                hash(unique)
            } else {
                hash(zipf.draw(random) as u64)
            };
            request.latency_ms = random.lognormal(700.0, 0.3);
        },
    };
    let outcome = Trial::of(Setup::default(), workload);
    print("flood", &outcome);
    assert!(outcome.is_on() && outcome.flips() == 1);
    assert!(outcome.regret() <= 0.05, "{}", outcome.regret());
}

#[test]
fn a_batch_job_that_changes_all_keys_at_once_is_one_event() {
    let workload = steadily(5.0, 12.0, 1, |now, random, request| {
        request.key = hash((random.chance() * 30.0) as u64);
        request.body = (now / 300.0) as u32;
        request.latency_ms = random.lognormal(500.0, 0.3);
    });
    let outcome = Trial::of(Setup::default(), workload);
    print("batch", &outcome);
    assert_eq!(outcome.flips(), 1);
    let stale = outcome.simulation.tally().stale_share();
    assert!(stale <= 0.012, "{stale}");
}

#[test]
fn answers_that_differ_at_any_age_are_never_cached() {
    let mut answer = 0;
    let workload = steadily(20.0, 2.0, 1, |_, random, request| {
        request.key = hash((random.chance() * 10.0) as u64);
        // A request id in one of ten answers.
        answer += 1;
        request.body = if random.chance() < 0.1 { answer } else { 0 };
        request.latency_ms = random.lognormal(500.0, 0.3);
    });
    let outcome = Trial::of(Setup::default(), workload);
    print("varies", &outcome);
    assert_eq!(outcome.simulation.last().unwrap().code, Code::BodyVaries);
    assert!(!outcome.is_on());
}
