//! Proofs: by what a value that was read can be known to be still so, without asking the store again.

use std::ops::Deref;
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

/// Those of the versions that an entry depends on: of its service, its endpoint by path and by template, and a tag most often,
/// which lie where the entry does.
#[derive(Debug, Clone)]
pub(crate) enum Proofs {
    Few { proofs: [Proof; FEW], count: u8 },
    Many(Arc<[Proof]>),
}

const FEW: usize = 4;
/// What a place has that none is in.
const NOTHING: Proof = Proof {
    place: 0,
    source: 0,
    count: 0,
    epoch: 0,
};

impl Proofs {
    pub(crate) fn none() -> Self {
        Self::Few {
            proofs: [NOTHING; FEW],
            count: 0,
        }
    }
}

impl From<Vec<Proof>> for Proofs {
    fn from(all: Vec<Proof>) -> Self {
        let mut proofs = [NOTHING; FEW];
        match proofs.get_mut(..all.len()) {
            Some(few) => {
                few.copy_from_slice(&all);
                let count = all.len() as u8;
                Self::Few { proofs, count }
            }
            None => Self::Many(all.into()),
        }
    }
}

impl Deref for Proofs {
    type Target = [Proof];

    #[inline]
    fn deref(&self) -> &[Proof] {
        match self {
            Self::Few { proofs, count } => &proofs[..usize::from(*count)],
            Self::Many(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_all_there() {
        for count in 0..10 {
            let proof = |place| Proof { place, ..NOTHING };
            let all: Vec<Proof> = (0..count).map(proof).collect();
            assert_eq!(*Proofs::from(all.clone()), all);
        }
        assert!(Proofs::none().is_empty());
    }
}
