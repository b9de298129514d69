//! The keys that entries are sealed with: the first seals, each of them opens, so that they are changed without a cold cache.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_model::Secret;
use zeroize::Zeroizing;

/// How long a key is, in bytes.
pub(super) const KEY_BYTES: usize = 32;
/// How long a key's name is, in bytes.
pub(super) const NAME_BYTES: usize = 8;

/// What is derived from a key, and for what: another text makes another. Neither tells of the other or of the key.
const SECRET_OF_KEY: &str = "larder 2026 sealing of cache entries";
const NAME_OF_KEY: &str = "larder 2026 name of a key that seals cache entries";

/// More keys than this are a mistake: each waits for the entries of the one before it to end.
const MOST_KEYS: usize = 16;

/// Keys that entries are sealed with, at least one (`LARDER_SEAL_KEYS`).
///
/// Clones share the keys, which are wiped when the last of them is dropped.
///
/// ```
/// use larder_core::{SealingKeys, Secret};
///
/// // `openssl rand -hex 32`; the new key before the old one.
/// let text = "3b9e6f0c1d2a485f96c7e8a1b0d4f3e27a5c6b8d9e0f1a2b3c4d5e6f708192a3,\
///             c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee01";
/// assert!(SealingKeys::parse(&Secret::new(text.to_owned())).is_ok());
/// assert!(SealingKeys::parse(&Secret::new("too short".to_owned())).is_err());
/// ```
#[derive(Clone)]
pub struct SealingKeys(Arc<Vec<SealingKey>>);

/// What is derived from one key.
pub(super) struct SealingKey {
    /// Stands in each entry that it sealed.
    pub(super) name: [u8; NAME_BYTES],
    pub(super) secret: Zeroizing<[u8; KEY_BYTES]>,
}

/// Why a text holds no keys. The text itself is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealingKeysError {
    /// It is empty.
    #[error("holds no key: make one with `openssl rand -hex 32`")]
    None,
    /// One of them has another length, or is written in another way.
    #[error(
        "its key {number} is not 32 bytes, as 64 hexadecimal digits or in base64: make one with `openssl rand -hex 32`"
    )]
    NoKey {
        /// Which, counted from 1.
        number: usize,
    },
    /// Too many.
    #[error(
        "holds more than 16 keys: remove those, at its end, that no living entry is sealed with any more"
    )]
    TooMany,
}

impl SealingKeys {
    /// Reads keys of 32 bytes each, as 64 hexadecimal digits or in base64, parted by commas or line ends.
    ///
    /// # Errors
    /// A [`SealingKeysError`] that says which key is none, and how to make one.
    pub fn parse(text: &Secret) -> Result<Self, SealingKeysError> {
        let parts = text.expose().split([',', '\n']).map(str::trim);
        // With room for all from the start: growing would leave keys behind in what was given back.
        let mut keys = Vec::with_capacity(MOST_KEYS);
        for part in parts.filter(|part| !part.is_empty()) {
            if keys.len() == MOST_KEYS {
                return Err(SealingKeysError::TooMany);
            }
            let number = keys.len() + 1;
            let key = read_key(part).ok_or(SealingKeysError::NoKey { number })?;
            keys.push(SealingKey {
                name: [0; NAME_BYTES],
                secret: Zeroizing::default(),
            });
            if let Some(derived) = keys.last_mut() {
                derived.derive(&key);
            }
        }
        if keys.is_empty() {
            return Err(SealingKeysError::None);
        }
        Ok(Self(Arc::new(keys)))
    }

    /// How many there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The one that seals.
    pub(super) fn first(&self) -> &SealingKey {
        &self.0[0]
    }

    /// The one with this name.
    pub(super) fn find(&self, name: &[u8; NAME_BYTES]) -> Option<&SealingKey> {
        self.0.iter().find(|key| key.name == *name)
    }
}

impl SealingKey {
    /// Written where it stays: a key that is moved leaves a copy behind.
    fn derive(&mut self, key: &[u8; KEY_BYTES]) {
        let derive = |purpose, out: &mut [u8]| {
            let mut hasher = blake3::Hasher::new_derive_key(purpose);
            hasher.update(key).finalize_xof().fill(out);
        };
        derive(SECRET_OF_KEY, self.secret.as_mut_slice());
        derive(NAME_OF_KEY, &mut self.name);
    }
}

fn read_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if text.len() == 2 * KEY_BYTES {
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = hex_digit(digits[0])? << 4 | hex_digit(digits[1])?;
        }
        return Some(key);
    }
    let read = STANDARD.decode_slice(text, key.as_mut_slice());
    (read == Ok(KEY_BYTES)).then_some(key)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1B1C1D1E1F";
    const BASE64: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff00";

    fn parse(text: &str) -> Result<SealingKeys, SealingKeysError> {
        SealingKeys::parse(&Secret::new(text.to_owned()))
    }

    fn error(text: &str) -> SealingKeysError {
        parse(text).err().unwrap()
    }

    #[test]
    fn hexadecimal_and_base64_are_one_key() {
        let (hex, base64) = (parse(HEX).unwrap(), parse(BASE64).unwrap());
        assert_eq!(hex.first().name, base64.first().name);
        assert!(hex.first().secret == base64.first().secret);
        // Nothing of the key stands in its name.
        assert_ne!(hex.first().name, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_ne!(hex.first().secret[..8], hex.first().name);
    }

    #[test]
    fn several_are_parted_by_commas_or_line_ends() {
        for text in [
            format!("{HEX},{OTHER}"),
            format!("{HEX}\n{OTHER}\n"),
            format!(" {BASE64} ,\r\n {OTHER}\r\n\r\n"),
        ] {
            let keys = parse(&text).unwrap();
            assert_eq!(keys.len(), 2);
            assert_eq!(keys.first().name, parse(HEX).unwrap().first().name);
            let other = parse(OTHER).unwrap();
            assert!(keys.find(&other.first().name).is_some());
        }
    }

    #[test]
    fn another_length_is_an_error_that_says_which_and_how_to_make_one() {
        for no_key in [
            "hunter2",
            &HEX[1..],
            &format!("{HEX}0"),
            &format!("{}g", &HEX[1..]),
            &BASE64[1..],
            &BASE64.replace('=', ""),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gIQ==",
            "ä",
        ] {
            let error = error(&format!("{HEX},{no_key}"));
            assert_eq!(error, SealingKeysError::NoKey { number: 2 }, "{no_key}");
            let said = error.to_string();
            assert!(said.contains("openssl rand -hex 32") && !said.contains("hunter2"));
        }
        assert_eq!(error(" ,\n"), SealingKeysError::None);
        let many = vec![HEX; 17].join("\n");
        assert_eq!(error(&many), SealingKeysError::TooMany);
    }
}
