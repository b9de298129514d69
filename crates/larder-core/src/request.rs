//! What lookups did while one request was answered, so that the request is reported once and not once more by each
//! lookup.

use std::cell::Cell;

use larder_model::Key;
use tokio::task::futures::TaskLocalFuture;

use crate::governor::Event;

tokio::task_local! {
    static CURRENT: RequestScope;
}

/// A request that is being answered.
pub struct RequestScope {
    key: Option<Key>,
    noted: Cell<Option<Event>>,
}

impl RequestScope {
    /// What answers a request, with a scope around it, to be taken out of it once it has (`take_value`). Lookups of `key` in it
    /// are not reported to the governor. Without a key it hides a scope around it: lookups in it report themselves.
    pub fn around<F: Future>(key: Option<Key>, answer: F) -> TaskLocalFuture<Self, F> {
        let noted = Cell::new(None);
        CURRENT.scope(Self { key, noted }, answer)
    }

    /// What the last lookup of the request's own key did; `None` if there was none.
    #[must_use]
    pub fn noted(&self) -> Option<Event> {
        self.noted.get()
    }

    /// Notes what a lookup did, if it is one of the current request's own key.
    pub(crate) fn note(key: &Key, event: Event) -> bool {
        CURRENT
            .try_with(|scope| {
                let is_own = scope.key.as_ref() == Some(key);
                if is_own {
                    scope.noted.set(Some(event));
                }
                is_own
            })
            .unwrap_or(false)
    }
}
