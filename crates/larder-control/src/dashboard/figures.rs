//! Figures as people read them.

use larder_logs::format_time;
use larder_model::Window;
use serde_json::Value;

use crate::measured::REACH;

/// What stands where nothing was measured.
const NONE: &str = "–";

/// A figure with its name.
pub(super) struct Tile {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) note: String,
}

/// What was measured in the last minutes.
pub(super) struct Figures(pub(super) Window);

impl Figures {
    pub(super) fn requests(&self) -> String {
        rate(self.0.requests() as f64 / REACH.as_secs_f64())
    }

    pub(super) fn hits(&self) -> String {
        self.0.hit_ratio().map_or_else(none, percent)
    }

    /// The origin's mean latency.
    pub(super) fn origin(&self) -> String {
        self.0.origin_ms_mean().map_or_else(none, ms)
    }

    /// The mean latency of a hit.
    pub(super) fn hit(&self) -> String {
        let hits = self.0.hits;
        if hits == 0 {
            return none();
        }
        ms(self.0.hit_ms_sum / hits as f64)
    }

    /// Errors among the origin's calls.
    pub(super) fn errors(&self) -> String {
        let calls = self.0.requests() - self.0.hits.min(self.0.requests()) + self.0.refreshes;
        share(self.0.errors, calls)
    }

    pub(super) fn tiles(&self) -> Vec<Tile> {
        let window = &self.0;
        let hits_a_second = window.hits as f64 / REACH.as_secs_f64();
        let at_once = window
            .origin_ms_mean()
            .map(|mean| format!("{} calls at once", number(hits_a_second * mean / 1_000.0)));
        let tile = |name, value, note: String| Tile { name, value, note };
        vec![
            tile(
                "Requests",
                self.requests(),
                format!("{} in five minutes", whole(window.requests())),
            ),
            tile("Hits", self.hits(), "of lookups".to_owned()),
            tile(
                "Origin spared",
                rate(hits_a_second),
                at_once.unwrap_or_default(),
            ),
            tile("Origin, mean", self.origin(), longest(window)),
            tile("A hit, mean", self.hit(), String::new()),
            tile(
                "Stale",
                share(window.stales, window.hits),
                "of hits".to_owned(),
            ),
            tile("Errors", self.errors(), "of origin calls".to_owned()),
        ]
    }
}

fn longest(window: &Window) -> String {
    match window.origin_count {
        0 => String::new(),
        _ => format!("at most {}", ms(window.origin_ms_max)),
    }
}

fn none() -> String {
    NONE.to_owned()
}

fn share(part: u64, all: u64) -> String {
    match all {
        0 => none(),
        all => percent(part as f64 / all as f64),
    }
}

/// With three digits that matter, about.
pub(crate) fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => whole(value.round() as u64),
        value if value >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        value => format!("{value:.2}"),
    }
}

pub(super) fn rate(a_second: f64) -> String {
    format!("{}/s", number(a_second))
}

pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        percent if percent > 0.0 && percent < 0.1 => "< 0.1 %".to_owned(),
        percent if percent > 99.9 && percent < 100.0 => "> 99.9 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

pub(super) fn ms(value: f64) -> String {
    format!("{} ms", number(value))
}

pub(super) fn seconds(value: f64) -> String {
    match value {
        value if value >= 7_200.0 => format!("{} h", number(value / 3_600.0)),
        value if value.fract() == 0.0 => format!("{} s", whole(value as u64)),
        value => format!("{} s", number(value)),
    }
}

/// How long ago something was.
pub(super) fn ago(seconds: u64) -> String {
    match seconds {
        0..=1 => "now".to_owned(),
        2..=119 => format!("{seconds} s ago"),
        120..=7_199 => format!("{} min ago", seconds / 60),
        7_200..=172_799 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// How long something lasts yet.
pub(crate) fn lasts(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A time in seconds since 1970, in UTC.
pub(super) fn time(at_seconds: u64) -> String {
    format_time(at_seconds.saturating_mul(1_000))
}

pub(super) fn who(name: &str, is_verified: bool) -> String {
    match is_verified {
        true => name.to_owned(),
        false => format!("{name} (unverified)"),
    }
}

/// A value as JSON has it; nothing where there is none.
pub(super) fn json(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => NONE.to_owned(),
        Some(value) => value.to_string(),
    }
}

/// A number of bytes.
pub(super) fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut shown = None;
    for unit in units {
        if value < 1_024.0 {
            break;
        }
        value /= 1_024.0;
        shown = Some(unit);
    }
    match shown {
        None => format!("{count} bytes"),
        Some(unit) => format!("{} {unit}", number(value)),
    }
}

/// With commas.
pub(super) fn whole(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.004, 1.5, 12.34, 812.6, 1_234_567.8].map(number),
            ["0", "0.00", "1.50", "12.3", "813", "1,234,568"]
        );
        assert_eq!(
            [0.0, 0.000_1, 0.5, 0.999_9, 1.0].map(percent),
            ["0.0 %", "< 0.1 %", "50.0 %", "> 99.9 %", "100.0 %"]
        );
        assert_eq!(
            [0.5, 60.0, 86_400.0].map(seconds),
            ["0.50 s", "60 s", "24.0 h"]
        );
        assert_eq!(
            [0, 59, 600, 90_000].map(ago),
            ["now", "59 s ago", "10 min ago", "25 h ago"]
        );
        assert_eq!(
            [0, 1_023, 1_024, 300 << 20, u64::MAX].map(bytes),
            [
                "0 bytes",
                "1023 bytes",
                "1.00 KiB",
                "300 MiB",
                "16,777,216 TiB"
            ]
        );
    }

    #[test]
    fn what_was_not_measured_is_no_zero() {
        let nothing = Figures(Window::default());
        assert_eq!(
            [
                nothing.hits(),
                nothing.origin(),
                nothing.hit(),
                nothing.errors()
            ],
            [NONE; 4]
        );
    }
}
