//! A replay: line by line through the engine.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use larder_core::{MAX_VALUE_BYTES, Policy, PolicyPatch, QueryRule, Service};
use larder_logs::{Line, LogReader};

use crate::replay::clock::step_ms;
use crate::replay::engine::Engine;
use crate::replay::include::Included;
use crate::replay::input::Input;
use crate::replay::lines::LinesRead;
use crate::replay::lookups::Lookups;
use crate::replay::progress::Progress;
use crate::replay::report::Report;
use crate::replay::targets::Targets;
use crate::replay::{Plan, SERVICE};

/// A value may take an eighth of the store.
const VALUE_PARTS: u64 = 8;
/// Every so many lines the progress is shown.
pub(crate) const LINES_PER_LOOK: u64 = 8_192;
/// So many characters of a line that is none are shown.
const SHOWN_CHARACTERS: usize = 200;

/// Replays a log, with its store in this folder. To be called where waiting does no harm.
pub(crate) fn replay(plan: Plan, input: Input, folder: &Path) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let policy = plan.policy()?;
    let service = Service::new(SERVICE)?;
    let engine = Engine::open(folder, plan.max_bytes, policy.clone(), service.clone())
        .context("the temporary store (TMPDIR chooses its place)")?;
    let included = Included::new(plan.include.clone());
    let targets = Targets::new(service, policy.include_query().clone(), included);
    let mut replay = Replay {
        step_ms: step_ms(policy.ttl()),
        progress: Progress::of(&input)?,
        plan,
        engine,
        targets,
        lines: LinesRead::default(),
    };
    runtime.block_on(replay.run(input))
}

impl Plan {
    fn policy(&self) -> anyhow::Result<Policy> {
        let all_or_none = match self.ignore_query {
            true => QueryRule::Only(Vec::new()),
            false => QueryRule::All,
        };
        let patch = PolicyPatch {
            ttl_seconds: Some(self.ttl.as_secs_f64()),
            // By chance, the same log would have other figures each time.
            jitter: Some(0.0),
            max_value_bytes: Some(MAX_VALUE_BYTES.min(self.max_bytes / VALUE_PARTS)),
            include_query: Some(all_or_none),
            ..PolicyPatch::default()
        };
        Ok(patch.apply(&Policy::default())?)
    }
}

struct Replay {
    plan: Plan,
    engine: Engine,
    targets: Targets,
    lines: LinesRead,
    step_ms: u64,
    progress: Progress,
}

impl Replay {
    async fn run(&mut self, input: Input) -> anyhow::Result<Report> {
        let began = Instant::now();
        let mut log = LogReader::new(input);
        let engine = &self.engine;
        let mut lookups = Lookups::new(engine, |key, bytes| engine.look_up(key, bytes)).await?;
        let mut lines = 0_u64;
        loop {
            let line = log.next_line();
            let Some(line) = line.with_context(|| ends_badly(lines))? else {
                break;
            };
            lines += 1;
            if lines.is_multiple_of(LINES_PER_LOOK) {
                self.progress.show(lines);
                self.engine.check()?;
            }
            let request = match line {
                Line::Request(request) => request,
                Line::Unreadable { text, flaw } => {
                    let text = shown(text);
                    let number = log.line_number();
                    self.lines.note_unreadable(number, text, flaw);
                    continue;
                }
            };
            let lookup = self
                .lines
                .lookup(&self.plan.statuses, &mut self.targets, &request);
            let Some((key, endpoint)) = lookup else {
                continue;
            };
            let now_ms = request.at_ms / self.step_ms * self.step_ms;
            if now_ms > self.engine.clock.now_ms() {
                lookups.settle().await?;
                self.engine.clock.set(now_ms);
            }
            lookups.ask(key, endpoint, request.bytes).await?;
        }
        lookups.settle().await?;
        drop(lookups);
        self.engine.check()?;
        self.lines.lines = log.line_number();
        let report = Report::of(
            &self.plan,
            &self.engine,
            &self.targets,
            &self.lines,
            log.format(),
        );
        let report = report.await?.took(began.elapsed());
        self.engine.cache.close().await?;
        Ok(report)
    }
}

/// Why a log that ends badly can't be used.
pub(crate) fn ends_badly(lines: u64) -> String {
    format!("the log can't be read behind its line {lines}: is it whole?")
}

/// The beginning of a line that is none.
pub(crate) fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.chars().take(SHOWN_CHARACTERS).collect()
}
