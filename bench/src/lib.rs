//! Larder against its peers: both sides of a row are processes of their own, measured in turn in one run, medians of at
//! least five rounds. Exits with 1 where a mark is missed.

mod attacks;
mod beside;
mod charts;
mod config_reads;
mod costs;
mod decisions;
mod document;
mod embedded;
mod faults;
mod growth;
mod guarantees;
mod hostile;
mod http;
mod in_process;
mod kept;
mod load;
mod machine;
mod policies;
mod redis_cluster;
mod redis_hits;
mod report;
mod results;
mod rounds;
mod server;
mod side;
mod sides;
mod soak;
mod streams;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::report::Report;
use crate::sides::StoreKind;

#[derive(Parser)]
#[command(about = "Measures Larder's marks; exits with 1 where one is missed")]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Only rows whose name contains this
    #[arg(long)]
    only: Option<String>,

    /// How often each side is measured, at least 5 times
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Shows that every row works: few rounds, few operations, few entries. Its figures mean little
    #[arg(long)]
    quick: bool,

    /// Writes the rows into docs/benchmarks.md and its charts, and into bench/results, of the repository here; with
    /// --only, in the place of the rows of these names alone
    #[arg(long, value_name = "REPOSITORY", conflicts_with = "quick")]
    write: Option<PathBuf>,

    /// Where the raw rounds of this run are written, as JSON
    #[arg(long)]
    json: Option<PathBuf>,

    /// Where the tables of this run are written, as Markdown
    #[arg(long)]
    markdown: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Uses a store for a long time, within a bound of memory, and shows what the process takes meanwhile
    Soak(soak::Args),
    /// Simulates what the engine decides on workloads that it was not tuned on; exits with 1 where a mark is missed
    Decisions(decisions::Args),
    /// Draws the tables and charts of a repository anew, from what was measured before
    Draw {
        /// Where the repository lies
        repository: PathBuf,
    },
    /// Larder as a side of a row: asked for its rounds over standard input
    #[command(hide = true)]
    Side {
        /// Which store
        store: StoreKind,
        /// What is measured: name=value
        scene: Vec<String>,
    },
    /// The attackers of the mark under attack
    #[command(hide = true)]
    Attack {
        /// Where the server listens
        host: String,
    },
    /// The hostile client of the mark under the whole attack
    #[command(hide = true)]
    Hostile {
        /// Where the control plane listens
        port: u16,
        /// A key of its
        key: String,
        /// How many slow connections
        slow: usize,
        /// Which of: bodies, keys, heads, endpoints; without one all
        kinds: Vec<String>,
    },
    /// Starts a client whose control plane is away, and says how long it takes
    #[command(hide = true)]
    Boot {
        /// Where its last policies are kept
        folder: PathBuf,
        /// http or https
        scheme: String,
    },
    /// Follows a service over many streams, until it is killed
    #[command(hide = true)]
    Follow {
        /// Where the control plane listens
        port: u16,
        /// The service
        service: String,
        /// From which address
        address: Ipv4Addr,
        /// How many streams
        streams: usize,
    },
}

/// What the binaries of this crate do.
///
/// # Errors
/// What could not be measured, and why.
pub fn run() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match args.command {
        Some(Command::Soak(soak)) => return soak::run(&soak),
        Some(Command::Decisions(args)) => {
            return Ok(match decisions::run(&args)? {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            });
        }
        Some(Command::Draw { repository }) => {
            let results = document::earlier(&repository)?;
            document::write(&repository, &results.context("nothing was measured yet")?)?;
        }
        Some(Command::Side { store, scene }) => {
            sides::serve(store, scene).map_err(anyhow::Error::from_boxed)?;
        }
        Some(Command::Attack { host }) => attacks::attack(host)?,
        Some(Command::Hostile {
            port,
            key,
            slow,
            kinds,
        }) => hostile::attack(port, key, slow, kinds)?,
        Some(Command::Boot { folder, scheme }) => policies::boot(&folder, &scheme)?,
        Some(Command::Follow {
            port,
            service,
            address,
            streams,
        }) => streams::follow_idly(port, service, address, streams)?,
        None => return measure(&args),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(args.only.clone(), args.rounds.max(5), args.quick);
    in_process::measure(&mut report)?;
    embedded::measure(&mut report)?;
    redis_hits::measure(&mut report)?;
    redis_cluster::measure(&mut report)?;
    http::measure(&mut report)?;
    costs::measure(&mut report)?;
    growth::measure(&mut report)?;
    guarantees::measure(&mut report)?;
    faults::measure(&mut report)?;
    attacks::measure(&mut report)?;
    hostile::measure(&mut report)?;
    streams::measure(&mut report)?;
    config_reads::measure(&mut report)?;
    policies::measure(&mut report)?;
    let results = report.results;
    let tables = document::markdown(&results, false);
    print!("{tables}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&results)?)?;
    }
    if let Some(path) = &args.markdown {
        std::fs::write(path, tables)?;
    }
    if let Some(repository) = &args.write {
        let all = match (&args.only, document::earlier(repository)?) {
            (Some(_), Some(mut earlier)) => {
                anyhow::ensure!(
                    earlier.machine.is_like(&results.machine),
                    "the other rows are of another machine ({}): measure all, without --only",
                    earlier.machine
                );
                earlier.replace_with(&results);
                earlier
            }
            _ => results.clone(),
        };
        document::write(repository, &all)?;
    }
    Ok(match results.missed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
