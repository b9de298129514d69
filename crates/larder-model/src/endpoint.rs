//! A method and a route template, and how a concrete path finds the most specific one.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::key::MAX_ENDPOINT_BYTES;
use crate::percent;

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The method is not one.
    #[error("{0:?} is not a method: use one such as GET, with 1 to 16 letters")]
    Method(String),
    /// The template is too long.
    #[error("the route template is {0} bytes long, more than the {MAX_ENDPOINT_BYTES} allowed")]
    TooLong(usize),
    /// A `%` is not followed by two hexadecimal digits.
    #[error(
        "the route template has a % that two hexadecimal digits don't follow: write a literal % as %25"
    )]
    MalformedPercent,
    /// The template has a query.
    #[error("a route template has no query: leave out what begins with ?")]
    Query,
    /// The template has a segment `.` or `..`.
    #[error("the route template has a dot segment (. or ..)")]
    DotSegment,
    /// A parameter is not written as one.
    #[error(
        "{0:?} is not a parameter: write {{id}} or :id, and {{*rest}} for all that is left, at the end"
    )]
    Parameter(String),
}

/// A request's method: upper-case letters, at most 16.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method(Arc<str>);

impl Method {
    /// `GET`.
    #[must_use]
    pub fn get() -> Self {
        Self("GET".into())
    }

    /// Reads a method; small letters are made capital.
    ///
    /// # Errors
    /// [`EndpointError::Method`].
    pub fn new(name: &str) -> Result<Self, EndpointError> {
        let is_method = (1..=16).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
        if is_method {
            Ok(Self(name.to_ascii_uppercase().into()))
        } else {
            Err(EndpointError::Method(name.chars().take(40).collect()))
        }
    }

    /// The method's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `GET`.
    #[must_use]
    pub fn is_get(&self) -> bool {
        &*self.0 == "GET"
    }

    /// Whether an answer to this method may be cached at all: `GET` and `HEAD`.
    ///
    /// `OPTIONS` and `TRACE` are safe too (RFC 9110 section 9.2.1), but no answer to them may be cached (sections
    /// 9.3.7 and 9.3.8), so they don't count.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        Self::is_safe_name(&self.0)
    }

    /// [`is_safe`](Method::is_safe) of a method's name; in small letters it is another method.
    #[must_use]
    pub fn is_safe_name(name: &str) -> bool {
        matches!(name, "GET" | "HEAD")
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A method and a route template, such as `/products/{id}`.
///
/// ```
/// use larder_model::Endpoint;
///
/// let endpoint: Endpoint = "/products/:id".parse()?;
/// assert_eq!(endpoint.to_string(), "/products/{id}");
/// let endpoint: Endpoint = "POST /search".parse()?;
/// assert_eq!(endpoint.to_string(), "POST /search");
/// # Ok::<(), larder_model::EndpointError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    method: Method,
    template: Arc<str>,
}

impl Endpoint {
    /// Reads a template for a method.
    ///
    /// # Errors
    /// An [`EndpointError`] that says what to change.
    pub fn new(method: Method, template: &str) -> Result<Self, EndpointError> {
        if template.len() > MAX_ENDPOINT_BYTES {
            return Err(EndpointError::TooLong(template.len()));
        }
        if template.contains('?') {
            return Err(EndpointError::Query);
        }
        let mut out = String::with_capacity(template.len() + 1);
        let mut segments = template
            .strip_prefix('/')
            .unwrap_or(template)
            .split('/')
            .peekable();
        while let Some(segment) = segments.next() {
            out.push('/');
            push_segment(segment, segments.peek().is_none(), &mut out)?;
        }
        Ok(Self {
            method,
            template: out.into(),
        })
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The template, parameters written `{id}`.
    #[must_use]
    pub fn template(&self) -> &str {
        &self.template
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.method.is_get() {
            f.write_str(&self.template)
        } else {
            write!(f, "{} {}", self.method, self.template)
        }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads `/products/{id}` or `POST /search`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(' ') {
            Some((method, template)) => Self::new(Method::new(method)?, template),
            None => Self::new(Method::get(), text),
        }
    }
}

fn push_segment(segment: &str, is_last: bool, out: &mut String) -> Result<(), EndpointError> {
    let bad = || EndpointError::Parameter(segment.chars().take(40).collect());
    let name = segment.strip_prefix(':').or_else(|| {
        segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'))
    });
    let Some(name) = name else {
        if segment.contains(['{', '}']) {
            return Err(bad());
        }
        let begin = out.len();
        percent::normalise(segment, out).map_err(|_| EndpointError::MalformedPercent)?;
        if matches!(&out[begin..], "." | "..") {
            return Err(EndpointError::DotSegment);
        }
        return Ok(());
    };
    let bare = name.strip_prefix('*').unwrap_or(name);
    let is_rest = bare.len() < name.len();
    let is_name = !bare.is_empty()
        && bare
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name || (is_rest && !is_last) {
        return Err(bad());
    }
    out.push('{');
    out.push_str(name);
    out.push('}');
    Ok(())
}

/// Values by endpoint, found by a method and a concrete path: the most specific template wins, segment by segment
/// (itself before `{id}`, before `{*rest}`).
///
/// ```
/// use larder_model::Templates;
///
/// let mut templates = Templates::default();
/// templates.insert(&"/products/{id}".parse()?, "one");
/// templates.insert(&"/products/top".parse()?, "top");
/// assert_eq!(templates.find("GET", "/products/7"), Some(&"one"));
/// assert_eq!(templates.find("GET", "/products/top"), Some(&"top"));
/// assert_eq!(templates.find("POST", "/products/7"), None);
/// # Ok::<(), larder_model::EndpointError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Templates<T> {
    /// Of the method that nearly all requests have.
    get: Node<T>,
    /// Of the others, which are few: to compare them takes less than to hash one.
    others: Vec<(Box<str>, Node<T>)>,
}

