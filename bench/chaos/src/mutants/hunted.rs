//! The hunt: each guard off in turn, in the scenario in which it is needed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use larder_core::mutants::Guard;

use super::needed::{name, needed};
use crate::rounds::{Run, round};
use crate::scenarios;
use crate::scene::Setting;

/// A round of a hunt, unless its scenario takes longer.
const LENGTH: Duration = Duration::from_secs(3);
/// So many rounds, each with another seed, until a guard counts as not needed.
const ROUNDS: u64 = 12;

pub(crate) fn turn_off(guard: &str) -> anyhow::Result<()> {
    let guard = Guard::ALL.iter().find(|one| name(**one) == guard);
    let guard = guard.context("there is no such guard: see --list")?;
    anyhow::ensure!(
        larder_core::mutants::turn_off(*guard),
        "guards can't be switched off in a release build: build without --release"
    );
    Ok(())
}

pub(crate) fn list() {
    println!("\nguards, and where each is needed:");
    for guard in Guard::ALL {
        let (scenario, store) = needed(*guard);
        println!("{:30} {scenario} [{}]", name(*guard), store.name());
    }
}

/// Switches each guard off in turn; fails where nobody notices.
pub(crate) fn hunt(run: &Run, only: &str) -> anyhow::Result<ExitCode> {
    let all = scenarios::all();
    let mut missed = 0;
    println!("| guard off | scenario | store | violations | after |");
    println!("| --- | --- | --- | ---: | ---: |");
    for guard in Guard::ALL {
        let ((scenario, store), name) = (needed(*guard), name(*guard));
        if !run.stores.contains(&store) || !name.contains(only) {
            continue;
        }
        let found = all
            .iter()
            .find(|one| one.name == scenario && one.stores.contains(&store));
        let found = found.context("there is no such scenario")?;
        if let Some(why) = found.stage.missing() {
            println!(
                "| {name} | {scenario} | {} | not run here: {why} | |",
                store.name()
            );
            continue;
        }
        let begin = Instant::now();
        let mut violations = 0;
        for number in 0..ROUNDS {
            let setting = Setting {
                store,
                stage: found.stage,
                length: LENGTH,
                is_long: false,
                seed: run.seed.wrapping_add(number),
                without: Some(name.clone()),
            };
            let (_, verdict) = round(found, setting).with_context(|| format!("without {name}"))?;
            violations += verdict.violations.len();
            if violations > 0 {
                break;
            }
        }
        missed += usize::from(violations == 0);
        let seconds = begin.elapsed().as_secs_f64();
        let store = store.name();
        println!("| {name} | {scenario} | {store} | {violations} | {seconds:.1} s |");
    }
    Ok(match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
