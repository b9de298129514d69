//! A picture of the hit ratio over time.

use std::fmt::Write as _;

use larder_logs::format_time;

use crate::replay::picture::{BOTTOM, LEFT, RIGHT, TOP, begin, polyline, rules, text};
use crate::replay::report::Report;
use crate::replay::table::ratio;

/// So many endpoints are named below it.
const NAMED: usize = 5;
/// Longer names are cut, in characters.
const NAME_CHARACTERS: usize = 100;

/// Draws the hit ratio over time as SVG, with the endpoints that were asked for most.
pub(crate) fn draw(report: &Report, log: &str) -> String {
    let mut svg = begin();
    let title = format!(
        "{log}: hit ratio {} of {} requests, TTL {} s",
        ratio(&report.total),
        report.total.requests,
        report.settings.ttl_seconds
    );
    text(&mut svg, LEFT, 32.0, "16", "start", &title);
    rules(&mut svg);
    curve(&mut svg, report);
    for (index, endpoint) in report.endpoints.iter().take(NAMED).enumerate() {
        let name: String = endpoint.endpoint.chars().take(NAME_CHARACTERS).collect();
        let label = format!(
            "{}  {name}  ({} requests)",
            ratio(&endpoint.row),
            endpoint.row.requests
        );
        text(
            &mut svg,
            LEFT,
            BOTTOM + 46.0 + 16.0 * index as f64,
            "13",
            "start",
            &label,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// The curve, and the times at its ends.
fn curve(svg: &mut String, report: &Report) {
    let stretches = report.series.stretches();
    let (Some(first), Some(last)) = (stretches.first(), stretches.last()) else {
        return;
    };
    let length_ms = report.series.seconds() * 1_000;
    let span = (last.from_ms - first.from_ms + length_ms) as f64;
    let mut points = String::new();
    for stretch in stretches {
        let Some(ratio) = stretch.tally.hit_ratio() else {
            continue;
        };
        let middle = (stretch.from_ms - first.from_ms) as f64 + length_ms as f64 / 2.0;
        let x = LEFT + (RIGHT - LEFT) * middle / span;
        let y = BOTTOM - (BOTTOM - TOP) * ratio;
        // Writing to a `String` can't fail.
        let _ = write!(points, "{x:.1},{y:.1} ");
    }
    polyline(svg, "#1f6feb", points.trim_end());
    text(
        svg,
        LEFT,
        BOTTOM + 20.0,
        "13",
        "start",
        &format_time(first.from_ms),
    );
    let end = format_time(last.from_ms + length_ms);
    text(svg, RIGHT, BOTTOM + 20.0, "13", "end", &end);
}
