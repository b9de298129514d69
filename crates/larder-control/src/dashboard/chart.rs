//! Requests and hits over time, as a picture.

use larder_model::Window;

use super::figures::rate;

/// As high as a picture is; it is as wide as it has points, and stretched.
const HEIGHT: f64 = 100.0;
const HEADROOM: f64 = 4.0;

pub(super) struct Chart {
    pub(super) title: String,
    span: &'static str,
    /// Requests and hits a second.
    points: Vec<(f64, f64)>,
    most: f64,
}

impl Chart {
    /// Of windows that follow each other, each this long.
    pub(super) fn new(series: &[Window], seconds: u64, span: &'static str) -> Self {
        let a_second = |count: u64| count as f64 / seconds as f64;
        let points: Vec<(f64, f64)> = series
            .iter()
            .map(|window| (a_second(window.requests()), a_second(window.hits)))
            .collect();
        let most = points
            .iter()
            .map(|(requests, _)| *requests)
            .fold(0.0, f64::max);
        let title = format!("Requests and hits a second, {span}: at most {}", rate(most));
        Self {
            title,
            span,
            points,
            most,
        }
    }

    pub(super) fn width(&self) -> f64 {
        (self.points.len().max(2) - 1) as f64
    }

    pub(super) fn height(&self) -> f64 {
        HEIGHT
    }

    /// Where the lines of reference are.
    pub(super) fn rules(&self) -> [f64; 2] {
        [HEADROOM, HEIGHT - 1.0]
    }

    pub(super) fn requests(&self) -> String {
        self.line(|(requests, _)| *requests)
    }

    pub(super) fn hits(&self) -> String {
        format!(
            "0,{HEIGHT} {} {},{HEIGHT}",
            self.line(|(_, hits)| *hits),
            self.width()
        )
    }

    pub(super) fn span(&self) -> &str {
        self.span
    }

    pub(super) fn most(&self) -> String {
        rate(self.most)
    }

    fn line(&self, value: impl Fn(&(f64, f64)) -> f64) -> String {
        let most = if self.most > 0.0 { self.most } else { 1.0 };
        let at = |(place, point): (usize, &(f64, f64))| {
            let height = (HEIGHT - HEADROOM) * value(point) / most;
            format!("{place},{:.2}", HEIGHT - height)
        };
        let points: Vec<String> = self.points.iter().enumerate().map(at).collect();
        points.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_in_the_picture() {
        let busy = Window {
            hits: 30,
            misses: 30,
            ..Window::default()
        };
        let chart = Chart::new(&[Window::default(), busy], 10, "lately");
        assert_eq!(chart.requests(), "0,100.00 1,4.00");
        assert_eq!(chart.hits(), "0,100 0,100.00 1,52.00 1,100");
        assert_eq!((chart.width(), chart.most()), (1.0, "6.00/s".to_owned()));
        assert_eq!(Chart::new(&[], 10, "lately").requests(), "");
    }
}
