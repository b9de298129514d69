//! Policies as a file that can live in a repository: printed, compared, applied.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, bail};
use larder::Service;
use larder::api::{
    EndpointPolicy, POLICY_FILE, PolicyDocument, PolicyFile, PolicyReplacement, ServicePolicies,
};

use crate::args::Apply;
use crate::history;
use crate::history_api::Doing;
use crate::output::{Done, Output};
use crate::policy::named_or_all;
use crate::policy_api::ControlPlane;

/// No file is larger, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Prints the policies of services, as [`apply`] takes them.
pub(crate) async fn export(
    plane: &ControlPlane,
    service: Option<Service>,
    output: &Output,
) -> anyhow::Result<Done> {
    let is_named = service.is_some();
    let mut services = Vec::new();
    for service in named_or_all(plane, service).await? {
        let policies = plane.policies(&service).await?.policies;
        // One that was only measured has none to be kept.
        if is_named || !policies.is_empty() {
            services.push(ServicePolicies {
                service_name: service.to_string(),
                policies: policies.into_iter().map(exported).collect(),
            });
        }
    }
    output.json(&PolicyFile {
        larder_policies: POLICY_FILE,
        services,
    })?;
    Ok(Done::Yes)
}

fn exported(document: PolicyDocument) -> EndpointPolicy {
    let endpoint = match document.method.as_str() {
        "GET" => document.endpoint,
        method => format!("{method} {}", document.endpoint),
    };
    EndpointPolicy {
        endpoint,
        policy: document.policy,
    }
}

/// Gives the services of a file their policies. All of them are tried before the first is changed, and each changes only if
/// its policies are still those that were compared.
pub(crate) async fn apply(
    plane: &ControlPlane,
    apply: &Apply,
    output: &Output,
) -> anyhow::Result<Done> {
    let file = read(&apply.file)?;
    let mut tried = Vec::with_capacity(file.len());
    for (service, policies) in file {
        let body = PolicyReplacement {
            policies,
            reason: apply.said.reason.clone(),
            author: apply.said.author(),
        };
        let trying = plane.replace(&service, &body, Doing::Trying).await;
        let (replaced, tag) = trying.with_context(|| service.to_string())?;
        tried.push((service, body, replaced, tag));
    }
    let mut all = Vec::with_capacity(tried.len());
    for (service, body, mut replaced, tag) in tried {
        if !apply.dry_run {
            let done = plane.replace(&service, &body, Doing::If(&tag)).await;
            (replaced, _) = done.with_context(|| service.to_string())?;
        }
        if !output.is_json() {
            history::show(&replaced, output)?;
        }
        all.push(replaced);
    }
    if output.is_json() {
        output.json(&all)?;
    }
    Ok(Done::Yes)
}

fn read(path: &Path) -> anyhow::Result<Vec<(Service, Vec<EndpointPolicy>)>> {
    let name = larder::escape(&path.to_string_lossy()).into_owned();
    let text = text(path).with_context(|| format!("can't read {name}"))?;
    let file: PolicyFile = serde_json::from_slice(&text).with_context(|| {
        format!("{name} is no file of policies: `larder policy export` prints one")
    })?;
    if file.larder_policies != POLICY_FILE {
        bail!(
            "{name} has the form {}, and this version reads {POLICY_FILE}: use the larder that wrote it",
            file.larder_policies
        );
    }
    let mut seen = HashSet::new();
    let mut services = Vec::with_capacity(file.services.len());
    for of in file.services {
        let service: Service = of.service_name.parse().with_context(|| name.clone())?;
        if !seen.insert(service.clone()) {
            bail!("{name} has {service} twice: put its policies together");
        }
        services.push((service, of.policies));
    }
    Ok(services)
}

fn text(path: &Path) -> anyhow::Result<Vec<u8>> {
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path)?)
    };
    let mut text = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("it is larger than 16 MiB: put the services into several files");
    }
    Ok(text)
}
