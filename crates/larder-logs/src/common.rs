//! Common Log Format, and Combined: `host ident user [time] "request" status bytes …`. What is behind the size is not read.

use std::borrow::Cow;
use std::fmt::Write as _;

use memchr::{memchr, memchr_iter};

use crate::request::{Flaw, Request, parse_request_line, size, status, target_text};
use crate::time::parse_common;

/// How long a time is, between its brackets.
const TIME_BYTES: usize = 26;

pub(crate) fn parse(line: &[u8]) -> Result<Request<'_>, Flaw> {
    let (at_ms, rest) = find_time(line)?;
    let rest = rest.strip_prefix(b" \"").ok_or(Flaw::Form)?;
    let end = end_of_quoted(rest).ok_or(Flaw::Form)?;
    let (method, target) = parse_request_line(&rest[..end])?;
    let mut numbers = rest[end + 1..]
        .strip_prefix(b" ")
        .ok_or(Flaw::Form)?
        .split(|byte| *byte == b' ');
    let status = numbers.next().and_then(status).ok_or(Flaw::Number)?;
    let bytes = numbers.next().and_then(size).ok_or(Flaw::Number)?;
    Ok(Request {
        at_ms,
        method,
        target: target_text(unescape(target)),
        status,
        bytes,
        latency_micros: None,
    })
}

/// The time in the first brackets that hold one, and what is behind them: a user's name may have brackets too.
fn find_time(line: &[u8]) -> Result<(u64, &[u8]), Flaw> {
    let mut flaw = Flaw::Form;
    for at in memchr_iter(b'[', line) {
        let end = at + 1 + TIME_BYTES;
        if line.get(end) != Some(&b']') {
            continue;
        }
        match parse_common(&line[at + 1..end]) {
            Some(at_ms) => return Ok((at_ms, &line[end + 1..])),
            None => flaw = Flaw::Time,
        }
    }
    Err(flaw)
}

/// Where a quoted text ends: at the first quote that is not escaped and that a status follows. Old servers don't escape.
fn end_of_quoted(text: &[u8]) -> Option<usize> {
    memchr_iter(b'"', text).find(|at| {
        let backslashes = text[..*at]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        let behind = text.get(at + 1..at + 5);
        let is_status =
            |behind: &[u8]| behind[0] == b' ' && behind[1..].iter().all(u8::is_ascii_digit);
        backslashes.is_multiple_of(2) && behind.is_some_and(is_status)
    })
}

/// Undoes what servers escape: `\"`, `\\`, `\xHH` and C's letters. What could not stand in a target comes out
/// percent-encoded, which means the same in a key.
fn unescape(target: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', target).is_none() {
        return Cow::Borrowed(target);
    }
    let mut out = String::with_capacity(target.len());
    let mut rest = target;
    while let Some((&byte, behind)) = rest.split_first() {
        let (decoded, length) = match (byte, behind) {
            (b'\\', [b'x', high, low, ..]) => match hex(*high, *low) {
                Some(decoded) => (decoded, 4),
                None => (byte, 1),
            },
            (b'\\', [letter, ..]) => match letter {
                b'"' | b'\\' => (*letter, 2),
                b'n' => (b'\n', 2),
                b'r' => (b'\r', 2),
                b't' => (b'\t', 2),
                _ => (byte, 1),
            },
            _ => (byte, 1),
        };
        if (0x20..0x7f).contains(&decoded) {
            out.push(char::from(decoded));
        } else {
            // Writing to a `String` can't fail.
            let _ = write!(out, "%{decoded:02X}");
        }
        rest = &rest[length..];
    }
    Cow::Owned(out.into_bytes())
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Method;

    const TIME: &str = "[10/Oct/2000:13:55:36 -0700]";

    fn read(request: &str) -> String {
        let line = format!("::1 - a [b] {TIME} \"{request}\" 200 - \"-\" \"agent\"");
        parse(line.as_bytes()).unwrap().target.into_owned()
    }

    #[test]
    fn common_and_combined_are_read() {
        let line = format!("10.0.0.1 - frank {TIME} \"GET /a.gif HTTP/1.0\" 304 2326");
        let expected = Request {
            at_ms: 971_211_336_000,
            method: Method::Get,
            target: "/a.gif".into(),
            status: 304,
            bytes: 2_326,
            latency_micros: None,
        };
        assert_eq!(parse(line.as_bytes()), Ok(expected.clone()));
        let combined = format!("{line} \"http://ref/\" \"Mozilla/4.08 [en] (Win98; I ;Nav)\"");
        assert_eq!(parse(combined.as_bytes()), Ok(expected));
    }

    #[test]
    fn escapes_and_quotes_are_read() {
        assert_eq!(read(r#"GET /a\"b\\c HTTP/1.1"#), r#"/a"b\c"#);
        assert_eq!(read(r"GET /\xC3\xA9\x1b\n HTTP/1.1"), "/%C3%A9%1B%0A");
        assert_eq!(read(r#"GET /a"b HTTP/1.0"#), r#"/a"b"#);
        assert_eq!(read(r#"GET /x\" 404 1 HTTP/1.1"#), r#"/x" 404 1"#);
        assert_eq!(read(r"GET /\xZZ\q\ HTTP/1.1"), r"/\xZZ\q\");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let flaw = |line: &str| parse(line.as_bytes()).unwrap_err();
        assert_eq!(flaw("hello"), Flaw::Form);
        assert_eq!(
            flaw("h - - [10/Foo/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 1"),
            Flaw::Time
        );
        assert_eq!(flaw(&format!("h - - {TIME} \"-\" 408 -")), Flaw::Request);
        assert_eq!(
            flaw(&format!("h - - {TIME} \"GET / HTTP/1.0\" 200 x")),
            Flaw::Number
        );
        assert_eq!(
            flaw(&format!("h - - {TIME} \"GET / HTTP/1.0\" 200")),
            Flaw::Number
        );
        assert_eq!(flaw(&format!("h - - {TIME} \"GET / HTTP/1.0")), Flaw::Form);
    }
}
