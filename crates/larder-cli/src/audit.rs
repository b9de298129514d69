//! Who did what at the control plane, and whether somebody changed that.

use larder::Settings;
use larder::api::{AuditEntry, AuditHead};
use larder_control::VerifyError;
use serde_json::json;

use crate::args::Audit;
use crate::control;
use crate::history::{when, who};
use crate::output::{Column, Done, Output};
use crate::policy_api::ControlPlane;

pub(crate) async fn run(
    action: Audit,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    match action {
        Audit::List { service, limit } => {
            let plane = ControlPlane::of(settings)?;
            let entries = plane.audit(service.as_ref(), limit).await?.entries;
            list(entries, output)
        }
        Audit::Head => {
            let head = ControlPlane::of(settings)?.audit_head().await?;
            if output.is_json() {
                output.json(&head)?;
            } else {
                output.line(&larder::escape(&head.to_string()))?;
            }
            Ok(Done::Yes)
        }
        Audit::Verify { head } => verify(head.as_ref(), settings, output).await,
    }
}

fn list(entries: Vec<AuditEntry>, output: &Output) -> anyhow::Result<Done> {
    if output.is_json() {
        output.json(&entries)?;
        return Ok(Done::Yes);
    }
    let row = |entry: AuditEntry| {
        let service = entry.service_name.unwrap_or_default();
        let target = entry.target.unwrap_or_default();
        vec![
            entry.sequence.to_string(),
            when(entry.at_seconds),
            entry.action.replace('_', " "),
            format!("{service} {target}").trim().to_owned(),
            who(&entry.actor, entry.actor_verified),
            entry.address.unwrap_or_default(),
            entry.reason,
        ]
    };
    let columns = [
        Column::Number("ENTRY"),
        Column::Text("WHEN"),
        Column::Text("WHAT"),
        Column::Text("OF"),
        Column::Text("WHO"),
        Column::Text("FROM"),
        Column::Text("WHY"),
    ];
    output.table(&columns, entries.into_iter().map(row).collect())?;
    Ok(Done::Yes)
}

async fn verify(
    head: Option<&AuditHead>,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let plane = control::plane_settings(settings)?;
    let verified = larder_control::verify_audit(&plane.database, &plane.audit_key, head).await;
    let fault = match verified {
        Ok(verified) => {
            if output.is_json() {
                output.json(
                    &json!({ "whole": true, "entries": verified.entries, "head": verified.head }),
                )?;
            } else {
                output.line(&format!(
                    "whole: {} entries, the head is {}",
                    verified.entries, verified.head
                ))?;
            }
            return Ok(Done::Yes);
        }
        Err(VerifyError::Fault(fault)) => larder::escape(&fault.to_string()).into_owned(),
        Err(error) => return Err(error.into()),
    };
    if output.is_json() {
        output.json(&json!({ "whole": false, "why": fault }))?;
    } else {
        output.line(&fault)?;
    }
    Ok(Done::Warned)
}
