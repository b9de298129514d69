//! The framed form of entries: what a value needs beside it to be served stale, to be invalidated by its tags, to be
//! packed and to be sealed. `docs/entries.md` describes it byte by byte.
//!
//! A frame holds durations and never a time: its age is what its whole life was, less what the store says is left of it.

mod codec;
mod compression;
mod error;
mod layout;
mod life;
mod sealing;
mod sealing_keys;
mod stamps;
mod wrapped;

use std::time::Duration;

use bytes::Bytes;

use crate::version::Stamp;

pub use codec::Frames;
pub use error::{EncodeError, FrameError};
pub use life::Freshness;
pub use sealing_keys::{SealingKeys, SealingKeysError};
pub use stamps::MAX_STAMPS;
pub use wrapped::Wrapped;

/// An entry in the framed form.
///
/// Durations go to the store in whole milliseconds, rounded down, and at most [`larder_model::MAX_DURATION`] of them; the
/// load's cost in microseconds, at most 71 minutes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Random: which fill this is, so that a later one is known to be another.
    pub id: u64,
    /// The life of the server that took it, see [`crate::Version::incarnation`]: it is dead in any other.
    pub incarnation: u64,
    /// Its whole life: the time to live that it was given in the store.
    pub total: Duration,
    /// How long it is fresh.
    pub fresh: Duration,
    /// How long past that it may be served while it is loaded anew.
    pub stale_while_revalidate: Duration,
    /// How long past being fresh it may be served where loading it anew fails.
    pub stale_if_error: Duration,
    /// How long the load took that made it.
    pub load_cost: Duration,
    /// What it depends on; at most [`MAX_STAMPS`].
    pub stamps: Vec<Stamp>,
    /// What the payload is.
    pub content: Content,
    /// The value.
    pub payload: Bytes,
}

/// Whether bytes begin as a frame does, and as no JSON text can.
///
/// ```
/// assert!(larder_core::is_framed(&[0xC1, 1]) && !larder_core::is_framed(b"{}"));
/// ```
#[inline]
pub fn is_framed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&layout::MAGIC)
}

/// What the payload of a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Content {
    /// A JSON text, which Larder wrote.
    Json,
    /// An HTTP response: its status, header and body.
    Http,
}

#[cfg(test)]
pub(crate) mod samples {
    //! Frames for the tests of this module.

    use std::time::Duration;

    use bytes::Bytes;
    use larder_model::{Key, Tag};

    use super::{Content, Frame};
    use crate::version::{Stamp, Version, VersionName};

    pub(crate) fn key() -> Key {
        Key::new("svc", "/products").unwrap()
    }

    pub(crate) fn frame(payload: impl Into<Bytes>) -> Frame {
        let stamp = |name, value| Stamp {
            name,
            version: Version {
                value,
                incarnation: 0x1111_2222_3333_4444,
            },
        };
        Frame {
            id: 0x0123_4567_89ab_cdef,
            incarnation: 0xfeed_beef_feed_beef,
            total: Duration::from_secs(900),
            fresh: Duration::from_secs(300),
            stale_while_revalidate: Duration::from_secs(60),
            stale_if_error: Duration::from_secs(600),
            load_cost: Duration::from_micros(812_345),
            stamps: vec![
                stamp(VersionName::Service, 1 << 100),
                stamp(VersionName::of_endpoint("/products"), 2),
                stamp(VersionName::Tag(Tag::new("product:17").unwrap()), u128::MAX),
            ],
            content: Content::Json,
            payload: payload.into(),
        }
    }

    /// JSON that packs well.
    pub(crate) fn products(count: usize) -> Vec<u8> {
        let product = |id| {
            format!(
                r#"{{"id":{id},"name":"Laptop {id}","price":{}.99}}"#,
                id * 7
            )
        };
        let all: Vec<String> = (0..count).map(product).collect();
        format!("[{}]", all.join(",")).into_bytes()
    }
}
