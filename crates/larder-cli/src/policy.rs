//! What is cached, and for how long: shown and changed.

use anyhow::bail;
use larder::api::EndpointConfig;
use larder::{PolicyPatch, QueryRule, Settings};

use crate::args::{EndpointOf, Policy, PolicySet};
use crate::output::{Column, Done, Output};
use crate::policy_api::ControlPlane;

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
        Policy::Rm(of) => remove(&plane, &of, output).await,
        Policy::List { service } => list(&plane, service, output).await,
    }
}

/// Changes the fields that are given; the others stay as they are, also those that somebody else sets meanwhile.
async fn set(plane: &ControlPlane, change: &PolicySet, output: &Output) -> anyhow::Result<Done> {
    let EndpointOf { service, endpoint } = &change.endpoint;
    for _ in 0..MOST_TRIES {
        let old = plane.policy(service, endpoint).await?;
        let tag = old.as_ref().map(|old| old.tag.as_str());
        let old_policy = old.as_ref().map(|old| old.policy.clone());
        let patch = changed(old_policy.unwrap_or_default(), change);
        if let Some(config) = plane.put(service, endpoint, &patch, tag).await? {
            show(&config, output)?;
            return Ok(Done::Yes);
        }
    }
    bail!("others keep changing this policy: try again when they are done")
}

fn changed(old: PolicyPatch, change: &PolicySet) -> PolicyPatch {
    let names = |list: &String| -> Vec<String> {
        let names = list.split(',').map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    PolicyPatch {
        mode: change.mode.or(old.mode),
        ttl_seconds: change.ttl.or(old.ttl_seconds),
        min_ttl_seconds: change.min_ttl.or(old.min_ttl_seconds),
        max_ttl_seconds: change.max_ttl.or(old.max_ttl_seconds),
        staleness_budget: change.staleness_budget.or(old.staleness_budget),
        jitter: change.jitter.or(old.jitter),
        stale_while_revalidate_seconds: change
            .stale_while_revalidate
            .or(old.stale_while_revalidate_seconds),
        stale_if_error_seconds: change.stale_if_error.or(old.stale_if_error_seconds),
        negative_ttl_seconds: change.negative_ttl.or(old.negative_ttl_seconds),
        soft_load_timeout_seconds: change.soft_load_timeout.or(old.soft_load_timeout_seconds),
        load_timeout_seconds: change.load_timeout.or(old.load_timeout_seconds),
        max_value_bytes: change.max_value_bytes.or(old.max_value_bytes),
        include_query: change
            .include_query
            .as_ref()
            .map(|list| QueryRule::Only(names(list)))
            .or(old.include_query),
        vary: change.vary.as_ref().map(names).or(old.vary),
        tags: change.tags.as_ref().map(|tags| tags.0.clone()).or(old.tags),
    }
}

async fn remove(plane: &ControlPlane, of: &EndpointOf, output: &Output) -> anyhow::Result<Done> {
    let was_there = plane.delete(&of.service, &of.endpoint).await?;
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

async fn list(
    plane: &ControlPlane,
    service: Option<larder::Service>,
    output: &Output,
) -> anyhow::Result<Done> {
    let services = match service {
        Some(service) => vec![service],
        None => {
            let all = plane.services().await?.services;
            let names = all.iter().map(|summary| summary.service_name.parse());
            names.collect::<Result<_, _>>()?
        }
    };
    let mut policies = Vec::new();
    for service in &services {
        policies.extend(plane.policies(service).await?.policies);
    }
    if output.is_json() {
        output.json(&policies)?;
        return Ok(Done::Yes);
    }
    let mut rows = Vec::with_capacity(policies.len());
    for policy in policies {
        let fields = serde_json::to_value(&policy.policy)?;
        let fields = fields.as_object().cloned().unwrap_or_default();
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        rows.push(vec![
            policy.service_name,
            policy.method,
            policy.endpoint,
            fields.join(" "),
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
