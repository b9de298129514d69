//! Which windows of an instance have been taken in: each once, in whatever order they come.

/// The sequences of one run of an instance. One that lies further back than 128 before the latest counts as seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    boot: u64,
    latest: u64,
    /// Bit `n`: the one `n` before the latest was seen.
    before: u128,
}

impl Seen {
    /// Whether this sequence is new; from now on it is not. Sequences of an earlier run are never new.
    pub fn is_new(&mut self, boot: u64, sequence: u64) -> bool {
        if boot < self.boot {
            return false;
        }
        if boot > self.boot || self.before == 0 {
            *self = Self {
                boot,
                latest: sequence,
                before: 1,
            };
            return true;
        }
        if sequence > self.latest {
            let ahead = u32::try_from(sequence - self.latest).unwrap_or(u32::MAX);
            self.before = self.before.checked_shl(ahead).unwrap_or(0) | 1;
            self.latest = sequence;
            return true;
        }
        let bit = u32::try_from(self.latest - sequence).ok();
        let Some(bit) = bit.and_then(|behind| 1_u128.checked_shl(behind)) else {
            return false;
        };
        let is_new = self.before & bit == 0;
        self.before |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once_in_whatever_order() {
        let mut seen = Seen::default();
        let order = [5, 3, 5, 4, 3, 300, 299, 5, 172, 173, 300];
        let new = order.map(|sequence| seen.is_new(7, sequence));
        assert_eq!(
            new,
            [
                true, true, false, true, false, true, true, false, false, true, false
            ]
        );
        assert!(!seen.is_new(6, 1_000), "an earlier run");
        assert!(seen.is_new(8, 1) && !seen.is_new(7, 301));
    }
}
