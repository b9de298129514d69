//! Groups of bars, one below the other: Larder first, then its peers.

use super::{Drawing, colour, round_up, short};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 180.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 34.0;
const NAME: f64 = 22.0;
const BAR: f64 = 13.0;
const STEP: f64 = 17.0;
const GAP: f64 = 12.0;

/// A chart of bars.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) groups: Vec<Group>,
}

/// What one row measured: sides, and their medians.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<(String, f64)>,
}

/// Draws a chart.
pub(crate) fn bars(chart: &Bars<'_>) -> String {
    let mut drawing = Drawing::new();
    let mut sides: Vec<String> = Vec::new();
    for (side, _) in chart.groups.iter().flat_map(|group| &group.bars) {
        if !sides.contains(side) {
            sides.push(side.clone());
        }
    }
    let is_rate = chart.unit.ends_with("/s");
    let better = if is_rate { "longer" } else { "shorter" };
    let title = format!("{}: {}, {better} is better", chart.title, chart.unit);
    drawing.text(0.0, 16.0, "title", "start", &title);
    let mut y = TOP;
    for group in &chart.groups {
        drawing.text(0.0, y + 12.0, "", "start", &group.name);
        y += NAME;
        // A scale for each: one slow peer elsewhere would make all the others' bars alike.
        let most = group.bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
        let scale = (WIDTH - LEFT - RIGHT) / round_up(most);
        for (side, value) in &group.bars {
            let width = (value * scale).max(1.0);
            drawing.text(LEFT - 8.0, y + BAR - 2.5, "faint", "end", side);
            drawing.bar(LEFT, y, width, BAR, colour(&sides, side));
            drawing.text(
                LEFT + width + 6.0,
                y + BAR - 2.5,
                "",
                "start",
                &short(*value),
            );
            y += STEP;
        }
        y += GAP;
    }
    drawing.finish(&title, WIDTH, y)
}
