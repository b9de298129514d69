//! What the engine says can be made anew from its records, and what the ghost says is what would be.

use larder_decide::simulation::workload::{Versions, Zipf, hash, steadily};
use larder_decide::simulation::{Request, Setup, Simulation, Trial};
use larder_decide::{Engine, Record};

/// 60 % of the requests repeat a thousand keys, which change; the others are unique.
fn mixed(hours: f64, seed: u64) -> impl Iterator<Item = Request> {
    let zipf = Zipf::new(1_000, 0.9);
    let mut versions = Versions::new(1_000, 1_200.0, seed);
    let mut unique = 10_000_u64;
    steadily(20.0, hours, seed, move |now, random, request| {
        request.latency_ms = random.lognormal(300.0, 0.5);
        if random.chance() < 0.4 {
            unique += 1;
            request.key = hash(unique);
            return;
        }
        let key = zipf.draw(random);
        request.key = hash(key as u64);
        request.body = versions.of(key, now);
    })
}

#[test]
fn every_decision_is_made_anew_from_its_record_bit_for_bit() {
    let mut simulation = Simulation::new(Setup::default(), 0);
    for request in mixed(2.0, 1) {
        simulation.step(&request);
    }
    assert!(simulation.news().len() > 3, "{}", simulation.news().len());
    for record in simulation.news() {
        assert!(record.replays(), "{record:?}");
        let kept = Record::from_bytes(&record.to_bytes()).unwrap();
        assert_eq!(kept.to_bytes(), record.to_bytes());
        let mut forged = kept;
        forged.after.ttl += 1.0;
        assert!(!forged.replays());
        assert!(!record.sentence().is_empty() && record.flips().len() < 6);
    }
}

#[test]
fn the_same_windows_give_the_same_state_bit_for_bit_also_by_way_of_the_disk() {
    let run = || {
        let mut simulation = Simulation::new(Setup::default(), 0);
        mixed(1.0, 2).for_each(|request| {
            simulation.step(&request);
        });
        simulation.engine().to_bytes()
    };
    let state = run();
    assert_eq!(state, run());
    let mut kept = Engine::from_bytes(&state).unwrap();
    assert_eq!(kept.to_bytes(), state);
    assert!(state.len() <= 64 << 10, "{} bytes", state.len());
    let mut gone_on = Engine::from_bytes(&run()).unwrap();
    let limits = larder_decide::Limits::default();
    let records = [&mut kept, &mut gone_on]
        .map(|engine| engine.tick(3_610_000, Vec::new(), &limits).to_bytes());
    assert_eq!(records[0], records[1]);
    assert_eq!(Engine::from_bytes(&state[..state.len() - 1]), None);
}

#[test]
fn the_ghost_s_hit_ratio_is_that_of_a_store_that_all_share() {
    for instances in [1, 4] {
        let setup = Setup {
            instances,
            ..Setup::default()
        };
        let error = Trial::of(setup, mixed(1.0, 3)).ghost;
        println!("{instances} instances: {error:?}");
        assert!(error.times >= 5 && error.last <= 0.03, "{error:?}");
    }
}
