//! A picture of what each TTL would have done: hits, and those of them that are stale.

use std::fmt::Write as _;

use crate::replay::picture::{BOTTOM, LEFT, RIGHT, TOP, begin, polyline, rules, text};
use crate::simulate::report::{Report, TtlRow};

/// Draws hit ratio and stale share by TTL as SVG.
pub(super) fn draw(report: &Report, log: &str) -> String {
    let mut svg = begin();
    let title = format!(
        "{log}: what each TTL does with {} requests",
        report.requests
    );
    text(&mut svg, LEFT, 32.0, "16", "start", &title);
    rules(&mut svg);
    let rows = &report.total;
    let x = |at: usize| LEFT + (RIGHT - LEFT) * (at as f64 + 0.5) / rows.len() as f64;
    let points = |of: fn(&TtlRow) -> f64| {
        let mut points = String::new();
        for (at, row) in rows.iter().enumerate() {
            let y = BOTTOM - (BOTTOM - TOP) * of(row);
            // Writing to a `String` can't fail.
            let _ = write!(points, "{:.1},{y:.1} ", x(at));
        }
        points
    };
    polyline(&mut svg, "#1f6feb", points(|row| row.hit_ratio).trim_end());
    polyline(
        &mut svg,
        "#cf222e",
        points(|row| row.stale_share).trim_end(),
    );
    for (at, row) in rows.iter().enumerate() {
        let label = format!("{} s", row.ttl_seconds);
        text(&mut svg, x(at), BOTTOM + 20.0, "13", "middle", &label);
    }
    let legend = "blue: hits by requests; red: stale hits by hits";
    text(&mut svg, LEFT, BOTTOM + 46.0, "13", "start", legend);
    svg.push_str("</svg>\n");
    svg
}
