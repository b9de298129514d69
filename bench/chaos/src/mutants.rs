//! Guards of the engine and the stores that can be switched off in a test build, one at a time: the judge must notice.

#[cfg(feature = "mutants")]
mod hunted;
#[cfg(feature = "mutants")]
mod needed;

#[cfg(feature = "mutants")]
pub(crate) use hunted::{hunt, list, turn_off};

#[cfg(not(feature = "mutants"))]
pub(crate) fn turn_off(_guard: &str) -> anyhow::Result<()> {
    anyhow::bail!("this build has all guards: build it with --features mutants")
}

#[cfg(not(feature = "mutants"))]
pub(crate) fn hunt(
    _run: &crate::rounds::Run,
    _only: &str,
) -> anyhow::Result<std::process::ExitCode> {
    turn_off("")?;
    Ok(std::process::ExitCode::FAILURE)
}

#[cfg(not(feature = "mutants"))]
pub(crate) fn list() {}
