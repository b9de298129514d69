//! The endpoints that a log's paths are of: route templates, in a bounded number.

use std::collections::HashMap;

use larder_logs::push_template;

/// More than this are not told apart.
const MOST_ENDPOINTS: usize = 10_000;
/// A longer template, in bytes, is not told apart either.
const MOST_TEMPLATE_BYTES: usize = 256;

/// An endpoint, by its place among [`Endpoints`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointId(usize);

impl EndpointId {
    /// All that are not told apart.
    pub(crate) const OTHERS: Self = Self(0);

    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// Route templates that were found, in the order in which they came.
pub(crate) struct Endpoints {
    names: Vec<Box<str>>,
    by_name: HashMap<Box<str>, EndpointId>,
    /// A template that is being looked for.
    template: String,
}

impl Endpoints {
    pub(crate) fn new() -> Self {
        Self {
            names: vec!["(others)".into()],
            by_name: HashMap::new(),
            template: String::new(),
        }
    }

    /// The endpoint of a path.
    pub(crate) fn of_path(&mut self, path: &str) -> EndpointId {
        self.template.clear();
        push_template(path, &mut self.template);
        if let Some(id) = self.by_name.get(self.template.as_str()) {
            return *id;
        }
        if self.names.len() > MOST_ENDPOINTS || self.template.len() > MOST_TEMPLATE_BYTES {
            return EndpointId::OTHERS;
        }
        let id = EndpointId(self.names.len());
        let name: Box<str> = self.template.as_str().into();
        self.names.push(name.clone());
        self.by_name.insert(name, id);
        id
    }

    pub(crate) fn names(&self) -> &[Box<str>] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_templates_take_the_room_of_ten_thousand() {
        let mut endpoints = Endpoints::new();
        let first = endpoints.of_path("/a/1");
        for index in 0..1_000_000 {
            endpoints.of_path(&format!("/page-{index}"));
        }
        assert_eq!(endpoints.names().len(), MOST_ENDPOINTS + 1);
        assert_eq!(endpoints.of_path("/a/2"), first);
        assert_eq!(endpoints.of_path("/new"), EndpointId::OTHERS);
    }

    #[test]
    fn a_long_template_is_among_the_others() {
        let mut endpoints = Endpoints::new();
        let long = format!("/{}", "x".repeat(MOST_TEMPLATE_BYTES));
        assert_eq!(endpoints.of_path(&long), EndpointId::OTHERS);
        assert_ne!(
            endpoints.of_path(&long[..MOST_TEMPLATE_BYTES]),
            EndpointId::OTHERS
        );
    }
}
