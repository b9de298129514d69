//! What a hit costs, counted and not timed: allocations, wake-ups, instructions.

use std::process::Command;

use anyhow::Context as _;
use larder_bench_load::{Runtime, Scene};
use larder_testing::redis::RedisServer;
use tempfile::TempDir;

use crate::report::{Mark, Report};
use crate::side::{Costs, Side};
use crate::sides::StoreKind;

const KEYS: usize = 1_000;
const HITS: usize = 100_000;
/// Over Redis.
const REDIS_HITS: usize = 20_000;
/// One of these rounds more is what a hit's instructions follow from.
const INSTRUCTION_HITS: usize = 50_000;

/// The most that a hit may cost: what it does, and a little for what a round costs once.
struct Limits {
    allocations: f64,
    wake_ups: Option<f64>,
    /// Counted where all is done on one thread.
    instructions: Option<f64>,
}

struct Row {
    name: &'static str,
    store: StoreKind,
    tasks: usize,
    runtime: Runtime,
    limits: Limits,
}

const ROWS: [Row; 5] = [
    Row {
        name: "costs in_process",
        store: StoreKind::InProcess,
        tasks: 1,
        runtime: Runtime::Current,
        limits: Limits {
            allocations: 0.01,
            wake_ups: Some(0.01),
            instructions: Some(690.0),
        },
    },
    Row {
        name: "costs embedded",
        store: StoreKind::Embedded,
        tasks: 1,
        runtime: Runtime::Workers,
        limits: Limits {
            allocations: 1.01,
            wake_ups: Some(0.01),
            instructions: Some(3_800.0),
        },
    },
    Row {
        name: "costs redis, 1 task",
        store: StoreKind::Redis,
        tasks: 1,
        runtime: Runtime::Workers,
        limits: Limits {
            allocations: 2.2,
            // It waits for its reply.
            wake_ups: Some(1.1),
            instructions: None,
        },
    },
    Row {
        name: "costs redis, 64 tasks",
        store: StoreKind::Redis,
        tasks: 64,
        runtime: Runtime::Workers,
        limits: Limits {
            allocations: 2.2,
            wake_ups: None,
            instructions: None,
        },
    },
    Row {
        name: "costs redis on one thread, 64 tasks",
        store: StoreKind::Redis,
        tasks: 64,
        runtime: Runtime::Current,
        limits: Limits {
            allocations: 2.2,
            wake_ups: Some(0.02),
            instructions: Some(6_200.0),
        },
    },
];

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for row in &ROWS {
        if report.wants(row.name) {
            measure_row(report, row)?;
        }
    }
    Ok(())
}

fn measure_row(report: &mut Report, row: &Row) -> anyhow::Result<()> {
    let place = Place::of(row.store)?;
    let scene = Scene {
        keys: KEYS,
        operations: match row.store {
            StoreKind::Redis => REDIS_HITS,
            StoreKind::InProcess | StoreKind::Embedded => HITS,
        },
        workers: row.tasks,
        runtime: row.runtime,
        place: place.name(),
        ..Scene::default()
    };
    let mut side = Side::counted(row.store, &scene)?;
    side.round()?;
    let costs: Vec<Costs> = (0..report.rounds())
        .map(|_| side.costs())
        .collect::<Result<_, _>>()?;
    drop(side);
    let of = |part: fn(&Costs) -> f64| costs.iter().map(part).collect();
    report.add_figure(
        &format!("{}, allocations of a hit", row.name),
        "",
        Mark::AtMost(row.limits.allocations),
        of(|costs| costs.allocations),
    );
    report.add_figure(
        &format!("{}, bytes allocated by a hit", row.name),
        "bytes",
        None,
        of(|costs| costs.bytes),
    );
    report.add_figure(
        &format!("{}, wake-ups of a hit", row.name),
        "",
        row.limits.wake_ups.map(Mark::AtMost),
        of(|costs| costs.wake_ups),
    );
    if let Some(limit) = row.limits.instructions {
        let scene = Scene {
            operations: INSTRUCTION_HITS,
            ..scene
        };
        report.add_figure(
            &format!("{}, instructions of a hit", row.name),
            "",
            Mark::AtMost(limit),
            vec![instructions_of_a_hit(row.store, &scene)?],
        );
    }
    Ok(())
}

/// Where a store is, until it is dropped.
enum Place {
    Process,
    Folder(TempDir),
    Redis(RedisServer),
}

impl Place {
    fn of(store: StoreKind) -> anyhow::Result<Self> {
        Ok(match store {
            StoreKind::InProcess => Self::Process,
            StoreKind::Embedded => Self::Folder(tempfile::tempdir()?),
            StoreKind::Redis => Self::Redis(RedisServer::start()),
        })
    }

    fn name(&self) -> String {
        match self {
            Self::Process => String::new(),
            Self::Folder(folder) => folder.path().join("store").display().to_string(),
            Self::Redis(server) => server.url(),
        }
    }
}

/// Two runs that differ in a round: what is done before it falls out.
fn instructions_of_a_hit(store: StoreKind, scene: &Scene) -> anyhow::Result<f64> {
    let (two, one) = (
        instructions(store, scene, 2)?,
        instructions(store, scene, 1)?,
    );
    Ok(two.saturating_sub(one) as f64 / scene.operations as f64)
}

/// The instructions of a whole side that is asked for so many rounds, counted by callgrind.
fn instructions(store: StoreKind, scene: &Scene, rounds: usize) -> anyhow::Result<u64> {
    let place = Place::of(store)?;
    let scene = Scene {
        place: place.name(),
        ..scene.clone()
    };
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("valgrind.log");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--log-file={}", log.display()));
    let mut side = Side::larder_under(command, store, &scene)?;
    for _ in 0..rounds {
        side.round()?;
    }
    drop(side);
    let log = std::fs::read_to_string(&log)?;
    let collected = log
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .with_context(|| format!("valgrind says nothing of its instructions: {log}"))?;
    Ok(collected.1.trim().parse()?)
}
