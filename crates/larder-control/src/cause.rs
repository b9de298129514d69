//! Who makes a change, from where, and why.

use std::fmt;
use std::net::IpAddr;

/// No reason is longer, in bytes.
const MAX_REASON: usize = 500;
/// No author's name is longer, in bytes.
const MAX_AUTHOR: usize = 100;

/// Why a change is not taken from somebody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CauseError {
    #[error("the reason is longer than 500 bytes, or not one line of text: shorten it")]
    Reason,
    #[error("the author is longer than 100 bytes, or not one line of text: say a name")]
    Author,
    #[error("there is no reason: say why in one line")]
    NoReason,
}

/// Who makes a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Author {
    pub(crate) name: String,
    /// Whether that is known, and not only what the caller said.
    pub(crate) is_verified: bool,
}

impl Author {
    /// The control plane itself.
    pub(crate) fn larder() -> Self {
        Self {
            name: "larder".to_owned(),
            is_verified: true,
        }
    }

    /// Who the caller says that he is; on this machine somebody at least.
    fn said(name: Option<String>) -> Result<Self, CauseError> {
        let name = name.as_deref().map(str::trim).unwrap_or_default();
        if !is_line(name, MAX_AUTHOR) {
            return Err(CauseError::Author);
        }
        let name = if name.is_empty() { "local" } else { name };
        Ok(Self {
            name: name.to_owned(),
            is_verified: false,
        })
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.is_verified {
            return Ok(());
        }
        f.write_str(" (unverified)")
    }
}

/// Who makes a change, from where, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) author: Author,
    /// `None` for what the control plane does by itself.
    pub(crate) address: Option<IpAddr>,
    /// Empty where nobody said.
    pub(crate) reason: String,
}

impl Cause {
    /// What a caller says of himself.
    pub(crate) fn said(
        author: Option<String>,
        reason: Option<String>,
        address: Option<IpAddr>,
    ) -> Result<Self, CauseError> {
        let reason = reason.as_deref().map(str::trim).unwrap_or_default();
        if !is_line(reason, MAX_REASON) {
            return Err(CauseError::Reason);
        }
        Ok(Self {
            author: Author::said(author)?,
            address,
            reason: reason.to_owned(),
        })
    }

    /// Of somebody whose name is known, or else of who he says he is.
    pub(crate) fn of(
        known: Option<Author>,
        said: Option<String>,
        reason: Option<String>,
        address: Option<IpAddr>,
    ) -> Result<Self, CauseError> {
        let cause = Self::said(said, reason, address)?;
        Ok(match known {
            Some(author) => Self { author, ..cause },
            None => cause,
        })
    }

    /// The control plane itself, for a reason of its own.
    pub(crate) fn larder(reason: impl Into<String>) -> Self {
        Self {
            author: Author::larder(),
            address: None,
            reason: reason.into(),
        }
    }

    /// # Errors
    /// [`CauseError::NoReason`] if nobody said why.
    pub(crate) fn with_a_reason(self) -> Result<Self, CauseError> {
        if self.reason.is_empty() {
            return Err(CauseError::NoReason);
        }
        Ok(self)
    }
}

fn is_line(text: &str, most: usize) -> bool {
    text.len() <= most && !text.chars().any(char::is_control)
}

/// As much of a text as a reason may hold.
pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > MAX_REASON {
        text.truncate(text.floor_char_boundary(MAX_REASON - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_reasons_are_one_bounded_line() {
        let said = |author: &str, reason: &str| {
            Cause::said(Some(author.to_owned()), Some(reason.to_owned()), None)
        };
        let cause = said(" alice ", " launch ").unwrap();
        assert_eq!(cause.author.to_string(), "alice (unverified)");
        assert_eq!(cause.reason, "launch");
        assert_eq!(said("", "").unwrap().author.name, "local");
        assert_eq!(said("", "a\nb"), Err(CauseError::Reason));
        assert_eq!(said("a\u{1b}[31m", ""), Err(CauseError::Author));
        assert_eq!(said("", &"r".repeat(501)), Err(CauseError::Reason));
        assert_eq!(said(&"a".repeat(101), ""), Err(CauseError::Author));
        assert!(said("", " ").unwrap().with_a_reason().is_err());
        // A caller may say that he is the control plane, and is not taken for it.
        assert!(!said("larder", "").unwrap().author.is_verified);
    }

    #[test]
    fn what_is_cut_stays_within_the_bound() {
        let long = shortened("é".repeat(400));
        assert!(long.len() <= MAX_REASON && long.ends_with('…'));
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
