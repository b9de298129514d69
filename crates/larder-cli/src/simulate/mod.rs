//! `larder simulate`: what each TTL would have done with the requests of an access log, endpoint by endpoint, and what `auto`
//! would have decided over time.

mod endpoint;
mod report;
mod run;
mod svg;
mod table;

use anyhow::Context as _;

use crate::args::Simulate;
use crate::output::{Done, Output};
use crate::replay::Input;

pub(crate) async fn run(options: Simulate, output: &Output) -> anyhow::Result<Done> {
    let input = Input::open(&options.log)?;
    let (svg, top, name) = (options.svg.clone(), options.top, options.log.clone());
    // A process that Ctrl-C ends leaves nothing behind.
    let report = tokio::task::spawn_blocking(move || run::simulate(&options, input)).await??;
    if let Some(path) = &svg {
        let picture = svg::draw(&report, &crate::replay::name_of(&name));
        std::fs::write(path, picture).with_context(|| format!("--svg: {}", path.display()))?;
    }
    match output.is_json() {
        true => output.json(&report)?,
        false => table::print(&report, top, output)?,
    }
    if report.requests == 0 {
        eprintln!("larder: no request of this log was simulated");
        return Ok(Done::NotThere);
    }
    Ok(Done::Yes)
}
