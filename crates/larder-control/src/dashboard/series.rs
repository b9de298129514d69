//! What was measured in stretches of time that follow each other, as pictures: lines, and gaps where nothing was measured. Words
//! stand beside a picture and not in it, so that they are as large on a phone as elsewhere.

use std::ops::RangeInclusive;

use larder_model::Window;

use super::figures::{ms, percent};

/// As high as a picture is; it is as wide as it has stretches, and stretched.
const HEIGHT: f64 = 100.0;
/// Powers of ten, in milliseconds, that a picture of latencies shows.
const POWERS: RangeInclusive<i32> = -2..=6;

/// A picture.
pub(super) struct Plot {
    pub(super) title: &'static str,
    pub(super) says: String,
    pub(super) lines: Vec<Line>,
    /// What the lines of reference stand for, from the highest down; they are as far from each other as from the next.
    pub(super) rules: Vec<String>,
    width: usize,
}

pub(super) struct Line {
    /// The class that colours it.
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) path: String,
}

/// So many stretches: those in which something was measured, by their place.
pub(super) struct Series<'a> {
    pub(super) count: usize,
    pub(super) measured: &'a [(usize, Window)],
}

impl Series<'_> {
    fn values<'a>(
        &'a self,
        value: impl Fn(&Window) -> Option<f64> + 'a,
    ) -> impl Iterator<Item = (usize, f64)> + 'a {
        let values = self.measured.iter();
        values.filter_map(move |(place, window)| Some((*place, value(window)?)))
    }

    fn sum(&self) -> Window {
        let mut sum = Window::default();
        self.measured
            .iter()
            .for_each(|(_, window)| sum.merge(window));
        sum
    }

    /// The share of lookups that were hits.
    pub(super) fn hits(&self) -> Plot {
        let share = |value: f64| HEIGHT * (1.0 - value);
        let in_all = self
            .sum()
            .hit_ratio()
            .map_or_else(|| "no lookups".to_owned(), percent);
        Plot {
            title: "Hit ratio",
            says: format!("Hit ratio over time; {in_all} in all"),
            lines: vec![Line {
                class: "hits",
                name: "hits, of lookups",
                path: path(self.values(Window::hit_ratio), share),
            }],
            rules: [1.0, 0.75, 0.5, 0.25, 0.0]
                .map(|share| format!("{:.0} %", share * 100.0))
                .into(),
            width: self.count,
        }
    }

    /// The origin's latency, and that of a hit, by their logarithm.
    pub(super) fn latencies(&self) -> Plot {
        let origin = || self.values(Window::origin_ms_mean);
        let hit = || self.values(hit_ms_mean);
        let (least, most) = powers(origin().chain(hit()).map(|(_, ms)| ms));
        let by_power = |ms: f64| {
            let power = ms.log10().clamp(f64::from(least), f64::from(most));
            HEIGHT * (f64::from(most) - power) / f64::from(most - least)
        };
        let sum = self.sum();
        let mean = |value: Option<f64>| value.map_or_else(|| "not measured".to_owned(), ms);
        Plot {
            title: "Latency",
            says: format!(
                "Latency over time, mean; in all: the origin {}, a hit {}",
                mean(sum.origin_ms_mean()),
                mean(hit_ms_mean(&sum))
            ),
            lines: vec![
                Line {
                    class: "requests",
                    name: "the origin, mean",
                    path: path(origin(), by_power),
                },
                Line {
                    class: "hits",
                    name: "a hit, mean",
                    path: path(hit(), by_power),
                },
            ],
            rules: (least..=most).rev().map(power_of_ten).collect(),
            width: self.count,
        }
    }
}

impl Plot {
    pub(super) fn width(&self) -> usize {
        self.width.saturating_sub(1).max(1)
    }

    pub(super) fn height(&self) -> f64 {
        HEIGHT
    }

