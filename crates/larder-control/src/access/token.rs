//! What is shown to be let in: `lrd_`, the key's id, and 256 bits of chance. Only its SHA-256 is kept. The beginning lets
//! people and scanners of repositories see what it is.

use larder_model::Secret;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq as _;

use crate::hex;

const PREFIX: &str = "lrd_";
/// Hexadecimal digits of an id.
const ID: usize = 16;
/// And of what is secret.
const SECRET: usize = 64;

/// The SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(secret: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        Self(bytes)
    }

    /// As it is stored.
    pub(crate) fn to_hex(self) -> String {
        hex::encode(&self.0)
    }

    pub(crate) fn of_hex(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }

    /// Whether they are equal, in a time that does not tell where they differ.
    pub(crate) fn is(self, other: Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// A key's text that was shown.
pub(crate) struct Shown {
    pub(crate) id: String,
    pub(crate) digest: Digest,
}

impl Shown {
    /// `None`: it is not the text of a key.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let is_whole = is_digits(id, ID) && is_digits(secret, SECRET);
        is_whole.then(|| Self {
            id: id.to_owned(),
            digest: Digest::of(text),
        })
    }
}

fn is_digits(text: &str, number: usize) -> bool {
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    text.len() == number && text.bytes().all(is_digit)
}

/// A new key: its id and its text.
///
/// # Errors
/// The system gives no random numbers.
pub(crate) fn make() -> Result<(String, Secret), getrandom::Error> {
    let (mut id, mut secret) = ([0; ID / 2], [0; SECRET / 2]);
    getrandom::fill(&mut id)?;
    getrandom::fill(&mut secret)?;
    let id = hex::encode(&id);
    let secret = Secret::new(hex::encode(&secret));
    let text = Secret::new(format!("{PREFIX}{id}_{}", secret.expose()));
    Ok((id, text))
}

/// Whether a URL holds a key, also with its underscores encoded.
pub(crate) fn is_in(url: &str) -> bool {
    let plain = url.replace("%5F", "_").replace("%5f", "_");
    let begins = plain.match_indices(PREFIX);
    let mut behind = begins.filter_map(|(at, _)| plain.get(at + PREFIX.len()..));
    behind.any(|rest| rest.get(..ID).is_some_and(|id| is_digits(id, ID)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_read_and_no_two_are_alike() {
        let (id, text) = make().unwrap();
        let shown = Shown::read(text.expose()).unwrap();
        assert_eq!(shown.id, id);
        assert_eq!(text.expose().len(), 85);
        let stored = Digest::of_hex(&shown.digest.to_hex()).unwrap();
        assert!(stored.is(Digest::of(text.expose())));
        let (_, other) = make().unwrap();
        assert!(!stored.is(Digest::of(other.expose())));
    }

    #[test]
    fn what_is_no_key_is_not_taken_for_one() {
        let (_, text) = make().unwrap();
        let text = text.expose();
        let capital = text.to_ascii_uppercase();
        for other in [
            "",
            "lrd_",
            &text[1..],
            &text[..84],
            &format!("{text}0"),
            &format!(" {text}"),
            &capital,
            &text.replace('_', "-"),
        ] {
            assert!(Shown::read(other).is_none(), "{other}");
        }
    }

    #[test]
    fn a_key_in_a_url_is_seen_however_it_is_written() {
        let (_, text) = make().unwrap();
        let encoded = text.expose().replace('_', "%5f");
        for url in [
            format!("/api/services?key={}", text.expose()),
            format!("/api/services?key={encoded}"),
            format!("/api/config/{}/a", text.expose()),
        ] {
            assert!(is_in(&url), "{url}");
        }
        assert!(!is_in("/api/config/lrd_service/a?lrd_=1&lrd_x"));
    }
}
