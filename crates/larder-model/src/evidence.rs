//! Which keys were asked for in a window, and what the origin answered: what tells how often keys repeat, and how often
//! what is under them changes. Keys are hashes of 32 bits.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::window::MAX_COUNT;

/// Times within a window count in 1/25 s.
pub const PER_SECOND: u32 = 25;

/// No window has more records of keys than this, nor of answers.
pub const MAX_RECORDS: usize = 256;

/// How often a key was asked for in a window, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KeyUse {
    /// The key's hash.
    pub hash: u32,
    /// How often; at most 32,767.
    pub requests: u16,
    /// The first time, in 1/25 s since the window began.
    pub first: u16,
    /// The last time.
    pub last: u16,
    /// How long before `first` the instance saw the key, in 1/25 s; `None` if it did not, or has forgotten.
    pub since_before: Option<u32>,
    /// Whether the key is among those that the instance keeps apart, all of which are recorded; of the others, only those
    /// with a low hash are.
    pub is_hot: bool,
}

/// An answer of the origin that was stored, or could have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OriginAnswer {
    /// The key's hash.
    pub hash: u32,
    /// A hash of the answer.
    pub body: u16,
    /// When, in 1/25 s since the window began.
    pub at: u16,
    /// What was compared, where it was made to check a fresh entry (a canary).
    pub check: Option<Checked>,
}

/// What a check of a fresh entry found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// How old the entry was, in 1/25 s.
    pub age: u32,
    /// Whether the origin answered something else.
    pub has_changed: bool,
}

/// What a window has besides its counts. On the wire its records are packed, in base64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evidence {
    /// Lookups of keys that are kept apart (hot), recorded or not; with the others at most 1,000,000,000.
    pub hot_requests: u64,
    /// Lookups of other keys.
    pub cold_requests: u64,
    /// Of the keys that are not hot, those whose hash is below this share of all were recorded: above 0, at most 1.
    pub share: f64,
    /// The keys, each once, 14 bytes each: hash, requests (the highest bit: hot), first, last, and how long before the first it was
    /// seen (0: never; else one more than 1/25 s); little-endian.
    #[serde(serialize_with = "pack_keys", deserialize_with = "unpack_keys")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keys: Vec<KeyUse>,
    /// The origin's answers, 12 bytes each: hash, body, time, and of a check its age (the highest bit: changed), else all bits.
    #[serde(serialize_with = "pack_answers", deserialize_with = "unpack_answers")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub answers: Vec<OriginAnswer>,
    /// Keys that were invalidated, by hash, 4 bytes each.
    #[serde(serialize_with = "pack_hashes", deserialize_with = "unpack_hashes")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub erased: Vec<u32>,
    /// Whether more was invalidated than is listed: a tag, the endpoint, too many keys.
    pub erased_more: bool,
}

impl Default for Evidence {
    /// Nothing was seen, of all keys.
    fn default() -> Self {
        Self {
            hot_requests: 0,
            cold_requests: 0,
            share: 1.0,
            keys: Vec::new(),
            answers: Vec::new(),
            erased: Vec::new(),
            erased_more: false,
        }
    }
}

impl Evidence {
    /// Whether something was invalidated.
    #[must_use]
    pub fn has_erased(&self) -> bool {
        self.erased_more || !self.erased.is_empty()
    }

    /// How many records it has.
    #[must_use]
    pub fn records(&self) -> usize {
        self.keys.len() + self.answers.len() + self.erased.len()
    }

    /// What was invalidated alone.
    #[must_use]
    pub fn into_erased(self) -> Self {
        Self {
            erased: self.erased,
            erased_more: self.erased_more,
            ..Self::default()
        }
    }

    /// Lets nothing be later than this within its window, in 1/25 s.
    pub fn end_by(&mut self, latest: u16) {
        for key in &mut self.keys {
            (key.first, key.last) = (key.first.min(latest), key.last.min(latest));
        }
        for answer in &mut self.answers {
            answer.at = answer.at.min(latest);
        }
    }

    /// Keeps at most so many records: without its keys and answers if they are too many, and as a last resort without saying
    /// which keys were invalidated; that some were is told all the same. Whether it kept all of them.
    pub fn cut_to(&mut self, room: usize) -> bool {
        if self.records() <= room {
            return true;
        }
        self.keys = Vec::new();
        self.answers = Vec::new();
        if self.erased.len() > room {
            self.erased_more = true;
            self.erased = Vec::new();
        }
        false
    }

    /// Whether all of it can be.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.keys.len() <= MAX_RECORDS
            && self.answers.len() <= MAX_RECORDS
            && self.erased.len() <= MAX_RECORDS
            && self.share > 0.0
            && self.share <= 1.0
            && self.hot_requests <= MAX_COUNT
            && self.cold_requests <= MAX_COUNT - self.hot_requests
            && self
                .keys
                .iter()
                .all(|key| key.first <= key.last && key.requests > 0)
    }
}

const KEY_BYTES: usize = 14;
const ANSWER_BYTES: usize = 12;
const HOT: u16 = 1 << 15;
const CHANGED: u32 = 1 << 31;
const NO_CHECK: u32 = u32::MAX;

