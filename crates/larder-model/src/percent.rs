//! Percent-encoding, normalised as RFC 3986 sections 6.2.2.1 and 6.2.2.2 say, and made safe for a key.

/// Unreserved in RFC 3986 section 2.3, without `~`: in a key `~` only ever marks a cut.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// What may not stand in a key as itself: controls, space, bytes outside ASCII, and what a glob, a hash tag, a
/// variant or a cut would be taken for.
fn must_encode(byte: u8) -> bool {
    byte <= 0x20
        || byte >= 0x7f
        || matches!(byte, b'*' | b'[' | b']' | b'{' | b'}' | b'#' | b'\\' | b'~')
}

fn push_encoded(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(HEX[usize::from(byte >> 4)] as char);
    out.push(HEX[usize::from(byte & 15)] as char);
}

/// Two hexadecimal digits as a byte.
pub(crate) fn decode_hex(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let high = (*high as char).to_digit(16)?;
    let low = (*low as char).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

/// Normalises a path or a query: upper-case digits, unreserved characters decoded, unsafe ones encoded.
///
/// The error is where a `%` stands that two hexadecimal digits don't follow.
pub(crate) fn normalise(text: &str, out: &mut String) -> Result<(), usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let digits = bytes.get(at + 1..at + 3).ok_or(at)?;
            let decoded = decode_hex(digits).ok_or(at)?;
            if is_unreserved(decoded) {
                out.push(decoded as char);
            } else {
                push_encoded(out, decoded);
            }
            at += 3;
            continue;
        }
        if must_encode(byte) {
            push_encoded(out, byte);
        } else {
            out.push(byte as char);
        }
        at += 1;
    }
    Ok(())
}

/// Encodes anything, so that only unreserved characters and `%XX` are left.
pub(crate) fn encode_all(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        if is_unreserved(byte) {
            out.push(byte as char);
        } else {
            push_encoded(out, byte);
        }
    }
}
