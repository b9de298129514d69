//! Charts as SVG, for light and dark pages.

mod bars;
mod lines;

use std::fmt::Write as _;

pub(crate) use bars::{Bars, Group, bars};
pub(crate) use lines::lines;

/// Larder's colour comes first; the others tell peers apart on white and on black.
const COLOURS: [&str; 7] = [
    "#2f81f7", "#8b949e", "#d29922", "#a371f7", "#3fb950", "#db61a2", "#f0883e",
];
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#24292f}\
.title{font-size:14px;font-weight:600}.faint{fill:#57606a}.grid{stroke:#d0d7de;stroke-width:1}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.faint{fill:#9198a1}.grid{stroke:#3d444d}}";

/// An SVG that is being drawn.
struct Drawing {
    body: String,
}

impl Drawing {
    fn new() -> Self {
        Self {
            body: String::new(),
        }
    }

    fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{text}</text>"#
        );
    }

    fn bar(&mut self, x: f64, y: f64, width: f64, height: f64, colour: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2" fill="{colour}"/>"#
        );
    }

    fn grid(&mut self, from: (f64, f64), to: (f64, f64)) {
        let _ = writeln!(
            self.body,
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" class="grid"/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    fn path(&mut self, points: &[(f64, f64)], colour: &str) {
        let list: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            self.body,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            list.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(
                self.body,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#
            );
        }
    }

    fn finish(self, title: &str, width: f64, height: f64) -> String {
        let title = escape(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n<style>{STYLE}</style>\n{}</svg>\n",
            self.body
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Which colour a side has: the same in all groups of a chart.
fn colour(sides: &[String], side: &str) -> &'static str {
    let at = sides.iter().position(|known| known == side).unwrap_or(0);
    COLOURS[at % COLOURS.len()]
}

/// A number as people write it: 950, 1.2k, 10M.
fn short(value: f64) -> String {
    let scaled = |by: f64, unit: &str| {
        let value = value / by;
        let digits = usize::from(value < 10.0 && (value - value.round()).abs() > 0.05);
        format!("{value:.digits$}{unit}")
    };
    match value {
        value if value >= 1e6 => scaled(1e6, "M"),
        value if value >= 1e3 => scaled(1e3, "k"),
        _ => scaled(1.0, ""),
    }
}

/// The next round number above.
fn round_up(value: f64) -> f64 {
    let magnitude = 10_f64.powf(value.max(1e-9).log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|step| step * magnitude)
        .find(|round| *round >= value)
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.4, "0.4"),
            (4.0, "4"),
            (950.4, "950"),
            (1_234.0, "1.2k"),
            (82_400.0, "82k"),
            (10_000_000.0, "10M"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        assert_eq!(round_up(73.0), 100.0);
        assert_eq!(round_up(210.0), 250.0);
        assert_eq!(round_up(100.0), 100.0);
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("a<b & \"c\""), "a&lt;b &amp; &quot;c&quot;");
    }
}
