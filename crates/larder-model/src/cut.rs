//! Keys that would be too long: a readable beginning, the method, and a hash of the whole.

use crate::key::{MAX_KEY_BYTES, half_hex};
use crate::variant::Variant;

/// `~` and 128 bits in hexadecimal digits.
const HASH_BYTES: usize = 1 + 32;
/// What can be read of a cut key is at most this long, in bytes.
const READABLE_BYTES: usize = MAX_KEY_BYTES - HASH_BYTES;
/// A cut moves back at most this far: by two bytes of an encoded one, and by two dots before it.
const MAX_STEP_BACK: usize = 4;

/// A key that was cut.
pub(crate) struct CutKey {
    pub(crate) text: String,
    pub(crate) path_end: usize,
    pub(crate) query_end: usize,
    pub(crate) readable_end: usize,
}

/// Cuts the text of a whole key. Its method stays: a POST without it would be taken for a GET.
pub(crate) fn cut(whole: &str, path_end: usize, query_end: usize, variant: &Variant) -> CutKey {
    let mut method = String::new();
    variant.write_method(&mut method);
    let endpoint_end = endpoint_end(
        whole,
        path_end,
        query_end.min(READABLE_BYTES - method.len()),
    );
    let mut text = whole[..endpoint_end].to_owned();
    if endpoint_end == query_end {
        variant.write_method_first(&mut text);
        text.truncate(before_encoded(&text, READABLE_BYTES));
    } else {
        text.push_str(&method);
    }
    let readable_end = text.len();
    text.push('~');
    text.push_str(&half_hex(&blake3::hash(whole.as_bytes())));
    CutKey {
        text,
        path_end: path_end.min(endpoint_end),
        query_end: endpoint_end,
        readable_end,
    }
}

/// Where to cut the endpoint so that what is left of it is one: not within an encoded byte, nor behind what has become
/// a dot segment.
fn endpoint_end(whole: &str, path_end: usize, room: usize) -> usize {
    let end = before_encoded(whole, room);
    if end > path_end {
        return end;
    }
    let segment = whole[..end].rfind('/').map_or(end, |slash| slash + 1);
    match &whole[segment..end] {
        "." | ".." => segment,
        _ => end,
    }
}

/// The last place up to `end` that is not within an encoded byte.
fn before_encoded(text: &str, end: usize) -> usize {
    let end = end.min(text.len());
    match text[..end].rfind('%') {
        Some(percent) if end - percent < 3 => percent,
        _ => end,
    }
}

/// Whether the `~` at `tilde` stands where a cut puts it, before what can be a hash.
pub(crate) fn is_cut(text: &str, tilde: usize) -> bool {
    let hash = &text.as_bytes()[tilde + 1..];
    hash.len() == HASH_BYTES - 1
        && hash
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && tilde + MAX_STEP_BACK >= READABLE_BYTES
}

/// Whether a key with this variant may have been cut within its endpoint: nothing but the method stands behind that.
pub(crate) fn may_be_in_endpoint(variant: Option<&str>) -> bool {
    variant.is_none_or(|variant| variant.starts_with("method=") && !variant.contains('&'))
}
