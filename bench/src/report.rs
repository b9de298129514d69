//! The marks, what was measured, and whether they were met.

use serde_json::{Value, json};

use crate::rounds::{Rounds, median};

/// Which way a mark is met.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    /// Ours takes at most this share of theirs.
    AtMost(f64),
    /// Ours does at least this share of theirs.
    AtLeast(f64),
}

struct Row {
    name: String,
    peer: String,
    unit: &'static str,
    mark: Mark,
    rounds: Rounds,
}

impl Row {
    fn is_met(&self) -> bool {
        let ratio = self.rounds.ratio();
        match self.mark {
            Mark::AtMost(most) => ratio <= most,
            Mark::AtLeast(least) => ratio >= least,
        }
    }
}

/// All marks of a run.
pub(crate) struct Report {
    only: Option<String>,
    rounds: usize,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(only: Option<String>, rounds: usize) -> Self {
        Self {
            only,
            rounds,
            rows: Vec::new(),
        }
    }

    /// Whether marks whose names begin like this are asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// Measures one mark.
    pub(crate) fn add(
        &mut self,
        name: &str,
        peer: &str,
        unit: &'static str,
        mark: Mark,
        ours: impl FnMut() -> anyhow::Result<f64>,
        theirs: impl FnMut() -> anyhow::Result<f64>,
    ) -> anyhow::Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let rounds = Rounds::alternate(self.rounds, ours, theirs)?;
        let row = Row {
            name: name.to_owned(),
            peer: peer.to_owned(),
            unit,
            mark,
            rounds,
        };
        let verdict = if row.is_met() { "met" } else { "MISSED" };
        eprintln!(
            "{name} against {peer}: {:.2} {:?} {verdict}",
            row.rounds.ratio(),
            row.mark
        );
        self.rows.push(row);
        Ok(())
    }

    pub(crate) fn missed(&self) -> usize {
        self.rows.iter().filter(|row| !row.is_met()).count()
    }

    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name,
                    "peer": row.peer,
                    "unit": row.unit,
                    "mark": format!("{:?}", row.mark),
                    "ratio": row.rounds.ratio(),
                    "is_met": row.is_met(),
                    "rounds": row.rounds,
                })
            })
            .collect();
        json!({ "machine": machine(), "marks": rows })
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", machine());
        text.push_str("| what | Larder | peer | unit | ratio | mark | |\n| --- | ---: | ---: | --- | ---: | ---: | --- |\n");
        for row in &self.rows {
            let mark = match row.mark {
                Mark::AtMost(most) => format!("≤ {most}"),
                Mark::AtLeast(least) => format!("≥ {least}"),
            };
            text.push_str(&format!(
                "| {} | {} | {} {} | {} | {:.2} | {mark} | {} |\n",
                row.name,
                spread(&row.rounds.ours),
                spread(&row.rounds.theirs),
                row.peer,
                row.unit,
                row.rounds.ratio(),
                if row.is_met() { "met" } else { "**missed**" },
            ));
        }
        text
    }
}

/// The median, with the least and the most.
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.0} ({least:.0}–{most:.0})", median(values))
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |name| {
            name.trim_start_matches([' ', '\t', ':'])
        });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "Larder {}, {cores} × {model}, Linux {}",
        env!("CARGO_PKG_VERSION"),
        kernel.trim()
    )
}
