//! A run: every scenario over every store that it is for, in rounds, until the time of each store is over.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::judge::{Verdict, judge};
use crate::report::{NotRun, Report, Row};
use crate::scenarios::{self, Scenario};
use crate::scene::{Scene, Setting, StoreKind};

/// With so much time for a store, faults that take a minute are among its.
const LONG: Duration = Duration::from_secs(300);
/// A round is no shorter,
const SHORTEST: Duration = Duration::from_millis(2_000);
/// and no longer: what is seen is kept until it is judged.
const LONGEST: Duration = Duration::from_secs(15);

/// What is asked for.
pub(crate) struct Run {
    pub(crate) stores: Vec<StoreKind>,
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
    pub(crate) scenario: Option<String>,
}

impl Run {
    fn wants(&self, scenario: &Scenario) -> bool {
        let only = self.scenario.as_ref();
        only.is_none_or(|only| scenario.name.contains(only.as_str()))
    }

    pub(crate) fn all(&self) -> anyhow::Result<Report> {
        let mut report = Report::new(self.seed);
        let all = scenarios::all();
        for store in &self.stores {
            let its = all
                .iter()
                .filter(|one| one.stores.contains(store) && self.wants(one));
            let its: Vec<&Scenario> = its.collect();
            self.over(*store, &its, &mut report)?;
        }
        anyhow::ensure!(
            !report.rows.is_empty() || !report.not_run.is_empty(),
            "no scenario has this name: see --list"
        );
        Ok(report)
    }

    fn over(&self, store: StoreKind, all: &[&Scenario], report: &mut Report) -> anyhow::Result<()> {
        let mut its = Vec::with_capacity(all.len());
        for one in all {
            match one.stage.missing() {
                None => its.push(*one),
                Some(why) => report.not_run.push(NotRun {
                    scenario: one.name,
                    store: store.name(),
                    why,
                }),
            }
        }
        if its.is_empty() {
            return Ok(());
        }
        let whole = Duration::from_secs(self.seconds);
        let length = (whole / its.len() as u32).clamp(SHORTEST, LONGEST);
        let begin = Instant::now();
        let bar = bar(whole);
        let mut rows: Vec<Row> = its
            .iter()
            .map(|one| Row::new(one.name, store.name()))
            .collect();
        for number in 0_u64.. {
            let index = number as usize % its.len();
            let scenario = its[index];
            if index == 0 && number > 0 && begin.elapsed() + length > whole {
                break;
            }
            if number >= its.len() as u64 && begin.elapsed() > whole {
                break;
            }
            bar.set_message(format!("{} {}", store.name(), scenario.name));
            let seed = self.seed.wrapping_add(number.wrapping_mul(0x9e37_79b9));
            let setting = Setting {
                store,
                stage: scenario.stage,
                length,
                is_long: whole >= LONG,
                seed,
                without: None,
            };
            let (faults, verdict) = round(scenario, setting)
                .with_context(|| format!("{} over {}, seed {seed}", scenario.name, store.name()))?;
            for violation in verdict.violations.iter().take(3) {
                bar.println(format!(
                    "{} {}, seed {seed}: {violation:?}",
                    store.name(),
                    scenario.name
                ));
            }
            rows[index].add(faults, verdict);
            bar.set_position(begin.elapsed().as_secs().min(self.seconds));
        }
        bar.finish_and_clear();
        report.rows.extend(rows);
        Ok(())
    }
}

fn bar(whole: Duration) -> ProgressBar {
    let bar = ProgressBar::new(whole.as_secs());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} s {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// One round of a scenario: how many faults there were, and what is to be said of what was seen.
pub(crate) fn round(scenario: &Scenario, setting: Setting) -> anyhow::Result<(u64, Verdict)> {
    let bounds = scenario.bounds(setting.store);
    let mut scene = Scene::set(setting)?;
    if scenario.may_change_masters() {
        scene.watch_closely();
    }
    (scenario.run)(&mut scene)?;
    let faults = scene.faults;
    let (witnesses, fault_ends) = scene.end()?;
    Ok((faults, judge(&witnesses, bounds, &fault_ends)))
}
