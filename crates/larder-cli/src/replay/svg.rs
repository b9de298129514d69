//! A picture of the hit ratio over time.

use std::fmt::Write as _;

use larder_logs::format_time;

use crate::replay::report::Report;
use crate::replay::table::ratio;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
/// The plot's left, top, right and bottom edge.
const LEFT: f64 = 60.0;
const TOP: f64 = 56.0;
const RIGHT: f64 = 940.0;
const BOTTOM: f64 = 300.0;
/// So many endpoints are named below it.
const NAMED: usize = 5;
/// Longer names are cut, in characters.
const NAME_CHARACTERS: usize = 100;

/// Draws the hit ratio over time as SVG, with the endpoints that were asked for most.
pub(crate) fn draw(report: &Report, log: &str) -> String {
    let mut svg = String::with_capacity(16 << 10);
    let begin = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">
<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    svg.push_str(&begin);
    let title = format!(
        "{log}: hit ratio {} of {} requests, TTL {} s",
        ratio(&report.total),
        report.total.requests,
        report.settings.ttl_seconds
    );
    text(&mut svg, LEFT, 32.0, "16", "start", &title);
    for percent in [0, 25, 50, 75, 100] {
        let y = BOTTOM - (BOTTOM - TOP) * f64::from(percent) / 100.0;
        line(&mut svg, [LEFT, y, RIGHT, y]);
        text(
            &mut svg,
            LEFT - 8.0,
            y + 4.0,
            "13",
            "end",
            &format!("{percent} %"),
        );
    }
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
    let points = points.trim_end();
    let _ = writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"2\" stroke-linejoin=\"round\" points=\"{points}\"/>"
    );
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

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#d0d7de\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, size: &str, anchor: &str, text: &str) {
    let text = escape_xml(text);
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"#24292f\">{text}</text>"
    );
}

/// Text that means itself in XML, and steers no terminal that shows the file.
fn escape_xml(text: &str) -> String {
    let text = larder::escape(text);
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // XML has no place for these, however they are written.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_means_itself() {
        assert_eq!(
            escape_xml("<script>'\"&\u{1b}[31m\u{ffff}"),
            "&lt;script&gt;&#39;&quot;&amp;\\u{1b}[31m\u{fffd}"
        );
    }
}
