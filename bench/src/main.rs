//! Larder against its peers: every mark is a ratio, both sides measured in turn in one run, medians of at least five
//! rounds. Exits with 1 where a mark is missed.

mod attacks;
mod embedded;
mod faults;
mod http;
mod in_process;
mod load;
mod redis_cluster;
mod redis_hits;
mod report;
mod rounds;
mod server;
mod zipf;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// The size of a value, in bytes.
const VALUE_BYTES: usize = 1_024;

#[derive(Parser)]
#[command(about = "Measures Larder's marks; exits with 1 where one is missed")]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Only marks whose name contains this
    #[arg(long, global = true)]
    only: Option<String>,

    /// How often each side is measured
    #[arg(long, global = true, default_value_t = 5)]
    rounds: usize,

    /// Where the raw rounds are written, as JSON
    #[arg(long, global = true)]
    json: Option<PathBuf>,

    /// Where the table is written, as Markdown
    #[arg(long, global = true)]
    markdown: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// A peer of the HTTP marks: an axum route that answers from memory
    #[command(hide = true)]
    ServeMemory {
        /// Where to listen
        port: u16,
        /// The file with the answer
        body: PathBuf,
    },
    /// A peer of the HTTP marks: an axum route with one bare Redis GET
    #[command(hide = true)]
    ServeRedis {
        /// Where to listen
        port: u16,
        /// Where Redis is
        url: String,
        /// The key to get
        key: String,
    },
    /// The attackers of the mark under attack
    #[command(hide = true)]
    Attack {
        /// Where the server listens
        host: String,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    match args.command {
        Some(Command::ServeMemory { port, body }) => http::serve_memory(port, &body)?,
        Some(Command::ServeRedis { port, url, key }) => http::serve_redis(port, &url, &key)?,
        Some(Command::Attack { host }) => attacks::attack(host)?,
        None => return measure(&args),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args) -> anyhow::Result<ExitCode> {
    let mut report = Report::new(args.only.clone(), args.rounds.max(5));
    in_process::measure(&mut report)?;
    embedded::measure(&mut report)?;
    redis_hits::measure(&mut report)?;
    redis_cluster::measure(&mut report)?;
    http::measure(&mut report)?;
    faults::measure(&mut report)?;
    attacks::measure(&mut report)?;
    print!("{}", report.markdown());
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_vec_pretty(&report.json())?)?;
    }
    if let Some(path) = &args.markdown {
        std::fs::write(path, report.markdown())?;
    }
    Ok(match report.missed() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
