//! Which paths are replayed.

use std::str::FromStr;

use larder_core::{Endpoint, Key, Pattern, Templates};

use crate::replay::SERVICE;

/// Paths that are meant: by a glob, or by a route template.
#[derive(Debug, Clone)]
pub(crate) enum Include {
    Glob(Pattern),
    Template(Endpoint),
}

impl FromStr for Include {
    type Err = String;

    /// What has a `{` is a route template, all else a glob: a path has no brace, a key neither.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('{') {
            let endpoint: Endpoint = text
                .parse()
                .map_err(|error: larder_core::EndpointError| error.to_string())?;
            return match endpoint.method().is_get() {
                true => Ok(Self::Template(endpoint)),
                false => Err("only GETs are replayed: leave the method out".to_owned()),
            };
        }
        let pattern = Pattern::parse(&format!("cache:{SERVICE}:{text}"));
        pattern.map(Self::Glob).map_err(|error| error.to_string())
    }
}

/// All that is meant; everything, if nothing was said.
pub(crate) struct Included {
    globs: Vec<Pattern>,
    templates: Templates<()>,
}

impl Included {
    pub(crate) fn new(includes: Vec<Include>) -> Self {
        let mut included = Self {
            globs: Vec::new(),
            templates: Templates::default(),
        };
        for include in includes {
            match include {
                Include::Glob(pattern) => included.globs.push(pattern),
                Include::Template(endpoint) => {
                    included.templates.insert(&endpoint, ());
                }
            }
        }
        included
    }

    /// Whether a key's path is meant. Its query doesn't count.
    pub(crate) fn means(&self, key: &Key) -> bool {
        if self.globs.is_empty() && self.templates.is_empty() {
            return true;
        }
        let path = key.path();
        let path_end = "cache:".len() + SERVICE.len() + ":".len() + path.len();
        let until_query = &key.as_str()[..path_end];
        self.globs.iter().any(|glob| glob.matches(until_query))
            || self.templates.find("GET", path).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(includes: &[&str], target: &str) -> bool {
        let includes = includes.iter().map(|text| text.parse().unwrap()).collect();
        Included::new(includes).means(&Key::new(SERVICE, target).unwrap())
    }

    #[test]
    fn globs_and_templates_mean_paths() {
        assert!(means(&[], "/a?b"));
        assert!(means(&["/products*"], "/products/1?a=1"));
        assert!(means(&["/products"], "/products?a=1"));
        assert!(!means(&["/products"], "/products/1"));
        assert!(means(&["/products/{id}"], "/products/1?a=/b"));
        assert!(!means(&["/products/{id}"], "/products/1/reviews"));
        assert!(means(&["*.gif", "/a/{*rest}"], "/a/b/c"));
        assert!(means(&["*.gif", "/a/{*rest}"], "/x.gif"));
    }

    #[test]
    fn what_means_nothing_is_an_error() {
        for text in ["POST /a/{id}", "/a/{id", "\u{1b}"] {
            assert!(text.parse::<Include>().is_err(), "{text}");
        }
    }
}
