//! What was measured: rows that are kept as JSON, and whether their marks were met.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::rounds::{Rounds, median};

/// Which way a mark is met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    /// Ours takes at most this share of theirs, or this much.
    AtMost(f64),
    /// Ours does at least this share of theirs, or this much.
    AtLeast(f64),
}

impl Mark {
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
        }
    }
}

/// Larder against a peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) name: String,
    pub(crate) peer: String,
    pub(crate) unit: String,
    pub(crate) mark: Option<Mark>,
    pub(crate) rounds: Rounds,
    /// The day.
    pub(crate) measured: String,
}

impl Comparison {
    pub(crate) fn is_met(&self) -> bool {
        self.mark
            .is_none_or(|mark| mark.is_met(self.rounds.ratio()))
    }
}

/// What Larder costs, without a peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) mark: Option<Mark>,
    pub(crate) values: Vec<f64>,
    pub(crate) measured: String,
}

impl Figure {
    pub(crate) fn is_met(&self) -> bool {
        self.mark
            .is_none_or(|mark| mark.is_met(median(&self.values)))
    }
}

/// How something grows: one line a side.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// What is along.
    pub(crate) axis: String,
    pub(crate) unit: String,
    pub(crate) lines: Vec<Line>,
    pub(crate) measured: String,
}

/// One side's points.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) side: String,
    pub(crate) points: Vec<Point>,
}

/// What was measured at one place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) at: f64,
    pub(crate) values: Vec<f64>,
}

/// All that was measured on one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) series: Vec<Series>,
}

impl Results {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            machine,
            comparisons: Vec::new(),
            figures: Vec::new(),
            series: Vec::new(),
        }
    }

    pub(crate) fn missed(&self) -> usize {
        let comparisons = self.comparisons.iter().filter(|row| !row.is_met()).count();
        comparisons + self.figures.iter().filter(|row| !row.is_met()).count()
    }

    /// Puts newer rows in the place of those of the same name; the machine is the newer one's.
    pub(crate) fn replace_with(&mut self, newer: &Self) {
        self.machine = newer.machine.clone();
        let same_row = |a: &Comparison, b: &Comparison| a.name == b.name && a.peer == b.peer;
        replace(&mut self.comparisons, &newer.comparisons, same_row);
        replace(&mut self.figures, &newer.figures, |a, b| a.name == b.name);
        replace(&mut self.series, &newer.series, |a, b| a.name == b.name);
    }
}

fn replace<T: Clone>(rows: &mut Vec<T>, newer: &[T], is_same: impl Fn(&T, &T) -> bool) {
    for new in newer {
        match rows.iter_mut().find(|row| is_same(row, new)) {
            Some(row) => *row = new.clone(),
            None => rows.push(new.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(rows: &[(&str, &str, f64)]) -> Results {
        let mut results = Results::new(Machine::default());
        results.comparisons = rows
            .iter()
            .map(|(name, peer, ours)| Comparison {
                name: (*name).to_owned(),
                peer: (*peer).to_owned(),
                unit: "ns".to_owned(),
                mark: Some(Mark::AtMost(1.0)),
                rounds: Rounds {
                    ours: vec![*ours],
                    theirs: vec![1.0],
                },
                measured: String::new(),
            })
            .collect();
        results
    }

    #[test]
    fn newer_rows_take_the_place_of_their_names() {
        let mut all = results(&[("hit", "a", 2.0), ("hit", "b", 2.0), ("set", "a", 2.0)]);
        assert_eq!(all.missed(), 3);
        all.replace_with(&results(&[("hit", "b", 0.5), ("new", "a", 0.5)]));
        let rows: Vec<_> = all
            .comparisons
            .iter()
            .map(|row| (&*row.name, &*row.peer, row.is_met()))
            .collect();
        let expected = [
            ("hit", "a", false),
            ("hit", "b", true),
            ("set", "a", false),
            ("new", "a", true),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_row_without_a_mark_is_never_missed() {
        let mut all = results(&[("hit", "a", 2.0)]);
        all.comparisons[0].mark = None;
        assert_eq!(all.missed(), 0);
    }
}
