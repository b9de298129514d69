//! What a revision keeps of a service, and what differs between two of them.

use std::collections::BTreeMap;

use larder_model::Endpoint;
use larder_model::api::{
    Action, DecisionState, Difference, EndpointPolicy, Kind, OverrideState, ServiceState,
};
use ring::digest;
use serde_json::Value;

use crate::cause::{Cause, shortened};
use crate::database::{NewRevision, shape};
use crate::hex;
use crate::stored::{StoredService, identity};

/// All that is set, overridden and decided.
pub(super) fn state(stored: &StoredService) -> ServiceState {
    let policies = stored.policies.values().map(|policy| EndpointPolicy {
        endpoint: policy.endpoint.to_string(),
        policy: policy.patch.clone(),
    });
    let overrides = stored.overrides.values().map(|over| OverrideState {
        endpoint: over.endpoint.to_string(),
        id: over.id.clone(),
        policy: over.patch.clone(),
        expires_at_seconds: over.expiry.at_seconds(),
    });
    // Without a policy nothing is decided.
    let decisions = stored.policies.iter().filter_map(|(key, policy)| {
        let decision = stored.decisions.get(key)?;
        Some(DecisionState {
            endpoint: policy.endpoint.to_string(),
            cache_enabled: decision.cache_enabled,
            ttl_seconds: decision.ttl.as_secs_f64(),
            key_share: decision.watch.key_share,
            check_share: decision.watch.check_share,
            reason: decision.reason.clone(),
        })
    });
    ServiceState {
        policies: policies.collect(),
        overrides: overrides.collect(),
        decisions: decisions.collect(),
    }
}

/// The revision that a change makes.
pub(super) fn revision(stored: &StoredService, action: Action, cause: &Cause) -> NewRevision {
    let snapshot = crate::json::text(&state(stored));
    let sha256 = digest::digest(&digest::SHA256, snapshot.as_bytes());
    NewRevision {
        number: stored.version,
        at_seconds: crate::auto::now().as_secs(),
        action,
        author: cause.author.clone(),
        reason: shortened(cause.reason.clone()),
        sha256: hex::encode(sha256.as_ref()),
        snapshot,
    }
}

/// What differs from one state to another, by kind, method and template.
pub(crate) fn differences(before: &ServiceState, after: &ServiceState) -> Vec<Difference> {
    let policies = compared(
        Kind::Policy,
        before.policies.iter().map(|one| (&*one.endpoint, one)),
        after.policies.iter().map(|one| (&*one.endpoint, one)),
        |one| value(&one.policy),
    );
    let overrides = compared(
        Kind::Override,
        before.overrides.iter().map(|one| (&*one.endpoint, one)),
        after.overrides.iter().map(|one| (&*one.endpoint, one)),
        |one| {
            let mut fields = value(&one.policy);
            fields["expires_at_seconds"] = one.expires_at_seconds.into();
            fields
        },
    );
    let decisions = compared(
        Kind::Decision,
        before.decisions.iter().map(|one| (&*one.endpoint, one)),
        after.decisions.iter().map(|one| (&*one.endpoint, one)),
        |one| {
            let mut fields = value(one);
            if let Some(fields) = fields.as_object_mut() {
                fields.remove("endpoint");
            }
            fields
        },
    );
    [policies, overrides, decisions].concat()
}

fn compared<'a, T: PartialEq + 'a>(
    kind: Kind,
    before: impl Iterator<Item = (&'a str, &'a T)>,
    after: impl Iterator<Item = (&'a str, &'a T)>,
    fields: impl Fn(&T) -> Value,
) -> Vec<Difference> {
    let mut all: BTreeMap<_, (&str, Option<&T>, Option<&T>)> = BTreeMap::new();
    for (endpoint, one) in before {
        all.insert(key(endpoint), (endpoint, Some(one), None));
    }
    for (endpoint, one) in after {
        let both = all.entry(key(endpoint)).or_insert((endpoint, None, None));
        (both.0, both.2) = (endpoint, Some(one));
    }
    let changed = all
        .into_values()
        .filter(|(_, before, after)| before != after);
    let described = changed.map(|(endpoint, before, after)| Difference {
        kind,
        endpoint: endpoint.to_owned(),
        before: before.map(&fields),
        after: after.map(&fields),
    });
    described.collect()
}

/// By template, then method, whatever the names of parameters. What is no endpoint any more is itself.
fn key(endpoint: &str) -> (String, String) {
    match endpoint.parse::<Endpoint>() {
        Ok(endpoint) => {
            let (method, _) = identity(&endpoint);
            (shape(&endpoint), method)
        }
        Err(_) => (endpoint.to_owned(), String::new()),
    }
}

fn value(document: &impl serde::Serialize) -> Value {
    serde_json::to_value(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use larder_model::PolicyPatch;
    use serde_json::json;

    use super::*;

    fn state_of(policies: &[(&str, f64)]) -> ServiceState {
        let policy = |(endpoint, ttl): &(&str, f64)| EndpointPolicy {
            endpoint: (*endpoint).to_owned(),
            policy: PolicyPatch {
                ttl_seconds: Some(*ttl),
                ..PolicyPatch::default()
            },
        };
        ServiceState {
            policies: policies.iter().map(policy).collect(),
            ..ServiceState::default()
        }
    }

    #[test]
    fn what_was_added_removed_and_changed_is_told_and_nothing_else() {
        let before = state_of(&[
            ("/same", 1.0),
            ("/gone", 2.0),
            ("/a/{id}", 3.0),
            ("POST /same", 9.0),
        ]);
        let after = state_of(&[
            ("/same", 1.0),
            ("/a/{id}", 4.0),
            ("/new", 5.0),
            ("POST /same", 9.0),
        ]);
        let all: Vec<_> = differences(&before, &after)
            .into_iter()
            .map(|one| (one.endpoint, one.before, one.after))
            .collect();
        let fields = |ttl: u64| Some(json!({ "ttl_seconds": ttl }));
        assert_eq!(
            all,
            [
                ("/a/{id}".to_owned(), fields(3), fields(4)),
                ("/gone".to_owned(), fields(2), None),
                ("/new".to_owned(), None, fields(5)),
            ]
        );
        assert!(differences(&after, &after).is_empty());
    }

    #[test]
    fn another_name_of_a_parameter_is_one_change() {
        let renamed = differences(
            &state_of(&[("/a/{id}", 3.0)]),
            &state_of(&[("/a/{name}", 3.0)]),
        );
        assert_eq!(renamed.len(), 1);
        assert_eq!(renamed[0].endpoint, "/a/{name}");
    }
}
