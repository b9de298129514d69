//! Where an entry lies: `cache:{service}:{path}[?{query}][#{variant}]`.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, LazyLock};

use crate::cut;
use crate::percent;
use crate::policy::QueryRule;
use crate::service::{Service, is_service};
use crate::variant::Variant;

/// A key is at most this long, in bytes; a longer one is cut and ends in a hash of the whole.
pub const MAX_KEY_BYTES: usize = 1_024;

/// An endpoint as given is at most this long, in bytes; a longer one is an error.
pub const MAX_ENDPOINT_BYTES: usize = 8_192;

const PREFIX: &str = "cache:";

/// What grew beyond this is given back.
const KEPT_BYTES: usize = 4 << 10;

thread_local! {
    /// Where keys are put together: one is made for each request, and keeps no more of it than it needs.
    static TEXT: Cell<String> = const { Cell::new(String::new()) };
}

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The service's name has a character or a length that it may not have.
    #[error("service name {0:?} is not valid: use 1 to 64 of A-Z a-z 0-9 . _ -")]
    Service(String),
    /// The endpoint is longer than [`MAX_ENDPOINT_BYTES`].
    #[error(
        "the endpoint is {0} bytes long, more than the {MAX_ENDPOINT_BYTES} allowed: shorten it, or move what makes it long into a hash of yours"
    )]
    EndpointTooLong(usize),
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "the endpoint has a % at byte {0} that two hexadecimal digits don't follow: write a literal % as %25"
    )]
    MalformedPercent(usize),
    /// The path has a segment `.` or `..`.
    #[error("the path has a dot segment (. or ..): resolve it before it becomes a key")]
    DotSegment,
    /// `method` and `body` are Larder's own names in a variant.
    #[error("a variant can't use the name {0:?}, which Larder uses itself: choose another name")]
    ReservedName(String),
    /// The text of a whole key does not have the form of one.
    #[error("{0:?} is not a key: a key looks like cache:product-service:/products")]
    NotAKey(String),
    /// The text of a whole key is not what Larder would write for the same parts.
    #[error("{given:?} is not written as Larder writes it: use {normalised:?}")]
    NotNormalised {
        /// The text as it was given.
        given: String,
        /// The key for the same parts.
        normalised: String,
    },
}

pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// 128 bits of a hash, in hexadecimal digits.
pub(crate) fn half_hex(hash: &blake3::Hash) -> String {
    hash.to_hex().as_str()[..32].to_owned()
}

/// The parts of a key, as they stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The service's name.
    pub service: &'a str,
    /// The path, with its `/`.
    pub path: &'a str,
    /// The query without its `?`, if there is one.
    pub query: Option<&'a str>,
    /// The variant without its `#`, if there is one.
    pub variant: Option<&'a str>,
    /// Whether the key was longer than [`MAX_KEY_BYTES`]: then the other parts are a beginning only, but for the
    /// variant's `method`, which stands first and is never cut away.
    pub cut: bool,
}

/// Where an entry lies. Cheap to clone.
///
/// ```
/// use larder_model::Key;
///
/// let key = Key::new("product-service", "products?b=2&a=1")?;
/// assert_eq!(key.as_str(), "cache:product-service:/products?a=1&b=2");
/// # Ok::<(), larder_model::KeyError>(())
/// ```
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
    /// Of the text, by this process's own seed: nobody can choose keys that collide. Reckoned once, since a key is looked
    /// for in several tables.
    hash: u64,
    /// Where the service's name ends; the path begins one byte later.
    service_end: u16,
    path_end: u16,
    query_end: u16,
    /// Where the readable text ends: before the `~` of a cut key, else at the end.
    readable_end: u16,
}

impl Key {
    /// The key of an endpoint (a path, with or without a query) of a service; every query parameter counts.
    ///
    /// # Errors
    /// A [`KeyError`] that says what to change.
    pub fn new(service: &str, endpoint: &str) -> Result<Self, KeyError> {
        let service = Service::new(service)?;
        Self::with(&service, endpoint, &QueryRule::All, &Variant::none())
    }

