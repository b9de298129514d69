//! How long the origin takes: a mean with its bounds, forgotten when it has become another.

use larder_model::Window;
use serde::{Deserialize, Serialize};

/// 99 % of a mean's errors lie within so many of its standard errors.
const Z: f64 = 2.58;
/// What was measured loses half its weight in this time, in seconds, while there is enough of it.
const HALF_LIFE: f64 = 420.0;
/// Fewer answers don't fade.
const ENOUGH: f64 = 60.0;
/// From so many answers on it is known what is usual.
const USUAL: f64 = 30.0;
/// A shift of so many standard deviations is none.
const SLACK: f64 = 0.5;
/// At this sum of shifts what was measured before is forgotten.
const SHIFTED: f64 = 10.0;
/// Logarithms of latencies are taken to spread at least this much.
const LEAST_SPREAD: f64 = 0.1;

/// Sums over successful answers of the origin: their number, latencies in milliseconds, squares and logarithms.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    n: f64,
    sum: f64,
    squares: f64,
    ln: f64,
    ln_squares: f64,
    /// Two-sided CUSUM (Page 1954) of the logarithms' means.
    up: f64,
    down: f64,
}

/// A mean and its bounds, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// How many answers it is of.
    pub answers: f64,
    /// The least that it may be.
    pub low: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The most that it may be.
    pub high: f64,
}

impl Latency {
    /// Lets what was measured fade.
    pub(crate) fn fade(&mut self, seconds: f64) {
        if self.n > ENOUGH {
            let factor = (-seconds / HALF_LIFE).exp2();
            for sum in [
                &mut self.n,
                &mut self.sum,
                &mut self.squares,
                &mut self.ln,
                &mut self.ln_squares,
            ] {
                *sum *= factor;
            }
        }
    }

    /// Takes a window's answers in; forgets what was before if they are of another origin.
    pub(crate) fn take(&mut self, window: &Window) {
        let n = window.origin_count as f64;
        if n == 0.0 {
            return;
        }
        self.compare(n, window.origin_ln_sum / n);
        self.n += n;
        self.sum += window.origin_ms_sum;
        self.squares += window
            .origin_ms_sq_sum
            .max(window.origin_ms_sum * (window.origin_ms_sum / n));
        self.ln += window.origin_ln_sum;
        self.ln_squares += window.origin_ln_sq_sum;
    }

    fn compare(&mut self, n: f64, mean: f64) {
        if self.n < USUAL {
            return;
        }
        let usual = self.ln / self.n;
        let variance = (self.ln_squares / self.n - usual * usual).max(0.0);
        let shift = ((mean - usual) / variance.sqrt().max(LEAST_SPREAD)).clamp(-4.0, 4.0);
        self.up = (self.up + n * (shift - SLACK)).max(0.0);
        self.down = (self.down + n * (-shift - SLACK)).max(0.0);
        if self.up > SHIFTED || self.down > SHIFTED {
            *self = Self::default();
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        if self.n == 0.0 {
            return Bounds::default();
        }
        let mean = self.sum / self.n;
        let variance = (self.squares / self.n - mean * mean).max(0.0);
        let error = Z * (variance / self.n).sqrt();
        Bounds {
            answers: self.n,
            low: (mean - error).max(0.0),
            mean,
            high: mean + error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_model::Outcome;
    use std::time::Duration;

    fn window(latencies: impl IntoIterator<Item = u64>) -> Window {
        let mut window = Window::default();
        for ms in latencies {
            window.count(Outcome::Miss, Some(Duration::from_millis(ms)), false, 0);
        }
        window
    }

    #[test]
    fn of_two_kinds_of_answers_the_mean_is_arithmetic() {
        let mut latency = Latency::default();
        latency.take(&window(
            (0..100).map(|index| if index < 90 { 4 } else { 3_004 }),
        ));
        let bounds = latency.bounds();
        assert!((303.9..304.1).contains(&bounds.mean), "{bounds:?}");
        assert!(bounds.low < bounds.mean && bounds.high > bounds.mean);
    }

    #[test]
    fn an_origin_that_has_become_another_is_measured_anew_and_noise_is_not_one() {
        let mut latency = Latency::default();
        for round in 0..500_u64 {
            latency.fade(10.0);
            latency.take(&window(
                (0..20).map(|index| 400 + (index * 97 + round * 31) % 400),
            ));
            let n = latency.bounds().answers;
            assert!(
                n >= 20.0 * (round.min(50) + 1) as f64 * 0.5,
                "forgotten at {round}: {n}"
            );
        }
        latency.take(&window([20; 20]));
        let bounds = latency.bounds();
        assert_eq!((bounds.answers, bounds.mean), (20.0, 20.0));
    }
}
