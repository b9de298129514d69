//! Commands, as they go out: arguments with their lengths, so that no text in them can be taken for another command.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use larder_core::Guard;

/// What a command answers, an error aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// A string, or null.
    Text,
    /// `OK`.
    Ok,
    Integer,
    /// That it is done with what comes behind it.
    Queued,
    Array,
    /// An array, or null.
    Pair,
    /// `OK`. Where it is refused, what is behind it is not noted.
    Noted,
    /// This very text.
    Nonce(u64),
}

/// A command to be sent.
#[derive(Clone, Copy)]
pub(crate) struct Command<'a> {
    pub(crate) arguments: &'a [&'a [u8]],
    pub(crate) expect: Expect,
    /// Under which condition it is sent; judged in the very order in which commands go out.
    guard: Option<&'a Guard>,
    /// Over which connection alone it is sent, by its number.
    over: Option<u64>,
    /// Which argument is its key.
    key_at: usize,
    /// What is done just before it, in one step with it.
    first: Option<&'a [&'a [u8]]>,
    is_noted: bool,
}

/// What is sent before a read that is to be noted, where others are not.
pub(crate) const CACHING: &[&[u8]] = &[b"CLIENT", b"CACHING", b"YES"];
/// What is sent around two commands that are done in one step.
const MULTI: &[&[u8]] = &[b"MULTI"];
const EXEC: &[&[u8]] = &[b"EXEC"];

impl<'a> Command<'a> {
    pub(crate) fn new(arguments: &'a [&'a [u8]], expect: Expect) -> Self {
        Self {
            arguments,
            expect,
            guard: None,
            over: None,
            key_at: 1,
            first: None,
            is_noted: false,
        }
    }

    /// A read that the server is to note, though it notes no others. Without what is done in one step with it.
    pub(crate) fn noted(self, is_noted: bool) -> Self {
        Self { is_noted, ..self }
    }

    /// A command, and one that is done just before it in the same step (`MULTI`, `EXEC`). The keys of both lie in one slot.
    /// It answers with what both answered, or with why neither was done.
    pub(crate) fn in_one_step(first: &'a [&'a [u8]], arguments: &'a [&'a [u8]]) -> Self {
        Self {
            first: Some(first),
            ..Self::new(arguments, Expect::Pair)
        }
    }

    /// Whether it is several that are done in one step.
    pub(crate) fn is_one_step(&self) -> bool {
        self.first.is_some()
    }

    /// What is sent, what is answered, and whether that is the command's answer: that of the last part is.
    pub(crate) fn parts(self) -> impl Iterator<Item = (&'a [&'a [u8]], Expect, bool)> {
        let own = (self.arguments, self.expect, true);
        let step = self.first.map(|first| {
            [
                (MULTI, Expect::Ok, false),
                (first, Expect::Queued, false),
                (self.arguments, Expect::Queued, false),
                (EXEC, self.expect, true),
            ]
        });
        let note = self.is_noted.then_some((CACHING, Expect::Noted, false));
        let alone = step.is_none().then_some(own);
        let before = note.into_iter().chain(step.into_iter().flatten());
        before.chain(alone)
    }

    /// A script, whose first key stands behind its name and how many there are.
    pub(crate) fn script(arguments: &'a [&'a [u8]], expect: Expect) -> Self {
        Self {
            key_at: 3,
            ..Self::new(arguments, expect)
        }
    }

    pub(crate) fn guarded(self, guard: Option<&'a Guard>) -> Self {
        Self { guard, ..self }
    }

    pub(crate) fn only_over(self, over: Option<u64>) -> Self {
        Self { over, ..self }
    }

    /// By which key it is known where it goes; empty if it has none.
    pub(crate) fn key(&self) -> &'a [u8] {
        self.arguments.get(self.key_at).copied().unwrap_or_default()
    }

    /// Whether it may be sent over the connection of this number.
    pub(crate) fn may_go(&self, over: u64) -> bool {
        self.over.is_none_or(|only| only == over) && self.guard.is_none_or(Guard::allows)
    }
}

/// Writes a command.
pub(crate) fn write(out: &mut BytesMut, arguments: &[&[u8]]) {
    number(out, b'*', arguments.len());
    for argument in arguments {
        number(out, b'$', argument.len());
        out.put_slice(argument);
        out.put_slice(b"\r\n");
    }
}

fn number(out: &mut BytesMut, kind: u8, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // A digit is below 10.
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_u8(kind);
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// Writes a `PING` that is answered with its own nonce.
pub(crate) fn write_nonce(out: &mut BytesMut, nonce: u64) {
    out.put_slice(b"*2\r\n$4\r\nPING\r\n$16\r\n");
    // Writing to a buffer in memory can't fail.
    let _ = write!(out, "{nonce:016x}\r\n");
}

/// Whether a text is what a nonce is answered with.
pub(crate) fn is_nonce(text: &[u8], nonce: u64) -> bool {
    std::str::from_utf8(text)
        .is_ok_and(|text| text.len() == 16 && u64::from_str_radix(text, 16) == Ok(nonce))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_in_one_step_stands_between_its_beginning_and_its_end() {
        let (first, then): ([&[u8]; 2], [&[u8]; 2]) = ([b"DEL", b"a"], [b"GET", b"b"]);
        let sent = |command: Command<'_>| -> Vec<String> {
            let words = command.parts().map(|(words, ..)| words.join(&b' '));
            words
                .map(|words| String::from_utf8(words).unwrap())
                .collect()
        };
        assert_eq!(sent(Command::new(&then, Expect::Text)), ["GET b"]);
        assert_eq!(
            sent(Command::in_one_step(&first, &then)),
            ["MULTI", "DEL a", "GET b", "EXEC"]
        );
        assert_eq!(
            sent(Command::new(&then, Expect::Text).noted(true)),
            ["CLIENT CACHING YES", "GET b"]
        );
    }

    #[test]
    fn arguments_go_out_with_their_lengths() {
        let mut out = BytesMut::new();
        write(&mut out, &[b"SETEX", b"a\r\nDEL b", b"", b"0123456789"]);
        assert_eq!(
            out,
            "*4\r\n$5\r\nSETEX\r\n$8\r\na\r\nDEL b\r\n$0\r\n\r\n$10\r\n0123456789\r\n"
        );
        out.clear();
        write_nonce(&mut out, 255);
        assert_eq!(out, "*2\r\n$4\r\nPING\r\n$16\r\n00000000000000ff\r\n");
        assert!(is_nonce(b"00000000000000ff", 255) && !is_nonce(b"ff", 255));
    }
}
