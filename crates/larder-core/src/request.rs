//! What lookups did while one request was answered, so that the request is reported once and not once more by each
//! lookup.

use std::cell::Cell;
use std::future::Future;

use larder_model::Key;

use crate::governor::Event;

tokio::task_local! {
    static CURRENT: RequestScope;
}

/// A request that is being answered.
pub struct RequestScope {
    key: Key,
    noted: Cell<Option<Event>>,
}

impl RequestScope {
    /// Runs what answers a request. Lookups of `key` in it are not reported to the governor; what the last one did
    /// comes back with the answer: `None` if there was none.
    pub async fn run<T>(key: Key, answer: impl Future<Output = T>) -> (T, Option<Event>) {
        let scope = Self {
            key,
            noted: Cell::new(None),
        };
        CURRENT
            .scope(scope, async {
                let answer = answer.await;
                let noted = CURRENT.with(|scope| scope.noted.get());
                (answer, noted)
            })
            .await
    }

    /// Notes what a lookup did, if it is one of the current request's own key.
    pub(crate) fn note(key: &Key, event: Event) -> bool {
        CURRENT
            .try_with(|scope| {
                let is_own = scope.key == *key;
                if is_own {
                    scope.noted.set(Some(event));
                }
                is_own
            })
            .unwrap_or(false)
    }
}
