//! An entry's value in clear, whatever form it lies in.

use anyhow::Context as _;
use larder::{Content, Frame, FrameError, Frames, Json, Key, Settings, Stamp, Stored, Wrapped};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::output::{Done, Output};

/// A framed entry, for programs.
#[derive(Serialize)]
struct Framed<'a> {
    form: &'static str,
    packed: bool,
    sealed: bool,
    content: &'static str,
    bytes: usize,
    age_seconds: Option<f64>,
    left_seconds: Option<f64>,
    total_seconds: f64,
    fresh_seconds: f64,
    stale_while_revalidate_seconds: f64,
    stale_if_error_seconds: f64,
    load_cost_seconds: f64,
    stamps: Vec<String>,
    value: Option<&'a RawValue>,
}

/// Prints the value; as JSON with what the frame says of it, if there is one.
pub(crate) fn show(
    key: &Key,
    stored: &Stored,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let Some(wrapped) = Wrapped::of(&stored.bytes) else {
        show_value(&stored.bytes, output)?;
        return Ok(Done::Yes);
    };
    let frame = open(key, stored, settings).map_err(explain(settings))?;
    if !output.is_json() {
        show_value(&frame.payload, output)?;
        return Ok(Done::Yes);
    }
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    output.json(&Framed {
        form: "framed",
        packed: wrapped.is_packed,
        sealed: wrapped.is_sealed,
        content: content(frame.content),
        bytes: stored.bytes.len(),
        age_seconds: frame.age(stored.ttl).map(seconds),
        left_seconds: stored.ttl.map(seconds),
        total_seconds: seconds(frame.total),
        fresh_seconds: seconds(frame.fresh),
        stale_while_revalidate_seconds: seconds(frame.stale_while_revalidate),
        stale_if_error_seconds: seconds(frame.stale_if_error),
        load_cost_seconds: seconds(frame.load_cost),
        stamps: frame.stamps.iter().map(name).collect(),
        value: match frame.content {
            Content::Json => Some(
                serde_json::from_slice(&frame.payload)
                    .context("the value in the frame is no JSON")?,
            ),
            _ => None,
        },
    })?;
    Ok(Done::Yes)
}

fn show_value(value: &bytes::Bytes, output: &Output) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(value);
    match Json::parse(value.clone()) {
        Ok(_) => output.json_text(&text),
        Err(_) => output.line(&larder::escape(&text)),
    }
}

/// Opens a frame with the keys of the settings. One that isn't sealed is shown all the same: a lookup takes it for a miss.
fn open(key: &Key, stored: &Stored, settings: &Settings) -> Result<Frame, FrameError> {
    let decode = |keys| Frames::new(keys).decode(key, &stored.bytes, larder::MAX_VALUE_BYTES);
    match decode(settings.seal_keys.clone()) {
        Err(FrameError::Unsealed) => decode(None),
        opened => opened,
    }
}

fn explain(settings: &Settings) -> impl Fn(FrameError) -> anyhow::Error {
    let has_keys = settings.seal_keys.is_some();
    move |error| match error {
        FrameError::OtherKey if !has_keys => anyhow::anyhow!(
            "the entry is sealed: set LARDER_SEAL_KEYS or LARDER_SEAL_KEYS_FILE to what the service has that stored it"
        ),
        error => {
            anyhow::anyhow!("the entry can't be read, so a lookup takes it for a miss: {error}")
        }
    }
}

fn content(content: Content) -> &'static str {
    match content {
        Content::Json => "json",
        _ => "http",
    }
}

fn name(stamp: &Stamp) -> String {
    stamp.name.to_string()
}
