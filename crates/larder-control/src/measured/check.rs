//! Signals and windows are checked before anything counts.

use std::time::Duration;

use larder_decide::collapse;
use larder_model::api::{Signal, SignalStatus, WindowReport};
use larder_model::{
    Endpoint, EndpointError, Evidence, KeyError, Method, Outcome, PER_SECOND, Service, Window,
};

/// What endpoints past the bound are called, by clients too.
pub(super) const OTHER: &str = "other";
/// No latency is longer, in milliseconds: a day.
const MAX_LATENCY_MS: f64 = 86_400_000.0;
/// No latency's logarithm is further from 0.
const MAX_LN: f64 = 19.0;
/// No answer counts more bytes: 1 TiB.
const MAX_BYTES: u64 = 1 << 40;
/// A longer window tells no keys, in milliseconds: what is decided is decided of the last minute.
const MAX_KEYS_MS: u64 = 60_000;
/// By so much an instance's times may lie behind the window's end, in milliseconds.
const SLACK_MS: u64 = 2_000;

/// Why signals are refused. Nothing of a batch counts if one is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignalError {
    #[error(transparent)]
    Service(#[from] KeyError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error("latency_ms is {0}: use 0 to 86400000 milliseconds")]
    Latency(f64),
    #[error("bytes is {0}: use at most 1099511627776 (1 TiB)")]
    Bytes(u64),
    #[error(
        "a window of {0} has figures that can't be: counts are at most 1000000000 and fit each other, sums are finite and not negative"
    )]
    Window(String),
    #[error(
        "a window of {0} has keys that can't be: at most 256 of each kind, each asked for, the first time not after the last, a share above 0 and at most 1, together at most 1000000000 lookups"
    )]
    Keys(String),
    #[error("the instance's name {0:?} is not valid: use 1 to 64 of A-Z a-z 0-9 . _ -")]
    Instance(String),
}

/// A signal or window that was checked.
pub(super) struct Checked {
    pub(super) service: Service,
    /// `None`: those that the client itself could not tell apart.
    pub(super) endpoint: Option<Endpoint>,
    /// Whether something is decided for it.
    pub(super) is_watched: bool,
    pub(super) window: Window,
    pub(super) identity: Option<Identity>,
    pub(super) evidence: Option<Evidence>,
    pub(super) has_store_failed: bool,
    /// How long it was measured, and how long ago that ended, in milliseconds.
    pub(super) times_ms: (u64, u64),
    pub(super) store_id: u32,
}

pub(super) struct Identity {
    pub(super) instance: String,
    pub(super) boot: u64,
    pub(super) sequence: u64,
}

pub(super) fn check_signal(signal: Signal) -> Result<Checked, SignalError> {
    if !(0.0..=MAX_LATENCY_MS).contains(&signal.latency_ms) {
        return Err(SignalError::Latency(signal.latency_ms));
    }
    let bytes = signal.bytes.unwrap_or(0);
    if bytes > MAX_BYTES {
        return Err(SignalError::Bytes(bytes));
    }
    let mut window = Window::default();
    window.count(
        signal.cache.unwrap_or(Outcome::Bypass),
        Some(Duration::from_secs_f64(signal.latency_ms / 1_000.0)),
        signal.status == SignalStatus::Error,
        bytes,
    );
    Ok(Checked {
        service: Service::new(&signal.service_name)?,
        endpoint: Some(read_endpoint(&signal.endpoint)?),
        is_watched: false,
        window,
        identity: None,
        evidence: None,
        has_store_failed: false,
        times_ms: (0, 0),
        store_id: 0,
    })
}

