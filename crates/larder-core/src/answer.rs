//! What a lookup gives: a value and where it came from, or why there is none.

use std::fmt;
use std::sync::Arc;

use larder_model::Outcome;

/// A value, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The value.
    pub value: T,
    /// Whether the cache had it.
    pub outcome: Outcome,
}

/// Why a load gave no value. Everybody who waited for it gets the same.
#[derive(Debug)]
pub enum LoadError<E> {
    /// The loader's own error.
    Loader(Arc<E>),
    /// The loader panicked, with this message.
    Panicked(Arc<str>),
    /// The load took longer than the policy's `load_timeout`.
    TimedOut,
    /// The value can't be written as JSON, which was asked for.
    NotJson(Arc<str>),
    /// Another load of the same key makes a value, or an error, of another type.
    OtherType,
    /// The runtime that the load ran on ended.
    Abandoned,
}

impl<E> Clone for LoadError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Loader(error) => Self::Loader(Arc::clone(error)),
            Self::Panicked(message) => Self::Panicked(Arc::clone(message)),
            Self::TimedOut => Self::TimedOut,
            Self::NotJson(message) => Self::NotJson(Arc::clone(message)),
            Self::OtherType => Self::OtherType,
            Self::Abandoned => Self::Abandoned,
        }
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loader(error) => error.fmt(f),
            Self::Panicked(message) => write!(f, "the loader panicked: {message}"),
            Self::TimedOut => {
                f.write_str("the load took longer than the policy's load_timeout_seconds")
            }
            Self::NotJson(message) => write!(f, "the loaded value is not JSON: {message}"),
            Self::OtherType => f.write_str(
                "another load of the same key makes a value of another type: use one type per key",
            ),
            Self::Abandoned => f.write_str("the runtime that the load ran on ended"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for LoadError<E> {}
