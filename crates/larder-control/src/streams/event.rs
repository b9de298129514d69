//! What a stream says, as it goes over the wire. axum's own type for events belongs to one response each, so that a
//! document would be copied for every client; here all have the same bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

/// Says that the stream lives, and nothing else: a comment.
pub(super) const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");

/// A version of a service's policies. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    tag: Arc<str>,
    policies: Bytes,
}

impl Event {
    /// The version with this `ETag`, and its document.
    pub(crate) fn new(etag: &str, document: &[u8]) -> Self {
        let tag = etag.trim_matches('"');
        let mut policies = BytesMut::with_capacity(document.len() + tag.len() + 40);
        policies.put_slice(format!("event: policies\nid: {tag}\ndata: ").as_bytes());
        // JSON without idle space, in which no such byte stands: in its strings they are escaped. Whatever comes of that,
        // none begins a line here.
        policies.extend(document.iter().map(|byte| match byte {
            b'\n' | b'\r' => b' ',
            other => *other,
        }));
        policies.put_slice(b"\n\n");
        Self {
            tag: tag.into(),
            policies: policies.freeze(),
        }
    }

    /// For a client that has another version, or none.
    pub(super) fn policies(&self) -> Bytes {
        self.policies.clone()
    }

    /// For a client that has this version already.
    pub(super) fn unchanged(&self) -> Bytes {
        format!("event: unchanged\nid: {}\ndata: {{}}\n\n", self.tag).into()
    }

    pub(super) fn is(&self, tag: &str) -> bool {
        *self.tag == *tag
    }
}

/// What a stream begins with. A browser that loses it comes again after 2 s.
pub(super) fn begin(heartbeat: Duration) -> Bytes {
    let seconds = heartbeat.as_secs_f64();
    format!("retry: 2000\nevent: begin\ndata: {{\"heartbeat_seconds\":{seconds}}}\n\n").into()
}

/// Asks the client to open another stream after this time.
pub(super) fn drain(retry: Duration) -> Bytes {
    format!("event: drain\nretry: {}\ndata: {{}}\n\n", retry.as_millis()).into()
}

/// Tells of an invalidation. Its id is what a client says that it knows: `;`, and the position.
pub(crate) fn invalidate(position: &str, told: &[u8]) -> Bytes {
    beside("invalidate", position, told)
}

/// Tells where a client stands with invalidations.
pub(crate) fn invalidations(position: &str, standing: &[u8]) -> Bytes {
    beside("invalidations", position, standing)
}

/// An event that is not of policies. The data is JSON, in whose strings no line ends.
fn beside(name: &str, position: &str, data: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(data.len() + position.len() + 50);
    event.put_slice(format!("event: {name}\nid: ;{position}\ndata: ").as_bytes());
    event.put_slice(data);
    event.put_slice(b"\n\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_document_forges_a_line() {
        let forged = b"{\"reason\":\"a\r\n\r\nevent: drain\ndata: {}\n\n\"}";
        let event = Event::new("\"db-7\"", forged).policies();
        let lines: Vec<&[u8]> = event.split(|byte| matches!(byte, b'\n' | b'\r')).collect();
        assert_eq!(lines.len(), 5, "{event:?}");
        assert_eq!(
            (lines[0], lines[1], lines[3], lines[4]),
            (
                &b"event: policies"[..],
                &b"id: db-7"[..],
                &b""[..],
                &b""[..]
            )
        );
        assert_eq!(lines[2].len(), b"data: ".len() + forged.len());
    }
}
