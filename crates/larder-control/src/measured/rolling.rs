//! The windows of the last minutes, in buckets.

use std::collections::VecDeque;
use std::time::Duration;

use larder_model::Window;

/// A bucket is this long.
pub(crate) const BUCKET_SECONDS: u64 = 10;
/// Windows reach back this far.
pub(crate) const REACH: Duration = Duration::from_secs(300);

/// Windows of the last minutes, oldest first; empty ones are left out.
pub(super) struct Rolling {
    buckets: VecDeque<(u64, Window)>,
    reach: Duration,
}

impl Default for Rolling {
    fn default() -> Self {
        Self::reaching(REACH)
    }
}

impl Rolling {
    pub(super) fn reaching(reach: Duration) -> Self {
        Self {
            buckets: VecDeque::new(),
            reach,
        }
    }

    pub(super) fn add(&mut self, window: &Window, now: Duration) {
        let bucket = now.as_secs() / BUCKET_SECONDS;
        self.drop_before(self.oldest(now));
        match self.buckets.back_mut() {
            Some((last, sum)) if *last >= bucket => sum.merge(window),
            _ => self.buckets.push_back((bucket, *window)),
        }
    }

    pub(super) fn sum(&self, now: Duration) -> Window {
        let mut sum = Window::default();
        let recent = self
            .buckets
            .iter()
            .filter(|(bucket, _)| *bucket >= self.oldest(now));
        recent.for_each(|(_, window)| sum.merge(window));
        sum
    }

    /// What was measured from one time until another, both at the edge of a bucket.
    pub(super) fn between(&self, from: Duration, until: Duration) -> Window {
        let mut sum = Window::default();
        let bucket = |time: Duration| time.as_secs() / BUCKET_SECONDS;
        let in_it = bucket(from)..bucket(until);
        let buckets = self.buckets.iter().filter(|(at, _)| in_it.contains(at));
        buckets.for_each(|(_, window)| sum.merge(window));
        sum
    }

    /// What was measured in stretches of so many buckets, oldest first, of all that is reached back to; without the bucket
    /// that is not over.
    pub(super) fn series(&self, now: Duration, buckets: u64) -> Vec<Window> {
        let end = now.as_secs() / BUCKET_SECONDS;
        let stretches = self.reach.as_secs() / BUCKET_SECONDS / buckets;
        let begin = end.saturating_sub(stretches * buckets);
        let mut series = vec![Window::default(); stretches as usize];
        for (bucket, window) in &self.buckets {
            let place = bucket.checked_sub(begin).map(|since| since / buckets);
            let stretch = place.and_then(|place| series.get_mut(place as usize));
            if let Some(stretch) = stretch {
                stretch.merge(window);
            }
        }
        series
    }

    fn oldest(&self, now: Duration) -> u64 {
        now.saturating_sub(self.reach).as_secs() / BUCKET_SECONDS
    }

    /// When something was last measured, to a bucket's length.
    pub(super) fn last(&self) -> Duration {
        let last = self.buckets.back().map_or(0, |(bucket, _)| *bucket);
        Duration::from_secs(last.saturating_mul(BUCKET_SECONDS))
    }

    /// Keeps at least the last one: it says when the endpoint was last measured.
    fn drop_before(&mut self, oldest: u64) {
        while self.buckets.len() > 1
            && self
                .buckets
                .front()
                .is_some_and(|(bucket, _)| *bucket < oldest)
        {
            self.buckets.pop_front();
        }
    }
}
