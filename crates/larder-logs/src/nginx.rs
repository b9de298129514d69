//! JSON objects, one a line, as nginx writes them with `log_format … escape=json`. The fields that are read go by nginx's own
//! names; others are skipped.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::request::{Flaw, Method, Request, parse_request_line, size, status, target_text};
use crate::time::{from_number, parse_any};

pub(crate) fn parse(line: &[u8]) -> Result<Request<'_>, Flaw> {
    let Fields {
        time,
        request,
        method,
        uri,
        status: status_text,
        bytes,
    } = serde_json::from_slice(line).map_err(|_| Flaw::Form)?;
    let at_ms = match time.ok_or(Flaw::Form)? {
        Scalar::Text(text) => parse_any(&text),
        Scalar::Number(number) => from_number(number),
        Scalar::Other => None,
    };
    let (method, target) = match (request, method, uri) {
        (Some(Scalar::Text(line)), _, _) => split(line)?,
        (_, Some(Scalar::Text(method)), Some(Scalar::Text(uri))) => {
            (Method::of(method.as_bytes()), target_text(bytes_of(uri)))
        }
        _ => return Err(Flaw::Form),
    };
    if target.is_empty() {
        return Err(Flaw::Request);
    }
    let number = |scalar: Option<Scalar<'_>>| match scalar {
        Some(Scalar::Number(number)) if number >= 0.0 => Some(format!("{number:.0}")),
        Some(Scalar::Text(text)) => Some(text.into_owned()),
        _ => None,
    };
    let status = number(status_text).and_then(|text| status(text.as_bytes()));
    let bytes = number(bytes).and_then(|text| size(text.as_bytes()));
    Ok(Request {
        at_ms: at_ms.ok_or(Flaw::Time)?,
        method,
        target,
        status: status.ok_or(Flaw::Number)?,
        bytes: bytes.ok_or(Flaw::Number)?,
        latency_micros: None,
    })
}

fn bytes_of(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Method and target of a request line.
fn split(line: Cow<'_, str>) -> Result<(Method, Cow<'_, str>), Flaw> {
    match line {
        Cow::Borrowed(line) => {
            let (method, target) = parse_request_line(line.as_bytes())?;
            Ok((method, target_text(Cow::Borrowed(target))))
        }
        Cow::Owned(line) => {
            let (method, target) = parse_request_line(line.as_bytes())?;
            let target = target_text(Cow::Borrowed(target)).into_owned();
            Ok((method, Cow::Owned(target)))
        }
    }
}

/// The fields that are read, each by the first of its names that comes.
#[derive(Default)]
struct Fields<'a> {
    time: Option<Scalar<'a>>,
    request: Option<Scalar<'a>>,
    method: Option<Scalar<'a>>,
    uri: Option<Scalar<'a>>,
    status: Option<Scalar<'a>>,
    bytes: Option<Scalar<'a>>,
}

impl<'a> Fields<'a> {
    fn field(&mut self, name: &str) -> Option<&mut Option<Scalar<'a>>> {
        let field = match name {
            "time" | "time_iso8601" | "time_local" | "msec" | "timestamp" | "@timestamp" => {
                &mut self.time
            }
            "request" => &mut self.request,
            "request_method" | "method" => &mut self.method,
            "request_uri" | "url" => &mut self.uri,
            "status" => &mut self.status,
            "body_bytes_sent" | "bytes_sent" | "bytes" | "size" => &mut self.bytes,
            _ => return None,
        };
        field.is_none().then_some(field)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some(Name(name)) = members.next_key()? {
            match fields.field(&name) {
                Some(field) => *field = Some(members.next_value()?),
                None => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

/// A member's name, borrowed where nothing in it is escaped.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_str(ScalarVisitor)? {
            Scalar::Text(text) => Ok(Self(text)),
            _ => Ok(Self(Cow::Borrowed(""))),
        }
    }
}

/// A text or a number.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Other,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Self::Value, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(u64, String, u16, u64), Flaw> {
        let request = parse(line.as_bytes())?;
        assert_eq!(request.method, Method::Get, "{line}");
        Ok((
            request.at_ms,
            request.target.into_owned(),
            request.status,
            request.bytes,
        ))
    }

    #[test]
    fn nginxs_own_names_are_read() {
        let expected = Ok((971_211_336_000, "/a?b=1".to_owned(), 200, 5));
        for line in [
            r#"{"time":"2000-10-10T20:55:36+00:00","request":"GET /a?b=1 HTTP/1.1","status":200,"body_bytes_sent":5}"#,
            r#"{"x":{"y":[1,{"z":2}]},"msec":971211336.000,"request_method":"GET","request_uri":"\/a?b=1","status":"200","bytes_sent":"5"}"#,
            r#"{"time_local":"10\/Oct\/2000:13:55:36 -0700","request":"GET \u002fa?b=1 HTTP/1.1","status":"200","bytes":5}"#,
            r#"{"msec":"971211336.000","time_iso8601":"not read","method":"GET","url":"http://h/a?b=1","status":200,"size":5}"#,
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, flaw) in [
            ("{", Flaw::Form),
            ("[]", Flaw::Form),
            ("{}", Flaw::Form),
            (
                r#"{"time":null,"request":"GET / HTTP/1.1","status":200,"bytes":5}"#,
                Flaw::Time,
            ),
            (
                r#"{"time":1,"request":"GET","status":200,"bytes":5}"#,
                Flaw::Request,
            ),
            (
                r#"{"time":1,"method":"GET","url":"","status":200,"bytes":5}"#,
                Flaw::Request,
            ),
            (
                r#"{"time":1,"request":"GET /","status":[200],"bytes":5}"#,
                Flaw::Number,
            ),
            (
                r#"{"time":1,"request":"GET /","status":200,"bytes":-5}"#,
                Flaw::Number,
            ),
        ] {
            assert_eq!(read(line), Err(flaw), "{line}");
        }
    }

    #[test]
    fn depth_does_no_harm() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        assert_eq!(read(&deep), Err(Flaw::Form));
    }
}
