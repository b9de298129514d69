//! What pictures have in common: a plot from 0 to 100 %, and texts.

use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
/// The plot's left edge.
pub(crate) const LEFT: f64 = 60.0;
/// Its upper one.
pub(crate) const TOP: f64 = 56.0;
/// Its right one.
pub(crate) const RIGHT: f64 = 940.0;
/// Its lower one.
pub(crate) const BOTTOM: f64 = 300.0;

/// An empty picture, which `</svg>` ends.
pub(crate) fn begin() -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">
<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    )
}

/// The lines of the quarters, and what they mean.
pub(crate) fn rules(svg: &mut String) {
    for percent in [0, 25, 50, 75, 100] {
        let y = BOTTOM - (BOTTOM - TOP) * f64::from(percent) / 100.0;
        line(svg, [LEFT, y, RIGHT, y]);
        let label = format!("{percent} %");
        text(svg, LEFT - 8.0, y + 4.0, "13", "end", &label);
    }
}

/// A curve through points: `x,y x,y …`.
pub(crate) fn polyline(svg: &mut String, colour: &str, points: &str) {
    // Writing to a `String` can't fail.
    let _ = writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-linejoin=\"round\" points=\"{points}\"/>"
    );
}

fn line(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#d0d7de\"/>"
    );
}

/// A text, whatever is in it.
pub(crate) fn text(svg: &mut String, x: f64, y: f64, size: &str, anchor: &str, text: &str) {
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
