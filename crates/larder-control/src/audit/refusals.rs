//! How many refused requests get into the trail: who sends them could else fill the disk.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::pace::Minute;

/// So many a minute.
const MOST: u32 = 60;

/// Counts refused requests.
#[derive(Default)]
pub(crate) struct Refusals {
    /// What was written of this minute, and how many were not since the last that was.
    state: Mutex<(Minute, u64)>,
}

impl Refusals {
    /// Whether one more is to be written, and if so, how many before it were not.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (minute, unwritten) = &mut *state;
        if minute.take(MOST, now) {
            return Some(std::mem::take(unwritten));
        }
        *unwritten = unwritten.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        for _ in 0..MOST {
            assert_eq!(refusals.take(begin), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(refusals.take(begin + Duration::from_secs(30)), None);
        }
        let next = begin + Duration::from_secs(60);
        assert_eq!(refusals.take(next), Some(1_000));
        assert_eq!(refusals.take(next), Some(0));
    }
}
