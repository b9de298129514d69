//! What was shown lately and is none: known by its hash, so that the database need not be asked for it again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::token::Digest;

/// So many are known.
const MOST: usize = 10_000;
/// For so long.
const LIFE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Bad(Mutex<HashMap<Digest, Instant>>);

impl Bad {
    pub(crate) fn has(&self, digest: Digest) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&digest).is_some_and(|at| at.elapsed() < LIFE)
    }

    pub(crate) fn put(&self, digest: Digest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, at| at.elapsed() < LIFE);
        }
        if known.len() < MOST {
            known.insert(digest, Instant::now());
        }
    }

    /// Keys changed: what was none may be one.
    pub(crate) fn clear(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_known_until_keys_change() {
        let bad = Bad::default();
        let digest = |number: usize| Digest::of(&number.to_string());
        for number in 0..2 * MOST {
            bad.put(digest(number));
        }
        assert_eq!(bad.0.lock().unwrap().len(), MOST);
        assert!(bad.has(digest(0)) && !bad.has(digest(MOST)));
        bad.clear();
        assert!(!bad.has(digest(0)));
        bad.put(digest(MOST));
        assert!(bad.has(digest(MOST)));
    }
}
