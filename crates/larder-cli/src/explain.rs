//! Why an endpoint is cached or not: what the control plane decided, from which figures, and what would flip it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder::Settings;
use larder::api::{DecisionRecord, Explanation};

use crate::args::Explain;
use crate::output::{Done, Output, duration};
use crate::policy_api::ControlPlane;

/// So many decisions of the past are listed.
const PAST: usize = 10;

pub(crate) async fn run(
    what: Explain,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let plane = ControlPlane::of(settings)?;
    let of = &what.endpoint;
    let at = what.at.map(|at| at.seconds(now()));
    let explanation = plane.explain(&of.service, &of.endpoint, at).await?;
    if output.is_json() {
        output.json(&explanation)?;
    } else {
        show(&explanation, output)?;
    }
    Ok(if explanation.decision.is_some() {
        Done::Yes
    } else {
        Done::NotThere
    })
}

fn show(explanation: &Explanation, output: &Output) -> anyhow::Result<()> {
    let name = format!(
        "{} {} {}",
        explanation.service_name, explanation.method, explanation.endpoint
    );
    output.line(&larder::escape(&name))?;
    let Some(decision) = &explanation.decision else {
        return output.line("nothing was decided: the engine decides for endpoints in mode auto or shadow, once they were measured");
    };
    output.line(&larder::escape(&decision.reason))?;
    output.line(&format!(
        "{}, code {}",
        ago(decision.at_seconds),
        larder::escape(&decision.code)
    ))?;
    if !decision.flips.is_empty() {
        output.line("\nWhat would flip it:")?;
        for flip in &decision.flips {
            output.line(&format!("  {}", larder::escape(&flip.sentence)))?;
        }
    }
    show_figures(decision, output)?;
    if !explanation.history.is_empty() {
        output.line("\nBefore:")?;
        for past in explanation.history.iter().take(PAST) {
            output.line(&format!(
                "  {:<14} {}",
                ago(past.at_seconds),
                larder::escape(&past.reason)
            ))?;
        }
    }
    if !decision.replays {
        output.line(
            "\nDeciding anew from the record gives something else: another build decided it",
        )?;
    }
    Ok(())
}

fn show_figures(decision: &DecisionRecord, output: &Output) -> anyhow::Result<()> {
    output.line("\nFigures:")?;
    for (name, value) in &decision.figures {
        output.line(&format!(
            "  {:<24} {}",
            larder::escape(name),
            rounded(*value)
        ))?;
    }
    Ok(())
}

/// With four digits behind the point, without idle zeros.
fn rounded(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn ago(at_seconds: u64) -> String {
    let ago = now().saturating_sub(at_seconds);
    format!("{} ago", duration(Duration::from_secs(ago)))
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// A time: in seconds since 1970, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Seconds(u64),
    Ago(u64),
}

impl At {
    fn seconds(self, now: u64) -> u64 {
        match self {
            Self::Seconds(at) => at,
            Self::Ago(ago) => now.saturating_sub(ago),
        }
    }
}

impl std::str::FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "use how long ago (90s, 10m, 2h, 3d) or seconds since 1970".to_owned();
        let at = text.parse().map(Self::Seconds);
        at.or_else(|_| span(text).map(Self::Ago))
            .map_err(|_| wrong())
    }
}

/// How long something takes, in seconds: `90s`, `10m`, `2h`, `3d`.
pub(crate) fn span(text: &str) -> Result<u64, String> {
    let unit = match text.as_bytes().last() {
        Some(b's') => Some(1),
        Some(b'm') => Some(60),
        Some(b'h') => Some(3_600),
        Some(b'd') => Some(86_400),
        _ => None,
    };
    let span = unit.and_then(|unit| {
        let number: u64 = text[..text.len() - 1].parse().ok()?;
        number.checked_mul(unit)
    });
    span.ok_or_else(|| "use a number and a unit: 90s, 10m, 2h, 3d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_seconds_or_as_how_long_ago() {
        assert_eq!("1796000000".parse(), Ok(At::Seconds(1_796_000_000)));
        assert_eq!("10m".parse(), Ok(At::Ago(600)));
        assert_eq!(At::Ago(600).seconds(1_000), 400);
        for text in ["", "m", "-5", "5y", "99999999999999999999d"] {
            assert!(text.parse::<At>().is_err(), "{text}");
        }
    }
}
