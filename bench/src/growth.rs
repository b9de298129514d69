//! What grows with entries, with processes and with connections, and how much.

use std::time::Instant;

use larder_bench_load::{Act, Scene};
use larder_testing::redis::RedisServer;

use crate::report::{Mark, Report};
use crate::results::{Line, Point};
use crate::side::Side;
use crate::sides::StoreKind;

/// Ten million of them fit into the memory of a small machine.
const VALUE_BYTES: usize = 128;
const ENTRIES: [usize; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// What most must not cost more than twice as much as.
const FEWER: usize = 100_000;
const MOST: usize = 10_000_000;
const LOOKUPS: usize = 500_000;
const SETS: usize = 50_000;
const REDIS_LOOKUPS: usize = 60_000;
/// So many tasks share the connections.
const TASKS: usize = 64;
const PROCESSES: [usize; 4] = [1, 2, 4, 8];
/// Entries that processes share.
const SHARED: usize = 10_000;
/// Two cores do at least this much more than one.
const SCALES: f64 = 1.7;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    in_process_by_entries(report)?;
    embedded_by_entries(report)?;
    embedded_most(report)?;
    redis_by_entries(report)?;
    by_processes(report, Act::Hit, "growth embedded, hits by processes")?;
    by_processes(report, Act::Set, "growth embedded, sets by processes")?;
    hits_scale(report)?;
    redis_by_connections(report)
}

/// One line of a chart, and what its entries took.
struct Grown {
    side: &'static str,
    costs: Vec<Point>,
    bytes: Vec<Point>,
}

/// Starts a side with each number of entries, and measures a hit.
fn by_entries(
    report: &Report,
    side: &'static str,
    mut start: impl FnMut(&Scene) -> anyhow::Result<Side>,
) -> anyhow::Result<Grown> {
    let (mut costs, mut bytes) = (Vec::new(), Vec::new());
    for keys in report.sizes(ENTRIES) {
        let mut started = start(&Scene {
            keys,
            value_bytes: VALUE_BYTES,
            operations: report.operations(LOOKUPS),
            ..Scene::default()
        })?;
        costs.push(point(report, keys, || started.round())?);
        bytes.push(Point {
            at: keys as f64,
            values: vec![started.bytes_per_entry],
        });
    }
    Ok(Grown { side, costs, bytes })
}

fn add_grown(report: &mut Report, cost: &str, memory: &str, grown: Vec<Grown>) {
    let (mut costs, mut bytes) = (Vec::new(), Vec::new());
    for Grown {
        side,
        costs: points,
        bytes: sizes,
    } in grown
    {
        costs.push(line(side, points));
        bytes.push(line(side, sizes));
    }
    report.add_series(cost, "entries", "ns", costs);
    report.add_series(memory, "entries", "bytes", bytes);
}

fn in_process_by_entries(report: &mut Report) -> anyhow::Result<()> {
    let name = "growth in_process, hit";
    if !report.wants(name) {
        return Ok(());
    }
    let grown = vec![
        by_entries(report, "Larder", |scene| {
            Side::larder(StoreKind::InProcess, scene)
        })?,
        by_entries(report, "moka::sync", |scene| Side::peer("moka", scene))?,
        by_entries(report, "quick_cache", |scene| {
            Side::peer("quick_cache", scene)
        })?,
    ];
    add_grown(report, name, "growth in_process, memory per entry", grown);
    Ok(())
}

fn embedded_by_entries(report: &mut Report) -> anyhow::Result<()> {
    let name = "growth embedded, hit";
    if !report.wants(name) {
        return Ok(());
    }
    let grown = vec![
        by_entries(report, "Larder", |scene| {
            in_a_folder(scene, |scene| Side::larder(StoreKind::Embedded, scene))
        })?,
        by_entries(report, "heed", |scene| {
            in_a_folder(scene, |scene| Side::peer("heed", scene))
        })?,
    ];
    add_grown(report, name, "growth embedded, disk per entry", grown);
    Ok(())
}

/// Starts a side in a folder of its own, which goes with it.
fn in_a_folder(
    scene: &Scene,
    start: impl FnOnce(&Scene) -> anyhow::Result<Side>,
) -> anyhow::Result<Side> {
    let folder = tempfile::tempdir()?;
    let scene = Scene {
        place: folder.path().join("store").display().to_string(),
        ..scene.clone()
    };
    Ok(start(&scene)?.holding(folder))
}

/// The same hit with most entries and with fewer, in turn.
fn embedded_most(report: &mut Report) -> anyhow::Result<()> {
    let name = format!("growth embedded, hit at {MOST} keys");
    if !report.wants(&name) || report.sizes([MOST]).is_empty() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let operations = report.operations(LOOKUPS);
    let start = |keys: usize| {
        let place = folder.path().join(keys.to_string());
        Side::larder(
            StoreKind::Embedded,
            &Scene {
                keys,
                value_bytes: VALUE_BYTES,
                operations,
                place: place.display().to_string(),
                ..Scene::default()
            },
        )
    };
    let (mut most, mut fewer) = (start(MOST)?, start(FEWER)?);
    report.add(
        &name,
        &format!("at {FEWER} keys"),
        "ns",
        Mark::AtMost(2.0),
        || most.round(),
        || fewer.round(),
    )
}

