//! Lines over an axis that grows tenfold, or twofold, from mark to mark.

use super::{Drawing, colour, round_up, short};
use crate::results::Series;
use crate::rounds::median;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 44.0;
/// Horizontal lines above the axis.
const GRID: usize = 4;
/// Between two names of lines.
const NAME: f64 = 15.0;

/// Draws a chart.
pub(crate) fn lines(series: &Series) -> String {
    let mut drawing = Drawing::new();
    let title = format!("{}: {}", series.name, series.unit);
    drawing.text(0.0, 16.0, "title", "start", &title);

    let points = || series.lines.iter().flat_map(|line| &line.points);
    let places: Vec<f64> = points().map(|point| point.at).collect();
    let first = places.iter().copied().fold(f64::INFINITY, f64::min);
    let last = places.iter().copied().fold(0.0, f64::max);
    let most = points()
        .map(|point| median(&point.values))
        .fold(0.0, f64::max);
    let top = round_up(most);
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x = |at: f64| {
        let whole = (last / first).ln();
        let part = if whole > 0.0 {
            (at / first).ln() / whole
        } else {
            0.5
        };
        LEFT + part * width
    };
    let y = |value: f64| TOP + height * (1.0 - value / top);

    for step in 0..=GRID {
        let value = top * step as f64 / GRID as f64;
        drawing.grid((LEFT, y(value)), (LEFT + width, y(value)));
        drawing.text(LEFT - 8.0, y(value) + 4.0, "faint", "end", &short(value));
    }
    let mut marks = places.clone();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for at in marks {
        drawing.text(x(at), TOP + height + 18.0, "faint", "middle", &short(at));
    }
    let middle = LEFT + width / 2.0;
    drawing.text(middle, HEIGHT - 8.0, "", "middle", &series.axis);

    let sides: Vec<String> = series.lines.iter().map(|line| line.side.clone()).collect();
    let mut names: Vec<(f64, &str)> = Vec::new();
    for line in &series.lines {
        let drawn: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|point| (x(point.at), y(median(&point.values))))
            .collect();
        drawing.path(&drawn, colour(&sides, &line.side));
        if let Some((_, end)) = drawn.last() {
            names.push((*end, &line.side));
        }
    }
    // Where lines end close together, their names stand one below the other.
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = TOP;
    for (end, side) in names {
        let at = end.max(free);
        free = at + NAME;
        drawing.bar(
            LEFT + width + 10.0,
            at - 5.0,
            10.0,
            10.0,
            colour(&sides, side),
        );
        drawing.text(LEFT + width + 26.0, at + 4.0, "", "start", side);
    }
    drawing.finish(&title, WIDTH, HEIGHT)
}
