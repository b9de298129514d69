//! How far a replay has come, for whoever looks at it on a terminal.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::replay::input::Input;

/// How often the bar is looked after.
const INTERVAL: Duration = Duration::from_millis(100);

/// A bar on standard error; nothing where that is no terminal.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    read: Arc<AtomicU64>,
    began: Instant,
    shown: Instant,
}

impl Progress {
    pub(crate) fn of(input: &Input) -> anyhow::Result<Self> {
        let bar = match (std::io::stderr().is_terminal(), input.bytes) {
            (false, _) => None,
            (true, Some(bytes)) => {
                let style = "{bar:40} {percent:>3} %  {msg}  {eta} left";
                let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
                Some(bar.with_style(ProgressStyle::with_template(style)?))
            }
            (true, None) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                Some(bar.with_style(ProgressStyle::with_template("{spinner} {msg}")?))
            }
        };
        let now = Instant::now();
        Ok(Self {
            bar,
            read: input.counter(),
            began: now,
            shown: now,
        })
    }

    /// Shows how many lines were read by now.
    pub(crate) fn show(&mut self, lines: u64) {
        let Some(bar) = &self.bar else { return };
        if self.shown.elapsed() < INTERVAL {
            return;
        }
        self.shown = Instant::now();
        let rate = lines as f64 / self.began.elapsed().as_secs_f64();
        bar.set_message(format!("{lines} lines  {rate:.0} lines/s"));
        bar.set_position(self.read.load(Ordering::Relaxed));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
