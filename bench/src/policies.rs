//! What the control plane's policies cost a service: a lookup of one, a start while the control plane is away, and what a hit
//! costs more whose endpoint is watched.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use larder_bench_load::{Scene, keys, nanos_each, requests};
use larder_core::Governor as _;

use crate::kept;
use crate::report::{Mark, Report};
use crate::side::Side;
use crate::sides::StoreKind;

/// How many policies a service has; 2,000 is the most.
const SIZES: [usize; 2] = [5, 2_000];
const KEYS: usize = 1_000;
const LOOKUPS: usize = 2_000_000;
const HITS: usize = 2_000_000;
const WATCHED_KEYS: usize = 10_000;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for policies in SIZES {
        lookups(report, policies)?;
        for scheme in ["http", "https"] {
            boots(report, policies, scheme)?;
        }
    }
    watched_hits(report)
}

fn lookups(report: &mut Report, policies: usize) -> anyhow::Result<()> {
    let name = format!("policies, a lookup of one of {policies}");
    if !report.wants(&name) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    kept::keep(folder.path(), policies - 1, false)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let _inside = runtime.enter();
    let client = kept::client(folder.path(), "http")?;
    let keys = keys(KEYS).map_err(anyhow::Error::from_boxed)?;
    let requests = requests(KEYS, report.operations(LOOKUPS));
    let round = || {
        nanos_each(requests.len(), || {
            for request in &requests {
                black_box(client.gate(&keys[*request as usize]));
            }
        })
    };
    // The first does not count.
    round();
    let values = (0..report.rounds()).map(|_| round()).collect();
    report.add_figure(&name, "ns", Mark::AtMost(50.0), values);
    Ok(())
}

/// A service starts, its control plane is away: how long it takes until the last policies hold.
fn boots(report: &mut Report, policies: usize, scheme: &str) -> anyhow::Result<()> {
    let name =
        format!("policies, a start with the control plane away, {policies} policies, {scheme}");
    if !report.wants(&name) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    kept::keep(folder.path(), policies - 1, false)?;
    let boot = || -> anyhow::Result<f64> {
        let mut command = Command::new(std::env::current_exe()?);
        let said = command
            .arg("boot")
            .arg(folder.path())
            .arg(scheme)
            .output()?;
        anyhow::ensure!(said.status.success(), "the policies did not hold");
        Ok(String::from_utf8(said.stdout)?.trim().parse()?)
    };
    let values = (0..report.rounds())
        .map(|_| boot())
        .collect::<Result<_, _>>()?;
    report.add_figure(&name, "ms", Mark::AtMost(10.0), values);
    Ok(())
}

/// Starts a client, and says how many milliseconds that took.
pub(crate) fn boot(folder: &Path, scheme: &str) -> anyhow::Result<()> {
    let begin = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let _inside = runtime.enter();
    let client = kept::client(folder, scheme)?;
    let took = begin.elapsed();
    drop(client);
    println!("{}", took.as_secs_f64() * 1e3);
    Ok(())
}

/// A hit of an endpoint whose keys are recorded, against one of whom counts alone are.
fn watched_hits(report: &mut Report) -> anyhow::Result<()> {
    for threads in [1, 2] {
        let name = format!(
            "policies, in_process hit of a watched endpoint, {WATCHED_KEYS} keys, {threads} threads"
        );
        if !report.wants(&name) {
            continue;
        }
        let scene = |form: &str| Scene {
            keys: WATCHED_KEYS,
            operations: report.operations(HITS),
            workers: threads,
            form: form.to_owned(),
            ..Scene::default()
        };
        let mut watched = Side::larder(StoreKind::InProcess, &scene("watched"))?;
        let mut counted = Side::larder(StoreKind::InProcess, &scene("counted"))?;
        report.add(
            &name,
            "not watched",
            "ns",
            None,
            || watched.round(),
            || counted.round(),
        )?;
    }
    Ok(())
}
