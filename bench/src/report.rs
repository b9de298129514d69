//! A run: which rows are asked for, what they measured, and what is said of it meanwhile.

use crate::machine::{Machine, today};
pub(crate) use crate::results::Mark;
use crate::results::{Comparison, Figure, Line, Results, Series};
use crate::rounds::{Rounds, median};

/// A quick run's rounds.
const QUICK_ROUNDS: usize = 2;
/// A quick run does this part of the operations.
const QUICK_PART: usize = 10;
/// A quick run has no more entries.
const QUICK_KEYS: usize = 10_000;

/// All rows of a run.
pub(crate) struct Report {
    only: Option<String>,
    rounds: usize,
    is_quick: bool,
    today: String,
    pub(crate) results: Results,
}

impl Report {
    /// A run of the rows whose names contain `only`. A quick one shows that everything works; its figures mean little.
    pub(crate) fn new(only: Option<String>, rounds: usize, is_quick: bool) -> Self {
        Self {
            only,
            rounds: if is_quick { QUICK_ROUNDS } else { rounds },
            is_quick,
            today: today(),
            results: Results::new(Machine::here()),
        }
    }

    /// Whether a row of this name is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// How many operations a round has.
    pub(crate) fn operations(&self, whole: usize) -> usize {
        if self.is_quick {
            (whole / QUICK_PART).max(1)
        } else {
            whole
        }
    }

    /// The sizes that are measured.
    pub(crate) fn sizes<const N: usize>(&self, all: [usize; N]) -> Vec<usize> {
        let is_asked = |size: &usize| !self.is_quick || *size <= QUICK_KEYS;
        all.into_iter().filter(is_asked).collect()
    }

    /// How often each side is measured.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds
    }

    /// Measures one mark.
    pub(crate) fn add(
        &mut self,
        name: &str,
        peer: &str,
        unit: &str,
        mark: impl Into<Option<Mark>>,
        ours: impl FnMut() -> anyhow::Result<f64>,
        theirs: impl FnMut() -> anyhow::Result<f64>,
    ) -> anyhow::Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let row = Comparison {
            name: name.to_owned(),
            peer: peer.to_owned(),
            unit: unit.to_owned(),
            mark: mark.into(),
            rounds: Rounds::alternate(self.rounds, ours, theirs)?,
            measured: self.today.clone(),
        };
        let ratio = row.rounds.ratio();
        eprintln!(
            "{name}: {:.0} {unit}, {:.0} {peer}, ratio {ratio:.2} {}",
            median(&row.rounds.ours),
            median(&row.rounds.theirs),
            verdict(row.mark, ratio)
        );
        self.results.comparisons.push(row);
        Ok(())
    }

    /// Notes what something cost, measured once or more.
    pub(crate) fn add_figure(
        &mut self,
        name: &str,
        unit: &str,
        mark: impl Into<Option<Mark>>,
        values: Vec<f64>,
    ) {
        let mark = mark.into();
        let value = median(&values);
        eprintln!("{name}: {value:.2} {unit} {}", verdict(mark, value));
        self.results.figures.push(Figure {
            name: name.to_owned(),
            unit: unit.to_owned(),
            mark,
            values,
            measured: self.today.clone(),
        });
    }

    /// Notes how something grew.
    pub(crate) fn add_series(&mut self, name: &str, axis: &str, unit: &str, lines: Vec<Line>) {
        for line in &lines {
            let points: Vec<String> = line
                .points
                .iter()
                .map(|point| format!("{:.0} at {}", median(&point.values), point.at))
                .collect();
            eprintln!("{name}, {}: {} ({unit})", line.side, points.join(", "));
        }
        self.results.series.push(Series {
            name: name.to_owned(),
            axis: axis.to_owned(),
            unit: unit.to_owned(),
            lines,
            measured: self.today.clone(),
        });
    }
}

fn verdict(mark: Option<Mark>, value: f64) -> String {
    match mark {
        None => String::new(),
        Some(mark) if mark.is_met(value) => format!("({mark}: met)"),
        Some(mark) => format!("({mark}: MISSED)"),
    }
}
