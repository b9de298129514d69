//! Who looks at the dashboard hears that something changed, and looks again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// So many look at once; further ones ask again and again.
const MOST: usize = 200;
/// Nobody is told more often: what changes in between is seen at the next look.
const PAUSE: Duration = Duration::from_secs(1);
/// Where nothing changes: times that pass are shown, too.
const BEAT: Duration = Duration::from_secs(10);
/// A stream is no older: then its browser opens another, and is asked anew who it is.
const AGE: Duration = Duration::from_secs(600);
/// A browser that loses the stream comes again after this time.
const BEGIN: Bytes = Bytes::from_static(b"retry: 5000\nevent: changed\ndata: {}\n\n");
const CHANGED: Bytes = Bytes::from_static(b"event: changed\ndata: {}\n\n");

/// What changed, for those who look.
pub(crate) struct Live {
    changed: watch::Sender<()>,
    places: Arc<Semaphore>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            changed: watch::Sender::default(),
            places: Arc::new(Semaphore::new(MOST)),
        }
    }
}

/// One who looks.
struct Watcher {
    changed: watch::Receiver<()>,
    is_ending: watch::Receiver<bool>,
    next: Option<Bytes>,
    ends_at: Instant,
    _place: OwnedSemaphorePermit,
}

impl Live {
    /// Something that is shown changed.
    pub(crate) fn poke(&self) {
        self.changed.send_replace(());
    }

    /// An event each time that something changed, until it is to end; `None` if as many look as may.
    pub(crate) fn watch(&self, is_ending: watch::Receiver<bool>) -> Option<Body> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let watcher = Watcher {
            changed: self.changed.subscribe(),
            is_ending,
            next: Some(BEGIN),
            ends_at: Instant::now() + AGE,
            _place: place,
        };
        let events = futures_util::stream::unfold(watcher, |mut watcher| async move {
            let event = watcher.next().await?;
            Some((Ok::<_, Infallible>(event), watcher))
        });
        Some(Body::from_stream(events))
    }
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.next.take() {
            return Some(first);
        }
        let beats_at = Instant::now() + BEAT;
        let news = async {
            sleep(PAUSE).await;
            // Its sender lives as long as the control plane.
            let _ = self.changed.changed().await;
        };
        tokio::select! {
            biased;
            _ = self.is_ending.wait_for(|is_ending| *is_ending) => None,
            () = sleep_until(self.ends_at) => None,
            () = news => Some(CHANGED),
            () = sleep_until(beats_at) => Some(CHANGED),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::BodyDataStream;
    use futures_util::StreamExt as _;

    use super::*;

    async fn next(body: &mut BodyDataStream) -> Option<Bytes> {
        body.next().await?.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_is_told_of_changes_at_a_pace_and_at_the_end_no_more() {
        let (live, ending) = (Live::default(), watch::Sender::new(false));
        let body = live.watch(ending.subscribe()).unwrap();
        let mut body = body.into_data_stream();
        assert_eq!(next(&mut body).await, Some(BEGIN));
        let quiet = Instant::now();
        assert_eq!(next(&mut body).await, Some(CHANGED));
        assert_eq!(quiet.elapsed(), BEAT);
        for _ in 0..3 {
            let began = Instant::now();
            for _ in 0..100 {
                live.poke();
            }
            assert_eq!(next(&mut body).await, Some(CHANGED));
            assert!(began.elapsed() >= PAUSE && began.elapsed() < BEAT);
        }
        ending.send_replace(true);
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_in_its_time() {
        let (live, ending) = (Live::default(), watch::Sender::new(false));
        let body = live.watch(ending.subscribe()).unwrap();
        let (mut body, began) = (body.into_data_stream(), Instant::now());
        while next(&mut body).await.is_some() {
            assert!(began.elapsed() <= AGE);
        }
        assert_eq!(began.elapsed(), AGE);
    }

    #[tokio::test]
    async fn places_are_bounded_and_given_back() {
        let (live, ending) = (Live::default(), watch::Sender::new(false));
        let all: Vec<Body> = (0..MOST)
            .filter_map(|_| live.watch(ending.subscribe()))
            .collect();
        assert_eq!(all.len(), MOST);
        assert!(live.watch(ending.subscribe()).is_none());
        drop(all);
        assert!(live.watch(ending.subscribe()).is_some());
    }
}
