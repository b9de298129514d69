//! What both sides of a benchmark share: the keys, the values, the requests, and how a side is asked for its rounds.
//!
//! A side (Larder, or a peer) is a process of its own. Its arguments are a [`Scene`]; it prepares itself, writes
//! `ready`, and then answers each line that it reads with what one operation took. So two sides take turns on one
//! machine, and neither has the other's allocator, threads or features.

pub mod counting;
mod scene;
mod side;
#[cfg(feature = "tasks")]
mod tasks;
mod threads;
mod usage;
mod zipf;

pub use larder_model::Key;
pub use scene::{Act, Runtime, Scene};
pub use side::{Prepared, Round, serve};
#[cfg(feature = "tasks")]
pub use tasks::Tasks;
pub use threads::on_threads;
pub use usage::Usage;
pub use zipf::{Random, requests};

use std::time::Instant;

use bytes::Bytes;

/// Whatever a side fails with: the harness shows it and ends.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The keys below this number, in their order.
///
/// # Errors
/// None: these are keys.
pub fn keys(count: usize) -> Result<Vec<Key>, Error> {
    let key = |index| Key::new("bench", &format!("/products/{index}"));
    Ok((0..count).map(key).collect::<Result<_, _>>()?)
}

/// JSON text of this many bytes.
#[must_use]
pub fn value(bytes: usize) -> Bytes {
    // No larger than it is: what is allocated is what an entry takes.
    let mut text = String::with_capacity(bytes);
    text.push('"');
    text.extend(std::iter::repeat_n('x', bytes.saturating_sub(2)));
    text.push('"');
    Bytes::from(text)
}

/// What was made, and what the process grew by meanwhile, in bytes.
///
/// # Errors
/// It could not be made.
pub fn grown<T>(make: impl FnOnce() -> Result<T, Error>) -> Result<(T, u64), Error> {
    let before = Usage::now()?.resident_bytes;
    let made = make()?;
    let grown = Usage::now()?.resident_bytes.saturating_sub(before);
    Ok((made, grown))
}

/// How long one of `count` operations takes, in nanoseconds.
pub fn nanos_each(count: usize, work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_nanos() as f64 / count as f64
}