    /// The key of an endpoint under a rule for its query, and with a variant.
    ///
    /// # Errors
    /// A [`KeyError`] that says what to change.
    pub fn with(
        service: &Service,
        endpoint: &str,
        query_rule: &QueryRule,
        variant: &Variant,
    ) -> Result<Self, KeyError> {
        if endpoint.len() > MAX_ENDPOINT_BYTES {
            return Err(KeyError::EndpointTooLong(endpoint.len()));
        }
        let (path, query) = match endpoint.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (endpoint, None),
        };
        let mut text = TEXT.take();
        text.clear();
        text.push_str(PREFIX);
        text.push_str(service.as_str());
        let service_end = text.len();
        text.push(':');
        push_path(path, &mut text)?;
        let path_end = text.len();
        if let Some(query) = query {
            push_query(query, path.len() + 1, query_rule, &mut text)?;
        }
        let query_end = text.len();
        variant.write(&mut text);
        let key = Self::assemble(&text, [service_end, path_end, query_end], variant);
        if text.capacity() <= KEPT_BYTES {
            TEXT.set(text);
        }
        Ok(key)
    }

    /// Reads the text of a whole key.
    ///
    /// # Errors
    /// [`KeyError::NotAKey`], or [`KeyError::NotNormalised`] if Larder would write these parts in another way.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let not_a_key = || KeyError::NotAKey(shorten(text));
        if text.len() > MAX_KEY_BYTES {
            return Err(not_a_key());
        }
        let rest = text.strip_prefix(PREFIX).ok_or_else(not_a_key)?;
        let (service, _) = rest.split_once(':').ok_or_else(not_a_key)?;
        if !is_service(service) {
            return Err(not_a_key());
        }
        let readable_end = match text.find('~') {
            Some(at) if cut::is_cut(text, at) => at,
            Some(_) => return Err(not_a_key()),
            None => text.len(),
        };
        let service_end = PREFIX.len() + service.len();
        let readable = &text[..readable_end];
        let query_end = readable.find('#').unwrap_or(readable_end);
        let path_end = readable[..query_end].find('?').unwrap_or(query_end);
        let ends = [service_end, path_end, query_end, readable_end];
        if !text[service_end + 1..].starts_with('/') || !readable.is_ascii() {
            return Err(not_a_key());
        }
        let normalised = renormalise(text, ends)?;
        if normalised != text {
            return Err(KeyError::NotNormalised {
                given: shorten(text),
                normalised,
            });
        }
        Ok(Self::from_ends(text.into(), ends))
    }

    fn assemble(text: &str, ends: [usize; 3], variant: &Variant) -> Self {
        let [service_end, path_end, query_end] = ends;
        if text.len() <= MAX_KEY_BYTES {
            let readable_end = text.len();
            return Self::from_ends(
                text.into(),
                [service_end, path_end, query_end, readable_end],
            );
        }
        let cut = cut::cut(text, path_end, query_end, variant);
        Self::from_ends(
            cut.text.into(),
            [service_end, cut.path_end, cut.query_end, cut.readable_end],
        )
    }

    /// `ends` are within [`MAX_KEY_BYTES`], so they fit.
    fn from_ends(text: Arc<str>, ends: [usize; 4]) -> Self {
        let [service_end, path_end, query_end, readable_end] =
            ends.map(|end| u16::try_from(end).unwrap_or(u16::MAX));
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self {
            hash: SEED.hash_one(&*text),
            text,
            service_end,
            path_end,
            query_end,
            readable_end,
        }
    }

    /// The whole key, as it stands in the store.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.text[PREFIX.len()..usize::from(self.service_end)]
    }

    /// The path, with its `/`; of a cut key what is left of it.
    #[inline]
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[usize::from(self.service_end) + 1..usize::from(self.path_end)]
    }

    /// The parts of the key.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        let [path_end, query_end, readable_end] =
            [self.path_end, self.query_end, self.readable_end].map(usize::from);
        Parts {
            service: self.service(),
            path: self.path(),
            query: (query_end > path_end).then(|| &self.text[path_end + 1..query_end]),
            variant: (readable_end > query_end).then(|| &self.text[query_end + 1..readable_end]),
            cut: readable_end < self.text.len(),
        }
    }

    /// Whether all of the path is in the key. What is left of a cut one may look like another route's.
    #[inline]
    #[must_use]
    pub fn is_path_whole(&self) -> bool {
        // Asked of each key at each lookup: seldom is one cut.
        if usize::from(self.readable_end) == self.text.len() {
            return true;
        }
        let parts = self.parts();
        !parts.cut || parts.query.is_some() || !cut::may_be_in_endpoint(parts.variant)
    }

    /// The method that the key is of: `GET` unless its variant names another. Also right of a cut key.
    #[inline]
    #[must_use]
    pub fn method(&self) -> &str {
        // As above: few have a variant.
        if self.query_end == self.readable_end {
            return "GET";
        }
        self.parts()
            .variant
            .into_iter()
            .flat_map(|variant| variant.split('&'))
            .find_map(|pair| pair.strip_prefix("method="))
            .unwrap_or("GET")
    }
}

