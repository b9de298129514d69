//! Why bytes are no frame that may be used, and why a frame can't be written.

/// Why bytes of a store are no frame that this process may use. Each is a miss, counted under its word, and never an error
/// of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// They do not begin as a frame does: perhaps an entry in the plain form.
    #[error("it is not framed")]
    NotFramed,
    /// A frame of another version of the form.
    #[error("it was framed by another version of Larder")]
    OtherVersion,
    /// A part of a frame.
    #[error("it is cut short")]
    CutShort,
    /// A frame that was damaged, or that lies under another key than it was written for.
    #[error("its checksum is wrong: it was damaged, or moved here from another key")]
    Checksum,
    /// It says what no Larder writes.
    #[error("it says what no Larder writes")]
    Malformed,
    /// It is not sealed, and this process was told to use nothing that isn't.
    #[error("it is not sealed, and this process takes nothing that isn't")]
    Unsealed,
    /// It is sealed with a key that this process doesn't have.
    #[error("it is sealed with a key that is not among those of LARDER_SEAL_KEYS")]
    OtherKey,
    /// The seal is broken: it was changed, or moved here from another key.
    #[error("its seal is broken: it was changed, or moved here from another key")]
    Seal,
    /// What was packed can't be unpacked.
    #[error("what was packed can't be unpacked")]
    Compression,
    /// Its value is larger than the policy allows.
    #[error("its value is larger than max_value_bytes")]
    TooLarge,
}

impl FrameError {
    /// Every reason, for those who count.
    pub const ALL: [Self; 10] = [
        Self::NotFramed,
        Self::OtherVersion,
        Self::CutShort,
        Self::Checksum,
        Self::Malformed,
        Self::Unsealed,
        Self::OtherKey,
        Self::Seal,
        Self::Compression,
        Self::TooLarge,
    ];

    /// The word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFramed => "not_framed",
            Self::OtherVersion => "other_version",
            Self::CutShort => "cut_short",
            Self::Checksum => "checksum",
            Self::Malformed => "malformed",
            Self::Unsealed => "unsealed",
            Self::OtherKey => "other_key",
            Self::Seal => "seal",
            Self::Compression => "compression",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a frame can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value is larger than the policy allows.
    #[error("the value has {bytes} bytes, more than max_value_bytes ({limit}) allows")]
    TooLarge {
        /// What it has.
        bytes: u64,
        /// What it may have.
        limit: u64,
    },
    /// It depends on more versions than a frame can name.
    #[error(
        "the entry depends on {0} versions, a frame names at most {max}: give it fewer tags",
        max = super::MAX_STAMPS
    )]
    TooManyStamps(usize),
    /// The system gave no random bytes for a nonce.
    #[error("the system gave no random bytes to seal the entry with: {0}")]
    NoRandomness(String),
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        let words: HashSet<&str> = FrameError::ALL.map(FrameError::as_str).into();
        assert_eq!(words.len(), FrameError::ALL.len());
        for word in words {
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(word.bytes().all(is_plain), "{word}");
        }
    }
}
