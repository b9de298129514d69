//! Policies for a limited time: begun, listed, ended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use larder::api::{self, NewOverride};
use larder::{Service, Settings};

use crate::args::{Override, OverrideAdd, Said};
use crate::differences::in_a_line;
use crate::history::{when, who};
use crate::output::{Column, Done, Output, duration};
use crate::policy_api::ControlPlane;

pub(crate) async fn run(
    action: Override,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let plane = ControlPlane::of(settings)?;
    match action {
        Override::Add(add) => begin(&plane, &add, output).await,
        Override::List { service } => list(&plane, service.as_ref(), output).await,
        Override::End { id, said } => end(&plane, &id, &said, output).await,
    }
}

async fn begin(plane: &ControlPlane, add: &OverrideAdd, output: &Output) -> anyhow::Result<Done> {
    let reason = add.said.reason.clone();
    let new = NewOverride {
        service_name: add.endpoint.service.to_string(),
        endpoint: add.endpoint.endpoint.to_string(),
        policy: add.fields.patch(),
        reason: reason.context("say why, for those who find it later: --reason")?,
        author: add.said.author(),
        duration_seconds: add.time.map(|seconds| seconds as f64),
        expires_at_seconds: add.until,
    };
    let over = plane.begin_override(&new, add.replace).await?;
    if output.is_json() {
        output.json(&over)?;
    } else {
        output.line(&format!(
            "{} holds until {}: larder override end {} ends it before",
            name(&over),
            when(over.expires_at_seconds),
            larder::escape(&over.id)
        ))?;
    }
    Ok(Done::Yes)
}

async fn list(
    plane: &ControlPlane,
    service: Option<&Service>,
    output: &Output,
) -> anyhow::Result<Done> {
    let overrides = plane.overrides(service).await?.overrides;
    if output.is_json() {
        output.json(&overrides)?;
        return Ok(Done::Yes);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let mut rows = Vec::with_capacity(overrides.len());
    for over in overrides {
        let left = Duration::from_secs(over.expires_at_seconds).saturating_sub(now);
        rows.push(vec![
            over.id,
            over.service_name,
            over.method,
            over.endpoint,
            in_a_line(&serde_json::to_value(&over.policy)?),
            duration(left),
            who(&over.author, over.author_verified),
            over.reason,
        ]);
    }
    let columns = [
        Column::Text("ID"),
        Column::Text("SERVICE"),
        Column::Text("METHOD"),
        Column::Text("ENDPOINT"),
        Column::Text("POLICY"),
        Column::Number("LEFT"),
        Column::Text("WHO"),
        Column::Text("WHY"),
    ];
    output.table(&columns, rows)?;
    Ok(Done::Yes)
}

async fn end(plane: &ControlPlane, id: &str, said: &Said, output: &Output) -> anyhow::Result<Done> {
    let ended = plane.end_override(id, said).await?;
    if output.is_json() {
        output.json(&serde_json::json!({ "ended": ended }))?;
    } else {
        output.line(&match &ended {
            Some(over) => format!("ended: {}", name(over)),
            None => {
                "there is no such override: larder override list shows those in force".to_owned()
            }
        })?;
    }
    Ok(match ended {
        Some(_) => Done::Yes,
        None => Done::NotThere,
    })
}

/// The endpoint that it is for.
fn name(over: &api::Override) -> String {
    let name = format!("{} {} {}", over.service_name, over.method, over.endpoint);
    larder::escape(&name).into_owned()
}
