//! Where what stands in a frame.
//!
//! ```text
//! 0       0xC1, which begins no JSON, and no UTF-8 at all
//! 1       version of the form: 1
//! 2       flags: 1 compressed, 2 sealed
//! 3       content: 0 JSON, 1 an HTTP response
//! 4..8    how long the body is
//! 8..16   id
//! 16..24  incarnation
//! 24..32  total, in milliseconds
//! 32..40  fresh
//! 40..48  stale while revalidate
//! 48..56  stale if error
//! 56..60  load cost, in microseconds
//! 60..62  how long the stamps are
//! 62      how many there are
//! 63      zero
//! 64..    the stamps
//! then    the body: the value; compressed: one frame of zstd; sealed: the key's name, a nonce, either of them sealed, a tag
//! last 8  checksum: of the key, and of all before it (xxh3-64)
//! ```
//! All numbers are little-endian.

use std::cmp::Ordering;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use larder_model::MAX_DURATION;
use twox_hash::XxHash3_64;

use super::error::{EncodeError, FrameError};
use super::{Content, Frame, stamps};

pub(super) const MAGIC: u8 = 0xC1;
const VERSION: u8 = 1;
const COMPRESSED: u8 = 1;
const SEALED: u8 = 2;
const HEADER_BYTES: usize = 64;
const CHECKSUM_BYTES: usize = 8;

/// How a body is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrapping {
    pub(super) is_compressed: bool,
    pub(super) is_sealed: bool,
}

/// The parts of a frame, found and checked against its checksum; its stamps are not yet read.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    bytes: &'a [u8],
    pub(super) wrapping: Wrapping,
    stamps: &'a [u8],
    stamp_count: u8,
    pub(super) body: Range<usize>,
}

impl<'a> Layout<'a> {
    pub(super) fn read(key: &str, bytes: &'a [u8]) -> Result<Self, FrameError> {
        match bytes {
            [MAGIC, VERSION, ..] => (),
            [MAGIC, _, ..] => return Err(FrameError::OtherVersion),
            [MAGIC] => return Err(FrameError::CutShort),
            _ => return Err(FrameError::NotFramed),
        }
        let lengths = Lengths::read(bytes).ok_or(FrameError::CutShort)?;
        let body = lengths.body_in(bytes.len())?;
        let stored = Reader::new(&bytes[body.end..]).u64();
        if stored != Some(checksum(key, &bytes[..body.end])) {
            return Err(FrameError::Checksum);
        }
        let wrapping = Wrapping::read(bytes[2]).ok_or(FrameError::Malformed)?;
        Ok(Self {
            bytes,
            wrapping,
            stamps: &bytes[HEADER_BYTES..body.start],
            stamp_count: lengths.stamp_count,
            body,
        })
    }

    /// The frame, with this value.
    pub(super) fn frame(&self, payload: Bytes) -> Result<Frame, FrameError> {
        let mut frame = self.header(payload).ok_or(FrameError::Malformed)?;
        frame.stamps = stamps::read(self.stamps, self.stamp_count)?;
        Ok(frame)
    }

    fn header(&self, payload: Bytes) -> Option<Frame> {
        let mut reader = Reader::new(self.bytes);
        let [_, _, _, content] = reader.array()?;
        let _body_bytes = reader.u32()?;
        let frame = Frame {
            id: reader.u64()?,
            incarnation: reader.u64()?,
            total: reader.duration()?,
            fresh: reader.duration()?,
            stale_while_revalidate: reader.duration()?,
            stale_if_error: reader.duration()?,
            load_cost: Duration::from_micros(reader.u32()?.into()),
            stamps: Vec::new(),
            content: read_content(content)?,
            payload,
        };
        let [_, _, _, zero] = reader.array()?;
        (zero == 0).then_some(frame)
    }
}

/// What says where the parts begin.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    body: u32,
    stamps: u16,
    stamp_count: u8,
}

