//! Route templates, found in paths: what names one thing among many becomes a parameter.

/// Fewer digits and letters than this are a word, not a hash.
const MIN_HEX: usize = 8;
/// Where a UUID has its hyphens.
const UUID_HYPHENS: [usize; 4] = [8, 13, 18, 23];
const UUID_BYTES: usize = 36;

/// Appends the route template of a path: a segment of digits becomes `{id}`, a UUID `{uuid}`, eight or more hexadecimal
/// digits with at least one of 0 to 9 among them `{hex}`. Takes one look at each byte.
///
/// ```
/// let mut template = String::new();
/// larder_logs::push_template("/users/7/orders/deadbeef01/", &mut template);
/// assert_eq!(template, "/users/{id}/orders/{hex}/");
/// ```
pub fn push_template(path: &str, out: &mut String) {
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        out.push_str(parameter(segment.as_bytes()).unwrap_or(segment));
    }
}

/// The parameter that a segment is a value of, if it looks like one.
fn parameter(segment: &[u8]) -> Option<&'static str> {
    if segment.len() == UUID_BYTES && is_uuid(segment) {
        return Some("{uuid}");
    }
    let mut digits = 0;
    for byte in segment {
        if !byte.is_ascii_hexdigit() {
            return None;
        }
        digits += usize::from(byte.is_ascii_digit());
    }
    match segment.len() {
        0 => None,
        length if digits == length => Some("{id}"),
        length if length >= MIN_HEX && digits > 0 => Some("{hex}"),
        _ => None,
    }
}

fn is_uuid(segment: &[u8]) -> bool {
    segment.iter().enumerate().all(|(at, byte)| {
        if UUID_HYPHENS.contains(&at) {
            *byte == b'-'
        } else {
            byte.is_ascii_hexdigit()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_uuids_and_hashes_are_parameters_and_words_are_not() {
        for (path, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/12", "/a/{id}"),
            ("/a/12/", "/a/{id}/"),
            ("//0//", "//{id}//"),
            ("/a/12a", "/a/12a"),
            ("/a/-12", "/a/-12"),
            ("/deadbeef", "/deadbeef"),
            ("/deadbee0", "/{hex}"),
            ("/c0ffee", "/c0ffee"),
            ("/54fadb412c4e40cdbaed9335e4c35a9e/x", "/{hex}/x"),
            ("/54FADB41-2c4e-40cd-baed-9335e4c35a9e", "/{uuid}"),
            (
                "/54fadb41-2c4e-40cd-baed-9335e4c35a9",
                "/54fadb41-2c4e-40cd-baed-9335e4c35a9",
            ),
            ("/12.gif", "/12.gif"),
            ("/%7Bid%7D", "/%7Bid%7D"),
        ] {
            let mut template = String::new();
            push_template(path, &mut template);
            assert_eq!(template, expected, "{path}");
        }
    }
}
