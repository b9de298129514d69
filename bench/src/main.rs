//! `larder-bench`: see `--help`.

fn main() -> anyhow::Result<std::process::ExitCode> {
    larder_bench::run()
}
