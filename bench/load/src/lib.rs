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
pub use tasks::{Tasks, with_each};
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
    (0..count).map(key).collect()
}

/// The key of this number.
///
/// # Errors
/// None: it is a key.
pub fn key(number: usize) -> Result<Key, Error> {
    Ok(Key::new("bench", &format!("/products/{number}"))?)
}

/// JSON text of this many bytes (of more, where the key has more). No two keys have the same: a side that remembers
/// texts has to remember all of them.
#[must_use]
pub fn value(key: &Key, bytes: usize) -> Bytes {
    let key = key.as_str();
    let padding = bytes.saturating_sub(key.len() + 2);
    // No larger than it is: what is allocated is what an entry takes.
    let mut text = String::with_capacity(key.len() + 2 + padding);
    text.push('"');
    text.push_str(key);
    text.extend(std::iter::repeat_n('x', padding));
    text.push('"');
    Bytes::from(text)
}

/// The values of the keys, where a scene sets them again and again: made before a round, whose time is the store's.
#[must_use]
pub fn values_to_set(scene: &Scene, keys: &[Key]) -> Vec<Bytes> {
    match scene.act {
        Act::Hit => Vec::new(),
        Act::Set => keys
            .iter()
            .map(|key| value(key, scene.value_bytes))
            .collect(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_keys_own_and_as_long_as_asked_for() {
        let [one, other] = [key(1).unwrap(), key(12).unwrap()];
        assert_eq!(value(&one, 30), *"\"cache:bench:/products/1xxxxx\"");
        assert_eq!(value(&other, 30), *"\"cache:bench:/products/12xxxx\"");
        assert_eq!(value(&one, 0), *"\"cache:bench:/products/1\"");
    }
}
