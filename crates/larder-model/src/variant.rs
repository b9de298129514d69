//! What else an answer depends on, besides service, path and query.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::key::{KeyError, half_hex};
use crate::percent;
use crate::secret::Secret;

/// What the hashing key is derived for: another text makes another key.
const PURPOSE: &str = "larder 2026 values hidden in cache keys";

/// Turns values that must not be readable in a key into keyed hashes (`LARDER_KEY_SECRET`).
///
/// Clones share one hashing key, which is wiped when the last of them is dropped.
#[derive(Clone)]
pub struct KeySecret(Arc<Zeroizing<[u8; 32]>>);

impl KeySecret {
    /// Derives the hashing key from a secret.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(PURPOSE);
        hasher.update(secret.expose().as_bytes());
        // Written where it stays: one that is moved leaves a copy behind.
        let mut key = Arc::new(Zeroizing::new([0; 32]));
        hasher
            .finalize_xof()
            .fill(Arc::make_mut(&mut key).as_mut_slice());
        Self(key)
    }

    fn hash(&self, name: &str, value: &str) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(value.as_bytes());
        half_hex(&hasher.finalize())
    }
}

/// What else an answer depends on, besides service, path and query: `name=value` pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variant {
    /// Encoded name and encoded value.
    pairs: Vec<(String, String)>,
}

impl Variant {
    /// No variant.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a value that may be read in the key. Equal names keep their order.
    ///
    /// # Errors
    /// [`KeyError::ReservedName`] for `method` and `body`.
    pub fn with(self, name: &str, value: &str) -> Result<Self, KeyError> {
        let name = name.to_ascii_lowercase();
        if is_reserved(&name) {
            return Err(KeyError::ReservedName(name));
        }
        Ok(self.push(&name, value))
    }

    /// Adds a value that may not be read in the key: its keyed hash stands there.
    ///
    /// # Errors
    /// [`KeyError::ReservedName`] for `method` and `body`.
    pub fn with_hidden(
        self,
        name: &str,
        value: &str,
        secret: &KeySecret,
    ) -> Result<Self, KeyError> {
        let hash = secret.hash(&name.to_ascii_lowercase(), value);
        self.with(name, &hash)
    }

    /// Names the method, in place of one that was named before. A GET has none in its key.
    #[must_use]
    pub fn with_method(mut self, method: &crate::Method) -> Self {
        self.pairs.retain(|pair| !is_method(pair));
        if method.is_get() {
            self
        } else {
            self.push("method", method.as_str())
        }
    }

    /// Adds the hash of a request's body, if it has one.
    #[must_use]
    pub fn with_body(self, body: &[u8]) -> Self {
        if body.is_empty() {
            self
        } else {
            self.push("body", &half_hex(&blake3::hash(body)))
        }
    }

    fn push(mut self, name: &str, value: &str) -> Self {
        let mut encoded = (String::new(), String::new());
        percent::encode_all(name.as_bytes(), &mut encoded.0);
        percent::encode_all(value.as_bytes(), &mut encoded.1);
        self.pairs.push(encoded);
        self.pairs.sort_by(|a, b| a.0.cmp(&b.0));
        self
    }

    pub(crate) fn write(&self, out: &mut String) {
        write_pairs(self.pairs.iter(), out);
    }

    /// Only the method, if one is named: at most 24 bytes.
    pub(crate) fn write_method(&self, out: &mut String) {
        write_pairs(self.pairs.iter().filter(|pair| is_method(pair)), out);
    }

    /// All of it, but the method before all else.
    pub(crate) fn write_method_first(&self, out: &mut String) {
        let method = self.pairs.iter().filter(|pair| is_method(pair));
        let others = self.pairs.iter().filter(|pair| !is_method(pair));
        write_pairs(method.chain(others), out);
    }
}

/// Larder's own names; in lower case.
pub(crate) fn is_reserved(name: &str) -> bool {
    matches!(name, "method" | "body")
}

fn is_method((name, _): &(String, String)) -> bool {
    name == "method"
}

fn write_pairs<'a>(pairs: impl Iterator<Item = &'a (String, String)>, out: &mut String) {
    for (index, (name, value)) in pairs.enumerate() {
        out.push(if index == 0 { '#' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles only for what is wiped when it is dropped.
    fn is_wiped(_: &impl zeroize::ZeroizeOnDrop) {}

    #[test]
    fn the_hashing_key_is_wiped_and_there_is_one_however_often_it_is_cloned() {
        let secret = KeySecret::new(&Secret::new("a secret of the test's own".to_owned()));
        is_wiped(&*secret.0);
        assert!(Arc::ptr_eq(&secret.0, &secret.clone().0));
    }

    #[test]
    fn the_hashing_key_is_blake3_s_of_the_secret() {
        let text = "a secret of the test's own";
        let secret = KeySecret::new(&Secret::new(text.to_owned()));
        assert_eq!(**secret.0, blake3::derive_key(PURPOSE, text.as_bytes()));
    }
}
