//! One client's stream: what it says next.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::event::{self, Event};
use super::{Place, StreamLimits, chance};
use crate::invalidations::Feed;

/// What a stream says first.
pub(super) struct Beginning {
    pub(super) begin: Bytes,
    /// The tag of the version that the client has.
    pub(super) known: Option<String>,
}

/// What is said next.
enum Next {
    Begin(Beginning),
    /// What holds, or that it is what the client has.
    Latest {
        known: Option<String>,
    },
    /// Whatever happens.
    Change,
    /// Nothing more.
    Over,
}

/// What a silent stream waits for.
enum Happened {
    End,
    Change,
    Invalidated,
    Timer,
}

/// One client's stream.
pub(crate) struct Stream {
    next: Next,
    latest: watch::Receiver<Event>,
    is_ending: watch::Receiver<bool>,
    heartbeat: Duration,
    beats_at: Instant,
    ends_at: Instant,
    drain: Duration,
    feed: Option<Feed>,
    _place: Place,
}

impl Stream {
    pub(super) fn new(
        beginning: Beginning,
        latest: watch::Receiver<Event>,
        is_ending: watch::Receiver<bool>,
        limits: &StreamLimits,
        place: Place,
    ) -> Self {
        let now = Instant::now();
        Self {
            next: Next::Begin(beginning),
            latest,
            is_ending,
            heartbeat: limits.heartbeat,
            // Streams that were opened together don't beat together.
            beats_at: now + limits.heartbeat.mul_f64(0.5 + 0.5 * chance()),
            ends_at: now + limits.age.mul_f64(0.8 + 0.4 * chance()),
            drain: limits.drain,
            feed: None,
            _place: place,
        }
    }

    /// The same, and it tells of invalidations.
    pub(crate) fn with(self, feed: Feed) -> Self {
        Self {
            feed: Some(feed),
            ..self
        }
    }

    /// The stream as the body of an answer. The next piece is asked for when the client has taken the last.
    pub(crate) fn into_body(self) -> Body {
        let pieces = futures_util::stream::unfold(self, |mut stream| async move {
            let piece = stream.next().await?;
            Some((Ok::<_, Infallible>(piece), stream))
        });
        Body::from_stream(pieces)
    }

    async fn next(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.next, Next::Change) {
            Next::Begin(Beginning { begin, known }) => {
                self.next = Next::Latest { known };
                Some(begin)
            }
            Next::Latest { known } => {
                let event = self.latest.borrow_and_update();
                let has_it = known.is_some_and(|known| event.is(&known));
                Some(if has_it {
                    event.unchanged()
                } else {
                    event.policies()
                })
            }
            Next::Change => match self.feed.as_mut().and_then(Feed::next) {
                Some(piece) => Some(piece),
                None => Some(self.change().await),
            },
            Next::Over => {
                self.next = Next::Over;
                None
            }
        }
    }

    async fn change(&mut self) -> Bytes {
        let timer = sleep_until(self.beats_at.min(self.ends_at));
        let happened = tokio::select! {
            biased;
            _ = self.is_ending.wait_for(|is_ending| *is_ending) => Happened::End,
            // The slot outlives its streams.
            _ = self.latest.changed() => Happened::Change,
            () = invalidated(&mut self.feed) => Happened::Invalidated,
            () = timer => Happened::Timer,
        };
        match happened {
            Happened::End => {
                self.next = Next::Over;
                event::drain(self.drain.mul_f64(chance()))
            }
            Happened::Change => self.latest.borrow_and_update().policies(),
            // Where it was told in another piece already, that the stream lives.
            Happened::Invalidated => self
                .feed
                .as_mut()
                .and_then(Feed::next)
                .unwrap_or(event::HEARTBEAT),
            Happened::Timer => self.beat(),
        }
    }

    /// The timer has run out.
    fn beat(&mut self) -> Bytes {
        let now = Instant::now();
        if now >= self.ends_at {
            self.next = Next::Over;
            // Ages differ by chance, so that these clients need not wait.
            return event::drain(Duration::ZERO);
        }
        self.beats_at = now + self.heartbeat;
        event::HEARTBEAT
    }
}

/// Waits until there may be an invalidation to tell of.
async fn invalidated(feed: &mut Option<Feed>) {
    match feed {
        Some(feed) => feed.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use larder_model::Service;

    use super::*;
    use crate::streams::Streams;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn open(streams: &Streams, known: Option<&str>) -> Stream {
        let service = Service::new("svc").unwrap();
        let latest = || Event::new("\"db-7\"", b"{\"version\":7}");
        streams.open(&service, ADDRESS, known, latest).ok().unwrap()
    }

    async fn said(stream: &mut Stream) -> String {
        let said = stream.next().await.expect("it says something");
        String::from_utf8(said.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_hears_what_it_does_not_have_and_that_the_stream_lives() {
        let streams = Streams::new(StreamLimits::default());
        for (known, first) in [
            (None, "event: policies\nid: db-7\ndata: {\"version\":7}\n\n"),
            (
                Some("db-6"),
                "event: policies\nid: db-7\ndata: {\"version\":7}\n\n",
            ),
            (
                Some("other-7"),
                "event: policies\nid: db-7\ndata: {\"version\":7}\n\n",
            ),
            (Some("db-7"), "event: unchanged\nid: db-7\ndata: {}\n\n"),
        ] {
            let mut stream = open(&streams, known);
            assert!(said(&mut stream).await.contains("\"heartbeat_seconds\":10"));
            assert_eq!(said(&mut stream).await, first);
            let before = Instant::now();
            assert_eq!(said(&mut stream).await, ":\n\n");
            assert!(before.elapsed() <= Duration::from_secs(10));
            assert_eq!(said(&mut stream).await, ":\n\n");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_was_slow_hears_the_latest_alone() {
        let streams = Streams::new(StreamLimits::default());
        let mut stream = open(&streams, Some("db-7"));
        let service = Service::new("svc").unwrap();
        said(&mut stream).await;
        said(&mut stream).await;
        for version in 8..100 {
            let event = Event::new(&format!("\"db-{version}\""), b"{}");
            let places = crate::streams::lock(&streams.places);
            places.of_service[&service].latest.send_replace(event);
        }
        assert!(said(&mut stream).await.contains("id: db-99\n"));
        assert_eq!(said(&mut stream).await, ":\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_by_age_at_once_and_by_the_end_of_all_later() {
        let streams = Streams::new(StreamLimits::default());
        let mut stream = open(&streams, None);
        let begun = Instant::now();
        let mut last = String::new();
        while let Some(piece) = stream.next().await {
            last = String::from_utf8(piece.to_vec()).unwrap();
        }
        let age = begun.elapsed().as_secs();
        assert!((480..=720).contains(&age), "{age}");
        assert_eq!(last, "event: drain\nretry: 0\ndata: {}\n\n");

        let mut retries = std::collections::HashSet::new();
        let mut all: Vec<Stream> = (0..20).map(|_| open(&streams, None)).collect();
        streams.end();
        for stream in &mut all {
            said(stream).await;
            said(stream).await;
            let said = said(stream).await;
            let retry = said.strip_prefix("event: drain\nretry: ").unwrap();
            let retry: u64 = retry.split_once('\n').unwrap().0.parse().unwrap();
            assert!(retry <= 30_000);
            retries.insert(retry);
            assert!(stream.next().await.is_none());
        }
        assert!(retries.len() > 10, "{retries:?}");
        drop(all);
        drop(stream);
        assert_eq!(streams.count(), 0);
    }
}
