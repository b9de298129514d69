//! Frames are read back as they were written, for ever; and what anybody else wrote is refused, and costs nothing.

use std::io::Read as _;
use std::time::Duration;

use bytes::Bytes;
use larder_core::{
    Content, EncodeError, Frame, FrameError, Frames, Key, MAX_DURATION, MAX_STAMPS, SealingKeys,
    Secret, Stamp, Tag, Version, VersionName,
};
use larder_testing::alone::{is_alone, most_resident, resident};
use proptest::prelude::*;

use crate::fuzz_checks::{check_frame, with_checksum};
use crate::key;

const MAX: u64 = 1 << 20;
const SEAL_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const NEW_SEAL_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
/// Where the flags are.
const FLAGS: usize = 2;
const COMPRESSED: u8 = 1;
const SEALED: u8 = 2;

fn plain() -> Frames {
    Frames::new(None)
}

fn sealing(keys: &str) -> Frames {
    let keys = SealingKeys::parse(&Secret::new(keys.to_owned()));
    Frames::new(Some(keys.unwrap()))
}

fn products_key() -> Key {
    key("/products")
}

fn frame(payload: impl Into<Bytes>) -> Frame {
    let stamp = |name, value| Stamp {
        name,
        version: Version {
            value,
            incarnation: 0x1111_2222_3333_4444,
        },
    };
    Frame {
        id: 0x0123_4567_89ab_cdef,
        incarnation: 0xfeed_beef_feed_beef,
        total: Duration::from_secs(900),
        fresh: Duration::from_secs(300),
        stale_while_revalidate: Duration::from_secs(60),
        stale_if_error: Duration::from_secs(600),
        load_cost: Duration::from_micros(812_345),
        stamps: vec![
            stamp(VersionName::Service, 1 << 100),
            stamp(VersionName::of_endpoint("/products"), 2),
            stamp(VersionName::Tag(Tag::new("product:17").unwrap()), u128::MAX),
        ],
        content: Content::Json,
        payload: payload.into(),
    }
}

fn products(count: usize) -> Vec<u8> {
    let product = |id| {
        format!(
            r#"{{"id":{id},"name":"Laptop {id}","price":{}.99}}"#,
            id * 7
        )
    };
    let all: Vec<String> = (0..count).map(product).collect();
    format!("[{}]", all.join(",")).into_bytes()
}

fn encode(frames: &Frames, frame: &Frame) -> Vec<u8> {
    frames.encode(&products_key(), frame, MAX).unwrap().into()
}

fn decode(frames: &Frames, bytes: &[u8]) -> Result<Frame, FrameError> {
    frames.decode(&products_key(), &Bytes::copy_from_slice(bytes), MAX)
}

/// The bytes after a change, with a checksum that fits.
fn edited(bytes: &[u8], edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut edited = bytes[..bytes.len() - 8].to_vec();
    edit(&mut edited);
    with_checksum(&products_key(), edited)
}

#[test]
fn what_any_version_wrote_is_read_for_ever() {
    let small = frame(&br#"{"id":1,"name":"Laptop"}"#[..]);
    let large = frame(products(40));
    for (frames, name, frame) in [
        (plain(), "v1-raw", &small),
        (plain(), "v1-compressed", &large),
        (sealing(SEAL_KEY), "v1-sealed", &small),
        (sealing(SEAL_KEY), "v1-compressed-sealed", &large),
    ] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        let bytes = std::fs::read(format!("{folder}/{name}")).unwrap();
        assert_eq!(decode(&frames, &bytes).as_ref(), Ok(frame), "{name}");
    }
}

#[test]
fn no_json_and_no_utf_8_begins_as_a_frame_does() {
    for frames in [plain(), sealing(SEAL_KEY)] {
        let bytes = encode(&frames, &frame("1"));
        let text = std::str::from_utf8(&bytes[..1]).unwrap_err();
        // No text that goes on, but none at all.
        assert_eq!((text.valid_up_to(), text.error_len()), (0, Some(1)));
    }
    for text in [
        &b""[..],
        b"{}",
        b"[1]",
        b"null",
        b"\"\"",
        b" 1",
        b"-1",
        b"\xff",
    ] {
        assert_eq!(decode(&plain(), text), Err(FrameError::NotFramed));
    }
}