fn push_path(path: &str, text: &mut String) -> Result<(), KeyError> {
    let begin = text.len();
    if !path.starts_with('/') {
        text.push('/');
    }
    percent::normalise(path, text).map_err(KeyError::MalformedPercent)?;
    let path = &text[begin..];
    let has_dot_first = path.as_bytes().windows(2).any(|two| two == b"/.");
    let is_dot = |segment| matches!(segment, "." | "..");
    if has_dot_first && path.split('/').any(is_dot) {
        return Err(KeyError::DotSegment);
    }
    Ok(())
}

/// `offset` is where the query begins in the endpoint, for the error's sake.
fn push_query(
    query: &str,
    offset: usize,
    rule: &QueryRule,
    text: &mut String,
) -> Result<(), KeyError> {
    let mut normalised = String::with_capacity(query.len());
    percent::normalise(query, &mut normalised)
        .map_err(|at| KeyError::MalformedPercent(offset + at))?;
    let mut parameters: Vec<&str> = normalised
        .split('&')
        .filter(|parameter| rule.includes(parameter_name(parameter)))
        .collect();
    if parameters.is_empty() {
        return Ok(());
    }
    parameters.sort_by_key(|parameter| parameter_name(parameter));
    text.push('?');
    for (index, parameter) in parameters.iter().enumerate() {
        if index > 0 {
            text.push('&');
        }
        text.push_str(parameter);
    }
    Ok(())
}

fn parameter_name(parameter: &str) -> &str {
    parameter
        .split_once('=')
        .map_or(parameter, |(name, _)| name)
}

/// The text that Larder would write for the parts of `text`, which `ends` separate.
fn renormalise(text: &str, ends: [usize; 4]) -> Result<String, KeyError> {
    let [service_end, path_end, query_end, readable_end] = ends;
    let not_a_key = || KeyError::NotAKey(shorten(text));
    let is_cut = readable_end < text.len();
    let variant = (query_end < readable_end).then(|| &text[query_end + 1..readable_end]);
    let mut out = String::with_capacity(text.len());
    out.push_str(&text[..=service_end]);
    push_path(&text[service_end + 1..path_end], &mut out).map_err(|_| not_a_key())?;
    if path_end < query_end {
        let query = &text[path_end + 1..query_end];
        if is_cut && cut::may_be_in_endpoint(variant) {
            // Its last parameter's name may be a beginning, so its place in the order can't be judged.
            out.push('?');
            percent::normalise(query, &mut out).map_err(|_| not_a_key())?;
        } else {
            push_query(query, 0, &QueryRule::All, &mut out).map_err(|_| not_a_key())?;
        }
    }
    if let Some(variant) = variant {
        push_variant(variant, is_cut, &mut out).ok_or_else(not_a_key)?;
    }
    out.push_str(&text[readable_end..]);
    Ok(out)
}

fn push_variant(variant: &str, is_cut: bool, out: &mut String) -> Option<()> {
    let mut pairs = Vec::new();
    for pair in variant.split('&') {
        match pair.split_once('=') {
            Some((name, value)) => pairs.push((name, Some(value))),
            None if is_cut => pairs.push((pair, None)),
            None => return None,
        }
    }
    if !is_cut {
        pairs.sort_by_key(|(name, _)| *name);
    }
    for (index, (name, value)) in pairs.into_iter().enumerate() {
        out.push(if index == 0 { '#' } else { '&' });
        out.push_str(&reencode(name)?);
        if let Some(value) = value {
            out.push('=');
            out.push_str(&reencode(value)?);
        }
    }
    Some(())
}

/// What [`percent::encode_all`] writes for the text that `encoded` stands for.
fn reencode(encoded: &str) -> Option<String> {
    let bytes = encoded.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            decoded.push(percent::decode_hex(bytes.get(at + 1..at + 3)?)?);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    // A variant's values are text, but a cut may have left half a character.
    let mut out = String::with_capacity(encoded.len());
    percent::encode_all(&decoded, &mut out);
    Some(out)
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(service: &str, endpoint: &str) -> String {
        Key::new(service, endpoint).unwrap().as_str().to_owned()
    }

    #[test]
    fn the_keys_of_the_readme() {
        assert_eq!(
            key("product-service", "/products"),
            "cache:product-service:/products"
        );
        assert_eq!(
            key("product-service", "products"),
            "cache:product-service:/products"
        );
        assert_eq!(key("auth-service", "/login"), "cache:auth-service:/login");
    }

    #[test]
    fn a_long_key_is_cut_and_still_distinct() {
        let one = key("svc", &format!("/{}1", "é".repeat(600)));
        let two = key("svc", &format!("/{}2", "é".repeat(600)));
        assert!(one.len() <= MAX_KEY_BYTES);
        assert_ne!(one, two);
        let parsed = Key::parse(&one).unwrap();
        assert!(parsed.parts().cut);
        assert!(parsed.path().starts_with("/%C3%A9"));
    }
}
