//! A request as a log tells of it.

use std::borrow::Cow;
use std::fmt::Write as _;

use memchr::{memchr, memmem};

/// A request that was logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// When, in milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// By which method.
    pub method: Method,
    /// For what: a path, with its query if it has one. Bytes outside ASCII that are no UTF-8 stand as `%XX`.
    pub target: Cow<'a, str>,
    /// The answer's status.
    pub status: u16,
    /// How many bytes the answer had; 0 where the log says `-`.
    pub bytes: u64,
    /// How long the origin took, in microseconds; `None` where the log does not say.
    pub latency_micros: Option<u64>,
}

/// A request's method, as far as it matters to a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// Any other.
    Other,
}

impl Method {
    pub(crate) fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            _ => Self::Other,
        }
    }
}

/// Why a line is no log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// It is longer than [`crate::MAX_LINE_BYTES`].
    #[error("it is longer than 64 KiB")]
    TooLong,
    /// It is in none of the formats, or not in that of the lines before it.
    #[error("it is not in the log's format")]
    Form,
    /// Its time can't be read.
    #[error("its time can't be read")]
    Time,
    /// Its request is none.
    #[error("its request is not METHOD TARGET")]
    Request,
    /// Its status or its size is no number.
    #[error("its status or its size is no number")]
    Number,
}

/// Method and target of a request line: `GET /products HTTP/1.1`. The protocol may be missing.
pub(crate) fn parse_request_line(line: &[u8]) -> Result<(Method, &[u8]), Flaw> {
    let end = memchr(b' ', line).ok_or(Flaw::Request)?;
    let (method, rest) = (&line[..end], &line[end + 1..]);
    let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_alphabetic);
    let target_end = memmem::rfind(rest, b" HTTP/").unwrap_or(rest.len());
    let target = rest[..target_end].trim_ascii();
    if !is_method || target.is_empty() {
        return Err(Flaw::Request);
    }
    Ok((Method::of(method), target))
}

/// A target as text. A proxy's absolute one is made a path.
pub(crate) fn target_text(target: Cow<'_, [u8]>) -> Cow<'_, str> {
    match target {
        Cow::Borrowed(bytes) => text(without_authority(bytes)),
        Cow::Owned(bytes) => Cow::Owned(text(without_authority(&bytes)).into_owned()),
    }
}

/// A target without `http://host`, if it begins so.
fn without_authority(target: &[u8]) -> &[u8] {
    let is_absolute = [&b"http://"[..], b"https://"]
        .iter()
        .any(|scheme| target.starts_with(scheme));
    if !is_absolute {
        return target;
    }
    let authority = memmem::find(target, b"://").map_or(0, |at| at + 3);
    match memchr(b'/', &target[authority..]) {
        Some(at) => &target[authority + at..],
        None => b"/",
    }
}

/// Bytes as text; what is no UTF-8 is percent-encoded, as a key does it too.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut out = String::with_capacity(bytes.len() + 16);
            for &byte in bytes {
                push_byte(&mut out, byte);
            }
            Cow::Owned(out)
        }
    }
}

fn push_byte(out: &mut String, byte: u8) {
    if byte.is_ascii() {
        out.push(char::from(byte));
    } else {
        // Writing to a `String` can't fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

/// A number of decimal digits alone.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        let is_digit = digit <= 9;
        is_digit.then_some(())?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A status: three digits.
pub(crate) fn status(digits: &[u8]) -> Option<u16> {
    let status = number(digits).filter(|_| digits.len() == 3)?;
    u16::try_from(status).ok()
}

/// A size; `-` is none.
pub(crate) fn size(digits: &[u8]) -> Option<u64> {
    match digits {
        b"-" => Some(0),
        digits => number(digits),
    }
}

/// A decimal number of milliseconds, in microseconds.
pub(crate) fn millis(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let ms: f64 = text.parse().ok()?;
    (0.0..=86_400_000.0)
        .contains(&ms)
        .then_some((ms * 1_000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_has_a_method_and_a_target() {
        for (line, expected) in [
            ("GET /a HTTP/1.1", (Method::Get, "/a")),
            ("GET /a b HTTP/1.1", (Method::Get, "/a b")),
            ("GET /", (Method::Get, "/")),
            ("POST / HTTP/2.0", (Method::Other, "/")),
        ] {
            let (method, target) = parse_request_line(line.as_bytes()).unwrap();
            assert_eq!((method, target), (expected.0, expected.1.as_bytes()));
        }
        for line in ["", "GET", "GET ", "GET  HTTP/1.1", "\u{16}\u{3} x", "-"] {
            assert_eq!(
                parse_request_line(line.as_bytes()),
                Err(Flaw::Request),
                "{line}"
            );
        }
    }

    #[test]
    fn an_absolute_target_is_made_a_path_and_foreign_bytes_are_encoded() {
        let read = |bytes: &'static [u8]| target_text(Cow::Borrowed(bytes)).into_owned();
        assert_eq!(read(b"http://h:80/a?b=http://c/"), "/a?b=http://c/");
        assert_eq!(read(b"https://h"), "/");
        assert_eq!(read(b"/a?u=http://h/"), "/a?u=http://h/");
        assert_eq!(read(b"/caf\xe9"), "/caf%E9");
        assert_eq!(read("/é".as_bytes()), "/é");
    }

    #[test]
    fn numbers_are_digits_and_fit() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for digits in ["", "-1", "+1", "1.5", "18446744073709551616", "0x1"] {
            assert_eq!(number(digits.as_bytes()), None, "{digits}");
        }
        assert_eq!(
            (status(b"200"), status(b"2000"), status(b"20")),
            (Some(200), None, None)
        );
        assert_eq!((size(b"-"), size(b"12")), (Some(0), Some(12)));
    }
}