#[test]
fn a_cut_or_longer_frame_is_refused() {
    for frames in [plain(), sealing(SEAL_KEY)] {
        for payload in [products(1), products(100)] {
            let bytes = encode(&frames, &frame(payload));
            for end in 1..bytes.len() {
                let cut = decode(&frames, &bytes[..end]);
                assert_eq!(cut, Err(FrameError::CutShort), "{end}");
            }
            for end in 2..bytes.len() - 8 {
                let cut = edited(&bytes, |bytes| bytes.truncate(end));
                assert!(decode(&frames, &cut).is_err(), "{end}");
            }
            let longer = [&bytes[..], b"x"].concat();
            assert_eq!(decode(&frames, &longer), Err(FrameError::Malformed));
        }
    }
}

#[test]
fn any_changed_bit_is_noticed() {
    for frames in [plain(), sealing(SEAL_KEY)] {
        for payload in [products(1), products(100)] {
            let mut bytes = encode(&frames, &frame(payload));
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&frames, &bytes).is_err(), "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

#[test]
fn what_no_larder_writes_is_refused_though_its_checksum_is_right() {
    let bytes = encode(&plain(), &frame("[1]"));
    for (at, value, error) in [
        (1, 0, FrameError::OtherVersion),
        (1, 2, FrameError::OtherVersion),
        (FLAGS, 4, FrameError::Malformed),
        (FLAGS, 0x80, FrameError::Malformed),
        (FLAGS, COMPRESSED, FrameError::Compression),
        (FLAGS, SEALED, FrameError::OtherKey),
        (3, 2, FrameError::Malformed),
        // Longer and shorter body; a life of 2^63 ms; more, fewer and longer stamps.
        (4, 4, FrameError::CutShort),
        (4, 2, FrameError::Malformed),
        (31, 0x80, FrameError::Malformed),
        (62, 4, FrameError::Malformed),
        (62, 2, FrameError::Malformed),
        (60, 0xff, FrameError::CutShort),
        (63, 1, FrameError::Malformed),
        (64, 9, FrameError::Malformed),
    ] {
        let edited = edited(&bytes, |bytes| bytes[at] = value);
        assert_eq!(decode(&plain(), &edited), Err(error), "{at}: {value}");
    }
}

#[test]
fn a_frame_counts_under_its_own_key_alone() {
    let bytes: Bytes = encode(&plain(), &frame("[1]")).into();
    let moved = plain().decode(&key("/other"), &bytes, MAX);
    assert_eq!(moved, Err(FrameError::Checksum));
}

/// SG-1: the checksum is made to fit, as who can write to the store can do.
#[test]
fn a_sealed_frame_with_any_byte_changed_is_refused() {
    let frames = sealing(SEAL_KEY);
    for payload in [products(1), products(40)] {
        let bytes = encode(&frames, &frame(payload));
        for at in 0..bytes.len() - 8 {
            for change in [0x01, 0x02, 0x80, 0xff] {
                let edited = edited(&bytes, |bytes| bytes[at] ^= change);
                assert!(decode(&frames, &edited).is_err(), "{at}: {change}");
            }
        }
        assert!(decode(&frames, &edited(&bytes, |_| ())).is_ok());
        // The same edits of a frame that is not sealed go through: it is the seal that holds.
        let open = edited(&encode(&plain(), &frame("1")), |bytes| bytes[8] ^= 1);
        assert!(decode(&plain(), &open).is_ok());
    }
}

#[test]
fn where_entries_are_sealed_nothing_else_is_taken() {
    let frames = sealing(SEAL_KEY);
    let sealed = encode(&frames, &frame("[1]"));
    let unsealed = encode(&plain(), &frame("[1]"));
    for bytes in [
        &b""[..],
        b"[1]",
        b"null",
        &unsealed,
        &edited(&sealed, |bytes| bytes[FLAGS] = 0),
        &encode(&plain(), &frame(products(100))),
    ] {
        assert_eq!(decode(&frames, bytes), Err(FrameError::Unsealed));
    }
    for (bytes, flags, error) in [
        (&unsealed, SEALED, FrameError::Malformed),
        (&sealed, SEALED | COMPRESSED, FrameError::Seal),
        (&sealed, 0xff, FrameError::Malformed),
    ] {
        let edited = edited(bytes, |bytes| bytes[FLAGS] = flags);
        assert_eq!(decode(&frames, &edited), Err(error), "{flags}");
    }
    let moved = with_checksum(&key("/other"), sealed[..sealed.len() - 8].to_vec());
    let moved = frames.decode(&key("/other"), &moved.into(), MAX);
    assert_eq!(moved, Err(FrameError::Seal));
}

#[test]
fn a_seal_hides_the_value_and_is_never_the_same_twice() {
    let frames = sealing(SEAL_KEY);
    let [one, other] = [0, 1].map(|_| encode(&frames, &frame("a secret")));
    assert!(!one.windows(8).any(|bytes| bytes == b"a secret"));
    assert!(one != other);
}

#[test]
fn keys_are_changed_without_a_cold_cache() {
    let (old, new) = (sealing(SEAL_KEY), sealing(NEW_SEAL_KEY));
    let both = sealing(&format!("{NEW_SEAL_KEY}\n{SEAL_KEY}\n"));
    let by_old = encode(&old, &frame("[1]"));
    let by_both = encode(&both, &frame("[1]"));
    assert!(decode(&both, &by_old).is_ok() && decode(&both, &by_both).is_ok());
    assert!(decode(&new, &by_both).is_ok());
    assert_eq!(decode(&new, &by_old), Err(FrameError::OtherKey));
    assert_eq!(decode(&old, &by_both), Err(FrameError::OtherKey));
    // The name of another of our keys doesn't make it that key's.
    let name = by_both.len() - 8 - 16 - 3 - 24 - 8;
    let renamed = edited(&by_old, |bytes| {
        bytes[name..name + 8].copy_from_slice(&by_both[name..name + 8]);
    });
    assert_eq!(decode(&both, &renamed), Err(FrameError::Seal));
}

#[test]
fn larger_values_are_neither_written_nor_read() {
    let value = products(100);
    let bytes = value.len() as u64;
    for frames in [plain(), plain().packed_from(usize::MAX), sealing(SEAL_KEY)] {
        let frame = frame(value.clone());
        let error = EncodeError::TooLarge {
            bytes,
            limit: bytes - 1,
        };
        assert_eq!(
            frames.encode(&products_key(), &frame, bytes - 1),
            Err(error)
        );
        let written = frames.encode(&products_key(), &frame, bytes).unwrap();
        let read = |limit| frames.decode(&products_key(), &written, limit);
        assert_eq!(read(bytes), Ok(frame));
        for limit in [bytes - 1, 1, 0] {
            assert_eq!(read(limit), Err(FrameError::TooLarge), "{limit}");
        }
    }
}

#[test]
fn stamps_are_bounded_and_long_durations_cut() {
    let mut frame = frame("1");
    frame.stamps = vec![frame.stamps[2].clone(); MAX_STAMPS];
    assert_eq!(
        decode(&plain(), &encode(&plain(), &frame)),
        Ok(frame.clone())
    );
    frame.stamps.push(frame.stamps[0].clone());
    let refused = plain().encode(&products_key(), &frame, MAX);
    assert_eq!(refused, Err(EncodeError::TooManyStamps(MAX_STAMPS + 1)));
    frame.stamps.clear();
    frame.total = Duration::MAX;
    frame.fresh = Duration::new(1, 999_999);
    frame.load_cost = Duration::MAX;
    let read = decode(&plain(), &encode(&plain(), &frame)).unwrap();
    assert_eq!(
        (read.total, read.fresh),
        (MAX_DURATION, Duration::from_secs(1))
    );
    assert_eq!(read.load_cost, Duration::from_micros(u32::MAX.into()));
}

/// What zstd makes of so many zeros, byte by byte (RFC 8878, section 3.1.1): each 128 KiB take four bytes. With the size
/// that it is to say, and room for a window.
fn bomb(blocks: u32, says: u64, window: u8) -> Vec<u8> {
    const RUN: u32 = 1 << 1;
    const LAST: u32 = 1;
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, window];
    bytes.extend_from_slice(&says.to_le_bytes());
    for block in 1..=blocks {
        let last = if block == blocks { LAST } else { 0 };
        let header = (128 << 10) << 3 | RUN | last;
        bytes.extend_from_slice(&header.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}

/// SG-2.
#[test]
fn a_bomb_takes_no_memory() {
    if !is_alone("frames::a_bomb_takes_no_memory") {
        return;
    }
    const TEN_GIB: u64 = 10 << 30;
    const WINDOW_8_MIB: u8 = 13 << 3;
    const WINDOW_2_GIB: u8 = 21 << 3;
    let bombs = [
        bomb(80_920, TEN_GIB, WINDOW_8_MIB),
        bomb(250, TEN_GIB, WINDOW_2_GIB),
        bomb(250, u64::MAX, WINDOW_2_GIB),
        // Less than it holds, just what is allowed, less than what is allowed and more than it holds.
        bomb(250, 1_000, WINDOW_2_GIB),
        bomb(250, MAX, WINDOW_2_GIB),
        bomb(1, MAX, WINDOW_2_GIB),
        bomb(1, MAX - 1, WINDOW_8_MIB),
    ];
    let frames = plain().packed_from(usize::MAX);
    let bytes: Vec<Bytes> = bombs
        .iter()
        .map(|bomb| {
            let bytes = encode(&frames, &frame(bomb.clone()));
            edited(&bytes, |bytes| bytes[FLAGS] = COMPRESSED).into()
        })
        .collect();
    let before = resident();
    for bytes in &bytes {
        let error = frames.decode(&products_key(), bytes, MAX).unwrap_err();
        assert!(
            matches!(error, FrameError::TooLarge | FrameError::Compression),
            "{error}"
        );
    }
    let grown = most_resident().saturating_sub(before);
    assert!(grown <= 2 << 20, "{grown} bytes");
    // A full MiB in four bytes for each 128 KiB is a value as any other.
    let whole = encode(&frames, &frame(bomb(8, MAX, WINDOW_2_GIB)));
    let whole = edited(&whole, |bytes| bytes[FLAGS] = COMPRESSED);
    assert_eq!(decode(&frames, &whole).unwrap().payload.len() as u64, MAX);
    // They are bombs: a reader that goes on gets all of it.
    let mut naive = zstd::stream::read::Decoder::new(&bombs[0][..]).unwrap();
    let read = std::io::copy(&mut naive.by_ref().take(64 << 20), &mut std::io::sink());
    assert_eq!(read.unwrap(), 64 << 20);
}

#[test]
fn every_frame_of_the_corpus_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/frame");
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        check_frame(&std::fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 20, "{files} files");
}

prop_compose! {
    fn any_stamp()(
        name in prop_oneof![
            Just(VersionName::Service),
            "[ -~]{1,40}".prop_map(|endpoint| VersionName::of_endpoint(&endpoint)),
            "[a-z0-9:._/-]{1,128}".prop_map(|tag| VersionName::Tag(Tag::new(&tag).unwrap())),
        ],
        value: u128,
        incarnation: u64,
    ) -> Stamp {
        Stamp { name, version: Version { value, incarnation } }
    }
}

prop_compose! {
    fn any_frame()(
        id: u64,
        incarnation: u64,
        ms in prop::array::uniform4(0..=MAX_DURATION.as_millis() as u64),
        load_cost: u32,
        stamps in prop::collection::vec(any_stamp(), 0..8),
        is_json: bool,
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3_000),
            (0_usize..200).prop_map(products),
        ],
    ) -> Frame {
        let [total, fresh, stale_while_revalidate, stale_if_error] = ms.map(Duration::from_millis);
        Frame {
            id,
            incarnation,
            total,
            fresh,
            stale_while_revalidate,
            stale_if_error,
            load_cost: Duration::from_micros(load_cost.into()),
            stamps,
            content: if is_json { Content::Json } else { Content::Http },
            payload: payload.into(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(frame in any_frame(), packed_from in 0_usize..4_000) {
        for frames in [plain(), sealing(SEAL_KEY)] {
            let frames = frames.packed_from(packed_from);
            let read = decode(&frames, &encode(&frames, &frame));
            prop_assert_eq!(read.as_ref(), Ok(&frame));
        }
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_frame(&bytes);
        check_frame(&[&[0xC1, 1], &bytes[..]].concat());
    }

    /// Edits that a writer of the store can make, with a checksum that fits.
    #[test]
    fn any_edits_are_a_frame_or_an_error(
        frame in any_frame(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encode(&plain(), &frame);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check_frame(&bytes[..bytes.len() - 8]);
    }
}
