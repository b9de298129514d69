//! Which services somebody may see and steer.

use std::collections::BTreeSet;

use larder_model::Service;
use larder_model::api::ALL_SERVICES;

/// No more names are kept of one key or user.
const MOST: usize = 100;

/// The services that a key or a user is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Services {
    /// Also those that come later.
    All,
    These(BTreeSet<String>),
}

/// Why a list of services is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ServicesError {
    #[error("name the services, at most 100 of them, or * alone for all")]
    Names,
    #[error("{0}")]
    Name(String),
}

impl Services {
    pub(crate) fn of_names(names: &[String]) -> Result<Self, ServicesError> {
        if names == [ALL_SERVICES] {
            return Ok(Self::All);
        }
        if names.is_empty() || names.len() > MOST {
            return Err(ServicesError::Names);
        }
        let checked = |name: &String| {
            let service = Service::new(name);
            let service = service.map_err(|error| ServicesError::Name(error.to_string()))?;
            Ok(service.as_str().to_owned())
        };
        names
            .iter()
            .map(checked)
            .collect::<Result<_, _>>()
            .map(Self::These)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::All => vec![ALL_SERVICES.to_owned()],
            Self::These(names) => names.iter().cloned().collect(),
        }
    }

    pub(crate) fn include(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(service),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(names: &[&str]) -> Result<Services, ServicesError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Services::of_names(&names)
    }

    #[test]
    fn a_list_means_what_it_names_and_no_more() {
        let two = read(&["b", "a", "a"]).unwrap();
        assert_eq!(two.names(), ["a", "b"]);
        assert!(two.include("a") && !two.include("A") && !two.include("ab") && !two.include(""));
        let all = read(&["*"]).unwrap();
        assert!(all.include("a") && all.names() == ["*"]);
        for none in [&[][..], &["*", "a"], &["a*"], &["a/b"], &[""]] {
            assert!(read(none).is_err(), "{none:?}");
        }
    }
}
