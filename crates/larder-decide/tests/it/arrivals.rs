//! What arrives as windows: invalidations, late and early, of many stores; nothing that is no change is taken for one, and
//! nothing of what is lost decides.

use larder_decide::simulation::workload::{hash, steadily};
use larder_decide::simulation::{Request, Setup, Simulation};
use larder_decide::{Arrived, Code, Engine, KeyLog, Limits, Record};
use larder_model::{Checked, Outcome, PER_SECOND, Window};

use crate::MINUTE;

const TICK_MS: u64 = 10_000;

/// One instance's windows of 10 s.
struct Instance {
    store: u32,
    keys: KeyLog,
    window: Window,
    began_ms: u64,
    sequence: u64,
    latency_ms: u64,
    has_store_failed: bool,
}

fn log_time(ms: u64) -> u32 {
    (ms * u64::from(PER_SECOND) / 1_000) as u32
}

impl Instance {
    fn new(store: u32) -> Self {
        Self {
            store,
            keys: KeyLog::new(0),
            window: Window::default(),
            began_ms: 0,
            sequence: 0,
            latency_ms: 800,
            has_store_failed: false,
        }
    }

    /// The origin answers a lookup.
    fn load(&mut self, key: u32, body: u16, at_ms: u64) {
        self.keys.saw(hash(key.into()), log_time(at_ms));
        self.keys
            .answered(hash(key.into()), body, None, log_time(at_ms));
        let latency = std::time::Duration::from_millis(self.latency_ms + u64::from(key));
        self.window.count(Outcome::Bypass, Some(latency), false, 0);
    }

    fn erase(&mut self, key: u32) {
        self.keys.erased(Some(hash(key.into())));
    }

    fn report(&mut self, now_ms: u64) -> Arrived {
        self.sequence += 1;
        Arrived {
            store: self.store,
            id: (format!("i-{}", self.store), 1, self.sequence),
            began_ms: std::mem::replace(&mut self.began_ms, now_ms),
            ended_ms: now_ms,
            window: std::mem::take(&mut self.window),
            evidence: Some(self.keys.take(1.0, log_time(now_ms))),
            has_store_failed: self.has_store_failed,
        }
    }
}

/// How many changes an engine saw, in ticks of which each has the windows that `windows` makes of its end.
fn changes(ticks: u64, mut windows: impl FnMut(u64) -> Vec<Arrived>) -> [f64; 2] {
    let mut engine = Engine::new(0);
    let mut seen = [0.0; 2];
    for tick in 1..=ticks {
        let now_ms = tick * TICK_MS;
        let record = engine.tick(now_ms, windows(now_ms), &Limits::default());
        let change = record.figures.change;
        seen = [change.observed, change.changed];
    }
    seen
}

#[test]
fn what_is_written_and_invalidated_is_no_change_and_stays_cached() {
    let mut simulation = Simulation::new(Setup::default(), 0);
    let mut version = [0_u32; 20];
    let mut at = 0_usize;
    for mut request in steadily(5.0, 2.0, 1, |_, random, request| {
        request.key = (random.chance() * 19.99) as u32;
        request.latency_ms = random.lognormal(500.0, 0.3);
    }) {
        let key = request.key as usize;
        request.key = hash(key as u64);
        request.body = version[key];
        simulation.step(&request);
        at += 1;
        // Each key about once in 20 s: read, written, invalidated, read, within a second.
        if at.is_multiple_of(5) {
            version[key] += 1;
            simulation.invalidate(request.at_ms + 50, Some(request.key));
            request.at_ms += 50;
            request.body = version[key];
            simulation.step(&request);
        }
    }
    let record = simulation.last().unwrap();
    let change = record.figures.change;
    println!("{} {change:?}", record.sentence());
    assert_eq!(change.changed, 0.0, "{change:?}");
    assert!(record.after.is_on && record.after.flips == 1);
    assert_eq!(simulation.tally().stale, 0);
    assert!(simulation.tally().hit_ratio() > 0.5);
}

