//! What is left of a query when all is taken out that the key doesn't name.

use http::Uri;
use larder_core::{Key, QueryRule, Service, Variant};

use super::judge::Verdict;

/// The parameters that the handler may see, as they came and in their order; `None` if that is all of them.
pub(super) fn kept(verdict: &Verdict, uri: &Uri) -> Option<String> {
    let rule = verdict.policy.include_query();
    let query = uri.query()?;
    if !verdict.is_read || *rule == QueryRule::All {
        return None;
    }
    let kept: Vec<&str> = query
        .split('&')
        .filter(|parameter| is_in_key(parameter, rule))
        .collect();
    Some(kept.join("&"))
}

/// Asked of the key itself, so that both always agree on how a name may be written. What can't be in a key isn't.
fn is_in_key(parameter: &str, rule: &QueryRule) -> bool {
    let endpoint = format!("/?{parameter}");
    Key::with(&Service::local(), &endpoint, rule, &Variant::none())
        .is_ok_and(|key| key.parts().query.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_however_it_is_encoded() {
        let rule = QueryRule::Only(vec!["page".into()]);
        for (parameter, expected) in [
            ("page=2", true),
            ("page", true),
            ("p%61ge=2", true),
            ("Page=2", false),
            ("page;x=2", false),
            ("x=page", false),
            ("page%zz", false),
        ] {
            assert_eq!(is_in_key(parameter, &rule), expected, "{parameter}");
        }
    }
}
