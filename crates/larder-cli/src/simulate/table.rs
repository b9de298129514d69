//! A simulation as tables, for people.

use std::time::Duration;

use crate::output::{Column, Output, bytes, duration};
use crate::simulate::report::{EndpointRow, Report, TtlRow};

/// So many decisions of an endpoint are shown; `--json` has all.
const MOST_DECISIONS: usize = 12;

/// Prints a report, with so many endpoints.
pub(super) fn print(report: &Report, top: usize, output: &Output) -> anyhow::Result<()> {
    let lines = &report.log;
    output.line(&format!(
        "{} lines in {}, {} requests simulated",
        lines.lines,
        duration(Duration::from_secs_f64(report.elapsed_seconds)),
        report.requests
    ))?;
    if let (Some(from), Some(to)) = (&report.from, &report.to) {
        output.line(&format!("from {from} to {to}"))?;
    }
    for (count, what) in [
        (lines.unreadable, "lines that are no log lines"),
        (lines.other_methods, "with other methods than GET, left out"),
        (lines.other_statuses, "of another --status, left out"),
        (lines.not_included, "not in --include, left out"),
        (lines.without_key, "without a key, left out"),
        (
            report.not_told_apart,
            "of endpoints or keys past the bound, left out",
        ),
    ] {
        if count > 0 {
            output.line(&format!("{count} {what}"))?;
        }
    }
    output.line("\nAll endpoints")?;
    print_ttls(&report.total, output)?;
    for endpoint in report.endpoints.iter().take(top) {
        print_endpoint(endpoint, output)?;
    }
    Ok(())
}

fn print_endpoint(row: &EndpointRow, output: &Output) -> anyhow::Result<()> {
    output.line(&format!(
        "\n{}  {} requests, {:.1} s of the origin",
        larder::escape(&row.endpoint),
        row.requests,
        row.origin_seconds
    ))?;
    print_ttls(&row.ttls, output)?;
    let Some(decided) = &row.decided else {
        return output.line("auto: too few requests to decide");
    };
    output.line(&format!(
        "auto: {:.4} hits, {:.1} s saved, {:.2} % of hits stale, {:.4} of requests called the origin, {} switches",
        decided.hit_ratio, decided.saved_seconds, 100.0 * decided.stale_share, decided.origin_share, decided.flips
    ))?;
    for decision in decided.decisions.iter().take(MOST_DECISIONS) {
        output.line(&format!("  {}  {}", decision.at, decision.reason))?;
    }
    if decided.decisions.len() > MOST_DECISIONS {
        output.line(&format!(
            "  … and {} more",
            decided.decisions.len() - MOST_DECISIONS
        ))?;
    }
    Ok(())
}

fn print_ttls(rows: &[TtlRow], output: &Output) -> anyhow::Result<()> {
    let columns = [
        Column::Number("TTL"),
        Column::Number("HIT RATIO"),
        Column::Number("ORIGIN TIME SAVED"),
        Column::Number("STALE HITS"),
        Column::Number("MEMORY"),
    ];
    let rows = rows.iter().map(|row| {
        vec![
            format!("{} s", row.ttl_seconds),
            format!("{:.4}", row.hit_ratio),
            format!("{:.1} s", row.saved_seconds),
            format!("{:.2} %", 100.0 * row.stale_share),
            bytes(row.peak_bytes),
        ]
    });
    output.table(&columns, rows.collect())
}
