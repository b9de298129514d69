//! What is left of a query when all is taken out that the key doesn't name.

use larder_core::{Key, QueryRule, Service, Variant};

/// The parameters that the handler may see, as they came and in their order; `None` if that is all of them.
pub(super) fn kept(query: &str, rule: &QueryRule) -> Option<String> {
    if *rule == QueryRule::All {
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

    #[test]
    fn a_name_that_the_policy_writes_in_another_way_is_kept() {
        let names = ["ids[]", "%c3%a9"].map(str::to_owned).to_vec();
        let patch = larder_core::PolicyPatch {
            include_query: Some(QueryRule::Only(names)),
            ..larder_core::PolicyPatch::default()
        };
        let policy = patch.apply(&larder_core::Policy::default()).unwrap();
        let query = "ids[]=1&utm=x&ids%5b%5d=2&%C3%A9=3";
        assert_eq!(
            kept(query, policy.include_query()).unwrap(),
            "ids[]=1&ids%5b%5d=2&%C3%A9=3"
        );
    }
}
