//! Policies in, as soon as they change: one stream of the control plane, read until it ends.

use std::time::{Duration, Instant};

use larder_core::api::Via;
use tokio::time::timeout;

use crate::events::{Events, Message};
use crate::fetch::{MAX_ANSWER, Remote, StreamError, is_tag};
use crate::intake::{Intake, quoted};

/// A stream that has not begun after this time can't be had: something on the way keeps it back.
const OPENING: Duration = Duration::from_secs(3);
/// A stream that is silent for so many of its heartbeats is lost.
const HEARTBEATS: f64 = 2.5;
/// Whatever the control plane says of its heartbeats, a silent stream is lost after a time between these.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// A stream that ends sooner was none, whatever was said at its end.
const LEAST_LIFE: Duration = Duration::from_secs(1);
/// The largest event, in bytes: an answer of the largest size, and the name of its field.
const MAX_EVENT: usize = MAX_ANSWER + 64;

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The control plane can't be reached.
    Unreachable(String),
    /// It can be reached, and there was no stream; it may have said when to come again.
    NotHad {
        why: String,
        after: Option<Duration>,
    },
    /// There was one, for so long.
    Lost { why: String, lived: Duration },
    /// The control plane ended it, and said when to come again.
    Drained { retry: Duration, lived: Duration },
}

impl Ended {
    /// Whether there was a stream that was worth its name: the next one needs no other way meanwhile.
    pub(crate) fn was_well(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NotHad { .. } => false,
            Self::Lost { lived, .. } | Self::Drained { lived, .. } => *lived >= LEAST_LIFE,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it ended")]
    End,
    #[error("it broke off ({0})")]
    Broken(String),
    #[error(transparent)]
    TooLarge(#[from] crate::events::TooLarge),
}

/// What a stream begins with.
#[derive(serde::Deserialize)]
struct Begin {
    heartbeat_seconds: f64,
}

/// Follows a stream until it ends.
pub(crate) async fn follow(remote: &Remote, intake: &mut Intake) -> Ended {
    let opening = open(remote, intake);
    let (mut stream, patience) = match timeout(OPENING, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(ended)) => return ended,
        Err(_) => return not_had("nothing came of it".to_owned()),
    };
    let opened = Instant::now();
    intake.shared.status().connected = true;
    tracing::debug!(
        service = intake.shared.service.as_str(),
        "following the control plane's stream"
    );
    let why = loop {
        let message = match timeout(patience, stream.next()).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => break error.to_string(),
            Err(_) => break "it is silent".to_owned(),
        };
        let etag = message.id.as_deref().map(quoted);
        let etag = etag.filter(|etag| is_tag(etag));
        match message.name.as_str() {
            "policies" => intake.take(&message.data, etag, Via::Stream).await,
            "unchanged" if intake.known().any(|known| Some(known) == etag.as_deref()) => {
                intake.has(etag.as_deref(), Via::Stream);
            }
            "drain" => {
                return Ended::Drained {
                    retry: Duration::from_millis(message.retry.unwrap_or(0)),
                    lived: opened.elapsed(),
                };
            }
            "invalidate" => {
                let invalidations = &intake.shared.invalidations;
                invalidations.take(message.id.as_deref(), &message.data);
            }
            "invalidations" => intake.shared.invalidations.stand(&message.data),
            // A heartbeat, or of a later version.
            _ => {}
        }
    };
    Ended::Lost {
        why,
        lived: opened.elapsed(),
    }
}

/// Opens a stream and hears that it begins; how long it may be silent.
async fn open(remote: &Remote, intake: &Intake) -> Result<(Stream, Duration), Ended> {
    let known = intake.known().next().map(crate::intake::unquoted);
    let position = intake.shared.invalidations.received();
    let response = remote.stream(known.as_deref(), &position).await;
    let response = response.map_err(|error| match error {
        StreamError::Unreachable(why) => Ended::Unreachable(why),
        StreamError::Status { after, .. } => Ended::NotHad {
            why: error.to_string(),
            after,
        },
        StreamError::ContentType => not_had(error.to_string()),
    })?;
    let mut stream = Stream {
        response,
        rest: bytes::Bytes::new(),
        events: Events::new(MAX_EVENT),
    };
    loop {
        let message = stream.next().await;
        let message = message.map_err(|error| not_had(error.to_string()))?;
        if message.name == "begin" {
            return Ok((stream, patience(&message.data)));
        }
    }
}

fn not_had(why: String) -> Ended {
    Ended::NotHad { why, after: None }
}

/// How long a stream that begins so may be silent.
fn patience(begin: &[u8]) -> Duration {
    let (least, most) = PATIENCE;
    let begin: Option<Begin> = serde_json::from_slice(begin).ok();
    let seconds = begin.map_or(f64::NAN, |begin| begin.heartbeat_seconds * HEARTBEATS);
    Duration::try_from_secs_f64(seconds).map_or(most, |time| time.clamp(least, most))
}

/// The stream's messages, one after another.
struct Stream {
    response: reqwest::Response,
    /// What arrived and was not read yet.
    rest: bytes::Bytes,
    events: Events,
}

impl Stream {
    async fn next(&mut self) -> Result<Message, ReadError> {
        loop {
            let mut rest = &self.rest[..];
            let message = self.events.next(&mut rest)?;
            let left = rest.len();
            let read = self.rest.len() - left;
            bytes::Buf::advance(&mut self.rest, read);
            if let Some(message) = message {
                return Ok(message);
            }
            let chunk = self.response.chunk().await;
            let chunk = chunk.map_err(|error| ReadError::Broken(crate::fetch::cause(error)))?;
            self.rest = chunk.ok_or(ReadError::End)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_some_heartbeats_whatever_is_said_of_them() {
        let patience = |text: &str| patience(text.as_bytes()).as_secs_f64();
        assert_eq!(patience("{\"heartbeat_seconds\":10}"), 25.0);
        assert_eq!(patience("{\"heartbeat_seconds\":0}"), 0.5);
        for text in [
            "",
            "{}",
            "{\"heartbeat_seconds\":1e300}",
            "{\"heartbeat_seconds\":-1}",
            "\u{fffd}",
        ] {
            assert_eq!(patience(text), 60.0, "{text}");
        }
    }
}
