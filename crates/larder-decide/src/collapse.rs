//! The route template that a path seems to belong to, where nobody said.

use std::borrow::Cow;

/// Paths are judged no deeper: what comes after is one `{*rest}`.
const MAX_SEGMENTS: usize = 8;

/// The path with every segment that looks like an identifier (a number, a UUID, a long hexadecimal text) written
/// `{id}`, so that the paths of one route count together. The path is normalised, as in a key.
///
/// ```
/// assert_eq!(larder_decide::collapse("/products/7/reviews"), "/products/{id}/reviews");
/// assert_eq!(larder_decide::collapse("/products/top"), "/products/top");
/// ```
#[must_use]
pub fn collapse(path: &str) -> Cow<'_, str> {
    let segments = path.bytes().filter(|byte| *byte == b'/').count();
    let is_deep = segments > MAX_SEGMENTS;
    // Every identifier has a digit: most paths need no look at each segment.
    let has_digits = path.bytes().any(|byte| byte.is_ascii_digit());
    let has_identifiers = has_digits && path.split('/').skip(1).any(is_identifier);
    if !is_deep && !has_identifiers {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/').skip(1).take(MAX_SEGMENTS) {
        out.push('/');
        out.push_str(if is_identifier(segment) {
            "{id}"
        } else {
            segment
        });
    }
    if is_deep {
        out.push_str("/{*rest}");
    }
    Cow::Owned(out)
}

fn is_identifier(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 {
        return false;
    }
    let is_number = digits == segment.len();
    let is_uuid_or_hash = segment.len() >= 8
        && segment
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_number || is_uuid_or_hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_become_a_parameter() {
        for (path, template) in [
            ("/", "/"),
            ("/p/12", "/p/{id}"),
            ("/p/6fa459ea-ee8a-3ca4-894e-db77e160355e/x", "/p/{id}/x"),
            ("/p/deadbeef01", "/p/{id}"),
            ("/v2/feedback", "/v2/feedback"),
            ("/p/", "/p/"),
            (
                "/1/2/3/4/5/6/7/8/9/a",
                "/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{*rest}",
            ),
        ] {
            assert_eq!(collapse(path), template, "{path}");
        }
    }
}
