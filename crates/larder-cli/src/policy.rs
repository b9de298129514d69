//! What is cached, and for how long: shown and changed.

use anyhow::bail;
use larder::api::EndpointConfig;
use larder::{QueryRule, Service, Settings};

use crate::args::{EndpointOf, Policy, PolicyRm, PolicySet};
use crate::output::{Column, Done, Output};
use crate::policy_api::ControlPlane;
use crate::{differences, history, policy_files};

/// How often a change is tried while others change the same policy.
const MOST_TRIES: usize = 10;

pub(crate) async fn run(
    action: Policy,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let plane = ControlPlane::of(settings)?;
    match action {
        Policy::Get(of) => {
            let config = plane.config(&of.service, &of.endpoint).await?;
            show(&config, output)?;
            Ok(Done::Yes)
        }
        Policy::Set(change) => set(&plane, &change, output).await,
        Policy::Rm(rm) => remove(&plane, &rm, output).await,
        Policy::List { service } => list(&plane, service, output).await,
        Policy::Export { service } => policy_files::export(&plane, service, output).await,
        Policy::Apply(apply) => policy_files::apply(&plane, &apply, output).await,
        Policy::History { service, limit } => history::list(&plane, &service, limit, output).await,
        Policy::Diff {
            service,
            revision,
            to,
        } => history::diff(&plane, &service, (revision, to), output).await,
        Policy::Rollback(rollback) => history::rollback(&plane, &rollback, output).await,
    }
}

/// Changes the fields that are given; the others stay as they are, also those that somebody else sets meanwhile.
async fn set(plane: &ControlPlane, change: &PolicySet, output: &Output) -> anyhow::Result<Done> {
    let EndpointOf { service, endpoint } = &change.endpoint;
    for _ in 0..MOST_TRIES {
        let old = plane.policy(service, endpoint).await?;
        let tag = old.as_ref().map(|old| old.tag.as_str());
        let old_policy = old.as_ref().map(|old| old.policy.clone());
        let patch = change.fields.patch().or(old_policy.unwrap_or_default());
        let put = plane.put(service, endpoint, &patch, tag, &change.said);
        if let Some(config) = put.await? {
            show(&config, output)?;
            return Ok(Done::Yes);
        }
    }
    bail!("others keep changing this policy: try again when they are done")
}

async fn remove(plane: &ControlPlane, rm: &PolicyRm, output: &Output) -> anyhow::Result<Done> {
    let of = &rm.endpoint;
    let was_there = plane.delete(&of.service, &of.endpoint, &rm.said).await?;
    if output.is_json() {
        output.json(&serde_json::json!({ "removed": was_there }))?;
    } else if was_there {
        output.line(&format!(
            "removed the policy of {} {}",
            of.service, of.endpoint
        ))?;
    } else {
        output.line(&format!(
            "{} {} has no policy of its own",
            of.service, of.endpoint
        ))?;
    }
    Ok(if was_there { Done::Yes } else { Done::NotThere })
}

fn show(config: &EndpointConfig, output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return output.json(config);
    }
    let query = match &config.include_query {
        QueryRule::All => "all parameters".to_owned(),
        QueryRule::Only(names) if names.is_empty() => "no parameter".to_owned(),
        QueryRule::Only(names) => names.join(", "),
    };
    let tags: Vec<&str> = config.tags.iter().map(larder::Tag::as_str).collect();
    let rows = [
        ("service", config.service_name.clone()),
        ("endpoint", format!("{} {}", config.method, config.endpoint)),
        (
            "cached",
            if config.cache_enabled { "yes" } else { "no" }.to_owned(),
        ),
        ("because", config.reason.clone()),
        ("ttl", format!("{} s", config.ttl_seconds)),
        ("jitter", format!("{}", config.jitter)),
        (
            "stale while revalidate",
            format!("{} s", config.stale_while_revalidate_seconds),
        ),
        (
            "stale if error",
            format!("{} s", config.stale_if_error_seconds),
        ),
        ("negative ttl", format!("{} s", config.negative_ttl_seconds)),
        (
            "soft load timeout",
            format!("{} s", config.soft_load_timeout_seconds),
        ),
        ("load timeout", format!("{} s", config.load_timeout_seconds)),
        ("max value", crate::output::bytes(config.max_value_bytes)),
        ("in the key", query),
        ("vary", config.vary.join(", ")),
        ("tags", tags.join(", ")),
    ];
    for (name, value) in rows {
        output.line(format!("{name:<23} {}", larder::escape(&value)).trim_end())?;
    }
    Ok(())
}

/// The service that was named; else all that the control plane knows.
pub(crate) async fn named_or_all(
    plane: &ControlPlane,
    service: Option<Service>,
) -> anyhow::Result<Vec<Service>> {
    if let Some(service) = service {
        return Ok(vec![service]);
    }
    let all = plane.services().await?.services;
    let names = all.iter().map(|summary| summary.service_name.parse());
    Ok(names.collect::<Result<_, _>>()?)
}

async fn list(
    plane: &ControlPlane,
    service: Option<Service>,
    output: &Output,
) -> anyhow::Result<Done> {
    let mut policies = Vec::new();
    for service in &named_or_all(plane, service).await? {
        policies.extend(plane.policies(service).await?.policies);
    }
    if output.is_json() {
        output.json(&policies)?;
        return Ok(Done::Yes);
    }
    let mut rows = Vec::with_capacity(policies.len());
    for policy in policies {
        let fields = differences::in_a_line(&serde_json::to_value(&policy.policy)?);
        rows.push(vec![
            policy.service_name,
            policy.method,
            policy.endpoint,
            fields,
        ]);
    }
    let columns = [
        Column::Text("SERVICE"),
        Column::Text("METHOD"),
        Column::Text("ENDPOINT"),
        Column::Text("POLICY"),
    ];
    output.table(&columns, rows)?;
    Ok(Done::Yes)
}