#[test]
fn an_invalidation_that_ends_a_tick_leaves_no_answer_to_compare_with() {
    let mut instance = Instance::new(0);
    let mut body = 0;
    let seen = changes(20, |now_ms| {
        for key in 0..10 {
            instance.load(key, body, now_ms - 9_000);
        }
        // The last thing that is done in each fourth tick is to write what it loaded anew.
        if (now_ms / TICK_MS).is_multiple_of(4) {
            (0..10).for_each(|key| instance.erase(key));
            body += 1;
        }
        vec![instance.report(now_ms)]
    });
    assert_eq!(seen[1], 0.0, "{seen:?}");
    assert!(seen[0] > 50.0, "{seen:?}");
}

/// Five keys are asked for in each tick; each second tick one of them is another. Who wrote it reports that a tick before
/// the reader does, or after.
#[test]
fn an_invalidation_that_arrives_a_tick_before_or_after_the_answer_counts_for_it() {
    for is_before in [true, false] {
        let (mut reader, mut writer) = (Instance::new(0), Instance::new(0));
        let mut versions = [0; 5];
        let seen = changes(40, |now_ms| {
            let tick = now_ms / TICK_MS;
            // Something is invalidated from the first tick on.
            writer.erase(77);
            let written = |tick: u64| (tick / 2 % 5) as u32;
            if tick.is_multiple_of(2) {
                versions[written(tick) as usize] += 1;
            } else if is_before {
                writer.erase(written(tick + 1));
            } else {
                writer.erase(written(tick - 1));
            }
            for key in 0..5 {
                reader.load(key, versions[key as usize], now_ms - 5_000);
            }
            vec![reader.report(now_ms), writer.report(now_ms)]
        });
        assert_eq!(seen[1], 0.0, "{is_before}: {seen:?}");
        assert!(seen[0] > 100.0, "others are compared: {seen:?}");
    }
}

#[test]
fn what_differs_waits_for_no_more_than_a_tick_where_others_are_invalidated() {
    let mut instance = Instance::new(0);
    let seen = changes(6, |now_ms| {
        instance.erase(77);
        instance.load(1, u16::from(now_ms >= 5 * TICK_MS), now_ms - 5_000);
        vec![instance.report(now_ms)]
    });
    assert!((0.99..=1.0).contains(&seen[1]), "{seen:?}");
}

#[test]
fn what_was_invalidated_while_the_control_plane_was_away_is_still_no_change() {
    let mut instance = Instance::new(0);
    let mut late = Vec::new();
    let seen = changes(60, |now_ms| {
        let tick = now_ms / TICK_MS;
        if tick == 5 {
            (0..10).for_each(|key| instance.erase(key));
        }
        for key in 0..10 {
            instance.load(key, u16::from(tick >= 5), now_ms - 5_000);
        }
        late.push(instance.report(now_ms));
        // From the fifth on nothing arrives for two minutes; then all at once.
        match tick {
            5..17 => Vec::new(),
            _ => std::mem::take(&mut late),
        }
    });
    assert_eq!(seen[1], 0.0, "{seen:?}");
    assert!(seen[0] > 300.0, "{seen:?}");
}

fn last(engine: &mut Engine, now_ms: u64, windows: Vec<Arrived>) -> Record {
    engine.tick(now_ms, windows, &Limits::default())
}

