//! Workloads as services have them, none of which the engine was tuned on; and three of the marks, beside them.

use std::collections::BinaryHeap;

use larder_decide::simulation::Request;
use larder_decide::simulation::workload::{Arrivals, Random, Versions, Zipf, hash, steadily};

use super::Workload;

const HOUR: f64 = 3_600.0;
/// When an origin becomes slow, in seconds.
const STEP: f64 = 2.0 * HOUR;

pub(super) fn all() -> Vec<Workload> {
    vec![
        Workload::new("700 ms, 2/s, at most 60 s, a day", |seed| {
            steady(24.0, seed)
        })
        .at_most_seconds(60.0),
        Workload::new("the same, 7 days", |seed| steady(7.0 * 24.0, seed)).at_most_seconds(60.0),
        Workload::new("step 0.4 → 250 ms after 2 h, at 10/s", step).since(STEP),
        Workload::new("news: what is new is hot, and edited", news),
        Workload::new("sessions: bursts, long tails, edits at night", sessions),
        Workload::new(
            "dashboards: polled in step with a refresh each minute",
            dashboards,
        ),
        Workload::new("flash crowd: 100 times the load, on new keys", flash_crowd),
        Workload::new("two kinds: half of the keys change each 20 s", two_kinds),
        Workload::new("slow drift of latency, outages, rare edits", drift),
    ]
}

fn steady(hours: f64, seed: u64) -> impl Iterator<Item = Request> {
    let zipf = Zipf::new(50, 0.9);
    steadily(2.0, hours, seed, move |_, random, request| {
        request.key = hash(zipf.draw(random) as u64);
        request.latency_ms = random.lognormal(700.0, 0.35);
    })
}

/// An origin that is fast for two hours becomes slow.
fn step(seed: u64) -> impl Iterator<Item = Request> {
    let zipf = Zipf::new(300, 0.8);
    steadily(10.0, 4.0, seed, move |now, random, request| {
        request.key = hash(zipf.draw(random) as u64);
        let mean = if now < STEP { 0.4 } else { 250.0 };
        request.latency_ms = random.lognormal(mean, 0.5);
    })
}

/// An article comes out every two minutes; the newest are asked for most, and edited each minute in their first ten minutes.
fn news(seed: u64) -> impl Iterator<Item = Request> {
    const EVERY: f64 = 120.0;
    let zipf = Zipf::new(200, 1.0);
    steadily(6.0, 12.0, seed, move |now, random, request| {
        // Those before the first are older.
        let article = (now / EVERY).floor() - zipf.draw(random) as f64;
        let age = now - article * EVERY;
        request.key = hash((article + 1_000.0) as u64);
        request.body = (age.clamp(0.0, 600.0) / 60.0) as u32;
        request.latency_ms = random.lognormal(250.0, 0.4);
    })
}

/// Users come by chance, each asks for some nine pages, a few seconds apart, and goes back to the one before now and then. Few
/// answers take very long. Each page is edited once a night.
fn sessions(seed: u64) -> impl Iterator<Item = Request> {
    let zipf = Zipf::new(5_000, 0.85);
    let mut random = Random(seed);
    let mut requests = Vec::new();
    let mut begins = 0.0;
    while begins < 24.0 * HOUR {
        let day = 1.0 - 0.8 * (begins / (24.0 * HOUR) * std::f64::consts::TAU).cos();
        begins += random.exponential() / (0.3 * day);
        let (mut at, mut page) = (begins, zipf.draw(&mut random));
        loop {
            // Pareto, with a mean of 90 ms.
            let latency_ms = (40.0 * random.chance().powf(-1.0 / 1.8)).min(30_000.0);
            // Between one and five in the morning, each at its own time.
            let edited = HOUR * (1.0 + 4.0 * f64::from(hash(page as u64)) / 4_294_967_296.0);
            requests.push(Request {
                at_ms: (at * 1_000.0) as u64,
                key: hash(page as u64),
                body: u32::from(at > edited),
                latency_ms,
                is_error: false,
            });
            if random.chance() < 1.0 / 9.0 {
                break;
            }
            at += 5.0 * random.exponential();
            if random.chance() >= 0.3 {
                page = zipf.draw(&mut random);
            }
        }
    }
    requests.sort_by_key(|request| request.at_ms);
    requests.into_iter()
}

/// Thirty clients poll ten boards, each every ten seconds; all boards are made anew each minute, at the same time.
fn dashboards(seed: u64) -> impl Iterator<Item = Request> {
    let mut random = Random(seed);
    let mut polls: BinaryHeap<std::cmp::Reverse<(u64, u64)>> = (0..30)
        .map(|client| std::cmp::Reverse(((random.chance() * 10_000.0) as u64, client)))
        .collect();
    std::iter::from_fn(move || {
        let std::cmp::Reverse((at_ms, client)) = polls.pop()?;
        polls.push(std::cmp::Reverse((at_ms + 10_000, client)));
        (at_ms < 12 * 3_600_000).then(|| Request {
            at_ms,
            key: hash(client % 10),
            body: (at_ms / 60_000) as u32,
            latency_ms: random.lognormal(600.0, 0.4),
            is_error: false,
        })
    })
}

/// A quiet service; for twenty minutes a hundred times as many come, nine in ten of them for three new pages.
fn flash_crowd(seed: u64) -> impl Iterator<Item = Request> {
    let zipf = Zipf::new(400, 0.7);
    let is_crowded = |now: f64| (3.0 * HOUR..3.0 * HOUR + 1_200.0).contains(&now);
    Arrivals {
        random: Random(seed),
        at: 0.0,
        until: 8.0 * HOUR,
        rate: move |now| if is_crowded(now) { 50.0 } else { 0.5 },
        make: move |now: f64, random: &mut Random, request: &mut Request| {
            let is_of_crowd = is_crowded(now) && random.chance() < 0.9;
            request.key = match is_of_crowd {
                true => hash(10_000 + random.next_number() % 3),
                false => hash(zipf.draw(random) as u64),
            };
            let mean = if is_crowded(now) { 500.0 } else { 150.0 };
            request.latency_ms = random.lognormal(mean, 0.4);
        },
    }
}

/// Half of the keys stay as they are, the others change each twenty seconds.
fn two_kinds(seed: u64) -> impl Iterator<Item = Request> {
    let zipf = Zipf::new(200, 0.9);
    let mut versions = Versions::new(200, 20.0, seed);
    steadily(8.0, 8.0, seed, move |now, random, request| {
        let key = zipf.draw(random);
        request.key = hash(key as u64);
        request.body = match key % 2 {
            0 => 0,
            _ => versions.of(key, now),
        };
        request.latency_ms = random.lognormal(300.0, 0.4);
    })
}

/// Latency goes up and down over hours; every three hours the origin fails for two minutes; keys change once in six hours.
fn drift(seed: u64) -> impl Iterator<Item = Request> {
    let zipf = Zipf::new(2_000, 1.1);
    let mut versions = Versions::new(2_000, 6.0 * HOUR, seed);
    steadily(4.0, 24.0, seed, move |now, random, request| {
        let key = zipf.draw(random);
        request.key = hash(key as u64);
        request.body = versions.of(key, now);
        let wave = 1.0 + 0.8 * (now / (8.0 * HOUR) * std::f64::consts::TAU).sin();
        request.latency_ms = random.lognormal(200.0 * wave, 0.6);
        request.is_error = now % (3.0 * HOUR) > 3.0 * HOUR - 120.0;
    })
}
