//! Invalidating: entries by tag, endpoint and service; and what is said of what the store could not be told.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use larder::{Cache, Invalidated, Kept, Policy, PolicyPatch, Service, Settings, Store, StoreError};
use serde_json::json;

use crate::args::Invalidate;
use crate::entries::{PATIENCE, report_deleted, wait_for};
use crate::invalidate_api;
use crate::output::{Done, Output};

pub(crate) async fn run(
    what: Invalidate,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    if let Some(named) = what.named {
        return invalidate_api::run(named, settings, output).await;
    }
    let service = what.service.context("say what: larder invalidate --help")?;
    let cache = open(&service, settings).await?;
    let invalidated = match (&what.tag, &what.endpoint) {
        (Some(tag), _) => cache.invalidate_tag(tag).await,
        (None, Some(endpoint)) => cache.invalidate_endpoint(endpoint).await,
        (None, None) => cache.invalidate_service().await,
    };
    let bar = progress()?;
    let invalidated = invalidated.swept().await;
    bar.finish_and_clear();
    cache.close().await;
    say_pending(&invalidated, settings, output)?;
    let entries = invalidated.entries();
    if output.is_json() {
        output.json(&json!({"done": true, "entries": entries}))?;
    } else if what.tag.is_some() {
        output.line("done: what depends on the tag is dead")?;
    } else {
        output.line(&format!("done: framed entries are dead, {entries} removed"))?;
    }
    Ok(Done::Yes)
}

/// A spinner on standard error while plain entries are removed; nothing where that is no terminal.
fn progress() -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let bar = bar.with_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}")?);
    bar.set_message("removing plain entries");
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}

/// A cache that invalidates. A store that is away is no reason to stop: then what is invalidated is kept for it.
pub(crate) async fn open(service: &Service, settings: &Settings) -> anyhow::Result<Cache> {
    let store = larder::open_store_within(settings, PATIENCE)?;
    if let Err(error) = wait_for(&*store).await {
        let is_away = matches!(
            error.downcast_ref(),
            Some(StoreError::Away(_) | StoreError::Broken(_) | StoreError::TimedOut)
        );
        if !is_away {
            return Err(error);
        }
    }
    cache(service, store, settings)
}

/// A cache that obeys no policy: what is said on a command line is to be done.
pub(crate) fn cache(
    service: &Service,
    store: Arc<dyn Store>,
    settings: &Settings,
) -> anyhow::Result<Cache> {
    let mut settings = settings.clone();
    settings.control_plane_url = None;
    settings.l1_bytes = 0;
    let patch = PolicyPatch {
        max_value_bytes: Some(larder::MAX_VALUE_BYTES),
        ..PolicyPatch::default()
    };
    let builder = Cache::builder(service.as_str(), settings)?;
    let builder = builder.default_policy(patch.apply(&Policy::default())?);
    Ok(builder.store(store).build()?)
}

/// Says what was deleted.
///
/// # Errors
/// What is pending, with what comes next.
pub(crate) fn report(
    invalidated: &Invalidated,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<()> {
    say_pending(invalidated, settings, output)?;
    report_deleted(output, "deleted", invalidated.entries())
}

fn say_pending(
    invalidated: &Invalidated,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<()> {
    let Invalidated::Pending { kept, why } = invalidated else {
        return Ok(());
    };
    let is_kept = *kept == Kept::Pending;
    if output.is_json() {
        output.json(&json!({"done": false, "pending": is_kept, "why": why.to_string()}))?;
    }
    match (kept, settings.journal_folder()) {
        (Kept::Pending, Some(folder)) => bail!(
            "pending, not done: {why}. It is kept in {}: the next service of this machine that uses this store tells it. Until then others may serve old values: run this again once the store is back",
            folder.display()
        ),
        (Kept::PendingVolatile(reason), _) => {
            bail!(
                "not done, and nowhere kept ({reason}): {why}. Run this again once the store is back"
            )
        }
        (Kept::Pending, None) => bail!("not done: {why}. Run this again once the store is back"),
    }
}
