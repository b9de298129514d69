//! One load of a key at a time over all processes, and one per expiry; one more for each holder that is killed. With
//! `stale_while_revalidate` nobody waits for it.

use std::time::Duration;

use larder::{PolicyPatch, Tag};
use larder_testing::process::PATIENCE;
use larder_testing::redis::{RedisServer, wait_until};
use larder_testing::stalls::once_of_three;

use crate::origin::{Load, Nanos, Origin, now};
use crate::worker::{Order, Seen, Setup, Worker, p99};
use crate::{alone, among_others};

const PROCESSES: usize = 4;
const TASKS: usize = 256;
const EXPIRIES: usize = 50;
/// In these rounds the process is killed that loads.
const KILLS: [usize; 2] = [20, 40];
const TTL: Duration = Duration::from_millis(400);
/// So much shorter may a life be: the embedded store's clock goes by the kernel's ticks.
const TICK: Duration = Duration::from_millis(10);
const ENDPOINT: &str = "/hot";

fn setup(redis: Option<&RedisServer>, load_ms: u64, policy: PolicyPatch) -> Setup {
    Setup {
        load_ms,
        redis_url: redis.map(RedisServer::url),
        is_patient: true,
        is_keeping: false,
        in_foreground: policy.stale_while_revalidate_seconds.is_none(),
        policy: PolicyPatch {
            ttl_seconds: Some(TTL.as_secs_f64()),
            jitter: Some(0.0),
            ..policy
        },
    }
}

fn look() -> Order {
    Order::Look {
        endpoint: ENDPOINT.to_owned(),
        tasks: TASKS,
    }
}

#[test]
fn one_per_expiry_over_the_embedded_store() {
    one_per_expiry(None);
}

#[test]
fn one_per_expiry_over_redis() {
    one_per_expiry(Some(&RedisServer::start()));
}

fn one_per_expiry(redis: Option<&RedisServer>) {
    let _room = among_others();
    let folder = tempfile::tempdir().unwrap();
    // Framed, so that a life is not in whole seconds.
    let policy = PolicyPatch {
        tags: Some(vec![Tag::new("hot").unwrap()]),
        ..PolicyPatch::default()
    };
    let setup = setup(redis, 20, policy);
    let origin = Origin::in_folder(folder.path());
    let start = || Worker::start(folder.path(), &setup);
    let mut workers: Vec<Worker> = (0..PROCESSES).map(|_| start()).collect();
    let mut late = 0;
    for round in 0..EXPIRIES {
        let truth = format!("truth {round}");
        origin.change(&truth);
        let is_kill = KILLS.contains(&round);
        if is_kill {
            origin.close();
        }
        let before = origin.loads().len();
        workers.iter_mut().for_each(|worker| worker.tell(&look()));
        if is_kill {
            wait_until("somebody loads", || origin.loads().len() > before);
            let holder = origin.loads()[before].process;
            let at = workers.iter().position(|worker| worker.pid() == holder);
            workers.swap_remove(at.unwrap()).kill();
            origin.open();
        }
        let mut seen = Seen::default();
        for worker in &mut workers {
            seen.add(worker.hear());
        }
        late += lives_over(&origin.loads()[before..]);
        let asked = (workers.len() * TASKS) as u64;
        assert_eq!(seen.values, [(truth, asked)].into(), "round {round}");
        if is_kill {
            workers.push(start());
        }
        let endpoint = ENDPOINT.to_owned();
        workers[0].ask::<()>(&Order::Expire { endpoint });
    }
    judge(&origin.loads(), late);
}

/// How many lives were over before all had the value of a round's load: after each, who asked last was right to load anew.
fn lives_over(loads: &[Load]) -> usize {
    let end = loads.iter().find_map(|load| load.end).unwrap();
    let lives = (now() - end) / (TTL - TICK).as_nanos() as Nanos;
    usize::try_from(lives).unwrap()
}

/// One load for each expiry and for each that was killed; none began while another one ran, or while its value was fresh.
fn judge(loads: &[Load], late: usize) {
    let killed = loads.iter().filter(|load| load.end.is_none()).count();
    assert_eq!(killed, KILLS.len());
    for pair in loads.windows(2) {
        let over = pair[0]
            .end
            .map(|end| end + (TTL - TICK).as_nanos() as Nanos);
        let is_due = over.is_none_or(|over| pair[1].begin >= over);
        assert!(is_due, "one too many: {pair:?}");
    }
    let asked = EXPIRIES + KILLS.len();
    let allowed = asked..=asked + late;
    assert!(allowed.contains(&loads.len()), "{} loads", loads.len());
}

/// The mark is 2 ms.
const NOT_WAITED: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(800);

#[test]
fn nobody_waits_where_stale_values_may_stand_in_over_the_embedded_store() {
    nobody_waits(None);
}

#[test]
fn nobody_waits_where_stale_values_may_stand_in_over_redis() {
    nobody_waits(Some(&RedisServer::start()));
}

fn nobody_waits(redis: Option<&RedisServer>) {
    let _room = alone();
    once_of_three(|| nobody_waited(redis));
}

fn nobody_waited(redis: Option<&RedisServer>) -> Result<(), String> {
    if let Some(redis) = redis {
        redis.cli(&["FLUSHALL"]);
    }
    let folder = tempfile::tempdir().unwrap();
    let policy = PolicyPatch {
        stale_while_revalidate_seconds: Some(PATIENCE.as_secs_f64()),
        ..PolicyPatch::default()
    };
    let setup = setup(redis, SLOW.as_millis() as u64, policy);
    let origin = Origin::in_folder(folder.path());
    origin.change("truth");
    let mut workers: Vec<Worker> = (0..PROCESSES)
        .map(|_| Worker::start(folder.path(), &setup))
        .collect();
    workers[0].ask::<Seen>(&look());
    assert_eq!(origin.loads().len(), 1);
    let keep = Order::Keep {
        endpoint: ENDPOINT.to_owned(),
        tasks: TASKS,
        every_ms: 400,
        for_ms: 4_000,
    };
    workers.iter_mut().for_each(|worker| worker.tell(&keep));
    let mut seen = Seen::default();
    for worker in &mut workers {
        seen.add(worker.hear());
    }
    let waited = seen.outcomes.get("miss").copied().unwrap_or(0);
    let p99 = Duration::from_micros(p99(seen.micros));
    let loads = origin.loads();
    assert!(loads.len() >= 3, "it was loaded anew: {loads:?}");
    let is_alone = |pair: &[Load]| pair[1].begin >= pair[0].end.unwrap();
    if waited > 0 || p99 >= NOT_WAITED || !loads.windows(2).all(is_alone) {
        return Err(format!("{:?}, p99 {p99:?}, {loads:?}", seen.outcomes));
    }
    Ok(())
}
