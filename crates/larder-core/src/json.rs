//! JSON text as bytes: handed out as it is stored, parsed by nobody.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A JSON text, known to be one. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Bytes);

/// Bytes that are no JSON text, with the reason.
#[derive(Debug, thiserror::Error)]
#[error("this is not JSON: {0}")]
pub struct NotJson(String);

impl Json {
    /// Writes a value as JSON.
    ///
    /// # Errors
    /// [`NotJson`] if the value can't be written so (a map whose keys are no text, say).
    pub fn of<T: serde::Serialize + ?Sized>(value: &T) -> Result<Self, NotJson> {
        match serde_json::to_vec(value) {
            Ok(mut text) => {
                // What is kept in memory is to take what it is counted as: the writer doubles its room as it goes.
                text.shrink_to_fit();
                Ok(Self(text.into()))
            }
            Err(error) => Err(NotJson(error.to_string())),
        }
    }

    /// Checks the whole syntax of a text (RFC 8259; nested at most 127 deep).
    ///
    /// # Errors
    /// [`NotJson`] with the place where it isn't.
    pub fn parse(text: Bytes) -> Result<Self, NotJson> {
        match check(&text) {
            Ok(()) => Ok(Self(text)),
            Err(reason) => Err(NotJson(reason)),
        }
    }

    /// Bytes that Larder itself wrote as JSON.
    #[inline]
    pub(crate) fn trusted(text: Bytes) -> Self {
        Self(text)
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The text between two others, in one new buffer: `{"cached":true,"products":` … `}`.
    #[must_use]
    pub fn between(&self, before: &str, after: &str) -> Bytes {
        let mut whole = BytesMut::with_capacity(before.len() + self.0.len() + after.len());
        whole.put_slice(before.as_bytes());
        whole.put_slice(&self.0);
        whole.put_slice(after.as_bytes());
        whole.freeze()
    }

    /// Reads a value out of the text.
    ///
    /// # Errors
    /// [`NotJson`] if the text is not such a value.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, NotJson> {
        serde_json::from_slice(&self.0).map_err(|error| NotJson(error.to_string()))
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

fn check(text: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    serde_json::from_str::<Syntax>(text)
        .map(|Syntax| ())
        .map_err(|error| error.to_string())
}

/// Visits every value of a text, so that `serde_json`'s bound on depth applies (ignoring a value has none).
struct Syntax;

impl<'de> Deserialize<'de> for Syntax {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Syntax {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _value: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _value: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _value: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while let Some(Self) = elements.next_element()? {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        while let Some((IgnoredAny, Self)) = members.next_entry()? {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_json(text: &str) -> bool {
        Json::parse(Bytes::copy_from_slice(text.as_bytes())).is_ok()
    }

    #[test]
    fn the_whole_syntax_is_checked() {
        for text in [
            "null",
            "0",
            "\"\"",
            "[]",
            "{\"a\":[1,2.5e3,\"é\\u00e9\"]}",
            " [1] ",
        ] {
            assert!(is_json(text), "{text}");
        }
        for text in [
            "",
            "[1],\"cached\":false,\"x\":[2]",
            "{a:1}",
            "[1,]",
            "01",
            "nul",
            "\"\n\"",
            "{\"a\" 1}",
        ] {
            assert!(!is_json(text), "{text}");
        }
        assert!(Json::parse(Bytes::from_static(b"\"\xff\"")).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_json(&deep(100)));
        assert!(!is_json(&deep(100_000)));
    }
}
