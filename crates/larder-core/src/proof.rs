//! Proofs: by what a value that was read can be known to be still so, without asking the store again.

use std::sync::Arc;

/// Taken before a read was sent, handed out with its answer, and shown to [`crate::Store::holds`] at each use. It holds as
/// long as the store knows that what was read has not changed since: that no invalidation came, that the link over which one
/// would come is alive, and that the server is the one that was asked.
///
/// What the numbers mean is the store's own affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Where changes of this key are counted. Keys share places: a proof may end although its key did not change.
    pub place: u32,
    /// Whose count it is: of which server, folder, connection.
    pub source: u32,
    /// What was counted there.
    pub count: u64,
    /// The life of the source.
    pub epoch: u64,
}

/// By what an entry is known to be still so: its own proof, and those of the versions that it depends on.
#[derive(Debug, Clone)]
pub(crate) enum Proofs {
    /// Of one source in one life, as they are where one server or one folder has all. They lie where the entry does, and nothing stands
    /// in them twice.
    Alike {
        /// How many versions: what stands behind them is nothing.
        versions: u8,
        source: u32,
        places: [u32; FEW],
        epoch: u64,
        counts: [u64; FEW],
    },
    /// As they are in a Cluster, whose servers share the versions.
    Apart(Arc<[Proof]>),
}

/// An entry, its service, its endpoint by path and by template, and a tag.
const FEW: usize = 5;

impl Proofs {
    pub(crate) fn new(entry: Proof, versions: &[Proof]) -> Self {
        let Proof { source, epoch, .. } = entry;
        let all = || std::iter::once(&entry).chain(versions);
        let is_alike = |proof: &Proof| (proof.source, proof.epoch) == (source, epoch);
        if versions.len() >= FEW || !versions.iter().all(is_alike) {
            return Self::Apart(all().copied().collect());
        }
        let (mut places, mut counts) = ([0; FEW], [0; FEW]);
        for (proof, (place, count)) in all().zip(places.iter_mut().zip(&mut counts)) {
            (*place, *count) = (proof.place, proof.count);
        }
        Self::Alike {
            versions: versions.len() as u8,
            source,
            places,
            epoch,
            counts,
        }
    }

    /// Whether the entry depends on versions.
    #[inline]
    pub(crate) fn has_versions(&self) -> bool {
        match self {
            Self::Alike { versions, .. } => *versions > 0,
            Self::Apart(all) => all.len() > 1,
        }
    }

    /// What they take beside the entry, in bytes.
    pub(crate) fn bytes_beside(&self) -> usize {
        match self {
            Self::Alike { .. } => 0,
            Self::Apart(all) => size_of_val(&**all),
        }
    }

    /// Shows all of them, that of the entry first.
    #[inline]
    pub(crate) fn show<R>(&self, to: impl FnOnce(&[Proof]) -> R) -> R {
        match self {
            Self::Alike {
                versions,
                source,
                places,
                epoch,
                counts,
            } => {
                let all: [Proof; FEW] = std::array::from_fn(|index| Proof {
                    place: places[index],
                    source: *source,
                    count: counts[index],
                    epoch: *epoch,
                });
                to(&all[..=usize::from(*versions)])
            }
            Self::Apart(all) => to(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_shown_alike_or_not() {
        let proof = |place: u32| Proof {
            place,
            source: 1,
            count: u64::from(place) << 40,
            epoch: 2,
        };
        for versions in 0..10 {
            let mut all: Vec<Proof> = (7..8 + versions).map(proof).collect();
            let is_shown = |all: &[Proof]| {
                let proofs = Proofs::new(all[0], &all[1..]);
                assert_eq!(proofs.has_versions(), versions > 0);
                proofs.show(|shown| shown == all)
            };
            assert!(is_shown(&all));
            let is_alike = matches!(Proofs::new(all[0], &all[1..]), Proofs::Alike { .. });
            assert_eq!(is_alike, all.len() <= FEW);
            for index in 0..all.len() {
                let kept = all[index];
                all[index].source = 3;
                assert!(is_shown(&all));
                all[index] = Proof { epoch: 3, ..kept };
                assert!(is_shown(&all));
                all[index] = kept;
            }
        }
    }
}
