//! How long the machine stood still, so that a test does not take it for what it looks at.

// The callers are tests.
#![allow(clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(5);
/// A thread that comes later than this was kept off the processors.
const LATE: Duration = Duration::from_millis(200);

/// A thread that does nothing but look at the time.
pub struct Stalls {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Duration>>,
}

impl Stalls {
    /// Looks from now on.
    #[must_use]
    pub fn watch() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !until.load(Ordering::Relaxed) {
                let begin = Instant::now();
                std::thread::sleep(EVERY);
                let late = begin.elapsed().saturating_sub(EVERY);
                longest = longest.max(late);
            }
            Some(longest)
                .filter(|late| *late > LATE)
                .unwrap_or_default()
        });
        Self {
            is_over,
            thread: Some(thread),
        }
    }

    /// The longest time for which it got no processor.
    #[must_use]
    pub fn end(mut self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("it only looks at the time")
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Tries three times: who measures time on a machine that stands still for a moment measures that. What is wrong is wrong each time.
///
/// # Panics
/// Where each attempt failed.
pub fn once_of_three(attempt: impl Fn() -> Result<(), String>) {
    let failed: Vec<String> = (0..3).map_while(|_| attempt().err()).collect();
    assert!(failed.len() < 3, "{failed:#?}");
}
