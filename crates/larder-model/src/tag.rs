//! Tags: names that entries can be invalidated by.

use std::fmt;

use serde::{Deserialize, Serialize};

/// No tag is longer, in bytes.
pub const MAX_TAG_BYTES: usize = 128;

/// A name that entries can be invalidated by: 1 to 128 bytes of visible ASCII, without `*`, `?`, `[`, `]`, `{`, `}`, `\`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(Box<str>);

/// A text that can't be a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no tag: use 1 to 128 visible ASCII characters, none of them * ? [ ] {{ }} or \\")]
pub struct TagError(String);

impl Tag {
    /// A tag of this name.
    ///
    /// # Errors
    /// [`TagError`] if it is no name for a tag.
    pub fn new(name: &str) -> Result<Self, TagError> {
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !br"*?[]{}\".contains(&byte);
        let is_tag = (1..=MAX_TAG_BYTES).contains(&name.len()) && name.bytes().all(is_allowed);
        if is_tag {
            Ok(Self(name.into()))
        } else {
            Err(TagError(name.chars().take(MAX_TAG_BYTES).collect()))
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Tag {
    type Error = TagError;

    fn try_from(name: String) -> Result<Self, TagError> {
        Self::new(&name)
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_visible_and_no_pattern() {
        assert_eq!(Tag::new("product:17").unwrap().as_str(), "product:17");
        for no_tag in ["", "a b", "a\n", "a*", "{a}", "ä", &"a".repeat(129)] {
            assert!(Tag::new(no_tag).is_err(), "{no_tag}");
        }
    }
}
