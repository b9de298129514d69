//! A hit in the process, expiry and counting included, against caches for one process.

use larder_bench_load::Scene;

use crate::report::{Mark, Report};
use crate::side::Side;
use crate::sides::StoreKind;

const LOOKUPS: usize = 2_000_000;
/// The peers, as their rows name them, their binaries, and the mark against them.
const PEERS: [(&str, &str, Option<Mark>); 5] = [
    ("moka::sync", "moka", Some(Mark::AtMost(0.6))),
    ("quick_cache, no expiry", "quick_cache", None),
    ("foyer, no expiry", "foyer", None),
    ("cached", "cached", None),
    ("hitbox", "hitbox", None),
];

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for keys in report.sizes([10_000, 100_000]) {
        for threads in [1, 2] {
            let name = format!("in_process hit, {keys} keys, {threads} threads");
            if !report.wants(&name) {
                continue;
            }
            let scene = Scene {
                keys,
                operations: report.operations(LOOKUPS),
                workers: threads,
                ..Scene::default()
            };
            let mut ours = Side::larder(StoreKind::InProcess, &scene)?;
            for (peer, binary, mark) in PEERS {
                let mut theirs = Side::peer(binary, &scene)?;
                report.add(&name, peer, "ns", mark, || ours.round(), || theirs.round())?;
            }
        }
    }
    Ok(())
}
