//! The harness's half of the talk with a side: a process that is asked for its rounds.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context as _;
use larder_bench_load::Scene;
use tempfile::TempDir;

use crate::sides::StoreKind;

/// A side in a process of its own, until it is dropped.
pub(crate) struct Side {
    name: String,
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// What an entry took when all were stored, in bytes.
    pub(crate) bytes_per_entry: f64,
    /// Gone after it.
    folder: Option<TempDir>,
}

/// What one operation cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
    pub(crate) wake_ups: f64,
}

impl Side {
    /// Larder, in this binary.
    pub(crate) fn larder(store: StoreKind, scene: &Scene) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["side", store.name()]).args(scene.arguments());
        Self::start("larder", command)
    }

    /// Larder, in this binary, run by another program.
    pub(crate) fn larder_under(
        mut runner: Command,
        store: StoreKind,
        scene: &Scene,
    ) -> anyhow::Result<Self> {
        runner.arg(std::env::current_exe()?);
        runner.args(["side", store.name()]).args(scene.arguments());
        Self::start("larder", runner)
    }

    /// Larder, with its allocations counted.
    pub(crate) fn counted(store: StoreKind, scene: &Scene) -> anyhow::Result<Self> {
        let path = std::env::current_exe()?.with_file_name("larder-bench-counted");
        let mut command = Command::new(path);
        command.args(["side", store.name()]).args(scene.arguments());
        Self::start("larder-bench-counted", command)
    }

    /// A peer: a binary of the workspace `bench/peers`.
    pub(crate) fn peer(name: &str, scene: &Scene) -> anyhow::Result<Self> {
        let mut command = Command::new(peer_binary(name)?);
        command.args(scene.arguments());
        Self::start(name, command)
    }

    fn start(name: &str, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't start {:?}", command.get_program()))?;
        let questions = child.stdin.take();
        let answers = child.stdout.take().context("it has an output")?;
        let mut side = Self {
            name: name.to_owned(),
            child,
            questions,
            answers: BufReader::new(answers),
            bytes_per_entry: 0.0,
            folder: None,
        };
        let ready = side.answer()?;
        let bytes = ready.strip_prefix("ready ").with_context(|| {
            format!("{name} wrote {ready:?} in place of how much an entry took")
        })?;
        side.bytes_per_entry = bytes.parse()?;
        Ok(side)
    }

    /// Keeps a folder that it uses.
    pub(crate) fn holding(mut self, folder: TempDir) -> Self {
        self.folder = Some(folder);
        self
    }

    /// One round: what an operation took, in nanoseconds.
    pub(crate) fn round(&mut self) -> anyhow::Result<f64> {
        self.begin()?;
        self.finish()
    }

    /// One round: how many operations there were, in thousands a second.
    pub(crate) fn thousands_per_second(&mut self) -> anyhow::Result<f64> {
        Ok(1e6 / self.round()?)
    }

    /// One round: what an operation took, in microseconds.
    pub(crate) fn micros(&mut self) -> anyhow::Result<f64> {
        Ok(self.round()? / 1e3)
    }

    /// Begins a round; [`Side::finish`] waits for its end.
    pub(crate) fn begin(&mut self) -> anyhow::Result<()> {
        self.ask("round")
    }

    /// What an operation took, in nanoseconds.
    pub(crate) fn finish(&mut self) -> anyhow::Result<f64> {
        Ok(self.answer()?.parse()?)
    }

    /// One round: what an operation cost.
    pub(crate) fn costs(&mut self) -> anyhow::Result<Costs> {
        self.ask("costs")?;
        let answer = self.answer()?;
        let costs: Vec<f64> = answer
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [allocations, bytes, wake_ups] = costs[..] else {
            anyhow::bail!("{} wrote {answer:?} in place of its costs", self.name);
        };
        Ok(Costs {
            allocations,
            bytes,
            wake_ups,
        })
    }

    fn ask(&mut self, question: &str) -> anyhow::Result<()> {
        let questions = self.questions.as_mut().context("it is asked no more")?;
        writeln!(questions, "{question}")?;
        Ok(questions.flush()?)
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let line = line
            .strip_suffix('\n')
            .with_context(|| format!("{} ended before it answered", self.name))?;
        Ok(line.to_owned())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // A side ends when nobody can ask it any more.
        self.questions = None;
        let _ = self.child.wait();
        self.folder = None;
    }
}

/// Where scripts/bench builds the peers: beside the release of this binary.
pub(crate) fn peers() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let target = here.ancestors().nth(2);
    Ok(target.context("it lies in target/release")?.join("peers"))
}

/// A peer's binary.
pub(crate) fn peer_binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = peers()?.join("release").join(format!("peer-{name}"));
    anyhow::ensure!(
        path.exists(),
        "{} is not built (scripts/bench does)",
        path.display()
    );
    Ok(path)
}
