//! What the engine decides on workloads that it was not tuned on, in virtual time: the same figures on every machine.
//!
//! Real traces lie in a folder that is named; without it there is the one that the tests have. Latencies that a trace does not
//! have are drawn from those of another.

mod synthetic;
mod traces;

use std::path::PathBuf;

use larder_decide::simulation::{Request, Setup, Trial};
use larder_decide::{Limits, Record};

use crate::results::Mark;

const SEEDS: [u64; 3] = [1, 2, 3];
/// Of a shared store.
const INSTANCES: [usize; 2] = [1, 16];
/// The marks.
const MAX_GHOST_ERROR: Mark = Mark::AtMost(0.03);
const MAX_REGRET: Mark = Mark::AtMost(0.05);
const MAX_STALE: Mark = Mark::AtMost(0.01);

/// What is simulated.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder with request traces: gzip CSV as `larder replay` reads it, and the keys of web07 (xz)
    #[arg(long, env = "LARDER_TRACES")]
    traces: Option<PathBuf>,

    /// Only workloads whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// A workload: what it is called, and its requests by a seed.
struct Workload {
    name: String,
    setup: Setup,
    /// From when on there is something to decide, in seconds.
    since: f64,
    make: Box<dyn Fn(u64) -> Box<dyn Iterator<Item = Request>>>,
}

impl Workload {
    fn new<I>(name: &str, make: impl Fn(u64) -> I + 'static) -> Self
    where
        I: Iterator<Item = Request> + 'static,
    {
        Self {
            name: name.to_owned(),
            setup: Setup::default(),
            since: 0.0,
            make: Box::new(move |seed| Box::new(make(seed))),
        }
    }

    fn since(mut self, seconds: f64) -> Self {
        self.since = seconds;
        self
    }

    fn at_most_seconds(mut self, max_ttl: f64) -> Self {
        self.setup.limits = Limits {
            max_ttl,
            ..Limits::default()
        };
        self
    }

    /// With so many instances, over all seeds.
    fn outcomes(&self, instances: usize) -> Vec<Trial> {
        let setup = Setup {
            instances,
            ..self.setup
        };
        SEEDS.map(|seed| Trial::of(setup, (self.make)(seed))).into()
    }
}

/// Prints a table; whether every mark is met.
pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    println!(
        "| workload | on after, s | TTL in the end, s | flips | origin | best | stale | regret | ghost, 1 | ghost, 16 | in the end |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
    let mut all = traces::all(args.traces.as_deref())?;
    all.extend(synthetic::all());
    let mut is_met = true;
    for workload in all {
        if args
            .only
            .as_ref()
            .is_some_and(|only| !workload.name.contains(only))
        {
            continue;
        }
        is_met &= show(&workload);
    }
    Ok(is_met)
}

fn show(workload: &Workload) -> bool {
    let [one, many] = INSTANCES.map(|instances| workload.outcomes(instances));
    // The worst of the seeds; of both, where it is no figure of the ghost.
    let worst = |of: &dyn Fn(&Trial) -> f64| {
        let all = one.iter().chain(&many);
        all.map(of).fold(f64::NEG_INFINITY, f64::max)
    };
    let ghost = |outcomes: &[Trial]| {
        let means = outcomes.iter().map(|one| one.ghost.mean);
        let most = outcomes.iter().map(|one| one.ghost.most);
        (means.fold(0.0, f64::max), most.fold(0.0, f64::max))
    };
    let (ghost_one, ghost_many) = (ghost(&one), ghost(&many));
    let regret = worst(&Trial::regret);
    let stale = worst(&|one| one.simulation.tally().stale_share());
    let ttls: Vec<f64> = one
        .iter()
        .map(|one| if one.is_on() { one.ttl() } else { 0.0 })
        .collect();
    let last: Option<&Record> = one.first().and_then(|one| one.simulation.last());
    let marked = |value: f64, mark: Mark, digits: usize| match mark.is_met(value) {
        true => format!("{value:.digits$}"),
        false => format!("**{value:.digits$}**"),
    };
    println!(
        "| {} | {} | {} | {} | {:.3} | {:.3} | {} | {} | {} ({:.3}) | {} ({:.3}) | {} |",
        workload.name,
        shown(worst(&Trial::first_on) - workload.since),
        range(&ttls),
        worst(&|one| f64::from(one.flips())),
        worst(&|one| one.simulation.tally().origin_share()),
        worst(&|one| one.best_origin_share),
        marked(stale, MAX_STALE, 4),
        marked(regret, MAX_REGRET, 3),
        marked(ghost_one.0, MAX_GHOST_ERROR, 3),
        ghost_one.1,
        marked(ghost_many.0, MAX_GHOST_ERROR, 3),
        ghost_many.1,
        last.map_or("", |last| last.code.as_str()),
    );
    MAX_REGRET.is_met(regret)
        && MAX_STALE.is_met(stale)
        && [ghost_one.0, ghost_many.0]
            .iter()
            .all(|error| MAX_GHOST_ERROR.is_met(*error))
}

fn shown(seconds: f64) -> String {
    match seconds.is_finite() {
        true => format!("{seconds:.0}"),
        false => "never".to_owned(),
    }
}

fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    match format!("{least:.0}") == format!("{most:.0}") {
        true => format!("{most:.0}"),
        false => format!("{least:.0} to {most:.0}"),
    }
}
