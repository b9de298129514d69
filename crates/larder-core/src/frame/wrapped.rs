//! How the value of a frame is stored, by what its first bytes say: for those who look at entries.

use super::layout::{MAGIC, Wrapping};

/// How the value of a frame is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wrapped {
    /// Whether it is packed by zstd.
    pub is_packed: bool,
    /// Whether it is sealed.
    pub is_sealed: bool,
}

impl Wrapped {
    /// What an entry's bytes say; `None` if they are not framed, or say what no Larder writes. Nothing else of them is read.
    ///
    /// ```
    /// use larder_core::Wrapped;
    ///
    /// let sealed = Wrapped::of(&[0xC1, 1, 2, 0]).unwrap();
    /// assert!(sealed.is_sealed && !sealed.is_packed);
    /// assert_eq!(Wrapped::of(b"[1,2,3]"), None);
    /// ```
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let [MAGIC, _version, flags, ..] = bytes else {
            return None;
        };
        let wrapping = Wrapping::read(*flags)?;
        Some(Self {
            is_packed: wrapping.is_compressed,
            is_sealed: wrapping.is_sealed,
        })
    }
}
