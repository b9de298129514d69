//! Redis is stopped in its tracks under 1,000 requests a second: none fails, none is slower for it, and nothing piles up.

use std::time::Duration;

use larder::PolicyPatch;
use larder_testing::alone::Usage;
use larder_testing::redis::{RedisServer, wait_until};
use larder_testing::stalls::once_of_three;

use crate::alone;
use crate::origin::{Nanos, Origin, now};
use crate::worker::{Cost, Order, Seen, Setup, Worker, p99};

const PER_SECOND: u32 = 1_000;
const LENGTH: Duration = Duration::from_millis(8_000);
/// From then on no request pays for it. The mark is 250 ms.
const UNTIL_OPEN: Duration = Duration::from_millis(2_500);
/// The mark is 1 ms.
const ADDED: Duration = Duration::from_millis(10);

#[test]
fn no_request_fails_or_waits_and_nothing_piles_up() {
    let _room = alone();
    once_of_three(none_fails_or_waits);
}

fn none_fails_or_waits() -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    let setup = Setup {
        policy: PolicyPatch::default(),
        load_ms: 50,
        redis_url: Some(redis.url()),
        is_patient: false,
        is_keeping: false,
        in_foreground: false,
    };
    let mut worker = Worker::start(folder.path(), &setup);
    // Under way before anything happens.
    let warm = Order::Pace {
        per_second: PER_SECOND,
        for_ms: 500,
    };
    worker.ask::<Vec<Cost>>(&warm);
    let order = Order::Pace {
        per_second: PER_SECOND,
        for_ms: LENGTH.as_millis() as u64,
    };
    worker.tell(&order);
    redis.pause();
    let paused = now();
    let since = || Duration::from_nanos(now() - paused);
    let mut usages = Vec::new();
    while since() < LENGTH {
        usages.push((since(), Usage::of(worker.pid())));
        std::thread::sleep(Duration::from_millis(20));
    }
    let costs: Vec<Cost> = worker.hear();
    let failed = costs.iter().filter(|(_, added)| added.is_none()).count();
    assert_eq!(failed, 0, "of {}", costs.len());
    let from = paused + UNTIL_OPEN.as_nanos() as Nanos;
    let late = costs.iter().filter(|(at, _)| *at >= from);
    let added: Vec<u64> = late.filter_map(|(_, added)| *added).collect();
    assert!(added.len() > costs.len() / 2, "{} requests", added.len());
    let p99 = Duration::from_micros(p99(added));
    redis.resume();
    Origin::in_folder(folder.path()).change("truth");
    let endpoint = "/back".to_owned();
    wait_until("it is used again", || {
        let look = Order::Look {
            endpoint: endpoint.clone(),
            tasks: 1,
        };
        worker.ask::<Seen>(&look).outcomes.contains_key("hit")
    });
    match p99 < ADDED {
        true => is_level(&usages),
        false => Err(format!("p99 {p99:?}")),
    }
}

/// The most of the last third is not above that of the second.
fn is_level(usages: &[(Duration, Usage)]) -> Result<(), String> {
    let most = |from: Duration, to: Duration, of: fn(&Usage) -> u64| {
        let within = usages.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, usage)| of(usage)).max().unwrap()
    };
    let third = LENGTH / 3;
    let grown = |of: fn(&Usage) -> u64| {
        most(third * 2, LENGTH, of).saturating_sub(most(third, third * 2, of))
    };
    let threads = grown(|usage| usage.threads);
    let descriptors = grown(|usage| usage.descriptors);
    let resident = grown(|usage| usage.resident);
    match threads == 0 && descriptors <= 2 && resident < 4 << 20 {
        true => Ok(()),
        false => Err(format!(
            "grew by {threads} threads, {descriptors} descriptors, {resident} bytes"
        )),
    }
}
