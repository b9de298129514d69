//! Made-up answers: JSON texts of the length that was logged.

use serde_json::value::RawValue;

/// What a text of JSON has besides its letters.
const QUOTES: u64 = 2;

/// An answer of so many bytes as JSON, but no less than two.
pub(crate) fn make_up(bytes: u64) -> Result<Box<RawValue>, serde_json::Error> {
    let letters = usize::try_from(bytes.saturating_sub(QUOTES)).unwrap_or(usize::MAX);
    RawValue::from_string(["\"", &"x".repeat(letters), "\""].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_is_said_to_be() {
        for (bytes, expected) in [(0, 2), (2, 2), (3, 3), (66, 66), (100_000, 100_000)] {
            let answer = serde_json::to_vec(&make_up(bytes).unwrap()).unwrap();
            assert_eq!(answer.len(), expected);
        }
    }
}
