//! What may not be shown as it is.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Text from outside, made fit for a terminal, a log or a table: control characters (C0, DEL, C1) and those that
/// turn the direction of writing or break a line stand as `\u{1b}`.
///
/// ```
/// assert_eq!(larder_model::escape("red\u{1b}[31m"), r"red\u{1b}[31m");
/// ```
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unsafe(character) {
            // Writing to a `String` can't fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn every_control_is_escaped_and_nothing_else() {
        assert_eq!(escape("plain é 漢 text"), "plain é 漢 text");
        assert_eq!(
            escape("\u{1b}]52;c;x\u{7}\u{9b}31m\u{202e}\n\u{7f}"),
            r"\u{1b}]52;c;x\u{7}\u{9b}31m\u{202e}\u{a}\u{7f}"
        );
    }
}
