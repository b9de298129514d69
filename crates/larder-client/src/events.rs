//! Server-sent events, as they arrive: piece by piece, and never more of them in memory than one may have.
//!
//! The form is that of the HTML standard, section 9.2 ("Server-sent events"). The crates there are buffer a line until it
//! ends, however long it is; here what the server says never takes more than the bound.

/// A name or an id that is longer is none.
const MAX_WORD: usize = 256;

/// One event, or a comment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Message {
    /// What happened; empty for a comment.
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    /// After how many milliseconds to come again.
    pub(crate) retry: Option<u64>,
    pub(crate) data: Vec<u8>,
}

/// An event is larger than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {0} bytes")]
pub(crate) struct TooLarge(usize);

/// Reads events out of bytes.
pub(crate) struct Events {
    /// No event is larger, in bytes.
    limit: usize,
    line: Vec<u8>,
    message: Message,
    has_data: bool,
    /// The last byte was a carriage return: a line feed behind it ends no line.
    after_return: bool,
    is_first_line: bool,
}

impl Events {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            message: Message::default(),
            has_data: false,
            after_return: false,
            is_first_line: true,
        }
    }

    /// Takes of `bytes` what the next message needs; the message, if it is whole.
    pub(crate) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Message>, TooLarge> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                *bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.message.data.len() + self.line.len() + part.len() > self.limit {
                return Err(TooLarge(self.limit));
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else {
                *bytes = &[];
                return Ok(None);
            };
            self.after_return = bytes[end] == b'\r';
            *bytes = &bytes[end + 1..];
            if let Some(message) = self.end_line() {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn end_line(&mut self) -> Option<Message> {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_first_line) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            Some(0) => return Some(Message::default()),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &b""[..]),
        };
        self.field(field, value.strip_prefix(b" ").unwrap_or(value));
        None
    }

    fn field(&mut self, field: &[u8], value: &[u8]) {
        let word = || {
            let text = std::str::from_utf8(value).ok()?;
            (value.len() <= MAX_WORD && !text.contains('\0')).then(|| text.to_owned())
        };
        match field {
            b"event" => self.message.name = word().unwrap_or_default(),
            b"id" => self.message.id = word(),
            b"retry" => {
                let is_number = value.iter().all(u8::is_ascii_digit);
                self.message.retry = word()
                    .filter(|_| is_number)
                    .and_then(|text| text.parse().ok());
            }
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.message.data.push(b'\n');
                }
                self.message.data.extend_from_slice(value);
            }
            _ => {}
        }
    }

    /// An empty line ends an event; one without data is none.
    fn dispatch(&mut self) -> Option<Message> {
        let mut message = std::mem::take(&mut self.message);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        if message.name.is_empty() {
            message.name.push_str("message");
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Vec<Message> {
        read_in_pieces(text, text.len().max(1))
    }

    fn read_in_pieces(text: &[u8], size: usize) -> Vec<Message> {
        let mut events = Events::new(1_000);
        let mut messages = Vec::new();
        for mut piece in text.chunks(size) {
            while let Some(message) = events.next(&mut piece).unwrap() {
                messages.push(message);
            }
        }
        messages
    }

    fn event(name: &str, data: &str) -> Message {
        Message {
            name: name.into(),
            data: data.into(),
            ..Message::default()
        }
    }

    #[test]
    fn events_are_read_however_their_lines_end() {
        let whole = Message {
            id: Some("db-7".into()),
            retry: Some(2_000),
            ..event("policies", "{}\n[]")
        };
        for end in ["\n", "\r", "\r\n"] {
            let text = "\u{feff}event: policies\nid:db-7\nretry: 2000\nunknown: 1\ndata: {}\ndata:[]\n\n:\n\n\ndata\n\n";
            let text = text.replace('\n', end);
            for size in [1, 2, 3, 7, 1_000] {
                let messages = read_in_pieces(text.as_bytes(), size);
                let expected = [whole.clone(), Message::default(), event("message", "")];
                assert_eq!(messages, expected, "{end:?} {size}");
            }
        }
    }

    #[test]
    fn what_is_no_event_is_none() {
        for text in [
            "",
            "\n\n",
            "event: a\n\n",
            "data: cut",
            "data: cut\n",
            "id: 1\n\n",
        ] {
            assert!(read(text.as_bytes()).is_empty(), "{text:?}");
        }
        let odd = b"event: \xff\nid: a\0b\nretry: -1\ndata: \xff\n\n";
        let expected = Message {
            data: vec![0xff],
            ..event("message", "")
        };
        assert_eq!(read(odd), [expected]);
        let long = format!("event: {}\ndata: x\n\n", "e".repeat(300));
        assert_eq!(read(long.as_bytes()), [event("message", "x")]);
    }

    #[test]
    fn no_event_is_larger_than_it_may_be() {
        let fits = [b"data: ".to_vec(), vec![b'x'; 994], b"\n\n".to_vec()].concat();
        assert_eq!(read(&fits)[0].data.len(), 994);
        for endless in [vec![b'x'; 1_001], b"data: 12345678\n".repeat(200)] {
            let mut events = Events::new(1_000);
            let read = events.next(&mut &endless[..]);
            assert_eq!(read, Err(TooLarge(1_000)));
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "(data|event|id|:|[ -~]|\n|\r|\r\n|\u{feff}){0,80}", size in 1usize..9) {
            prop_assert_eq!(read(text.as_bytes()), read_in_pieces(text.as_bytes(), size));
        }

        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut events = Events::new(100);
            let mut rest = &bytes[..];
            while let Ok(Some(message)) = events.next(&mut rest) {
                prop_assert!(message.data.len() <= 100);
            }
            prop_assert!(events.line.len() + events.message.data.len() <= 100);
        }
    }
}
