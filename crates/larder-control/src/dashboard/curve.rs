//! The share of hits at each TTL, by the ghost, as a picture.

use larder_decide::{Record, TTLS};

use super::figures::{percent, seconds};

const WIDTH: f64 = 584.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 540.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 200.0;

/// A text at a place.
pub(super) struct Mark {
    pub(super) at: f64,
    pub(super) text: String,
    pub(super) anchor: &'static str,
}

pub(super) struct Curve {
    hits: [f64; TTLS.len()],
    /// The TTL that is, or would be, in force.
    chosen: Option<f64>,
}

impl Curve {
    pub(super) fn of(record: &Record) -> Self {
        let figures = &record.figures;
        Self {
            hits: TTLS.map(|ttl| figures.hit_ratio(f64::from(ttl)).clamp(0.0, 1.0)),
            chosen: record.after.is_on.then_some(record.after.ttl),
        }
    }

    pub(super) fn width(&self) -> f64 {
        WIDTH
    }

    pub(super) fn height(&self) -> f64 {
        HEIGHT
    }

    pub(super) fn left(&self) -> f64 {
        LEFT
    }

    pub(super) fn right(&self) -> f64 {
        RIGHT
    }

    pub(super) fn top(&self) -> f64 {
        TOP
    }

    pub(super) fn bottom(&self) -> f64 {
        BOTTOM
    }

    pub(super) fn rules(&self) -> Vec<Mark> {
        let rule = |share: f64| Mark {
            at: y(share),
            text: format!("{:.0} %", share * 100.0),
            anchor: "end",
        };
        [0.0, 0.25, 0.5, 0.75, 1.0].into_iter().map(rule).collect()
    }

    pub(super) fn ticks(&self) -> Vec<Mark> {
        let tick = |ttl: u32| Mark {
            at: x(f64::from(ttl)),
            text: seconds(f64::from(ttl)),
            anchor: "middle",
        };
        // All of them would not fit.
        TTLS.into_iter().step_by(2).map(tick).collect()
    }

    pub(super) fn chosen(&self) -> Option<Mark> {
        let ttl = self.chosen?;
        let at = x(ttl);
        Some(Mark {
            at,
            text: format!("chosen: {}", seconds(ttl)),
            anchor: match at {
                at if at < LEFT + 60.0 => "start",
                at if at > RIGHT - 60.0 => "end",
                _ => "middle",
            },
        })
    }

    pub(super) fn points(&self) -> String {
        let points = TTLS.iter().zip(self.hits);
        let points = points.map(|(ttl, hits)| format!("{:.1},{:.1}", x(f64::from(*ttl)), y(hits)));
        points.collect::<Vec<_>>().join(" ")
    }

    pub(super) fn rows(&self) -> Vec<(String, String)> {
        let rows = TTLS.iter().zip(self.hits);
        rows.map(|(ttl, hits)| (seconds(f64::from(*ttl)), percent(hits)))
            .collect()
    }

    pub(super) fn says(&self) -> String {
        let [first, .., last] = self.hits;
        format!(
            "The share of hits by TTL: {} at 1 s, {} at an hour",
            percent(first),
            percent(last)
        )
    }
}

/// By the logarithm: from the shortest TTL to the longest.
fn x(ttl: f64) -> f64 {
    let [first, .., last] = TTLS.map(f64::from);
    let place = (ttl.clamp(first, last) / first).ln() / (last / first).ln();
    LEFT + (RIGHT - LEFT) * place
}

fn y(share: f64) -> f64 {
    BOTTOM - (BOTTOM - TOP) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ttl_has_a_place_in_the_picture() {
        assert_eq!(
            [x(0.1), x(1.0), x(3_600.0), x(90_000.0)],
            [LEFT, LEFT, RIGHT, RIGHT]
        );
        let curve = Curve {
            hits: [0.5; TTLS.len()],
            chosen: Some(1.0),
        };
        assert!(curve.points().starts_with("52.0,113.0 "));
        assert_eq!(curve.chosen().unwrap().anchor, "start");
        assert_eq!(curve.rows()[0], ("1 s".to_owned(), "50.0 %".to_owned()));
    }
}
