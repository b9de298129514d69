//! Whose entries they are.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::key::{Key, KeyError, shorten};
use crate::pattern::Pattern;

const MAX_SERVICE_BYTES: usize = 64;

/// A service's name: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service(Arc<str>);

impl Service {
    /// Checks a name.
    ///
    /// # Errors
    /// [`KeyError::Service`] if it is empty, too long, or has another character.
    pub fn new(name: &str) -> Result<Self, KeyError> {
        if is_service(name) {
            Ok(Self(name.into()))
        } else {
            Err(KeyError::Service(shorten(name)))
        }
    }

    /// The service of a cache that is not shared: `local`.
    #[must_use]
    pub fn local() -> Self {
        Self("local".into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Key> for Service {
    fn from(key: &Key) -> Self {
        Self(key.service().into())
    }
}

impl From<&Pattern> for Service {
    fn from(pattern: &Pattern) -> Self {
        Self(pattern.service().into())
    }
}

impl Borrow<str> for Service {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Service {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

pub(crate) fn is_service(name: &str) -> bool {
    (1..=MAX_SERVICE_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}