    /// Where the lines of reference are.
    pub(super) fn heights(&self) -> Vec<f64> {
        let last = self.rules.len().saturating_sub(1).max(1) as f64;
        let height = |place| HEIGHT * place as f64 / last;
        (0..self.rules.len()).map(height).collect()
    }
}

/// The mean latency of a hit in milliseconds.
pub(super) fn hit_ms_mean(window: &Window) -> Option<f64> {
    (window.hits > 0).then(|| window.hit_ms_sum / window.hits as f64)
}

/// A line through values whose places follow each other; what stands alone is a dot.
fn path(values: impl Iterator<Item = (usize, f64)>, height: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut next = None;
    for (place, value) in values {
        let height = height(value);
        path += &match next == Some(place) {
            true => format!("L{place} {height:.1}"),
            false => format!("M{place} {height:.1}h0"),
        };
        next = Some(place + 1);
    }
    path
}

/// The powers of ten between which all of these are.
fn powers(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let powers = values.filter(|value| *value > 0.0).map(f64::log10);
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for power in powers {
        (least, most) = (least.min(power), most.max(power));
    }
    if least > most {
        return (0, 3);
    }
    let (first, last) = (*POWERS.start(), *POWERS.end());
    let least = (least.floor() as i32).clamp(first, last - 1);
    let most = (most.ceil() as i32).clamp(least + 1, last);
    (least, most)
}

fn power_of_ten(power: i32) -> String {
    match power {
        ..0 => format!(
            "{:.*} ms",
            power.unsigned_abs() as usize,
            10_f64.powi(power)
        ),
        0..3 => format!("{} ms", 10_u32.pow(power.unsigned_abs())),
        _ => format!("{} s", 10_u32.pow(power.unsigned_abs() - 3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(hits: u64, misses: u64, origin_ms: f64) -> Window {
        Window {
            hits,
            misses,
            origin_count: misses,
            origin_ms_sum: origin_ms * misses as f64,
            hit_ms_sum: hits as f64,
            ..Window::default()
        }
    }

    #[test]
    fn lines_have_gaps_where_nothing_was_measured_and_dots_where_little_was() {
        let measured = [
            (0, window(1, 1, 800.0)),
            (1, window(3, 1, 80.0)),
            (9, window(0, 1, 8.0)),
        ];
        let series = Series {
            count: 10,
            measured: &measured,
        };
        let hits = series.hits();
        assert_eq!(hits.lines[0].path, "M0 50.0h0L1 25.0M9 100.0h0");
        assert_eq!((hits.width(), hits.rules.len()), (9, 5));
        assert_eq!(hits.heights(), [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(hits.says, "Hit ratio over time; 57.1 % in all");
        let latencies = series.latencies();
        assert_eq!(latencies.rules, ["1 s", "100 ms", "10 ms", "1 ms"]);
        assert_eq!(latencies.lines[1].path, "M0 100.0h0L1 100.0");
        assert!(
            latencies.lines[0]
                .path
                .starts_with("M0 3.2h0L1 36.6M9 69.9")
        );
    }

    #[test]
    fn whatever_was_measured_lies_in_the_picture() {
        assert_eq!(powers([].into_iter()), (0, 3));
        assert_eq!(powers([10.0].into_iter()), (1, 2));
        assert_eq!(powers([1e-9, f64::MAX].into_iter()), (-2, 6));
        assert_eq!(powers([1e-9].into_iter()), (-2, -1));
        assert_eq!(powers([f64::MAX].into_iter()), (5, 6));
        let labels = [-2, -1, 0, 2, 3, 6].map(power_of_ten);
        assert_eq!(
            labels,
            ["0.01 ms", "0.1 ms", "1 ms", "100 ms", "1 s", "1000 s"]
        );
        let measured = [(0, window(5, 5, 1e12))];
        let latencies = Series {
            count: 1,
            measured: &measured,
        }
        .latencies();
        assert_eq!(latencies.lines[0].path, "M0 0.0h0");
    }
}