pub(super) fn check_window(report: WindowReport) -> Result<Checked, SignalError> {
    let window = report.window;
    if !window.is_plausible() || !fits_itself(&window) {
        return Err(SignalError::Window(
            report.endpoint.chars().take(80).collect(),
        ));
    }
    if report
        .evidence
        .as_ref()
        .is_some_and(|evidence| !evidence.is_plausible())
    {
        return Err(SignalError::Keys(
            report.endpoint.chars().take(80).collect(),
        ));
    }
    if Service::new(&report.instance).is_err() {
        return Err(SignalError::Instance(
            report.instance.chars().take(80).collect(),
        ));
    }
    Ok(Checked {
        service: Service::new(&report.service_name)?,
        endpoint: match report.endpoint.as_str() {
            OTHER => None,
            endpoint => Some(read_endpoint(endpoint)?),
        },
        is_watched: false,
        window,
        evidence: report
            .evidence
            .map(|evidence| within(evidence, report.length_ms)),
        has_store_failed: report.store_failed,
        times_ms: (report.length_ms, report.ended_ago_ms),
        store_id: report.store_id,
        identity: Some(Identity {
            instance: report.instance,
            boot: report.boot,
            sequence: report.sequence,
        }),
    })
}

/// No latency is longer than a day, and the longest of some is not longer than their sum (but for rounding).
fn fits_itself(window: &Window) -> bool {
    let most = |count: u64| count as f64 * MAX_LATENCY_MS;
    window.origin_ms_max <= MAX_LATENCY_MS
        && window.origin_ms_sq_sum <= most(window.origin_count) * MAX_LATENCY_MS
        && window.origin_ln_sum.abs() <= window.origin_count as f64 * MAX_LN
        && window.origin_ln_sq_sum <= window.origin_count as f64 * MAX_LN * MAX_LN
        && window.origin_ms_max <= window.origin_ms_sum * 1.000_001
        && window.origin_ms_sum <= most(window.origin_count)
        && window.hit_ms_sum <= most(window.hits)
        && window.bytes <= MAX_BYTES.saturating_mul(1_024)
}

/// Evidence whose times lie within a window of this length, in milliseconds: what is walked through is no longer.
fn within(mut evidence: Evidence, length_ms: u64) -> Evidence {
    if length_ms > MAX_KEYS_MS {
        return evidence.into_erased();
    }
    let latest = (length_ms + SLACK_MS) * u64::from(PER_SECOND) / 1_000;
    evidence.end_by(u16::try_from(latest).unwrap_or(u16::MAX));
    evidence
}

/// A path with a query counts without it.
fn read_endpoint(text: &str) -> Result<Endpoint, SignalError> {
    let text = text.split_once('?').map_or(text, |(path, _)| path);
    Ok(text.parse()?)
}

/// The template of an endpoint that no policy knows.
pub(super) fn guess(endpoint: &Endpoint) -> Result<Endpoint, SignalError> {
    let template = collapse(endpoint.template());
    Ok(Endpoint::new(Method::clone(endpoint.method()), &template)?)
}

#[cfg(test)]
mod tests {
    use larder_model::{KeyUse, OriginAnswer};

    use super::*;

    fn evidence() -> Evidence {
        let key = KeyUse {
            hash: 1,
            requests: 30_000,
            first: 10,
            last: u16::MAX,
            since_before: None,
            is_hot: true,
        };
        let answer = OriginAnswer {
            hash: 1,
            body: 2,
            at: u16::MAX,
            check: None,
        };
        Evidence {
            keys: vec![key],
            answers: vec![answer],
            erased: vec![3],
            ..Evidence::default()
        }
    }

    #[test]
    fn nothing_is_later_than_its_window_and_what_took_longer_than_a_minute_tells_no_keys() {
        let short = within(evidence(), 5_000);
        assert_eq!((short.keys[0].first, short.keys[0].last), (10, 175));
        assert_eq!((short.answers[0].at, short.is_plausible()), (175, true));
        assert_eq!(within(evidence(), 60_000).keys[0].last, 1_550);
        for long in [60_001, u64::MAX] {
            let long = within(evidence(), long);
            assert_eq!((long.keys.len(), long.answers.len()), (0, 0));
            assert_eq!(long.erased, [3]);
        }
    }
}
