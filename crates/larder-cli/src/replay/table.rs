//! A report as tables, for people.

use std::time::Duration;

use crate::output::{Column, Output, bytes, duration};
use crate::replay::report::{Report, Row, over_time};

/// More stretches of time than this are joined.
const MOST_STRETCHES: usize = 24;

/// Prints a report, with so many endpoints.
pub(crate) fn print(report: &Report, top: usize, output: &Output) -> anyhow::Result<()> {
    print_lines(report, output)?;
    print_total(report, output)?;
    output.line("")?;
    print_endpoints(report, top, output)?;
    output.line("")?;
    print_over_time(report, output)
}

fn print_lines(report: &Report, output: &Output) -> anyhow::Result<()> {
    let (log, lines) = (&report.log, &report.log.lines);
    let rate = lines.lines as f64 / report.elapsed_seconds;
    output.line(&format!(
        "{} lines ({}) in {}, {rate:.0} lines/s",
        lines.lines,
        log.format.as_deref().unwrap_or("of no known format"),
        duration(Duration::from_secs_f64(report.elapsed_seconds)),
    ))?;
    if let (Some(from), Some(to)) = (&log.from, &log.to) {
        output.line(&format!("from {from} to {to}"))?;
    }
    let left_out = [
        (lines.other_methods, "other methods than GET, left out"),
        (lines.other_statuses, "of another --status, left out"),
        (lines.not_included, "not in --include, left out"),
        (
            lines.without_key,
            "without a key (a dot segment, a bad %, over 8 KiB), left out",
        ),
        (
            lines.went_back,
            "went back in time: replayed at the time reached before",
        ),
        (lines.unreadable, "are no log lines"),
    ];
    for (count, what) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        output.line(&format!("{count:>10} {what}"))?;
    }
    if let Some(first) = &lines.first_unreadable {
        let text = larder::escape(&first.text);
        output.line(&format!(
            "           the first is line {} ({}): {text}",
            first.line, first.why
        ))?;
    }
    output.line("")
}

fn print_total(report: &Report, output: &Output) -> anyhow::Result<()> {
    let (total, store) = (&report.total, &report.store);
    let rows = [
        ("requests", total.requests.to_string()),
        ("hits", total.tally.hits.to_string()),
        ("hit ratio", ratio(total)),
        ("origin calls", total.tally.origin_calls.to_string()),
        ("from cache", bytes(total.tally.hit_bytes)),
        ("from origin", bytes(total.tally.origin_bytes)),
        ("evictions", store.evictions.to_string()),
        ("expired", store.expired.to_string()),
        ("too large", store.too_large.to_string()),
        (
            "store",
            format!(
                "{} entries, {} of {}",
                store.entries,
                bytes(store.used_bytes),
                bytes(report.settings.max_bytes)
            ),
        ),
    ];
    for (name, value) in rows {
        output.line(&format!("{name:<12} {value}"))?;
    }
    Ok(())
}

fn print_endpoints(report: &Report, top: usize, output: &Output) -> anyhow::Result<()> {
    let columns = columns(Column::Text("ENDPOINT"));
    let shown = report.endpoints.iter().take(top);
    let rows = shown
        .map(|endpoint| row(endpoint.endpoint.clone(), &endpoint.row).into())
        .collect();
    output.table(&columns, rows)?;
    let more = report.endpoints.len().saturating_sub(top);
    if more > 0 {
        output.line(&format!("and {more} more (--top)"))?;
    }
    Ok(())
}

fn print_over_time(report: &Report, output: &Output) -> anyhow::Result<()> {
    let series = report.series.clone().of_at_most(MOST_STRETCHES);
    let mut columns = Vec::from(columns(Column::Text("FROM")));
    columns.push(Column::Number("EVICTIONS"));
    let rows = over_time(&series)
        .into_iter()
        .map(|stretch| {
            let mut cells = Vec::from(row(stretch.from, &stretch.row));
            cells.push(stretch.evictions.to_string());
            cells
        })
        .collect();
    output.table(&columns, rows)
}

fn columns(first: Column) -> [Column; 7] {
    [
        first,
        Column::Number("REQUESTS"),
        Column::Number("HITS"),
        Column::Number("RATIO"),
        Column::Number("ORIGIN CALLS"),
        Column::Number("FROM CACHE"),
        Column::Number("FROM ORIGIN"),
    ]
}

fn row(name: String, row: &Row) -> [String; 7] {
    [
        name,
        row.requests.to_string(),
        row.tally.hits.to_string(),
        ratio(row),
        row.tally.origin_calls.to_string(),
        bytes(row.tally.hit_bytes),
        bytes(row.tally.origin_bytes),
    ]
}

/// A share of one, with four digits: `.9318`.
pub(crate) fn ratio(row: &Row) -> String {
    match row.hit_ratio {
        Some(ratio) => format!("{ratio:.4}"),
        None => "-".to_owned(),
    }
}
