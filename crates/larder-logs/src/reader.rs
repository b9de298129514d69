//! A log, line by line.

use std::io::{self, Read};

use crate::format::{Format, LineFormat};
use crate::lines::{Found, Lines};
use crate::request::{Flaw, Request};
use crate::unpack::Unpacked;

/// A line of a log.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// It tells of a request.
    Request(Request<'a>),
    /// It is no log line.
    Unreadable {
        /// The line, or its beginning if it is too long.
        text: &'a [u8],
        /// Why not.
        flaw: Flaw,
    },
}

/// What the current line is, apart from its bytes.
enum Current {
    InFormat,
    Flawed(Flaw),
}

/// A log, read line by line.
pub struct LogReader<R> {
    lines: Lines<Unpacked<R>>,
    format: Option<LineFormat>,
    count: u64,
}

impl<R: Read> LogReader<R> {
    /// Reads a log from an input, which may be gzip. Nothing is read yet.
    #[must_use]
    pub fn new(input: R) -> Self {
        Self {
            lines: Lines::new(Unpacked::new(input)),
            format: None,
            count: 0,
        }
    }

    /// The next line; `None` at the end. Empty lines and a CSV header are passed over.
    ///
    /// # Errors
    /// What reading the input, or unpacking it, failed with.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        let Some(current) = self.advance()? else {
            return Ok(None);
        };
        let text = self.lines.current();
        let flaw = match (current, &self.format) {
            (Current::Flawed(flaw), _) => flaw,
            (Current::InFormat, Some(format)) => match format.parse(text) {
                Ok(request) => return Ok(Some(Line::Request(request))),
                Err(flaw) => flaw,
            },
            (Current::InFormat, None) => Flaw::Form,
        };
        Ok(Some(Line::Unreadable { text, flaw }))
    }

    /// The log's format, once a line was in one.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        self.format.as_ref().map(LineFormat::format)
    }

    /// The number of the line that was read last; the first one's is 1.
    #[must_use]
    pub fn line_number(&self) -> u64 {
        self.count
    }

    fn advance(&mut self) -> io::Result<Option<Current>> {
        loop {
            let found = self.lines.advance()?;
            if found == Found::End {
                return Ok(None);
            }
            self.count += 1;
            if found == Found::TooLong {
                return Ok(Some(Current::Flawed(Flaw::TooLong)));
            }
            if self.lines.current().is_empty() || self.is_header() {
                continue;
            }
            return Ok(Some(Current::InFormat));
        }
    }

    /// Learns the format from a line, if it isn't known; answers whether the line is only its header.
    fn is_header(&mut self) -> bool {
        if self.format.is_some() {
            return false;
        }
        self.format = LineFormat::detect(self.lines.current());
        self.format() == Some(Format::Csv)
    }
}