fn pack_keys<S: Serializer>(keys: &[KeyUse], serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(keys.len() * KEY_BYTES);
    for key in keys {
        let requests = key.requests.min(HOT - 1) | if key.is_hot { HOT } else { 0 };
        bytes.extend_from_slice(&key.hash.to_le_bytes());
        for part in [requests, key.first, key.last] {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        let before = key.since_before.map_or(0, |since| since.saturating_add(1));
        bytes.extend_from_slice(&before.to_le_bytes());
    }
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn unpack_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyUse>, D::Error> {
    unpack(deserializer, |record: &[u8; KEY_BYTES]| {
        let [a, b, c, d, n0, n1, f0, f1, l0, l1, s0, s1, s2, s3] = *record;
        let requests = u16::from_le_bytes([n0, n1]);
        KeyUse {
            hash: u32::from_le_bytes([a, b, c, d]),
            requests: requests & !HOT,
            first: u16::from_le_bytes([f0, f1]),
            last: u16::from_le_bytes([l0, l1]),
            since_before: u32::from_le_bytes([s0, s1, s2, s3]).checked_sub(1),
            is_hot: requests & HOT != 0,
        }
    })
}

fn pack_answers<S: Serializer>(answers: &[OriginAnswer], serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(answers.len() * ANSWER_BYTES);
    for answer in answers {
        let check = answer.check.map_or(NO_CHECK, |check| {
            let age = check.age.min(CHANGED - 2);
            age | if check.has_changed { CHANGED } else { 0 }
        });
        bytes.extend_from_slice(&answer.hash.to_le_bytes());
        bytes.extend_from_slice(&answer.body.to_le_bytes());
        bytes.extend_from_slice(&answer.at.to_le_bytes());
        bytes.extend_from_slice(&check.to_le_bytes());
    }
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn unpack_answers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<OriginAnswer>, D::Error> {
    unpack(deserializer, |record: &[u8; ANSWER_BYTES]| {
        let [a, b, c, d, b0, b1, t0, t1, c0, c1, c2, c3] = *record;
        let check = u32::from_le_bytes([c0, c1, c2, c3]);
        OriginAnswer {
            hash: u32::from_le_bytes([a, b, c, d]),
            body: u16::from_le_bytes([b0, b1]),
            at: u16::from_le_bytes([t0, t1]),
            check: (check != NO_CHECK).then_some(Checked {
                age: check & !CHANGED,
                has_changed: check & CHANGED != 0,
            }),
        }
    })
}

fn pack_hashes<S: Serializer>(hashes: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn unpack_hashes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    unpack(deserializer, |record: &[u8; 4]| u32::from_le_bytes(*record))
}

fn unpack<'de, D: Deserializer<'de>, T, const N: usize>(
    deserializer: D,
    read: impl Fn(&[u8; N]) -> T,
) -> Result<Vec<T>, D::Error> {
    use serde::de::Error as _;
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    // As long as the text is, it was bounded before.
    let bytes = BASE64.decode(text.as_bytes()).map_err(D::Error::custom)?;
    let (records, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(D::Error::custom("a record is cut"));
    }
    Ok(records.iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        let key = |hash, since_before, is_hot| KeyUse {
            hash,
            requests: 7,
            first: 1,
            last: 250,
            since_before,
            is_hot,
        };
        let answer = |check| OriginAnswer {
            hash: 9,
            body: 65_535,
            at: 3,
            check,
        };
        let checked = |age, has_changed| Some(Checked { age, has_changed });
        Evidence {
            hot_requests: 7,
            cold_requests: 14,
            share: 0.5,
            keys: vec![
                key(0, None, true),
                key(u32::MAX, Some(0), false),
                key(5, Some(1 << 30), false),
            ],
            answers: vec![
                answer(None),
                answer(checked(0, true)),
                answer(checked(90_000, false)),
            ],
            erased: vec![1, u32::MAX],
            erased_more: true,
        }
    }

    #[test]
    fn it_survives_the_wire() {
        let wire = serde_json::to_string(&evidence()).unwrap();
        assert_eq!(serde_json::from_str::<Evidence>(&wire).unwrap(), evidence());
        assert!(evidence().is_plausible());
    }

    #[test]
    fn where_there_is_no_room_for_keys_it_is_told_that_some_were_invalidated() {
        let mut all = evidence();
        assert!(all.cut_to(8) && all == evidence());
        let mut some = evidence();
        assert!(!some.cut_to(7));
        assert_eq!((some.records(), some.erased_more), (2, true));
        assert_eq!(some.hot_requests, evidence().hot_requests);
        let mut none = Evidence {
            erased_more: false,
            ..evidence()
        };
        assert!(!none.cut_to(1));
        assert_eq!((none.records(), none.erased_more), (0, true));
        let erased = evidence().into_erased();
        assert_eq!((erased.records(), erased.hot_requests), (2, 0));
    }

    #[test]
    fn what_is_no_packed_record_is_refused() {
        for keys in ["AAA", "%", "AAAAAAAAAAAAAAAAAAAAAAAAA"] {
            let wire = format!(r#"{{"keys":"{keys}"}}"#);
            assert!(serde_json::from_str::<Evidence>(&wire).is_err(), "{keys}");
        }
        let sums = [(u64::MAX, 1), (1, u64::MAX), (MAX_COUNT, 1)];
        for (hot_requests, cold_requests) in sums {
            let counted = Evidence {
                hot_requests,
                cold_requests,
                ..evidence()
            };
            assert!(!counted.is_plausible(), "{counted:?}");
        }
        for share in [0.0, -1.0, 1.1, f64::NAN] {
            assert!(
                !Evidence {
                    share,
                    ..evidence()
                }
                .is_plausible(),
                "{share}"
            );
        }
        let mut backwards = evidence();
        backwards.keys[0].first = 251;
        assert!(!backwards.is_plausible());
    }
}
