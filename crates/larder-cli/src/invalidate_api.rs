//! Invalidating through the control plane: it tells the store and every instance, and says what is pending.

use std::time::Duration;

use anyhow::bail;
use larder::api::{self, InvalidationList, InvalidationState};
use larder::{Service, Settings};
use reqwest::{Method, StatusCode};

use crate::args::{Named, Told};
use crate::history::{when, who};
use crate::output::{Column, Done, Output};
use crate::policy_api::{ControlPlane, checked};

/// An answer may come so much later than it was to wait.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(
    named: Named,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let plane = ControlPlane::of(settings)?;
    let (asked, told) = match named {
        Named::Status { id } => return status(&plane, &id, output).await,
        Named::List { service } => return list(&plane, service.as_ref(), output).await,
        Named::Key { key, told } => {
            let key = Some(key.to_string());
            (
                api::Invalidate {
                    key,
                    ..api::Invalidate::default()
                },
                told,
            )
        }
        Named::Pattern { pattern, told } => {
            let pattern = Some(pattern.to_string());
            (
                api::Invalidate {
                    pattern,
                    ..api::Invalidate::default()
                },
                told,
            )
        }
        Named::Endpoint {
            service,
            endpoint,
            told,
        } => {
            let endpoint = Some(endpoint.template().to_owned());
            (
                api::Invalidate {
                    endpoint,
                    ..of(&service)
                },
                told,
            )
        }
        Named::Tag { service, tag, told } => {
            let tag = Some(tag.to_string());
            (
                api::Invalidate {
                    tag,
                    ..of(&service)
                },
                told,
            )
        }
        Named::Service { service, told } => (of(&service), told),
    };
    let invalidation = plane.invalidate(&with(asked, told)).await?;
    show(&invalidation, output)
}

/// All of a service.
fn of(service: &Service) -> api::Invalidate {
    api::Invalidate {
        service_name: Some(service.to_string()),
        ..api::Invalidate::default()
    }
}

fn with(asked: api::Invalidate, told: Told) -> api::Invalidate {
    api::Invalidate {
        dry_run: told.dry_run,
        id: told.id,
        reason: told.said.reason.clone(),
        author: told.said.author(),
        wait_seconds: Some(told.wait),
        ..asked
    }
}

/// Says what came of it.
///
/// # Errors
/// What is pending, with what comes next.
fn show(invalidation: &api::Invalidation, output: &Output) -> anyhow::Result<Done> {
    if output.is_json() {
        output.json(invalidation)?;
    }
    let says = larder::escape(&invalidation.says);
    let id = larder::escape(&invalidation.id);
    let line = match invalidation.state {
        InvalidationState::DryRun => format!("would: {says}"),
        InvalidationState::Done => format!("done: {says}"),
        InvalidationState::Pending => {
            let why = why(invalidation);
            bail!(
                "pending: {says}{why}. It goes on by itself; `larder invalidate status {id}` says how far it is"
            )
        }
    };
    if !output.is_json() {
        output.line(&line)?;
    }
    Ok(Done::Yes)
}

/// Why each instance that is pending is.
fn why(invalidation: &api::Invalidation) -> String {
    let pending = invalidation.instances.pending.iter().take(3);
    let lines = pending.map(|one| format!(" ({}: {})", one.instance, one.why));
    lines.collect()
}

async fn status(plane: &ControlPlane, id: &str, output: &Output) -> anyhow::Result<Done> {
    match plane.invalidation(id).await? {
        Some(invalidation) => show(&invalidation, output),
        None => {
            output
                .line("there is no such invalidation: larder invalidate list shows the latest")?;
            Ok(Done::NotThere)
        }
    }
}

async fn list(
    plane: &ControlPlane,
    service: Option<&Service>,
    output: &Output,
) -> anyhow::Result<Done> {
    let path = match service {
        Some(service) => format!("/api/invalidations?service={service}"),
        None => "/api/invalidations".to_owned(),
    };
    let list: InvalidationList = plane.get(&path).await?;
    if output.is_json() {
        output.json(&list.invalidations)?;
        return Ok(Done::Yes);
    }
    let row = |one: api::Invalidation| {
        let name = one.name.unwrap_or_else(|| "all of it".to_owned());
        vec![
            one.id,
            when(one.at_seconds),
            one.service_name,
            one.what.to_string(),
            name,
            match one.state {
                InvalidationState::Done => "done".to_owned(),
                _ => "pending".to_owned(),
            },
            who(&one.author, one.author_verified),
            one.reason,
        ]
    };
    let columns = [
        Column::Text("ID"),
        Column::Text("WHEN"),
        Column::Text("SERVICE"),
        Column::Text("WHAT"),
        Column::Text("WHICH"),
        Column::Text("STATE"),
        Column::Text("WHO"),
        Column::Text("WHY"),
    ];
    output.table(&columns, list.invalidations.into_iter().map(row).collect())?;
    Ok(Done::Yes)
}

impl ControlPlane {
    async fn invalidate(&self, asked: &api::Invalidate) -> anyhow::Result<api::Invalidation> {
        let wait = Duration::from_secs_f64(asked.wait_seconds.unwrap_or_default());
        let request = self.request(Method::POST, "/api/invalidate");
        let request = request.timeout(wait + PATIENCE);
        let request = request.body(serde_json::to_vec(asked)?);
        let answer = self.send(request).await?;
        self.read(checked(answer).await?).await
    }

    async fn invalidation(&self, id: &str) -> anyhow::Result<Option<api::Invalidation>> {
        // Every id is written so; what is not is none of them.
        if Service::new(id).is_err() {
            return Ok(None);
        }
        let request = self.request(Method::GET, &format!("/api/invalidations/{id}"));
        let answer = self.send(request).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.read(checked(answer).await?).await.map(Some)
    }
}
