//! Completions for shells.

use clap::CommandFactory as _;

use crate::args::Args;
use crate::output::Done;

pub(crate) fn print(shell: clap_complete::Shell) -> anyhow::Result<Done> {
    let mut command = Args::command();
    clap_complete::generate(shell, &mut command, "larder", &mut std::io::stdout());
    Ok(Done::Yes)
}
