//! Which entries of one service are meant: Redis glob rules behind `cache:{service}:`.

use std::fmt;
use std::sync::Arc;

use crate::service::{Service, is_service};

/// A pattern is at most this long, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1_024;

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// It does not begin with `cache:{service}:`, spelt out.
    #[error(
        "pattern {0:?} could reach other services: begin it with cache:<service>: and the service's name spelt out, as in cache:product-service:*"
    )]
    Service(String),
    /// It is longer than [`MAX_PATTERN_BYTES`].
    #[error("the pattern is {0} bytes long, more than the {MAX_PATTERN_BYTES} allowed")]
    TooLong(usize),
    /// It has a control character, which no key has.
    #[error("the pattern has a control character at byte {0}; no key has one")]
    Control(usize),
}

/// Which entries of one service are meant.
///
/// `*` stands for any text, `?` for one byte, `[a-z]` and `[^a-z]` for one byte of a class, `\` makes the next byte
/// mean itself: as in Redis.
///
/// ```
/// use larder_model::Pattern;
///
/// let pattern = Pattern::parse("cache:product-service:/products*")?;
/// assert!(pattern.matches("cache:product-service:/products/1"));
/// assert!(Pattern::parse("cache:*").is_err());
/// # Ok::<(), larder_model::PatternError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Arc<str>,
    service_end: u8,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A [`PatternError`] that says what to change.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong(text.len()));
        }
        if let Some(at) = text.bytes().position(|byte| byte.is_ascii_control()) {
            return Err(PatternError::Control(at));
        }
        let service = text
            .strip_prefix("cache:")
            .and_then(|rest| rest.split_once(':'))
            .map(|(service, _)| service)
            .filter(|service| is_service(service))
            .ok_or_else(|| PatternError::Service(text.chars().take(80).collect()))?;
        let service_end = "cache:".len() + service.len();
        Ok(Self {
            text: text.into(),
            // At most 6 + 64.
            service_end: u8::try_from(service_end).unwrap_or(u8::MAX),
        })
    }

    /// All entries of a service.
    #[must_use]
    pub fn of_service(service: &Service) -> Self {
        let text = format!("cache:{service}:*");
        let service_end = text.len() - 2;
        Self {
            text: text.into(),
            service_end: u8::try_from(service_end).unwrap_or(u8::MAX),
        }
    }

    /// Text that means only itself in a pattern.
    #[must_use]
    pub fn escape(text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 8);
        for character in text.chars() {
            if matches!(character, '\\' | '*' | '?' | '[' | ']') {
                out.push('\\');
            }
            out.push(character);
        }
        out
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The service whose entries are meant.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.text["cache:".len()..usize::from(self.service_end)]
    }

    /// What every key that matches begins with: a store that keeps keys in order looks no further.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        let end = self
            .text
            .find(['*', '?', '[', '\\'])
            .unwrap_or(self.text.len());
        &self.text[..end]
    }

    /// Whether a key is meant. Time is at most pattern × key.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        glob(self.text.as_bytes(), key.as_bytes())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Redis's `stringmatchlen`, its treatment of unclosed classes included, but with one place to go back to in place of
/// recursion: only the last `*` ever needs another try.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                retry = Some((p, t));
                continue;
            }
            None if t == text.len() => return true,
            None => None,
            Some(_) => text.get(t).and_then(|&byte| match_one(pattern, p, byte)),
        };
        match (step, retry) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((star, from))) if from < text.len() => {
                retry = Some((star, from + 1));
                p = star;
                t = from + 1;
            }
            (None, _) => return false,
        }
    }
}

/// Where the pattern goes on if what stands at `p` matches `byte`.
fn match_one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match pattern[p] {
        b'?' => Some(p + 1),
        b'[' => match_class(pattern, p + 1, byte),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        literal => (literal == byte).then_some(p + 1),
    }
}

fn match_class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    if negated {
        p += 1;
    }
    let mut found = false;
    loop {
        match pattern[p..] {
            // An unclosed class ends with the pattern.
            [] => break,
            [b'\\', literal, ..] => {
                found |= literal == byte;
                p += 2;
            }
            [b']', ..] => {
                p += 1;
                break;
            }
            [from, b'-', to, ..] => {
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                p += 3;
            }
            [literal, ..] => {
                found |= literal == byte;
                p += 1;
            }
        }
    }
    (found != negated).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_spells_out_its_service() {
        for text in [
            "*",
            "cache:*",
            "cache:*:x",
            "cache:a*b:x",
            "cache::x",
            "larder:x:*",
            "cache:svc",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn globs_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("a?c", "abc", true),
            ("a[b-d]c", "acc", true),
            ("a[^b-d]c", "acc", false),
            ("a[b", "ab", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("*a*b*", "xxaxxbxx", true),
            ("**", "", true),
            ("a*", "a", true),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
