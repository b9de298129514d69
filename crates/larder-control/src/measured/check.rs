//! Signals and windows are checked before anything counts.

use std::time::Duration;

use larder_decide::collapse;
use larder_model::api::{Signal, SignalStatus, WindowReport};
use larder_model::{Endpoint, EndpointError, Evidence, KeyError, Method, Outcome, Service, Window};

/// What endpoints past the bound are called, by clients too.
pub(super) const OTHER: &str = "other";
/// No latency is longer, in milliseconds: a day.
const MAX_LATENCY_MS: f64 = 86_400_000.0;
/// No latency's logarithm is further from 0.
const MAX_LN: f64 = 19.0;
/// No answer counts more bytes: 1 TiB.
const MAX_BYTES: u64 = 1 << 40;

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
        "a window of {0} has keys that can't be: at most 256 of each kind, the first time not after the last, a share from 0 to 1"
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
    pub(super) window: Window,
    pub(super) identity: Option<Identity>,
    pub(super) evidence: Option<Evidence>,
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
        window,
        identity: None,
        evidence: None,
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
        window,
        evidence: report.evidence,
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
