//! RESP3, as a server speaks it: read from bytes as they come, within bounds, whatever the server says.
//!
//! <https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md>

use bytes::{Buf as _, Bytes, BytesMut};

/// No line is longer, in bytes.
const MAX_LINE: usize = 64 << 10;
/// A longer string ends the connection; shorter ones that are too long are read away.
const MAX_SKIPPED: usize = 64 << 20;
/// So many bytes of one reply are read away at the most: each string kept in between holds a buffer.
const MAX_SKIPPED_OF_REPLY: usize = 256 << 20;
/// No reply has more elements.
const MAX_ELEMENTS: usize = 1_000_000;
/// So many bytes of one reply are kept, its elements included, unless a single string may be longer.
const MAX_KEPT: usize = 16 << 20;
/// No reply is nested deeper.
const MAX_DEPTH: usize = 16;

/// A reply, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    /// Simple, bulk or verbatim.
    Text(Bytes),
    /// A string longer than allowed, or beyond what is kept of one reply: it was read away.
    TooLong,
    Error(Bytes),
    Boolean(bool),
    Double(Bytes),
    /// Array or set; a map as its keys and values in turn.
    Array(Vec<Value>),
    /// Not a reply: sent by the server of its own.
    Push(Vec<Value>),
}

/// What a server may not send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server broke the protocol: {0}")]
pub(crate) struct ProtocolError(pub(crate) &'static str);

type Read<T> = Result<Option<T>, ProtocolError>;

/// Reads replies out of a buffer. What it holds back is bounded by [`MAX_KEPT`] or the largest string that is kept,
/// not by what the server says.
pub(crate) struct Reader {
    max_string: usize,
    /// The replies whose parts are still coming, the outermost first.
    open: Vec<Frame>,
    /// Elements of the reply so far.
    elements: usize,
    /// Bytes that the reply so far takes in memory, and those of it that were read away.
    kept: usize,
    skipped: usize,
    /// So many bytes of a string that is too long are still to be read away, its line end included.
    to_skip: usize,
}

struct Frame {
    is_push: bool,
    left: usize,
    parts: Vec<Value>,
}

impl Reader {
    /// A reader that keeps strings of at most `max_string` bytes.
    pub(crate) fn new(max_string: usize) -> Self {
        Self {
            max_string,
            open: Vec::new(),
            elements: 0,
            kept: 0,
            skipped: 0,
            to_skip: 0,
        }
    }

    /// The next whole reply; `None` if more bytes must come.
    pub(crate) fn read(&mut self, buffer: &mut BytesMut) -> Read<Value> {
        loop {
            let Some(part) = self.part(buffer)? else {
                return Ok(None);
            };
            if let Some(whole) = self.close(part) {
                (self.elements, self.kept, self.skipped) = (0, 0, 0);
                return Ok(Some(whole));
            }
        }
    }

    /// How many strings one reply may have, so that none is read away, however long each is.
    pub(crate) fn strings_per_reply(max_string: usize) -> usize {
        (Self::max_kept(max_string) / max_string.saturating_add(size_of::<Value>())).max(1)
    }

    fn max_kept(max_string: usize) -> usize {
        max_string.saturating_add(size_of::<Value>()).max(MAX_KEPT)
    }

    /// Counts what is about to be kept.
    fn keep(&mut self, bytes: usize) -> Result<(), ProtocolError> {
        self.kept = self.kept.saturating_add(bytes);
        if self.kept > Self::max_kept(self.max_string) {
            return Err(ProtocolError("a reply takes more memory than allowed"));
        }
        Ok(())
    }

    /// Puts a part where it belongs; the whole reply if it was the last.
    fn close(&mut self, part: Part) -> Option<Value> {
        let mut value = match part {
            Part::Value(value) => value,
            Part::Open(frame) => {
                self.open.push(frame);
                return None;
            }
            Part::Nothing => return None,
        };
        loop {
            let Some(frame) = self.open.last_mut() else {
                return Some(value);
            };
            frame.parts.push(value);
            frame.left -= 1;
            if frame.left > 0 {
                return None;
            }
            let frame = self.open.pop()?;
            value = frame.close();
        }
    }

    fn part(&mut self, buffer: &mut BytesMut) -> Read<Part> {
        if self.to_skip > 0 {
            let here = self.to_skip.min(buffer.len());
            buffer.advance(here);
            self.to_skip -= here;
            return Ok((self.to_skip == 0).then_some(Part::Value(Value::TooLong)));
        }
        let Some(end) = line_end(buffer)? else {
            return Ok(None);
        };
        let kind = buffer[0];
        let line = &buffer[1..end];
        match kind {
            b'$' | b'=' | b'!' => self.string(buffer, end, kind),
            b'*' | b'~' | b'%' | b'>' | b'|' => self.aggregate(buffer, end, kind),
            b'+' | b',' | b'(' | b'-' => {
                let text = Bytes::copy_from_slice(line);
                self.keep(text.len())?;
                buffer.advance(end + 2);
                Ok(Some(Part::Value(match kind {
                    b'-' => Value::Error(text),
                    b',' => Value::Double(text),
                    _ => Value::Text(text),
                })))
            }
            b':' => {
                let number = integer(line)?;
                buffer.advance(end + 2);
                Ok(Some(Part::Value(Value::Integer(number))))
            }
            b'#' => {
                let is_true = match line {
                    b"t" => true,
                    b"f" => false,
                    _ => return Err(ProtocolError("a boolean is neither true nor false")),
                };
                buffer.advance(end + 2);
                Ok(Some(Part::Value(Value::Boolean(is_true))))
            }
            b'_' => {
                buffer.advance(end + 2);
                Ok(Some(Part::Value(Value::Null)))
            }
            _ => Err(ProtocolError("a reply of an unknown kind")),
        }
    }

    fn string(&mut self, buffer: &mut BytesMut, end: usize, kind: u8) -> Read<Part> {
        let Some(length) = length(&buffer[1..end])? else {
            buffer.advance(end + 2);
            return Ok(Some(Part::Value(Value::Null)));
        };
        if length > MAX_SKIPPED {
            return Err(ProtocolError("a string is longer than 64 MiB"));
        }
        let is_too_long = length > self.max_string
            || self.kept.saturating_add(length) > Self::max_kept(self.max_string);
        if is_too_long {
            self.skipped += length;
            if self.skipped > MAX_SKIPPED_OF_REPLY {
                return Err(ProtocolError("a reply is longer than 256 MiB"));
            }
            buffer.advance(end + 2);
            self.to_skip = length + 2;
            return Ok(Some(Part::Nothing));
        }
        let whole = end + 2 + length + 2;
        if buffer.len() < whole {
            buffer.reserve(whole - buffer.len());
            return Ok(None);
        }
        if buffer[whole - 2..whole] != *b"\r\n" {
            return Err(ProtocolError("a string does not end where it says"));
        }
        self.keep(length)?;
        buffer.advance(end + 2);
        let mut text = buffer.split_to(length).freeze();
        buffer.advance(2);
        if kind == b'=' && text.len() >= 4 {
            text.advance(4);
        }
        Ok(Some(Part::Value(match kind {
            b'!' => Value::Error(text),
            _ => Value::Text(text),
        })))
    }

    fn aggregate(&mut self, buffer: &mut BytesMut, end: usize, kind: u8) -> Read<Part> {
        let length = length(&buffer[1..end])?;
        buffer.advance(end + 2);
        let Some(length) = length else {
            return Ok(Some(Part::Value(Value::Null)));
        };
        let parts = match kind {
            b'%' | b'|' => length.checked_mul(2),
            _ => Some(length),
        };
        self.elements = self.elements.saturating_add(parts.unwrap_or(usize::MAX));
        if self.elements > MAX_ELEMENTS {
            return Err(ProtocolError("a reply has more than 1,000,000 elements"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(ProtocolError("a reply is nested too deep"));
        }
        if kind == b'|' {
            return Err(ProtocolError("attributes were not asked for"));
        }
        let left = parts.unwrap_or(0);
        self.keep(left.saturating_mul(size_of::<Value>()))?;
        let frame = Frame {
            is_push: kind == b'>',
            left,
            // As they come, not as many as the server says.
            parts: Vec::with_capacity(left.min(64)),
        };
        Ok(Some(match left {
            0 => Part::Value(frame.close()),
            _ => Part::Open(frame),
        }))
    }
}

enum Part {
    Value(Value),
    Open(Frame),
    Nothing,
}

impl Frame {
    fn close(self) -> Value {
        if self.is_push {
            Value::Push(self.parts)
        } else {
            Value::Array(self.parts)
        }
    }
}

/// Where the first line ends, before its CR LF.
fn line_end(buffer: &[u8]) -> Read<usize> {
    let searched = &buffer[..buffer.len().min(MAX_LINE)];
    match searched.iter().position(|byte| *byte == b'\n') {
        Some(at) if at >= 2 && buffer[at - 1] == b'\r' => Ok(Some(at - 1)),
        Some(_) => Err(ProtocolError("a line does not end in CR LF")),
        None if buffer.len() >= MAX_LINE => Err(ProtocolError("a line is longer than 64 KiB")),
        None => Ok(None),
    }
}

fn integer(digits: &[u8]) -> Result<i64, ProtocolError> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(ProtocolError("a number is none"))
}

/// A length; `None` for -1, which is how RESP2 says null.
fn length(digits: &[u8]) -> Result<Option<usize>, ProtocolError> {
    match integer(digits)? {
        -1 => Ok(None),
        length => usize::try_from(length)
            .map(Some)
            .map_err(|_| ProtocolError("a length is negative")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8], at_once: usize) -> Result<Vec<Value>, ProtocolError> {
        let mut reader = Reader::new(64);
        let mut buffer = BytesMut::new();
        let mut values = Vec::new();
        for chunk in bytes.chunks(at_once) {
            buffer.extend_from_slice(chunk);
            while let Some(value) = reader.read(&mut buffer)? {
                values.push(value);
            }
        }
        assert!(buffer.is_empty(), "{buffer:?}");
        Ok(values)
    }

    fn text(text: &'static str) -> Value {
        Value::Text(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn every_kind_is_read_however_it_is_cut() {
        let bytes = b"+OK\r\n$3\r\na\r\n\r\n:-7\r\n_\r\n$-1\r\n-ERR no\r\n*2\r\n:1\r\n*0\r\n%1\r\n+k\r\n#t\r\n>2\r\n+invalidate\r\n_\r\n=7\r\ntxt:abc\r\n,1.5\r\n";
        for at_once in 1..bytes.len() {
            let values = read_all(bytes, at_once).unwrap();
            assert_eq!(
                values,
                [
                    text("OK"),
                    text("a\r\n"),
                    Value::Integer(-7),
                    Value::Null,
                    Value::Null,
                    Value::Error(Bytes::from_static(b"ERR no")),
                    Value::Array(vec![Value::Integer(1), Value::Array(vec![])]),
                    Value::Array(vec![text("k"), Value::Boolean(true)]),
                    Value::Push(vec![text("invalidate"), Value::Null]),
                    text("abc"),
                    Value::Double(Bytes::from_static(b"1.5")),
                ]
            );
        }
    }

    #[test]
    fn a_string_that_is_too_long_is_read_away_and_the_next_reply_is_whole() {
        let long = format!("$100\r\n{}\r\n+next\r\n", "x".repeat(100));
        for at_once in [1, 7, 64, 200] {
            let values = read_all(long.as_bytes(), at_once).unwrap();
            assert_eq!(values, [Value::TooLong, text("next")]);
        }
    }

    #[test]
    fn what_a_reply_takes_is_bounded_over_all_its_parts() {
        let part = format!("$1048576\r\n{}\r\n", "x".repeat(1 << 20));
        let list = format!("*20\r\n{}", part.repeat(20));
        let mut buffer = BytesMut::from(list.as_bytes());
        let read = Reader::new(1 << 20).read(&mut buffer).unwrap().unwrap();
        let Value::Array(parts) = read else {
            panic!("{read:?}");
        };
        let kept = parts.iter().filter(|part| **part != Value::TooLong);
        assert_eq!((parts.len(), kept.count()), (20, 15));

        let elements = MAX_KEPT / size_of::<Value>() + 1;
        let mut buffer = BytesMut::from(format!("*{elements}\r\n").as_bytes());
        assert!(Reader::new(64).read(&mut buffer).is_err());
        let long = format!("$60000000\r\n{}\r\n", "x".repeat(60_000_000));
        let mut reader = Reader::new(64);
        let mut buffer = BytesMut::from(&b"*9\r\n"[..]);
        let ended = (0..9).find(|_| {
            buffer.extend_from_slice(long.as_bytes());
            reader.read(&mut buffer).is_err()
        });
        assert_eq!(ended, Some(4), "the fifth is beyond 256 MiB");
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        let deep = "*1\r\n".repeat(1_000_000);
        for bytes in [
            "$536870912\r\n",
            "*2147483647\r\n",
            "$-2\r\n",
            "*-7\r\n",
            "$99999999999999999999\r\n",
            "?what\r\n",
            "+no CR\n",
            "$1\r\nab\r\n",
            "#x\r\n",
            &deep,
        ] {
            let mut buffer = BytesMut::from(bytes.as_bytes());
            let read = Reader::new(64).read(&mut buffer);
            assert!(read.is_err(), "{}", &bytes[..bytes.len().min(40)]);
        }
        let mut endless = BytesMut::from("+".repeat(MAX_LINE).as_bytes());
        assert!(Reader::new(64).read(&mut endless).is_err());
    }
}
