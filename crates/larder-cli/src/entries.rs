//! Looking into the store, and changing what is in it. The same words for every store.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use larder::{ClearMode, Json, Key, Pattern, ScannedEntry, Service, Settings, Store, Ttl, Written};
use serde_json::{Value, json};

use crate::args::{Clear, Get, Keys, Set};
use crate::output::{Column, Done, Output, bytes, duration};
use crate::{in_clear, invalidate};

const PAGE: usize = 1_000;
/// How long a command waits for a store to come, and for each of its answers.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// The store, to be looked at; waited for, since a command has nothing better to do.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    let store = larder::look_at_store(settings, PATIENCE)?;
    wait_for(&*store).await?;
    Ok(store)
}

/// Waits until a store answers.
pub(crate) async fn wait_for(store: &dyn Store) -> anyhow::Result<()> {
    let begin = tokio::time::Instant::now();
    loop {
        match store.stats().await {
            Ok(_) => return Ok(()),
            Err(larder::StoreError::Disabled(why)) => bail!("{why}"),
            Err(error) if begin.elapsed() > PATIENCE => {
                return Err(error).with_context(|| store.name());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(crate) async fn keys(
    query: Keys,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let store = open(settings).await?;
    // A scan may meet an entry twice.
    let mut found: BTreeMap<Key, ScannedEntry> = BTreeMap::new();
    let mut after = None;
    let mut is_whole = true;
    loop {
        let page = store.scan(query.pattern.as_ref(), after, PAGE).await?;
        found.extend(
            page.entries
                .into_iter()
                .map(|entry| (entry.key.clone(), entry)),
        );
        after = page.next;
        if found.len() > query.limit {
            is_whole = false;
            break;
        }
        if after.is_none() {
            break;
        }
    }
    let entries: Vec<ScannedEntry> = found.into_values().take(query.limit).collect();
    if output.is_json() {
        let entries: Vec<Value> = entries
            .iter()
            .map(|entry| {
                json!({
                    "key": entry.key.as_str(),
                    "ttl_seconds": entry.ttl.map(|ttl| ttl.as_secs_f64()),
                    "bytes": entry.bytes,
                })
            })
            .collect();
        output.json(&entries)?;
        return Ok(Done::Yes);
    }
    let count = entries.len();
    let rows = entries
        .into_iter()
        .map(|entry| {
            vec![
                entry.key.to_string(),
                entry.ttl.map_or_else(|| "no end".to_owned(), duration),
                entry.bytes.map_or_else(|| "?".to_owned(), bytes),
            ]
        })
        .collect();
    let columns = [
        Column::Text("KEY"),
        Column::Number("TTL"),
        Column::Number("SIZE"),
    ];
    output.table(&columns, rows)?;
    match is_whole {
        true => output.line(&format!("\n{count} {}", plural(count as u64)))?,
        false => output.line(&format!("\nthe first {count}: there are more (--limit)"))?,
    }
    Ok(Done::Yes)
}

pub(crate) async fn get(query: Get, settings: &Settings, output: &Output) -> anyhow::Result<Done> {
    if query.raw && std::io::stdout().is_terminal() {
        bail!("--raw prints bytes that could steer a terminal: redirect them to a file or a pipe");
    }
    let store = open(settings).await?;
    let Some(stored) = store.get(&query.key, Ttl::MAX).await? else {
        return not_there(&query.key);
    };
    if query.raw {
        std::io::stdout().write_all(&stored.bytes)?;
        return Ok(Done::Yes);
    }
    in_clear::show(&query.key, &stored, settings, output)
}

pub(crate) async fn ttl(key: &Key, settings: &Settings, output: &Output) -> anyhow::Result<Done> {
    let store = open(settings).await?;
    let Some(stored) = store.get(key, Ttl::MAX).await? else {
        return not_there(key);
    };
    let seconds = stored.ttl.map(|ttl| ttl.as_secs_f64());
    if output.is_json() {
        output.json(&json!({"key": key.as_str(), "ttl_seconds": seconds}))?;
    } else {
        let line = seconds.map_or_else(
            || "no end".to_owned(),
            |seconds| format!("{}", seconds.ceil()),
        );
        output.line(&line)?;
    }
    Ok(Done::Yes)
}

pub(crate) async fn set(entry: Set, settings: &Settings, output: &Output) -> anyhow::Result<Done> {
    let json = Json::parse(read_value(&entry.value)?).context("the value")?;
    let life = Duration::try_from_secs_f64(entry.ttl)?;
    let store = larder::open_store_within(settings, PATIENCE)?;
    wait_for(&*store).await?;
    // Through a cache: sealed, where the settings say so.
    let cache = invalidate::cache(&Service::from(&entry.key), store, settings)?;
    let written = cache.set_json(&entry.key, json, life).await;
    cache.close().await;
    if output.is_json() {
        output.json(&json!({"key": entry.key.as_str(), "stored": written.is_stored()}))?;
    }
    if written != Written::Stored {
        bail!("{written}");
    }
    if !output.is_json() {
        output.line(&format!("stored {} for {}", entry.key, duration(life)))?;
    }
    Ok(Done::Yes)
}

fn read_value(text: &str) -> anyhow::Result<Bytes> {
    let limit = larder::MAX_VALUE_BYTES;
    let mut value = Vec::new();
    match text.strip_prefix('@') {
        None => value.extend_from_slice(text.as_bytes()),
        Some("-") => {
            std::io::stdin().take(limit + 1).read_to_end(&mut value)?;
        }
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| path.to_owned())?;
            file.take(limit + 1).read_to_end(&mut value)?;
        }
    }
    if value.len() as u64 > limit {
        bail!(
            "the value is larger than {}, which no policy allows",
            bytes(limit)
        );
    }
    Ok(value.into())
}

pub(crate) async fn del(
    keys: &[Key],
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let Some(first) = keys.first() else {
        return Ok(Done::NotThere);
    };
    let cache = invalidate::open(&Service::from(first), settings).await?;
    let deleted = cache.delete_many(keys).await;
    cache.close().await;
    invalidate::report(&deleted, settings, output)?;
    Ok(if deleted.entries() == 0 {
        Done::NotThere
    } else {
        Done::Yes
    })
}

pub(crate) async fn clear(
    clear: Clear,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let cache = invalidate::open(&Service::from(&clear.pattern), settings).await?;
    let store = Arc::clone(cache.store());
    if clear.dry_run {
        let counted = store.clear(&clear.pattern, ClearMode::DryRun).await?;
        report_deleted(output, "would be deleted", counted.entries)?;
        return Ok(Done::Yes);
    }
    let must_ask = !clear.yes && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if must_ask && !confirmed(&*store, &clear.pattern).await? {
        output.line("nothing was deleted")?;
        return Ok(Done::Yes);
    }
    let deleted = cache.clear(&clear.pattern).await;
    cache.close().await;
    invalidate::report(&deleted, settings, output)?;
    Ok(Done::Yes)
}

async fn confirmed(store: &dyn Store, pattern: &Pattern) -> anyhow::Result<bool> {
    let counted = store.clear(pattern, ClearMode::DryRun).await?.entries;
    let mut stderr = std::io::stderr();
    write!(
        stderr,
        "Delete {counted} {} of {} that {pattern} means? [y/N] ",
        plural(counted),
        larder::escape(&store.name())
    )?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub(crate) fn report_deleted(output: &Output, what: &str, entries: u64) -> anyhow::Result<()> {
    if output.is_json() {
        output.json(&json!({"entries": entries, "deleted": what == "deleted"}))
    } else {
        output.line(&format!("{entries} {} {what}", plural(entries)))
    }
}

pub(crate) async fn stats(settings: &Settings, output: &Output) -> anyhow::Result<Done> {
    let store = open(settings).await?;
    let stats = store.stats().await?;
    if output.is_json() {
        output.json(&json!({
            "store": store.name(),
            "entries": stats.entries,
            "used_bytes": stats.used_bytes,
            "limit_bytes": stats.limit_bytes,
            "hits": stats.hits,
            "misses": stats.misses,
            "evictions": stats.evictions,
            "expired": stats.expired,
            "damaged": stats.damaged,
        }))?;
        return Ok(Done::Yes);
    }
    let number =
        |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let size = |count: Option<u64>| count.map_or_else(|| "no limit".to_owned(), bytes);
    let ratio = match (stats.hits, stats.misses) {
        (Some(hits), Some(misses)) if hits + misses > 0 => {
            format!("{:.1} %", 100.0 * hits as f64 / (hits + misses) as f64)
        }
        _ => "-".to_owned(),
    };
    let used = stats.used_bytes.map_or_else(|| "?".to_owned(), bytes);
    let rows = [
        ("store", store.name()),
        ("entries", number(stats.entries)),
        ("bytes", format!("{used} of {}", size(stats.limit_bytes))),
        ("hits", number(stats.hits)),
        ("misses", number(stats.misses)),
        ("hit ratio", ratio),
        ("evictions", number(stats.evictions)),
        ("expired", number(stats.expired)),
        ("damaged", number(stats.damaged)),
    ];
    for (name, value) in rows {
        output.line(&format!("{name:<10} {}", larder::escape(&value)))?;
    }
    Ok(Done::Yes)
}

fn not_there(key: &Key) -> anyhow::Result<Done> {
    // The answer of a program that looks at exit codes; this is for the person.
    writeln!(std::io::stderr(), "larder: there is no entry {key}")?;
    Ok(Done::NotThere)
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "entry" } else { "entries" }
}
