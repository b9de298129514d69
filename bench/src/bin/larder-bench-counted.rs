//! `larder-bench` with an allocator that counts: the side whose allocations are looked at. Its times mean nothing.

use larder_bench_load::counting::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> anyhow::Result<std::process::ExitCode> {
    larder_bench::run()
}
