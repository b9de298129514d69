//! Why a lookup does what it does: what is known of a key, and the rule.

use std::time::Duration;

use anyhow::Context as _;
use larder::{
    Endpoint, EntryForm, Explainer, Explanation, FixedGovernor, Frames, Freshness, Key, LookedAt,
    Method, Policy, Service, Settings, StampState,
};
use serde_json::{Value, json};

use crate::entries::open;
use crate::output::{Done, Output, bytes, duration};
use crate::policy_api::ControlPlane;

/// The policy in force, and who says so.
struct InForce {
    policy: Policy,
    said_by: String,
}

pub(crate) async fn run(key: &Key, settings: &Settings, output: &Output) -> anyhow::Result<Done> {
    let in_force = policy(key, settings).await?;
    let store = open(settings).await?;
    let explainer = Explainer {
        store: &*store,
        governor: &FixedGovernor::new(in_force.policy.clone()),
        frames: &Frames::new(settings.seal_keys.clone()),
        outbox: &larder::look_at_outbox(settings, &*store, &Service::from(key)),
    };
    let explained = explainer.explain(key).await?;
    match output.is_json() {
        true => output.json(&document(key, &store.name(), &in_force, &explained))?,
        false => {
            for (name, value) in rows(key, &store.name(), &in_force, &explained) {
                output.line(&format!("{name:<9} {}", larder::escape(&value)))?;
            }
        }
    }
    Ok(Done::Yes)
}

async fn policy(key: &Key, settings: &Settings) -> anyhow::Result<InForce> {
    let Some(url) = &settings.control_plane_url else {
        return Ok(InForce {
            policy: Policy::default(),
            said_by: "the default; a service may have another in its code (no CONTROL_PLANE_URL)"
                .to_owned(),
        });
    };
    let plane = ControlPlane::of(settings)?;
    let endpoint = Endpoint::new(Method::new(key.method())?, key.path())
        .with_context(|| format!("{} is no endpoint", key.path()))?;
    let config = plane.config(&Service::from(key), &endpoint).await?;
    Ok(InForce {
        policy: config.policy()?,
        said_by: format!("{url}: {}", config.reason),
    })
}

fn rows(
    key: &Key,
    store: &str,
    in_force: &InForce,
    explained: &Explanation,
) -> Vec<(&'static str, String)> {
    let rule = explained.rule;
    let mut rows = vec![("key", key.to_string()), ("store", store.to_owned())];
    match &explained.entry {
        None => rows.push(("entry", "there is none".to_owned())),
        Some(entry) => {
            let form = match &entry.form {
                EntryForm::Plain => "plain".to_owned(),
                EntryForm::Framed(framed) => framed_form(framed),
                EntryForm::Unreadable(error) => format!("unreadable: {error}"),
            };
            rows.push(("entry", format!("{form}, {}", bytes(entry.bytes))));
            let left = entry.left.map_or_else(|| "no end".to_owned(), duration);
            match &entry.form {
                EntryForm::Framed(framed) => {
                    let age = framed.age.map_or_else(|| "unknown".to_owned(), duration);
                    rows.push(("age", format!("{age}; {left} left in the store")));
                    rows.push(("freshness", freshness_row(framed)));
                    rows.extend(framed.stamps.iter().map(|(stamp, state)| {
                        ("stamp", format!("{}: {}", stamp.name, state_row(*state)))
                    }));
                    if !framed.is_of_this_life {
                        let why = "its server was restarted or replaced since it was stored";
                        rows.push(("server", why.to_owned()));
                    }
                }
                _ => rows.push(("ttl", format!("{left} left"))),
            }
        }
    }
    let lease = match explained.lease {
        Some(left) => format!("held for {} more, unless it is extended", duration(left)),
        None => "none: nobody loads it".to_owned(),
    };
    rows.push(("lease", lease));
    let pending = match explained.is_pending {
        true => "an invalidation of it waits in a journal of this machine",
        false => "nothing on this machine",
    };
    rows.push(("pending", pending.to_owned()));
    rows.push(("policy", policy_row(&in_force.policy)));
    rows.push(("said by", in_force.said_by.clone()));
    let verdict = format!(
        "{}: {} ({})",
        rule.verdict(),
        rule.sentence(),
        rule.as_str()
    );
    rows.push(("lookup", verdict));
    rows
}