fn redis_by_entries(report: &mut Report) -> anyhow::Result<()> {
    let name = "growth redis, hit";
    if !report.wants(name) {
        return Ok(());
    }
    let (mut ours, mut theirs, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for keys in report.sizes(ENTRIES) {
        let server = RedisServer::start();
        let scene = Scene {
            keys,
            value_bytes: VALUE_BYTES,
            operations: report.operations(REDIS_LOOKUPS),
            workers: TASKS,
            place: server.url(),
            ..Scene::default()
        };
        let before = used_memory(&server)?;
        let mut larder = Side::larder(StoreKind::Redis, &scene)?;
        let grown = used_memory(&server)?.saturating_sub(before);
        bytes.push(Point {
            at: keys as f64,
            values: vec![grown as f64 / keys as f64],
        });
        let mut managed = Side::peer("redis-rs", &managed(&scene))?;
        ours.push(point(report, keys, || larder.thousands_per_second())?);
        theirs.push(point(report, keys, || managed.thousands_per_second())?);
    }
    let lines = vec![line("Larder", ours), line("ConnectionManager", theirs)];
    report.add_series(name, "entries", "thousand/s", lines);
    report.add_series(
        "growth redis, memory per entry",
        "entries",
        "bytes",
        vec![line("Larder", bytes)],
    );
    Ok(())
}

/// What Redis has allocated, in bytes.
fn used_memory(server: &RedisServer) -> anyhow::Result<u64> {
    let memory = server.cli(&["INFO", "memory"]);
    let used = memory
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    Ok(used.unwrap_or("0").trim().parse()?)
}

fn managed(scene: &Scene) -> Scene {
    Scene {
        fill: false,
        form: "managed".to_owned(),
        ..scene.clone()
    }
}

/// All processes on one folder, each with as many operations as one alone.
fn by_processes(report: &mut Report, act: Act, name: &str) -> anyhow::Result<()> {
    if !report.wants(name) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut scene = shared_scene(report, act, &folder);
    let mut sides = Vec::new();
    let mut points = Vec::new();
    for processes in PROCESSES {
        while sides.len() < processes {
            sides.push(Side::larder(StoreKind::Embedded, &scene)?);
            scene.fill = false;
        }
        points.push(point(report, processes, || {
            all_at_once(&mut sides, scene.operations)
        })?);
    }
    report.add_series(
        name,
        "processes",
        "thousand/s",
        vec![line("Larder", points)],
    );
    Ok(())
}

/// Hits of several processes against those of one, in turn; of each on the folder itself, or with an L1 of its own.
fn hits_scale(report: &mut Report) -> anyhow::Result<()> {
    let scales = Some(Mark::AtLeast(SCALES));
    for (processes, form, mark) in [
        (2, "", scales),
        (8, "folder", scales),
        // Eight L1s share the caches of the processor.
        (8, "", None),
    ] {
        let which = match form {
            "" => "",
            _ => " on the folder",
        };
        let name = format!("growth embedded, hits of {processes} processes{which}");
        if !report.wants(&name) {
            continue;
        }
        let folder = tempfile::tempdir()?;
        let mut scene = shared_scene(report, Act::Hit, &folder);
        scene.form = form.to_owned();
        let mut one = vec![Side::larder(StoreKind::Embedded, &scene)?];
        scene.fill = false;
        let mut all = (0..processes)
            .map(|_| Side::larder(StoreKind::Embedded, &scene))
            .collect::<Result<Vec<_>, _>>()?;
        report.add(
            &name,
            "one process",
            "thousand/s",
            mark,
            || all_at_once(&mut all, scene.operations),
            || all_at_once(&mut one, scene.operations),
        )?;
    }
    Ok(())
}

fn shared_scene(report: &Report, act: Act, folder: &tempfile::TempDir) -> Scene {
    Scene {
        act,
        keys: SHARED,
        operations: report.operations(match act {
            Act::Hit => LOOKUPS,
            Act::Set => SETS,
        }),
        place: folder.path().join("store").display().to_string(),
        ..Scene::default()
    }
}

/// What all sides do together, in thousands a second: from the first's begin to the last's end.
fn all_at_once(sides: &mut [Side], operations: usize) -> anyhow::Result<f64> {
    let begin = Instant::now();
    sides.iter_mut().try_for_each(Side::begin)?;
    let count = sides.len() * operations;
    for side in sides {
        side.finish()?;
    }
    Ok(count as f64 / begin.elapsed().as_secs_f64() / 1e3)
}

fn redis_by_connections(report: &mut Report) -> anyhow::Result<()> {
    let name = "growth redis, connections";
    if !report.wants(name) {
        return Ok(());
    }
    let server = RedisServer::start();
    let mut scene = Scene {
        keys: SHARED,
        operations: report.operations(REDIS_LOOKUPS),
        workers: TASKS,
        place: server.url(),
        ..Scene::default()
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for connections in [1, 2, 4, 8, 16, 32, 64] {
        scene.connections = connections;
        let mut larder = Side::larder(StoreKind::Redis, &scene)?;
        scene.fill = false;
        let mut managed = Side::peer("redis-rs", &managed(&scene))?;
        ours.push(point(report, connections, || {
            larder.thousands_per_second()
        })?);
        theirs.push(point(report, connections, || {
            managed.thousands_per_second()
        })?);
    }
    let lines = vec![line("Larder", ours), line("ConnectionManager", theirs)];
    report.add_series(name, "connections", "thousand/s", lines);
    Ok(())
}

/// The rounds of one point, after one that doesn't count.
fn point(
    report: &Report,
    at: usize,
    mut round: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Point> {
    round()?;
    Ok(Point {
        at: at as f64,
        values: (0..report.rounds())
            .map(|_| round())
            .collect::<Result<_, _>>()?,
    })
}

fn line(side: &str, points: Vec<Point>) -> Line {
    Line {
        side: side.to_owned(),
        points,
    }
}
