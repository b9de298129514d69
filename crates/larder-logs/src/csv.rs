//! CSV with a header that names its columns: `ts_ms,client,method,url,status,bytes`, in any order, among others. Quoted as
//! in RFC 4180; a line ends a record even in quotes.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};

use crate::request::{Flaw, Method, Request, millis, size, status, target_text};
use crate::time::from_millis;

/// More columns than this are not looked for a name.
const MAX_COLUMNS: usize = 64;

/// What is in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Time,
    Method,
    Url,
    Status,
    Bytes,
    Latency,
    Other,
}

const NEEDED: [Column; 5] = [
    Column::Time,
    Column::Method,
    Column::Url,
    Column::Status,
    Column::Bytes,
];

/// Which columns a file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns(Vec<Column>);

impl Columns {
    /// The columns of a header; `None` if it is none, or lacks one that is needed.
    pub(crate) fn of_header(line: &[u8]) -> Option<Self> {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let mut columns = Vec::new();
        for name in Fields(Some(line)).take(MAX_COLUMNS) {
            let column = match &*name? {
                b"ts_ms" => Column::Time,
                b"method" => Column::Method,
                b"url" => Column::Url,
                b"status" => Column::Status,
                b"bytes" => Column::Bytes,
                b"latency_ms" => Column::Latency,
                _ => Column::Other,
            };
            columns.push(column);
        }
        let is_whole = NEEDED.iter().all(|column| columns.contains(column));
        is_whole.then_some(Self(columns))
    }

    pub(crate) fn parse<'a>(&self, line: &'a [u8]) -> Result<Request<'a>, Flaw> {
        let (mut at_ms, mut method, mut url) = (None, None, None);
        let (mut status_read, mut bytes, mut latency_micros) = (None, None, None);
        let mut fields = Fields(Some(line));
        for column in &self.0 {
            let Some(field) = fields.next() else { break };
            let field = field.ok_or(Flaw::Form)?;
            match column {
                Column::Time => at_ms = Some(from_millis(&field).ok_or(Flaw::Time)?),
                Column::Method => method = Some(Method::of(&field)),
                Column::Url => url = Some(field),
                Column::Status => status_read = Some(status(&field).ok_or(Flaw::Number)?),
                Column::Bytes => bytes = Some(size(&field).ok_or(Flaw::Number)?),
                // What is no number there is not needed.
                Column::Latency => latency_micros = millis(&field),
                Column::Other => {}
            }
        }
        Ok(Request {
            at_ms: at_ms.ok_or(Flaw::Form)?,
            method: method.ok_or(Flaw::Form)?,
            target: url
                .filter(|url| !url.is_empty())
                .map(target_text)
                .ok_or(Flaw::Request)?,
            status: status_read.ok_or(Flaw::Form)?,
            bytes: bytes.ok_or(Flaw::Form)?,
            latency_micros,
        })
    }
}

/// The fields of what is left of a line; `Some(None)` for one whose quotes don't close.
struct Fields<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Cow<'a, [u8]>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.take()?;
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            return Some(self.quoted(quoted));
        }
        let end = memchr(b',', rest).unwrap_or(rest.len());
        self.0 = rest.get(end + 1..);
        Some(Some(Cow::Borrowed(&rest[..end])))
    }
}

impl<'a> Fields<'a> {
    fn quoted(&mut self, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let mut quotes = memchr_iter(b'"', text).peekable();
        let mut is_doubled = false;
        while let Some(at) = quotes.next() {
            if quotes.next_if_eq(&(at + 1)).is_some() {
                is_doubled = true;
                continue;
            }
            self.0 = match text.get(at + 1) {
                None => None,
                Some(b',') => Some(&text[at + 2..]),
                Some(_) => return None,
            };
            let field = &text[..at];
            return Some(match is_doubled {
                true => Cow::Owned(undouble(field)),
                false => Cow::Borrowed(field),
            });
        }
        None
    }
}

/// `""` as `"`.
fn undouble(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(&byte) = bytes.next() {
        out.push(byte);
        if byte == b'"' {
            bytes.next();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"ts_ms,client,method,url,status,bytes";

    fn parse(line: &str) -> Result<Request<'_>, Flaw> {
        Columns::of_header(HEADER).unwrap().parse(line.as_bytes())
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let columns = Columns::of_header(b"\"status\",bytes,latency_ms,url,ts_ms,method").unwrap();
        let request = columns.parse(b"200,5,1.5,/a,1000,GET").unwrap();
        assert_eq!(
            (request.at_ms, &*request.target, request.bytes),
            (1_000, "/a", 5)
        );
        assert_eq!(request.latency_micros, Some(1_500));
        assert!(Columns::of_header(b"ts_ms,client,method,url,status").is_none());
        assert!(Columns::of_header(b"1,2,GET,/,200,5").is_none());
    }

    #[test]
    fn quotes_are_as_in_rfc_4180() {
        let request = parse("1,2,GET,\"/a?b,c=\"\"d\"\"\",200,5").unwrap();
        assert_eq!(request.target, "/a?b,c=\"d\"");
        for line in ["1,2,GET,\"/a,200,5", "1,2,GET,\"/a\"x,200,5", "\""] {
            assert_eq!(parse(line), Err(Flaw::Form), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(parse("x,2,GET,/a,200,5"), Err(Flaw::Time));
        assert_eq!(parse("1,2,GET,/a,OK,5"), Err(Flaw::Number));
        assert_eq!(parse("1,2,GET,,200,5"), Err(Flaw::Request));
        assert_eq!(parse("1,2,GET"), Err(Flaw::Request));
        assert_eq!(parse("1,2,GET,/a,200"), Err(Flaw::Form));
    }
}
