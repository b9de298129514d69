//! Two sides, measured in turn.

use serde::{Deserialize, Serialize};

/// What two sides took, round by round. The unit is the mark's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Rounds {
    pub(crate) ours: Vec<f64>,
    pub(crate) theirs: Vec<f64>,
}

impl Rounds {
    /// Measures both sides in turn, after one round each that doesn't count. The first of a round alternates.
    pub(crate) fn alternate(
        rounds: usize,
        mut ours: impl FnMut() -> anyhow::Result<f64>,
        mut theirs: impl FnMut() -> anyhow::Result<f64>,
    ) -> anyhow::Result<Self> {
        ours()?;
        theirs()?;
        let mut measured = Self::default();
        for round in 0..rounds {
            if round % 2 == 0 {
                measured.ours.push(ours()?);
                measured.theirs.push(theirs()?);
            } else {
                measured.theirs.push(theirs()?);
                measured.ours.push(ours()?);
            }
        }
        Ok(measured)
    }

    /// The median of the ratios, round by round: both sides of one had the same machine.
    pub(crate) fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = std::iter::zip(&self.ours, &self.theirs)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        median(&ratios)
    }
}

/// The middle of the values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
