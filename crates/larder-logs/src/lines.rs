//! Lines of at most 64 KiB: what is longer is read away, and never held.

use std::io::{self, Read};
use std::ops::Range;

use memchr::memchr;

/// A line is at most this long, in bytes.
pub const MAX_LINE_BYTES: usize = 64 << 10;
const BUFFER_BYTES: usize = 4 * MAX_LINE_BYTES;
/// What is kept of a line that is too long, to be shown.
const SHOWN_BYTES: usize = 256;

/// What was found next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A line, without its end.
    Line,
    /// One that is too long; its beginning stands for it.
    TooLong,
    /// The end.
    End,
}

/// The lines of an input.
pub(crate) struct Lines<R> {
    input: R,
    buffer: Box<[u8]>,
    /// What was read and is not handed out yet.
    unread: Range<usize>,
    /// The current line, in the buffer.
    line: Range<usize>,
    /// The beginning of the current line, if it is too long.
    beginning: Vec<u8>,
    is_at_end: bool,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            buffer: vec![0; BUFFER_BYTES].into(),
            unread: 0..0,
            line: 0..0,
            beginning: Vec::new(),
            is_at_end: false,
        }
    }

    /// The current line.
    pub(crate) fn current(&self) -> &[u8] {
        match self.beginning.is_empty() {
            true => &self.buffer[self.line.clone()],
            false => &self.beginning,
        }
    }

    /// Goes on to the next line.
    pub(crate) fn advance(&mut self) -> io::Result<Found> {
        self.beginning.clear();
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.unread.clone()];
            if let Some(at) = memchr(b'\n', &unread[searched..]) {
                return Ok(self.hand_out(searched + at, searched + at + 1));
            }
            searched = unread.len();
            if searched > MAX_LINE_BYTES {
                return self.read_away();
            }
            if self.is_at_end {
                return Ok(match searched {
                    0 => Found::End,
                    _ => self.hand_out(searched, searched),
                });
            }
            self.fill()?;
        }
    }

    /// Makes the first `length` bytes that are unread the current line; `taken` of them are read then.
    fn hand_out(&mut self, length: usize, taken: usize) -> Found {
        let begin = self.unread.start;
        let line = &self.buffer[begin..begin + length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.unread.start += taken;
        self.line = begin..begin + line.len();
        if line.len() > MAX_LINE_BYTES {
            self.beginning.extend_from_slice(&line[..SHOWN_BYTES]);
            return Found::TooLong;
        }
        Found::Line
    }

    /// Reads on to the end of a line that is too long.
    fn read_away(&mut self) -> io::Result<Found> {
        let begin = self.unread.start;
        self.beginning
            .extend_from_slice(&self.buffer[begin..begin + SHOWN_BYTES]);
        loop {
            self.unread = 0..0;
            self.fill()?;
            let end = memchr(b'\n', &self.buffer[self.unread.clone()]);
            if let Some(at) = end {
                self.unread.start = at + 1;
                return Ok(Found::TooLong);
            }
            if self.is_at_end {
                self.unread.start = self.unread.end;
                return Ok(Found::TooLong);
            }
        }
    }

    /// Reads more behind what is unread.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        loop {
            match self.input.read(&mut self.buffer[self.unread.end..]) {
                Ok(0) => self.is_at_end = true,
                Ok(count) => self.unread.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }

    fn lines(input: &[u8], at_once: usize) -> Vec<(bool, Vec<u8>)> {
        let mut lines = Lines::new(Slow(input, at_once));
        let mut all = Vec::new();
        loop {
            let found = lines.advance().unwrap();
            if found == Found::End {
                return all;
            }
            all.push((found == Found::Line, lines.current().to_vec()));
        }
    }

    #[test]
    fn lines_end_at_either_kind_of_end_and_at_the_inputs() {
        for at_once in [1, 2, 3, 1_000] {
            let expected: Vec<_> = [&b"a"[..], b"", b"bc", b"d\re"]
                .map(|line| (true, line.to_vec()))
                .into();
            assert_eq!(lines(b"a\n\nbc\r\nd\re", at_once), expected);
        }
        assert_eq!(lines(b"", 1), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_read_away_and_the_next_one_is_whole() {
        for length in [
            MAX_LINE_BYTES,
            MAX_LINE_BYTES + 1,
            BUFFER_BYTES - 1,
            BUFFER_BYTES,
            BUFFER_BYTES + 1,
            10 * BUFFER_BYTES,
        ] {
            let mut input = vec![b'x'; length];
            input.extend_from_slice(b"\nnext\n");
            let is_line = length <= MAX_LINE_BYTES;
            let shown = if is_line { length } else { SHOWN_BYTES };
            let expected = [(is_line, vec![b'x'; shown]), (true, b"next".to_vec())];
            for at_once in [4_093, usize::MAX] {
                assert_eq!(lines(&input, at_once), expected, "{length}");
            }
            let alone = lines(&input[..length], usize::MAX);
            assert_eq!(alone, expected[..1], "{length}");
        }
    }
}
