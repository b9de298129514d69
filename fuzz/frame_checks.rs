//! What must hold for any bytes that lie in a store: checked by the fuzz target, and by the tests for each file of the corpus.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{Frame, Frames, Freshness, Key, SealingKeys, Secret};
use twox_hash::XxHash3_64;

/// Small, so that a fuzzer which limits single allocations sees one that is too large.
const MAX_VALUE_BYTES: u64 = 256 << 10;

static SEALING: LazyLock<Frames> = LazyLock::new(|| {
    let key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let keys = SealingKeys::parse(&Secret::new(key.to_owned()));
    Frames::new(Some(keys.expect("64 digits are a key")))
});

/// Bytes as they lie in a store, and with a checksum that fits behind them: no fuzzer finds one.
pub(crate) fn check_frame(bytes: &[u8]) {
    let key = Key::new("svc", "/products").expect("a key");
    for bytes in [bytes.to_vec(), with_checksum(&key, bytes.to_vec())] {
        let bytes = Bytes::from(bytes);
        for frames in [&Frames::new(None), &SEALING] {
            if let Ok(frame) = frames.decode(&key, &bytes, MAX_VALUE_BYTES) {
                check_decoded(frames, &key, frame);
            }
        }
    }
}

/// What is read is in bounds, and written and read again it is the same.
fn check_decoded(frames: &Frames, key: &Key, frame: Frame) {
    assert!(frame.payload.len() as u64 <= MAX_VALUE_BYTES);
    let again = frames
        .encode(key, &frame, MAX_VALUE_BYTES)
        .expect("what was read is written");
    let again = frames.decode(key, &again, MAX_VALUE_BYTES);
    assert_eq!(again.as_ref(), Ok(&frame));
    for left in [Duration::ZERO, frame.total / 2, frame.total] {
        let age = frame
            .age(Some(left))
            .expect("no more is left than there was");
        let is_fresh = frame.freshness(age) == Freshness::Fresh;
        assert!(!is_fresh || age < frame.fresh);
        // Of a chance of 1, the end alone makes it due.
        assert_eq!(frame.is_due_early(age, 1.0, 1.0), age >= frame.fresh);
    }
    assert_eq!(frame.freshness(Duration::MAX), Freshness::Over);
}

/// The bytes as a frame, whatever they say: with the checksum that Larder would put behind them.
pub(crate) fn with_checksum(key: &Key, mut bytes: Vec<u8>) -> Vec<u8> {
    let of_key = XxHash3_64::oneshot(key.as_str().as_bytes()).rotate_left(32);
    let checksum = XxHash3_64::oneshot(&bytes) ^ of_key;
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}