#[test]
fn stores_that_are_gone_make_room_and_those_past_the_bound_are_checked_all_the_same() {
    let mut engine = Engine::new(0);
    let mut now_ms = 0;
    for store in 0..8 {
        now_ms += TICK_MS;
        let mut instance = Instance::new(store);
        instance.load(1, 1, 0);
        last(&mut engine, now_ms, vec![instance.report(now_ms)]);
    }
    let mut ninth = Instance::new(9);
    let mut ask = |engine: &mut Engine, now_ms: u64| {
        ninth.began_ms = now_ms - TICK_MS;
        ninth.keys = KeyLog::new(log_time(now_ms - TICK_MS));
        ninth.load(1, 1, now_ms - 5_000);
        let check = Checked {
            age: 250,
            has_changed: false,
        };
        let at = log_time(now_ms - 4_000);
        ninth.keys.answered(hash(2), 1, Some(check), at);
        last(engine, now_ms, vec![ninth.report(now_ms)])
    };
    let full = ask(&mut engine, now_ms + TICK_MS);
    assert_eq!(full.figures.lookups, 8.0, "no ghost of its own");
    assert!(full.figures.change.checks > 0.99, "{full:?}");
    let later = ask(&mut engine, now_ms + 61 * MINUTE);
    let after = ask(&mut engine, now_ms + 62 * MINUTE);
    println!("{} {}", later.figures.lookups, after.figures.lookups);
    assert_eq!(after.figures.lookups, 1.0, "{after:?}");
}

#[test]
fn a_day_without_requests_and_a_lost_state_leave_what_was_decided() {
    let mut instance = Instance::new(0);
    let mut engine = Engine::new(0);
    let mut tick = |engine: &mut Engine, now_ms: u64| {
        instance.began_ms = now_ms - TICK_MS;
        instance.keys = KeyLog::new(log_time(now_ms - TICK_MS));
        for key in 0..10 {
            instance.load(key, 1, now_ms - 5_000);
        }
        last(engine, now_ms, vec![instance.report(now_ms)])
    };
    let mut now_ms = 0;
    let mut before = tick(&mut engine, TICK_MS);
    while now_ms < 10 * MINUTE {
        now_ms += TICK_MS;
        before = tick(&mut engine, now_ms + TICK_MS);
    }
    assert!(before.after.is_on && before.after.ttl > 5.0, "{before:?}");
    now_ms += 25 * 60 * MINUTE;
    let mut replaced = Engine::resume(now_ms, before.after);
    for engine in [&mut engine, &mut replaced] {
        for at in 0..30 {
            let record = tick(engine, now_ms + at * TICK_MS);
            assert!(record.after.is_on, "{at}: {}", record.sentence());
            assert!(
                record.after.ttl >= before.after.ttl / 2.0,
                "{at}: {}",
                record.sentence()
            );
            if at == 0 {
                assert_eq!(record.code, Code::EvidenceLost);
                assert!(record.sentence().contains("too little is known"));
            }
        }
    }
}

/// Ten keys, each asked for three times in a tick, and so many hits besides.
fn minutes(
    engine: &mut Engine,
    instance: &mut Instance,
    minutes: std::ops::Range<u64>,
    keys: u32,
    hits: u64,
) -> Record {
    let mut record = None;
    for tick in minutes.start * 6..minutes.end * 6 {
        let now_ms = (tick + 1) * TICK_MS;
        for key in 0..3 * keys {
            instance.load(key % keys, 1, now_ms - 5_000);
        }
        instance.window.misses += std::mem::take(&mut instance.window.bypasses);
        instance.window.hits += hits;
        record = Some(last(engine, now_ms, vec![instance.report(now_ms)]));
    }
    record.unwrap()
}

#[test]
fn a_store_that_gave_no_hits_keeps_nothing_off_for_ever() {
    let mut instance = Instance::new(0);
    let mut engine = Engine::new(0);
    let on = minutes(&mut engine, &mut instance, 0..30, 10, 60);
    assert!(on.after.is_on && on.figures.rho > 0.5, "{}", on.figures.rho);
    let away = minutes(&mut engine, &mut instance, 30..90, 10, 0);
    assert!(away.figures.rho < 0.1, "{}", away.figures.rho);
    // For another reason it goes off meanwhile: hardly anybody asks, and the origin is fast.
    instance.latency_ms = 1;
    let fast = minutes(&mut engine, &mut instance, 90..150, 2, 0);
    assert!(!fast.after.is_on, "{}", fast.sentence());
    instance.latency_ms = 800;
    let back = minutes(&mut engine, &mut instance, 150..240, 10, 0);
    assert!(back.after.is_on, "{}", back.sentence());
}

