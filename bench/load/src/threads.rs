//! Operations from several threads.

use crate::nanos_each;

/// How long a lookup takes one of `threads` that share the requests, in nanoseconds.
pub fn on_threads(threads: usize, requests: &[u32], look_up: impl Fn(&[u32]) + Sync) -> f64 {
    let part = requests.len() / threads;
    nanos_each(part, || {
        std::thread::scope(|scope| {
            for requests in requests.chunks(part) {
                scope.spawn(|| look_up(requests));
            }
        });
    })
}