impl Lengths {
    /// Those of a frame with a body of so many bytes.
    pub(super) fn of(frame: &Frame, body: usize) -> Result<Self, EncodeError> {
        let count = frame.stamps.len();
        let too_many = |_| EncodeError::TooManyStamps(count);
        let too_large = |_| EncodeError::TooLarge {
            bytes: body as u64,
            limit: u32::MAX.into(),
        };
        Ok(Self {
            body: u32::try_from(body).map_err(too_large)?,
            stamps: u16::try_from(stamps::encoded_len(&frame.stamps)).map_err(too_many)?,
            stamp_count: u8::try_from(count).map_err(too_many)?,
        })
    }

    /// How long the whole frame is.
    pub(super) fn whole(self) -> usize {
        HEADER_BYTES + usize::from(self.stamps) + self.body as usize + CHECKSUM_BYTES
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let body = Reader::new(&header[4..]).u32()?;
        let mut reader = Reader::new(&header[60..]);
        Some(Self {
            body,
            stamps: reader.u16()?,
            stamp_count: reader.u8()?,
        })
    }

    /// Where the body is, in a frame of so many bytes.
    fn body_in(self, bytes: usize) -> Result<Range<usize>, FrameError> {
        let start = HEADER_BYTES + usize::from(self.stamps);
        let room = bytes.checked_sub(start + CHECKSUM_BYTES);
        let room = room.ok_or(FrameError::CutShort)? as u64;
        match u64::from(self.body).cmp(&room) {
            Ordering::Less => Err(FrameError::Malformed),
            Ordering::Equal => Ok(start..bytes - CHECKSUM_BYTES),
            Ordering::Greater => Err(FrameError::CutShort),
        }
    }
}

/// Writes all that stands before the body.
pub(super) fn write_head(frame: &Frame, wrapping: Wrapping, lengths: Lengths, out: &mut Vec<u8>) {
    out.extend_from_slice(&[
        MAGIC,
        VERSION,
        wrapping.flags(),
        content_code(frame.content),
    ]);
    out.extend_from_slice(&lengths.body.to_le_bytes());
    out.extend_from_slice(&frame.id.to_le_bytes());
    out.extend_from_slice(&frame.incarnation.to_le_bytes());
    for duration in [
        frame.total,
        frame.fresh,
        frame.stale_while_revalidate,
        frame.stale_if_error,
    ] {
        // At most 365 days.
        let ms = duration.min(MAX_DURATION).as_millis() as u64;
        out.extend_from_slice(&ms.to_le_bytes());
    }
    let load_cost = u32::try_from(frame.load_cost.as_micros()).unwrap_or(u32::MAX);
    out.extend_from_slice(&load_cost.to_le_bytes());
    out.extend_from_slice(&lengths.stamps.to_le_bytes());
    out.extend_from_slice(&[lengths.stamp_count, 0]);
    stamps::write(&frame.stamps, out);
}

/// Ends a frame whose head and body stand in `out`.
pub(super) fn write_checksum(key: &str, out: &mut Vec<u8>) {
    let checksum = checksum(key, out);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// Against damage, and against entries that were moved to another key; no seal.
fn checksum(key: &str, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes) ^ XxHash3_64::oneshot(key.as_bytes()).rotate_left(32)
}

impl Wrapping {
    fn flags(self) -> u8 {
        (u8::from(self.is_compressed) * COMPRESSED) | (u8::from(self.is_sealed) * SEALED)
    }

    pub(super) fn read(flags: u8) -> Option<Self> {
        let known = Self {
            is_compressed: flags & COMPRESSED != 0,
            is_sealed: flags & SEALED != 0,
        };
        (known.flags() == flags).then_some(known)
    }
}

fn content_code(content: Content) -> u8 {
    match content {
        Content::Json => 0,
        Content::Http => 1,
    }
}

fn read_content(code: u8) -> Option<Content> {
    match code {
        0 => Some(Content::Json),
        1 => Some(Content::Http),
        _ => None,
    }
}

/// Reads bytes from their beginning, and never past their end.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Milliseconds, no more than any duration of ours has.
    fn duration(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(self.u64()?)).filter(|duration| *duration <= MAX_DURATION)
    }
}
