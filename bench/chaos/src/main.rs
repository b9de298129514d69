//! `larder-chaos`: tries to break what Larder guarantees. Real processes read, load, write and invalidate over real stores, faults
//! befall them, and every read is judged. See `--help`.

mod crew;
mod event;
mod instant;
mod judge;
mod keys;
mod mutants;
mod orders;
mod proxy;
mod random;
mod report;
mod rounds;
mod scenarios;
mod scene;
mod stage;
mod watched;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::rounds::Run;
use crate::scene::StoreKind;

#[derive(Parser)]
#[command(
    about = "Tries to break Larder's guarantees C1 to C4: processes, faults, and a judge of every read. Exits with 1 on any violation or failed request",
    args_conflicts_with_subcommands = true
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Over which stores
    #[arg(long, value_enum, default_values = ["all"])]
    store: Vec<Stores>,

    /// For how long over each store
    #[arg(long, default_value_t = 30)]
    seconds: u64,

    /// The same seed does the same things, as far as the machine lets it; a random one, which is shown, without
    #[arg(long)]
    seed: Option<u64>,

    /// Only scenarios with this in their names
    #[arg(long)]
    scenario: Option<String>,

    /// Switches each guard of the engine off in turn, and fails where nobody notices; with a name, this one alone. Needs a
    /// build with --features mutants
    #[arg(long, value_name = "GUARD", num_args = 0..=1, default_missing_value = "")]
    mutants: Option<String>,

    /// Lists the scenarios, and the guards that can be switched off
    #[arg(long)]
    list: bool,

    /// Where the report is written, as JSON
    #[arg(long)]
    json: Option<PathBuf>,

    /// Where the report is written, as Markdown, besides the terminal
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// One of the processes that are watched
    #[command(hide = true)]
    Worker(worker::Args),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stores {
    InProcess,
    Embedded,
    Redis,
    Sentinel,
    Cluster,
    All,
}

impl Stores {
    fn kinds(self) -> Vec<StoreKind> {
        match self {
            Self::InProcess => vec![StoreKind::InProcess],
            Self::Embedded => vec![StoreKind::Embedded],
            Self::Redis => vec![StoreKind::Redis],
            Self::Sentinel => vec![StoreKind::Sentinel],
            Self::Cluster => vec![StoreKind::Cluster],
            Self::All => StoreKind::value_variants().to_vec(),
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(Command::Worker(worker)) = &args.command {
        worker::run(worker)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.list {
        for scenario in scenarios::all() {
            let stores: Vec<&str> = scenario.stores.iter().map(|store| store.name()).collect();
            println!(
                "{:18} {} [{}]",
                scenario.name,
                scenario.about,
                stores.join(", ")
            );
        }
        mutants::list();
        return Ok(ExitCode::SUCCESS);
    }
    let mut stores: Vec<StoreKind> = args.store.iter().flat_map(|store| store.kinds()).collect();
    stores.sort_unstable();
    stores.dedup();
    let seed = args.seed.unwrap_or_else(|| instant::now() % 1_000_000);
    let run = Run {
        stores,
        seconds: args.seconds,
        seed,
        scenario: args.scenario,
    };
    if let Some(only) = &args.mutants {
        return mutants::hunt(&run, only);
    }
    let report = run.all()?;
    print!("{}", report.markdown());
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    if let Some(path) = &args.write {
        std::fs::write(path, report.markdown())?;
    }
    Ok(match report.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
