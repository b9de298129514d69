//! What was measured since the last report. Counting takes a lock that is held for a few additions, and that threads
//! seldom share.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use larder_core::{Endpoint, Event, Key, Window};
use larder_decide::collapse;

use crate::watch::Watched;

/// Threads are spread over so many locks.
const STRIPES: usize = 8;
/// Endpoints without a policy are spread over so many locks.
const SHARDS: usize = 16;
/// At most this many endpoints without a policy are told apart between two reports; further ones are `other`.
const MAX_ENDPOINTS: usize = 2_000;

/// One endpoint's window, in stripes: made at the first request, since most of 2,000 endpoints may never see one.
#[derive(Default)]
pub(crate) struct Counters {
    stripes: OnceLock<Box<[Stripe; STRIPES]>>,
    pub(crate) watched: Watched,
}

/// On a cache line of its own, so that threads don't slow each other down.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(Mutex<Window>);

impl Counters {
    pub(crate) fn count(&self, noted: Noted) {
        self.change(|window| noted.count(window));
    }

    fn change(&self, change: impl FnOnce(&mut Window)) {
        let stripes = self.stripes.get_or_init(Box::default);
        change(&mut lock(&stripes[stripe()].0));
    }

    /// What was counted since the last time.
    pub(crate) fn take(&self) -> Window {
        let mut sum = Window::default();
        for stripe in self
            .stripes
            .get()
            .into_iter()
            .flat_map(|stripes| &**stripes)
        {
            sum.merge(&std::mem::take(&mut *lock(&stripe.0)));
        }
        sum
    }
}

/// What was measured of endpoints without a policy.
#[derive(Default)]
pub(crate) struct Recorder {
    shards: [Mutex<HashMap<Route, Window>>; SHARDS],
    /// The endpoints in all shards.
    endpoints: AtomicUsize,
    other: Counters,
}

/// A path with its identifiers collapsed; for methods other than GET with the method before it.
type Route = Box<str>;

impl Recorder {
    /// Counts what happened to a request for this key, or for its sake.
    pub(crate) fn count(&self, key: &Key, noted: Noted) {
        let template = collapse(key.path());
        let route = match key.method() {
            "GET" => template,
            method => format!("{method} {template}").into(),
        };
        self.change(route, |window| noted.count(window));
    }

    /// Adds what was measured of a route.
    pub(crate) fn add<'a>(&self, route: impl Into<Cow<'a, str>>, window: &Window) {
        self.change(route.into(), |sum| sum.merge(window));
    }

    fn change(&self, route: Cow<'_, str>, change: impl FnOnce(&mut Window)) {
        // It need not be hard to foresee which lock that is: it is held for a few additions.
        let shard = route.len() % SHARDS;
        let mut windows = lock(&self.shards[shard]);
        if let Some(window) = windows.get_mut(&*route) {
            return change(window);
        }
        if self.endpoints.fetch_add(1, Ordering::Relaxed) >= MAX_ENDPOINTS {
            self.endpoints.fetch_sub(1, Ordering::Relaxed);
            drop(windows);
            return self.other.change(change);
        }
        change(windows.entry(route.into()).or_default());
    }

    /// What was counted since the last time. What does not read as an endpoint (`/:-`, which anybody may ask for) is
    /// part of `other`: the control plane would refuse it, and all that is sent with it.
    pub(crate) fn take(&self) -> Vec<(String, Window)> {
        let mut all = Vec::new();
        let mut other = self.other.take();
        for shard in &self.shards {
            let windows = std::mem::take(&mut *lock(shard));
            self.endpoints.fetch_sub(windows.len(), Ordering::Relaxed);
            for (route, window) in windows {
                match route.parse::<Endpoint>() {
                    Ok(_) => all.push((route.into(), window)),
                    Err(_) => other.merge(&window),
                }
            }
        }
        if other != Window::default() {
            all.push(("other".to_owned(), other));
        }
        all
    }
}

/// What is counted.
#[derive(Clone, Copy)]
pub(crate) enum Noted {
    Answer(Event),
    /// A load in the background: how long it took, if it succeeded.
    Refresh(Option<Duration>),
}

impl Noted {
    fn count(self, window: &mut Window) {
        match self {
            Self::Answer(event) if event.is_client_error => {
                window.count_client_error(event.outcome, event.bytes);
            }
            Self::Answer(event) => {
                window.count(event.outcome, event.latency, event.is_error, event.bytes);
            }
            Self::Refresh(load) => window.count_refresh(load),
        }
    }
}

/// The stripe of this thread.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
    }
    MINE.with(Cell::get)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use larder_core::Outcome;

    use super::*;

    fn key(path: &str) -> Key {
        Key::new("svc", path).unwrap()
    }

    #[test]
    fn paths_of_one_route_count_together_and_a_flood_is_other() {
        let recorder = Recorder::default();
        let hit = Noted::Answer(Event::of(Outcome::Hit, 1));
        for index in 0..10_000 {
            recorder.count(&key(&format!("/p/{index}")), hit);
            recorder.count(&key(&format!("/flood-{index}-x")), hit);
        }
        let taken = recorder.take();
        assert_eq!(taken.len(), MAX_ENDPOINTS + 1);
        let hits = |name: &str| {
            taken
                .iter()
                .find(|(route, _)| route == name)
                .unwrap()
                .1
                .hits
        };
        assert_eq!(hits("/p/{id}"), 10_000);
        assert_eq!(hits("other"), 10_000 - (MAX_ENDPOINTS as u64 - 1));
        assert!(recorder.take().is_empty());
    }
}