#[derive(Debug, Clone)]
struct Node<T> {
    /// Looked up for each request, and filled by whoever sets policies: a hash that is fast, and seeded.
    literals: HashMap<Box<str>, Node<T>, foldhash::fast::RandomState>,
    parameter: Option<Box<Node<T>>>,
    rest: Option<T>,
    here: Option<T>,
}

impl<T> Default for Templates<T> {
    fn default() -> Self {
        Self {
            get: Node::default(),
            others: Vec::new(),
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literals: HashMap::default(),
            parameter: None,
            rest: None,
            here: None,
        }
    }
}

impl<T> Templates<T> {
    /// Sets the value of an endpoint and hands back the one it had. Names of parameters don't count.
    pub fn insert(&mut self, endpoint: &Endpoint, value: T) -> Option<T> {
        let mut node = self.root(endpoint.method.as_str());
        for segment in endpoint.template[1..].split('/') {
            if segment.starts_with("{*") {
                return node.rest.replace(value);
            }
            node = if segment.starts_with('{') {
                node.parameter.get_or_insert_default()
            } else {
                node.literals.entry(segment.into()).or_default()
            };
        }
        node.here.replace(value)
    }

    /// The node of a method, made if there is none.
    fn root(&mut self, method: &str) -> &mut Node<T> {
        if method == "GET" {
            return &mut self.get;
        }
        let known = self.others.iter().position(|(name, _)| **name == *method);
        let at = known.unwrap_or_else(|| {
            self.others.push((method.into(), Node::default()));
            self.others.len() - 1
        });
        &mut self.others[at].1
    }

    /// The value of the most specific template for a normalised path. Visits each template at most once.
    #[must_use]
    pub fn find(&self, method: &str, path: &str) -> Option<&T> {
        let root = match method {
            "GET" => &self.get,
            other => &self.others.iter().find(|(name, _)| **name == *other)?.1,
        };
        root.find(path.strip_prefix('/')?)
    }

    /// Whether there is no endpoint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.get.is_empty() && self.others.is_empty()
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.literals.is_empty()
            && self.parameter.is_none()
            && self.rest.is_none()
            && self.here.is_none()
    }

    fn find(&self, path: &str) -> Option<&T> {
        // Byte by byte: segments are short.
        let (segment, rest) = match path.bytes().position(|byte| byte == b'/') {
            Some(end) => (&path[..end], Some(&path[end + 1..])),
            None => (path, None),
        };
        let literal = self.literals.get(segment);
        let parameter = self.parameter.as_deref().filter(|_| !segment.is_empty());
        for node in literal.into_iter().chain(parameter) {
            let found = match rest {
                Some(rest) => node.find(rest),
                None => node.here.as_ref(),
            };
            if found.is_some() {
                return found;
            }
        }
        self.rest.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    #[test]
    fn both_ways_of_writing_a_parameter_read_the_same() {
        assert_eq!(endpoint("/a/:id/b"), endpoint("a/{id}/b"));
        assert_eq!(endpoint("get /a"), endpoint("/a"));
    }

    #[test]
    fn get_and_head_alone_are_safe() {
        let is_safe = |name: &str| Method::new(name).unwrap().is_safe();
        assert!(is_safe("GET") && is_safe("head"));
        for name in [
            "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "HEADX", "GE",
        ] {
            assert!(!is_safe(name), "{name}");
        }
        assert!(!Method::is_safe_name("get") && !Method::is_safe_name(""));
    }

    #[test]
    fn what_is_no_template_is_an_error() {
        for text in [
            "/a?b=1",
            "/{}",
            "/{a b}",
            "/{*rest}/b",
            "/a{id}",
            "/%zz",
            "/../a",
            "G\u{1b}T /a",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_most_specific_template_wins() {
        let mut templates = Templates::default();
        for text in [
            "/",
            "/p",
            "/p/{id}",
            "/p/{id}/r",
            "/p/top",
            "/{*rest}",
            "/p/{id}/{*rest}",
        ] {
            templates.insert(&endpoint(text), text);
        }
        for (path, expected) in [
            ("/", "/"),
            ("/p", "/p"),
            ("/p/1", "/p/{id}"),
            ("/p/top", "/p/top"),
            ("/p/top/r", "/p/{id}/r"),
            ("/p/1/x/y", "/p/{id}/{*rest}"),
            ("/q", "/{*rest}"),
        ] {
            assert_eq!(templates.find("GET", path), Some(&expected), "{path}");
        }
    }

    #[test]
    fn each_method_has_its_own() {
        for alone in ["/", "/{id}", "/{*rest}", "/a/b", "HEAD /", "POST /{id}"] {
            let mut templates = Templates::default();
            assert!(templates.is_empty());
            assert_eq!(templates.insert(&endpoint(alone), 1), None);
            assert!(!templates.is_empty(), "{alone}");
            assert_eq!(templates.insert(&endpoint(alone), 2), Some(1));
        }
        let mut templates = Templates::default();
        for method in ["HEAD", "POST"] {
            templates.insert(&endpoint(&format!("{method} /a")), method);
        }
        assert_eq!(templates.find("GET", "/a"), None);
        templates.insert(&endpoint("/a"), "GET");
        for method in ["GET", "HEAD", "POST"] {
            assert_eq!(templates.find(method, "/a"), Some(&method));
        }
        assert_eq!(templates.find("PUT", "/a"), None);
    }
}
