//! A side's half of the talk with the harness.

use std::io::{BufRead as _, Write as _};

use crate::counting::{self, Allocations};
use crate::{Error, Scene, Usage};

/// A side that is ready.
pub struct Prepared<R> {
    /// What the entries grew the process by, in bytes; 0 where the store is elsewhere.
    pub grown_bytes: u64,
    /// One round: what an operation took, in nanoseconds.
    pub round: R,
}

/// A round of a side with several forms, each of which has its own.
pub type Round = Box<dyn FnMut() -> Result<f64, Error>>;

/// Prepares a side, says `ready` and how much an entry took (bytes), and answers until nobody asks any more:
/// `round` with what an operation took (ns), `costs` with what one cost: allocations, allocated bytes, wake-ups.
///
/// # Errors
/// What the side failed with.
pub fn serve<R>(
    arguments: impl IntoIterator<Item = String>,
    prepare: impl FnOnce(&Scene) -> Result<Prepared<R>, Error>,
) -> Result<(), Error>
where
    R: FnMut() -> Result<f64, Error>,
{
    let scene = Scene::from_arguments(arguments)?;
    let mut prepared = prepare(&scene)?;
    let mut answers = std::io::stdout().lock();
    let bytes_per_entry = prepared.grown_bytes as f64 / scene.keys as f64;
    writeln!(answers, "ready {bytes_per_entry}")?;
    answers.flush()?;
    for line in std::io::stdin().lock().lines() {
        let answer = match &*line? {
            "round" => (prepared.round)()?.to_string(),
            "costs" => costs(&scene, &mut prepared.round)?,
            other => return Err(format!("{other} is not known: ask for round or costs").into()),
        };
        writeln!(answers, "{answer}")?;
        answers.flush()?;
    }
    Ok(())
}

fn costs(scene: &Scene, round: &mut impl FnMut() -> Result<f64, Error>) -> Result<String, Error> {
    let (allocated, used) = (counting::allocations(), Usage::now()?);
    round()?;
    let Allocations { count, bytes } = counting::allocations().since(allocated);
    let woken = Usage::now()?.wake_ups.saturating_sub(used.wake_ups);
    let each = |count: u64| count as f64 / scene.operations as f64;
    Ok(format!("{} {} {}", each(count), each(bytes), each(woken)))
}
