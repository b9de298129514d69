//! The value of an entry, as bytes.

use bytes::Bytes;

/// The value of an entry in whichever form, not decoded yet.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) bytes: Bytes,
    /// Whether a program other than Larder could have written it.
    pub(crate) is_foreign: bool,
}
