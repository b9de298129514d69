//! What held before: revisions, what differs between them, and back to one of them.

use larder::Service;
use larder::api::{Replaced, Revision};
use larder_logs::format_time;

use crate::args::Rollback;
use crate::differences;
use crate::history_api::Doing;
use crate::output::{Column, Done, Output};
use crate::policy_api::ControlPlane;

pub(crate) async fn list(
    plane: &ControlPlane,
    service: &Service,
    limit: u32,
    output: &Output,
) -> anyhow::Result<Done> {
    let revisions = plane.revisions(service, limit).await?;
    if output.is_json() {
        output.json(&revisions)?;
    } else {
        let columns = [
            Column::Number("REVISION"),
            Column::Text("WHEN"),
            Column::Text("WHAT"),
            Column::Text("WHO"),
            Column::Text("WHY"),
        ];
        output.table(&columns, revisions.revisions.iter().map(row).collect())?;
    }
    Ok(match revisions.revisions.is_empty() {
        true => Done::NotThere,
        false => Done::Yes,
    })
}

fn row(revision: &Revision) -> Vec<String> {
    vec![
        revision.number.to_string(),
        when(revision.at_seconds),
        revision.action.as_str().replace('_', " "),
        who(&revision.author, revision.author_verified),
        revision.reason.clone(),
    ]
}

/// A time as people and programs read it.
pub(crate) fn when(at_seconds: u64) -> String {
    format_time(at_seconds.saturating_mul(1_000))
}

/// A name, and that it is only what somebody said.
pub(crate) fn who(name: &str, is_verified: bool) -> String {
    match is_verified {
        true => name.to_owned(),
        false => format!("{name} (unverified)"),
    }
}

/// What a revision changed, or what differs between two.
pub(crate) async fn diff(
    plane: &ControlPlane,
    service: &Service,
    which: (Option<u64>, Option<u64>),
    output: &Output,
) -> anyhow::Result<Done> {
    let (from, to) = match which {
        (one, None) => (None, one),
        both => both,
    };
    let diff = plane.diff(service, from, to).await?;
    if output.is_json() {
        output.json(&diff)?;
        return Ok(Done::Yes);
    }
    output.line(&format!("{service}, revision {} → {}", diff.from, diff.to))?;
    if diff.changes.is_empty() {
        output.line("nothing differs")?;
    }
    differences::print(&diff.changes, output)?;
    Ok(Done::Yes)
}

/// Brings the policies of a revision back: just what was shown, or nothing.
pub(crate) async fn rollback(
    plane: &ControlPlane,
    rollback: &Rollback,
    output: &Output,
) -> anyhow::Result<Done> {
    let Rollback {
        service,
        revision,
        dry_run,
        said,
    } = rollback;
    let tried = plane.rollback(service, *revision, said, Doing::Trying);
    let (mut replaced, tag) = tried.await?;
    if !dry_run {
        let done = plane.rollback(service, *revision, said, Doing::If(&tag));
        (replaced, _) = done.await?;
    }
    if output.is_json() {
        output.json(&replaced)?;
    } else {
        show(&replaced, output)?;
    }
    Ok(Done::Yes)
}

/// What a replacement did, or would do.
pub(crate) fn show(replaced: &Replaced, output: &Output) -> anyhow::Result<()> {
    let what = match (replaced.dry_run, replaced.changes.len()) {
        (_, 0) => "nothing to change".to_owned(),
        (true, count) => format!("would change {count}"),
        (false, count) => format!("changed {count}, revision {}", replaced.version),
    };
    output.line(&format!(
        "{}: {what}",
        larder::escape(&replaced.service_name)
    ))?;
    differences::print(&replaced.changes, output)
}
