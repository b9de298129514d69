//! Where policies come from: the stream, and where that can't be had, or between two of them, by asking.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::fetch::Remote;
use crate::intake::Intake;
use crate::poll::{self, chance, pause};
use crate::reopening::Reopening;
use crate::stream::{self, Ended};

pub(crate) struct Follow {
    pub(crate) intake: Intake,
    pub(crate) remote: Arc<Remote>,
}

impl Follow {
    pub(crate) async fn run(mut self, mut closing: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            _ = closing.changed() => {}
        }
    }

    async fn follow(&mut self) {
        let began = Instant::now();
        let mut reopening = Reopening::default();
        let mut failures = 0;
        loop {
            if reopening.is_due(began.elapsed()) {
                let ended = stream::follow(&self.remote, &mut self.intake).await;
                self.tell(&ended);
                reopening.ended(&ended, began.elapsed(), chance());
                if ended.was_well() {
                    rest(&reopening, began.elapsed(), 0).await;
                    continue;
                }
            }
            let has_answered = poll::ask(&self.remote, &mut self.intake).await;
            failures = if has_answered { 0 } else { failures + 1 };
            reopening.asked(has_answered, began.elapsed());
            rest(&reopening, began.elapsed(), failures).await;
        }
    }

    fn tell(&self, ended: &Ended) {
        let service = self.intake.shared.service.as_str();
        match ended {
            Ended::NotHad { why, .. } => {
                let why = &*larder_core::escape(why);
                tracing::info!(
                    service,
                    why,
                    "no stream from the control plane: it is asked every 2 s"
                );
            }
            Ended::Lost { why, .. } => {
                let why = &*larder_core::escape(why);
                tracing::info!(
                    service,
                    why,
                    "the control plane's stream was lost, and is opened again"
                );
            }
            Ended::Unreachable(_) | Ended::Drained { .. } => {}
        }
    }
}

/// Waits until there is something to do: a stream to open, or to ask.
async fn rest(reopening: &Reopening, now: Duration, failures: u32) {
    let pause = pause(failures, chance());
    let wait = reopening.wait(now).unwrap_or(pause);
    tokio::time::sleep(wait.min(pause)).await;
}
