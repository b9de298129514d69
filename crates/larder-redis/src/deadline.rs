//! Waiting for an answer, and no longer than until its deadline.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

/// What has arrived is read within this time.
const MOMENT: Duration = Duration::from_millis(2);

/// What is answered by then; `None`: it is late.
///
/// An answer that has arrived when the time is over counts. A process that stood still meets both at once, its deadline and what
/// came long before it and nobody has read yet: that is no fault of the server.
pub(crate) async fn by<F: Future>(deadline: Instant, answer: F) -> Option<F::Output> {
    let mut answer = pin!(answer);
    if let Ok(answer) = timeout_at(deadline, &mut answer).await {
        return Some(answer);
    }
    // Apart: who is answered in time does not carry the room for this.
    Box::pin(timeout(MOMENT, answer)).await.ok()
}
