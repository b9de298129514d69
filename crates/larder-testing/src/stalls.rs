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
    thread: JoinHandle<Duration>,
}

impl Stalls {
    /// Looks from now on.
    #[must_use]
    pub fn watch() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut stood_still = Duration::ZERO;
            while !until.load(Ordering::Relaxed) {
                let begin = Instant::now();
                std::thread::sleep(EVERY);
                let late = begin.elapsed().saturating_sub(EVERY);
                stood_still += Some(late).filter(|late| *late > LATE).unwrap_or_default();
            }
            stood_still
        });
        Self { is_over, thread }
    }

    /// For how long, in all, it got no processor.
    #[must_use]
    pub fn end(self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only looks at the time")
    }
}