fn framed_form(framed: &LookedAt) -> String {
    let mut form = "framed".to_owned();
    if framed.wrapped.is_packed {
        form.push_str(", packed");
    }
    if framed.wrapped.is_sealed {
        form.push_str(", sealed");
    }
    form
}

fn freshness_row(framed: &LookedAt) -> String {
    let frame = &framed.frame;
    let word = match framed.freshness {
        Some(Freshness::Fresh) => "fresh",
        Some(Freshness::StaleWhileRevalidate) => "stale, may be served while it is loaded anew",
        Some(Freshness::StaleIfError) => "stale, may be served where loading it fails",
        Some(Freshness::Over) => "over",
        None => "unknown: another program changed its life",
    };
    format!(
        "{word} (fresh for {}, then {} while loading, {} on error)",
        duration(frame.fresh),
        duration(frame.stale_while_revalidate),
        duration(frame.stale_if_error)
    )
}

fn state_row(state: StampState) -> &'static str {
    match state {
        StampState::Same => "the same",
        StampState::Renewed => "renewed: invalidated since its load began",
        StampState::OtherLife => "of another life of its server, which may have lost writes",
        StampState::Pending => "to be renewed: pending on this machine",
    }
}

fn policy_row(policy: &Policy) -> String {
    let tags: Vec<&str> = policy.tags().iter().map(larder::Tag::as_str).collect();
    let tags = match tags.is_empty() {
        true => String::new(),
        false => format!(", tags {}", tags.join(" ")),
    };
    format!(
        "{:?}, ttl {}, stale {} while loading, {} on error{tags}",
        policy.mode(),
        duration(policy.ttl()),
        duration(policy.stale_while_revalidate()),
        duration(policy.stale_if_error())
    )
    .to_lowercase()
}

fn document(key: &Key, store: &str, in_force: &InForce, explained: &Explanation) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let (policy, rule) = (&in_force.policy, explained.rule);
    let entry = explained.entry.as_ref().map(|entry| {
        let mut document = json!({
            "bytes": entry.bytes,
            "left_seconds": seconds(entry.left),
        });
        match &entry.form {
            EntryForm::Plain => document["form"] = json!("plain"),
            EntryForm::Unreadable(error) => {
                document["form"] = json!("unreadable");
                document["why"] = json!(error.as_str());
            }
            EntryForm::Framed(framed) => {
                let stamps = framed.stamps.iter().map(|(stamp, state)| {
                    json!({"name": stamp.name.to_string(), "state": state_word(*state)})
                });
                document["form"] = json!("framed");
                document["packed"] = json!(framed.wrapped.is_packed);
                document["sealed"] = json!(framed.wrapped.is_sealed);
                document["age_seconds"] = json!(seconds(framed.age));
                document["fresh_seconds"] = json!(framed.frame.fresh.as_secs_f64());
                document["freshness"] = json!(framed.freshness.map(freshness_word));
                document["of_this_server_life"] = json!(framed.is_of_this_life);
                document["stamps"] = stamps.collect();
            }
        }
        document
    });
    json!({
        "key": key.as_str(),
        "store": store,
        "entry": entry,
        "lease_left_seconds": seconds(explained.lease),
        "pending": explained.is_pending,
        "policy": {
            "mode": policy.mode(),
            "ttl_seconds": policy.ttl().as_secs_f64(),
            "stale_while_revalidate_seconds": policy.stale_while_revalidate().as_secs_f64(),
            "stale_if_error_seconds": policy.stale_if_error().as_secs_f64(),
            "tags": policy.tags(),
            "said_by": in_force.said_by,
        },
        "lookup": rule.verdict(),
        "fills": rule.fills(),
        "rule": rule.as_str(),
        "because": rule.sentence(),
    })
}

fn state_word(state: StampState) -> &'static str {
    match state {
        StampState::Same => "same",
        StampState::Renewed => "renewed",
        StampState::OtherLife => "other_life",
        StampState::Pending => "pending",
    }
}

fn freshness_word(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Fresh => "fresh",
        Freshness::StaleWhileRevalidate => "stale_while_revalidate",
        Freshness::StaleIfError => "stale_if_error",
        Freshness::Over => "over",
    }
}
