//! Sealing by XChaCha20-Poly1305: what it seals can be neither read nor changed, nor moved to another key.
//!
//! ```text
//! 0..8    the name of the key that sealed it
//! 8..32   nonce, random: 192 bits are enough for any number of writers that know nothing of each other
//! 32..    sealed bytes, as many as went in
//! last 16 tag
//! ```
//! The tag also holds all that stands before the sealed bytes (header, stamps, name and nonce), and the entry's key. So
//! nothing of it can be swapped, cut or edited. What can be done by who may write to the store: take an entry away, and put
//! back an older one of the same key.
//!
//! The length of what is sealed is seen, and values are packed before they are sealed: who can put a text of his own into a
//! value, and see how long it becomes, learns whether the rest of the value has the like of that text.

use std::ops::Range;

use chacha20poly1305::{AeadInOut as _, KeyInit as _, Tag, XChaCha20Poly1305, XNonce};

use super::error::{EncodeError, FrameError};
use super::layout::Reader;
use super::sealing_keys::{NAME_BYTES, SealingKey, SealingKeys};

pub(super) const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// By how much sealed bytes are longer.
pub(super) const OVERHEAD_BYTES: usize = NAME_BYTES + NONCE_BYTES + TAG_BYTES;

/// Seals bytes behind the head that stands in `out`.
pub(super) fn seal(
    keys: &SealingKeys,
    entry_key: &str,
    nonce: [u8; NONCE_BYTES],
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let key = keys.first();
    out.extend_from_slice(&key.name);
    out.extend_from_slice(&nonce);
    let associated = associated(out, entry_key);
    let begin = out.len();
    out.extend_from_slice(bytes);
    let sealed = cipher(key).encrypt_inout_detached(
        &XNonce::from(nonce),
        &associated,
        (&mut out[begin..]).into(),
    );
    // It refuses 256 GiB and more.
    let tag = sealed.map_err(|_| EncodeError::TooLarge {
        bytes: bytes.len() as u64,
        limit: u32::MAX.into(),
    })?;
    out.extend_from_slice(&tag);
    Ok(())
}

/// What was sealed as the body of a frame, which stands at `body`.
pub(super) fn open(
    keys: &SealingKeys,
    entry_key: &str,
    frame: &[u8],
    body: Range<usize>,
    max_bytes: usize,
) -> Result<Vec<u8>, FrameError> {
    let head_end = body.start + NAME_BYTES + NONCE_BYTES;
    let mut reader = Reader::new(&frame[body]);
    let name = reader.array().ok_or(FrameError::Malformed)?;
    let nonce: [u8; NONCE_BYTES] = reader.array().ok_or(FrameError::Malformed)?;
    let (sealed, tag) = reader
        .rest()
        .split_last_chunk::<TAG_BYTES>()
        .ok_or(FrameError::Malformed)?;
    let key = keys.find(&name).ok_or(FrameError::OtherKey)?;
    if sealed.len() > max_bytes {
        return Err(FrameError::TooLarge);
    }
    let associated = associated(&frame[..head_end], entry_key);
    let mut opened = sealed.to_vec();
    let is_right = cipher(key).decrypt_inout_detached(
        &XNonce::from(nonce),
        &associated,
        opened.as_mut_slice().into(),
        &Tag::from(*tag),
    );
    match is_right {
        Ok(()) => Ok(opened),
        Err(_) => Err(FrameError::Seal),
    }
}

/// What the tag holds besides the sealed bytes. The head says itself where it ends, so no two pairs make the same bytes.
fn associated(head: &[u8], entry_key: &str) -> Vec<u8> {
    [head, entry_key.as_bytes()].concat()
}

/// Wiped when it is dropped.
fn cipher(key: &SealingKey) -> XChaCha20Poly1305 {
    let secret: &[u8; 32] = &key.secret;
    XChaCha20Poly1305::new(secret.into())
}
