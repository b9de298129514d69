//! Which texts of other programs were found to be JSON, so that the syntax of each is checked once and not at every hit.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use twox_hash::XxHash3_64;

use crate::json::Json;

/// 1 MiB, taken at the first text.
const BUCKETS: usize = 1 << 15;
const BUCKET: usize = 4;
/// What `XxHash3_64` takes at the most.
const SECRET_BYTES: usize = 192;

/// Fingerprints of texts that are JSON.
///
/// The texts themselves, kept and compared, took a third of a hit's time: they lie in memory that no processor cache holds.
/// A fingerprint is two hashes, each under a random secret of 1,536 bits that never leaves the process: who writes the
/// store can but guess, once for each write that is then read, and two texts of his choice meet with about 2⁻⁶⁴.
pub(crate) struct CheckedTexts {
    secrets: [[u8; SECRET_BYTES]; 2],
    buckets: OnceLock<Box<[[AtomicU64; BUCKET]]>>,
}

impl CheckedTexts {
    pub(crate) fn new() -> Self {
        Self {
            secrets: [secret(), secret()],
            buckets: OnceLock::new(),
        }
    }

    /// The text as JSON, if it is that.
    pub(crate) fn check(&self, text: Bytes) -> Option<Json> {
        let Some(fingerprint) = self.fingerprint(&text) else {
            return Json::parse(text).ok();
        };
        let bucket = self.bucket(fingerprint);
        let is_known = |place: &AtomicU64| place.load(Ordering::Relaxed) == fingerprint;
        if bucket.iter().any(is_known) {
            return Some(Json::trusted(text));
        }
        let json = Json::parse(text).ok()?;
        // The newest stands in front; what two threads lose of it is checked again.
        let mut newer = fingerprint;
        for place in bucket {
            newer = place.swap(newer, Ordering::Relaxed);
        }
        Some(json)
    }

    fn bucket(&self, fingerprint: u64) -> &[AtomicU64; BUCKET] {
        let buckets = self
            .buckets
            .get_or_init(|| (0..BUCKETS).map(|_| Default::default()).collect());
        &buckets[fingerprint as usize % BUCKETS]
    }

    /// Never 0, which is an empty place; `None` if there can't be one.
    fn fingerprint(&self, text: &[u8]) -> Option<u64> {
        let [one, other] = &self.secrets;
        let one = XxHash3_64::oneshot_with_secret(one, text).ok()?;
        let other = XxHash3_64::oneshot_with_secret(other, text).ok()?;
        Some((one ^ other.rotate_left(32)).max(1))
    }
}

/// Drawn from the randomness that `std` takes from the operating system.
fn secret() -> [u8; SECRET_BYTES] {
    let random = RandomState::new();
    let mut secret = [0; SECRET_BYTES];
    for (number, word) in secret.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&random.hash_one(number).to_le_bytes());
    }
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_checked_again_when_it_has_changed() {
        let checked = CheckedTexts::new();
        let is_json = |text: &str| {
            checked
                .check(Bytes::copy_from_slice(text.as_bytes()))
                .is_some()
        };
        for length in [1, 16, 100, 200, 1_000, 100_000] {
            let text = format!("[\"{}\"]", "1".repeat(length));
            assert!(is_json(&text) && is_json(&text));
            assert!(!is_json(&text[1..]));
            for at in [0, text.len() / 2, text.len() - 1] {
                let mut changed = text.clone();
                changed.replace_range(at..=at, "\n");
                assert!(!is_json(&changed), "{length} bytes, changed at {at}");
            }
        }
    }

    #[test]
    fn more_texts_than_a_bucket_has_places_are_all_right() {
        let checked = CheckedTexts::new();
        for round in 0..2 {
            for number in 0..2 * BUCKETS {
                let text = Bytes::from(number.to_string());
                assert!(checked.check(text).is_some(), "round {round}, {number}");
            }
        }
    }

    #[test]
    fn secrets_are_not_the_same_twice() {
        assert_ne!(secret(), secret());
    }
}
