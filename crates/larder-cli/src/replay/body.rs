//! Made-up answers: JSON texts of the length that was logged.

use std::fmt;

use serde::{Serialize, Serializer};

/// The shortest JSON text there is of this kind: two quotes.
const QUOTES: u64 = 2;
const FILLING: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// An answer of so many bytes as JSON, but no less than two.
pub(crate) struct Body(pub(crate) u64);

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Filling(self.0.saturating_sub(QUOTES)))
    }
}

struct Filling(u64);

impl fmt::Display for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = usize::try_from(self.0).unwrap_or(usize::MAX);
        while left > 0 {
            let length = left.min(FILLING.len());
            f.write_str(&FILLING[..length])?;
            left -= length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_as_long_as_it_is_said_to_be() {
        for (bytes, expected) in [
            (0, 2),
            (2, 2),
            (3, 3),
            (64, 64),
            (66, 66),
            (100_000, 100_000),
        ] {
            assert_eq!(serde_json::to_vec(&Body(bytes)).unwrap().len(), expected);
        }
    }
}
