//! Every route, by the role that it asks for and the services that it is about. What is not in here is not answered.

use http::Method;

use super::caller::Need;

/// Which services a route is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// None.
    Nothing,
    /// The one that the third part of the path names.
    Path,
    /// Those that the handler finds in what is asked for: it shows and changes only what the caller may see.
    Each,
    /// All of them at once.
    Whole,
}

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) need: Need,
    pub(crate) about: About,
}

/// What is known of a method and a path.
pub(crate) enum Found {
    Entry(Entry),
    /// The path is there for these methods.
    OtherMethods(Vec<&'static str>),
    Nothing,
}

type Routes = &'static [&'static str];

const TABLE: &[(Need, About, Routes)] = &[
    (
        Need::Nothing,
        About::Nothing,
        &[
            "GET /healthz",
            "GET /readyz",
            "GET /ui/assets/{name}",
            "GET /ui/login",
            "POST /ui/login",
        ],
    ),
    (
        Need::Known,
        About::Nothing,
        &["GET /openapi.json", "POST /ui/logout"],
    ),
    (Need::Read, About::Whole, &["GET /metrics"]),
    (
        Need::Config,
        About::Path,
        &[
            "GET /api/config/{service}",
            "GET /api/config/{service}/",
            "GET /api/config/{service}/{*endpoint}",
            "GET /api/invalidated/{service}",
        ],
    ),
    (Need::Follow, About::Path, &["GET /api/stream/{service}"]),
    (
        Need::Report,
        About::Each,
        &[
            "POST /api/signals",
            "POST /api/signals/batch",
            "POST /api/instances",
        ],
    ),
    (
        Need::Read,
        About::Each,
        &[
            "GET /api/services",
            "GET /api/endpoints",
            "GET /api/instances",
            "GET /api/overrides",
            "GET /api/overrides/{id}",
            "GET /api/audit",
            "GET /",
            "GET /ui/overrides",
            "GET /ui/audit",
            "GET /ui/instances",
            "GET /api/invalidations",
            "GET /api/invalidations/{id}",
            "GET /api/entries",
        ],
    ),
    (
        Need::Read,
        About::Path,
        &[
            "GET /api/policies/{service}",
            "GET /api/policies/{service}/",
            "GET /api/policies/{service}/{*endpoint}",
            "GET /api/revisions/{service}",
            "GET /api/revisions/{service}/diff",
            "GET /api/revisions/{service}/{number}",
            "GET /api/rollups/{service}",
            "GET /api/explain/{service}/",
            "GET /api/explain/{service}/{*endpoint}",
            "GET /ui/services/{service}",
            "GET /ui/services/{service}/",
            "GET /ui/services/{service}/{*endpoint}",
            "GET /ui/history/{service}",
            "GET /ui/over-time/{service}",
            "GET /ui/keys/{service}",
            "GET /ui/keys/{service}/entry",
            "GET /api/keys/{service}",
        ],
    ),
    (
        Need::Read,
        About::Nothing,
        &["GET /api/audit/head", "GET /api/events"],
    ),
    (
        Need::Change,
        About::Path,
        &[
            "PUT /api/policies/{service}",
            "PUT /api/policies/{service}/",
            "DELETE /api/policies/{service}/",
            "PUT /api/policies/{service}/{*endpoint}",
            "DELETE /api/policies/{service}/{*endpoint}",
            "POST /api/revisions/{service}/{number}/rollback",
        ],
    ),
    (
        Need::Change,
        About::Each,
        &[
            "POST /api/overrides",
            "DELETE /api/overrides/{id}",
            "POST /api/invalidate",
        ],
    ),
    (
        Need::Admin,
        About::Whole,
        &[
            "GET /api/api-keys",
            "POST /api/api-keys",
            "DELETE /api/api-keys/{id}",
            "GET /api/users",
            "POST /api/users",
            "PUT /api/users/{name}",
            "DELETE /api/users/{name}",
        ],
    ),
];

/// What a route asks for; `path` is its template.
pub(crate) fn find(method: &Method, path: &str) -> Found {
    // What answers GET answers HEAD.
    let method = match *method {
        Method::HEAD => "GET",
        _ => method.as_str(),
    };
    let mut others = Vec::new();
    for (need, about, routes) in TABLE {
        for route in *routes {
            // By its end, before which nothing but the method may be left.
            let takes = route.strip_suffix(path);
            let Some(takes) = takes.and_then(|takes| takes.strip_suffix(' ')) else {
                continue;
            };
            if takes == method {
                return Found::Entry(Entry {
                    need: *need,
                    about: *about,
                });
            }
            others.push(takes);
        }
    }
    match others.is_empty() {
        true => Found::Nothing,
        false => Found::OtherMethods(others),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_it_is_not_found() {
        let is_there = |method, path| matches!(find(&method, path), Found::Entry(_));
        assert!(is_there(Method::HEAD, "/api/services"));
        assert!(!is_there(Method::PUT, "/api/services"));
        assert!(!is_there(Method::GET, "/api/services/"));
        assert!(!is_there(Method::GET, "/api/config/svc"));
        let Found::OtherMethods(methods) = find(&Method::PUT, "/api/overrides/{id}") else {
            panic!("it takes others");
        };
        assert_eq!(methods, ["GET", "DELETE"]);
    }

    #[test]
    fn no_route_is_in_it_twice_and_all_that_changes_asks_for_a_right() {
        let mut seen = std::collections::HashSet::new();
        for (need, about, routes) in TABLE {
            for route in *routes {
                assert!(seen.insert(route), "{route}");
                assert_eq!(
                    *about == About::Path,
                    route.contains("{service}"),
                    "{route}"
                );
                // Who logs in or out is nobody yet, or somebody of any role.
                if !route.starts_with("GET ") && !route.starts_with("POST /ui/log") {
                    let rights = [Need::Report, Need::Change, Need::Admin];
                    assert!(rights.contains(need), "{route}");
                    assert_ne!(*about, About::Nothing, "{route}");
                }
            }
        }
    }
}
