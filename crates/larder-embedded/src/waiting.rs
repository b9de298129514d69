//! Those in this process who wait for a proof to end, and the one thread that listens for all of them while there are any.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use larder_core::Proof;
use tokio::sync::oneshot;

use crate::opening::Opened;

/// The bell may not ring: a writer that dies between its commit and the bell, or before its commit, rings none.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// The thread stays so long after the last one who waited.
const LINGER: Duration = Duration::from_secs(1);

/// Who waits.
#[derive(Default)]
pub(crate) struct Waiting {
    those: Mutex<Those>,
    came: Condvar,
}

#[derive(Default)]
struct Those {
    waits: Vec<Wait>,
    is_listened: bool,
}

struct Wait {
    proof: Proof,
    caller: oneshot::Sender<()>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Those> {
        // The list is whole between any two statements.
        self.those.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of a proof: until the receiver is told, or closed. `None` if there can be no thread that listens.
    pub(crate) fn enter(opened: &Arc<Opened>, proof: Proof) -> Option<oneshot::Receiver<()>> {
        let waiting = &opened.waiting;
        let (caller, receiver) = oneshot::channel();
        let mut those = waiting.lock();
        if !those.is_listened {
            let (weak, shared) = (Arc::downgrade(opened), Arc::clone(waiting));
            std::thread::Builder::new()
                .name("larder-listener".to_owned())
                .spawn(move || shared.listen(&weak))
                .ok()?;
            those.is_listened = true;
        }
        those.waits.push(Wait { proof, caller });
        drop(those);
        waiting.came.notify_one();
        Some(receiver)
    }

    /// Ends all waits: the store is closed.
    pub(crate) fn end(&self) {
        self.lock().waits.clear();
    }

    fn listen(&self, opened: &Weak<Opened>) {
        while self.is_wanted() {
            let Some(opened) = opened.upgrade() else {
                let mut those = self.lock();
                those.waits.clear();
                those.is_listened = false;
                return;
            };
            let heard = opened.control.listen();
            if self.wake(&opened) {
                opened.control.wait_for_bell(heard, POLL);
            }
        }
    }

    /// Waits until somebody waits; `false` when nobody came, and the thread ends.
    fn is_wanted(&self) -> bool {
        let those = self.lock();
        let (mut those, _) = self
            .came
            .wait_timeout_while(those, LINGER, |those| those.waits.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        those.is_listened = !those.waits.is_empty();
        those.is_listened
    }

    /// Wakes those whose proofs have ended; answers whether others still wait.
    fn wake(&self, opened: &Opened) -> bool {
        let mut those = self.lock();
        // A sender that is dropped wakes its receiver.
        those
            .waits
            .retain(|wait| !wait.caller.is_closed() && opened.holds(&wait.proof));
        !those.waits.is_empty()
    }
}
