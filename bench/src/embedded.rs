//! The embedded store against bare `heed` with the same flags, and `redb`.

use larder_bench_load::{Act, Scene};

use crate::report::{Mark, Report};
use crate::side::Side;
use crate::sides::StoreKind;

const LOOKUPS: usize = 500_000;
const SETS: usize = 100_000;

struct Row {
    act: Act,
    operations: usize,
    peers: [(&'static str, &'static str, Option<Mark>); 2],
}

const HITS: Row = Row {
    act: Act::Hit,
    operations: LOOKUPS,
    peers: [
        ("heed", "heed", Some(Mark::AtMost(1.3))),
        ("redb", "redb", None),
    ],
};

const WRITES: Row = Row {
    act: Act::Set,
    operations: SETS,
    peers: [
        ("heed in groups of 128", "heed", Some(Mark::AtMost(1.5))),
        ("redb in groups of 128", "redb", None),
    ],
};

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for keys in report.sizes([10_000, 100_000]) {
        measure_row(report, &format!("embedded hit, {keys} keys"), keys, &HITS)?;
        measure_row(report, &format!("embedded set, {keys} keys"), keys, &WRITES)?;
    }
    Ok(())
}

fn measure_row(report: &mut Report, name: &str, keys: usize, row: &Row) -> anyhow::Result<()> {
    if !report.wants(name) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let operations = report.operations(row.operations);
    let scene = |side: &str| Scene {
        act: row.act,
        keys,
        operations,
        place: folder.path().join(side).display().to_string(),
        ..Scene::default()
    };
    let mut ours = Side::larder(StoreKind::Embedded, &scene("larder"))?;
    for (peer, binary, mark) in row.peers {
        let mut theirs = Side::peer(binary, &scene(binary))?;
        report.add(name, peer, "ns", mark, || ours.round(), || theirs.round())?;
    }
    Ok(())
}
