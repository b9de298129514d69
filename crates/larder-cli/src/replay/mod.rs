//! `larder replay`: what a cache would have done with the requests of an access log.

mod body;
mod clock;
mod endpoints;
mod engine;
mod include;
mod input;
mod lines;
mod lookups;
pub(crate) mod picture;
mod progress;
mod recorder;
mod report;
mod run;
mod series;
mod svg;
mod table;
mod tally;
mod targets;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use crate::args::Replay;
use crate::output::{Done, Output};
use crate::serving;

pub(crate) use crate::replay::include::{Include, Included};
pub(crate) use crate::replay::input::Input;
pub(crate) use crate::replay::lines::LinesRead;
pub(crate) use crate::replay::progress::Progress;
pub(crate) use crate::replay::run::{LINES_PER_LOOK, ends_badly, shown};
pub(crate) use crate::replay::targets::Targets;

/// The service that the keys of a replay are of.
pub(crate) const SERVICE: &str = "replay";
/// What a process that Ctrl-C ended exits with.
const INTERRUPTED: i32 = 130;

/// What is replayed, and how.
#[derive(Debug, Clone)]
struct Plan {
    ttl: Duration,
    max_bytes: u64,
    ignore_query: bool,
    include: Vec<Include>,
    /// Which statuses count; all, if empty.
    statuses: Vec<u16>,
}

pub(crate) async fn run(options: Replay, output: &Output) -> anyhow::Result<Done> {
    let input = Input::open(&options.log)?;
    let plan = Plan {
        ttl: options.ttl,
        max_bytes: options.max_bytes,
        ignore_query: options.ignore_query,
        include: options.include,
        statuses: options.status,
    };
    let folder = tempfile::Builder::new()
        .prefix("larder-replay-")
        .tempdir()
        .context("the temporary store needs a folder (TMPDIR chooses its place)")?;
    let interrupted = serving::stopped(serving::shutdown()?);
    let path = folder.path().to_owned();
    // A read of standard input may never end, so an interrupt does not wait for it.
    let replay = tokio::task::spawn_blocking(move || run::replay(plan, input, &path));
    let report = tokio::select! {
        report = replay => report??,
        () = interrupted => {
            folder.close()?;
            std::process::exit(INTERRUPTED);
        }
    };
    folder.close()?;
    if let Some(path) = &options.svg {
        write_picture(path, &svg::draw(&report, &name_of(&options.log)))?;
    }
    match output.is_json() {
        true => output.json(&report)?,
        false => table::print(&report, options.top, output)?,
    }
    if report.total.requests == 0 {
        eprintln!("larder: no request of this log was replayed");
        return Ok(Done::NotThere);
    }
    Ok(Done::Yes)
}

fn write_picture(path: &Path, svg: &str) -> anyhow::Result<()> {
    std::fs::write(path, svg).with_context(|| format!("--svg: {}", path.display()))
}

/// The log's name without its folders.
pub(crate) fn name_of(log: &Path) -> String {
    let name = log.file_name().unwrap_or(log.as_os_str());
    match name.to_string_lossy() {
        name if name == "-" => "standard input".to_owned(),
        name => name.into_owned(),
    }
}
