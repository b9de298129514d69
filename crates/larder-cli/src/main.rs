//! The binary `larder`: runs, inspects, clears and steers.
//!
//! Exit codes: 0 done; 1 what was asked for is not there; 2 wrong usage; 3 it could not be done; 4 `doctor` warns, or the audit trail was changed.

mod args;
mod audit;
mod completions;
mod config;
mod control;
mod differences;
mod doctor;
mod entries;
mod explain;
mod history;
mod history_api;
mod in_clear;
mod instances;
mod invalidate;
mod invalidate_api;
mod keys;
mod output;
mod overrides;
mod policy;
mod policy_api;
mod policy_files;
mod replay;
mod serving;
mod simulate;
#[cfg(feature = "demo")]
mod up;
mod users;
mod why;

use std::process::ExitCode;

use clap::Parser as _;
use larder::Settings;

use crate::args::{Args, Command};
use crate::output::{Done, Output};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let output = Output::new(args.json);
    let outcome = run(args, &output);
    match outcome {
        Ok(Done::Yes) => ExitCode::SUCCESS,
        Ok(Done::NotThere) => ExitCode::from(1),
        Ok(Done::Warned) => ExitCode::from(4),
        Err(error) => {
            output.error(&error);
            ExitCode::from(3)
        }
    }
}

/// Prints what was asked for (help, the version), or what is wrong with the arguments, which may come from anywhere.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // Nobody is left to tell if this fails.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    for line in error.render().to_string().lines() {
        eprintln!("{}", larder::escape(line));
    }
    ExitCode::from(2)
}

fn run(args: Args, output: &Output) -> anyhow::Result<Done> {
    if let Command::Completions { shell } = args.command {
        return completions::print(shell);
    }
    serving::log(args.command.log());
    let settings = args.settings(Settings::from_env()?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(run_async(args.command, settings, output));
    // What still hangs in a system call must not keep the command from ending.
    runtime.shutdown_background();
    done
}

async fn run_async(command: Command, settings: Settings, output: &Output) -> anyhow::Result<Done> {
    match command {
        #[cfg(feature = "demo")]
        Command::Up(options) => up::run(options, settings, output).await,
        Command::Control(options) => control::run(options, settings, output).await,
        Command::Keys(query) => entries::keys(query, &settings, output).await,
        Command::Get(query) => entries::get(query, &settings, output).await,
        Command::Why { key } => why::run(&key, &settings, output).await,
        Command::Ttl { key } => entries::ttl(&key, &settings, output).await,
        Command::Set(entry) => entries::set(entry, &settings, output).await,
        Command::Del { keys } => entries::del(&keys, &settings, output).await,
        Command::Clear(clear) => entries::clear(clear, &settings, output).await,
        Command::Invalidate(what) => invalidate::run(what, &settings, output).await,
        Command::Stats => entries::stats(&settings, output).await,
        Command::Policy(action) => policy::run(action, &settings, output).await,
        Command::Instances { service } => instances::run(service, &settings, output).await,
        Command::User(action) => users::run(action, &settings, output).await,
        Command::Key(action) => keys::run(action, &settings, output).await,
        Command::Override(action) => overrides::run(action, &settings, output).await,
        Command::Audit(action) => audit::run(action, &settings, output).await,
        Command::Explain(what) => explain::run(what, &settings, output).await,
        Command::Replay(options) => replay::run(options, output).await,
        Command::Simulate(options) => simulate::run(options, output).await,
        Command::Doctor => doctor::run(&settings, output).await,
        Command::Config => config::run(&settings, output),
        Command::Completions { shell } => completions::print(shell),
    }
}