#[test]
fn while_the_store_fails_its_hits_are_not_compared() {
    let mut instance = Instance::new(0);
    let mut engine = Engine::new(0);
    let on = minutes(&mut engine, &mut instance, 0..30, 10, 60);
    instance.has_store_failed = true;
    let failed = minutes(&mut engine, &mut instance, 30..60, 10, 0);
    assert!((failed.figures.rho - on.figures.rho).abs() < 1e-9);
    instance.has_store_failed = false;
    let empty = minutes(&mut engine, &mut instance, 60..90, 10, 0);
    assert!(empty.figures.rho < on.figures.rho / 2.0);
}

/// Each machine's store is silent at night; and traffic alone switches nothing off.
#[test]
fn what_a_ghost_knows_outlasts_a_night() {
    let mut instance = Instance::new(0);
    let mut engine = Engine::new(0);
    let evening = minutes(&mut engine, &mut instance, 0..60, 10, 60);
    assert!(evening.after.is_on);
    for tick in 60 * 6..12 * 60 * 6 {
        let record = last(&mut engine, (tick + 1) * TICK_MS, Vec::new());
        assert!(record.after.is_on, "{}", record.sentence());
    }
    instance.began_ms = 12 * 60 * MINUTE;
    instance.keys = KeyLog::new(log_time(instance.began_ms));
    let morning = minutes(&mut engine, &mut instance, 12 * 60..12 * 60 + 2, 10, 60);
    assert!(morning.after.is_on && morning.after.flips == 1);
    assert!(
        morning.figures.lookups > 450.0,
        "{}",
        morning.figures.lookups
    );
}

#[test]
fn a_request_of_the_year_9999_is_reached_at_once() {
    let mut simulation = Simulation::new(Setup::default(), 0);
    let mut request = Request {
        at_ms: 0,
        key: 1,
        body: 1,
        latency_ms: 500.0,
        is_error: false,
    };
    for _ in 0..1_000 {
        simulation.step(&request);
        request.at_ms += 500;
    }
    let before = *simulation.last().unwrap();
    assert!(before.after.is_on);
    request.at_ms = 253_402_300_000_000;
    simulation.step(&request);
    let after = simulation.last().unwrap();
    assert!(after.tick - before.tick < 10_000, "{} ticks", after.tick);
    assert!(after.after.is_on && after.figures.now > 253_402_000_000.0);
    // What is measured from then on has its right times.
    for _ in 0..600 {
        request.at_ms += 1_000;
        simulation.step(&request);
    }
    let later = simulation.last().unwrap();
    assert!(
        (0.5..=1.1).contains(&later.figures.lambda),
        "{}",
        later.figures.lambda
    );
    assert!(simulation.tally().hit_ratio() > 0.5);
}

#[test]
fn counts_that_no_instance_can_have_stop_no_engine() {
    let mut instance = Instance::new(0);
    let mut engine = Engine::new(0);
    for tick in 1..50 {
        instance.load(1, 1, tick * TICK_MS - 5_000);
        let mut arrived = instance.report(tick * TICK_MS);
        let evidence = arrived.evidence.as_mut().unwrap();
        (evidence.hot_requests, evidence.cold_requests) = (u64::MAX, u64::MAX);
        evidence.share = if tick < 5 { 0.0 } else { 1.0 };
        last(&mut engine, tick * TICK_MS, vec![arrived]);
    }
    assert!(engine.key_share() > 0.0);
    for tick in 50..200 {
        last(
            &mut engine,
            tick * TICK_MS,
            vec![instance.report(tick * TICK_MS)],
        );
    }
    assert_eq!(engine.key_share(), 1.0, "it grows again");
}
