//! What an entry depends on, as bytes.
//!
//! ```text
//! 0      of what: 0 the service, 1 an endpoint, 2 a tag
//!        an endpoint: its lane, 2 bytes; a tag: how long its name is, 1 byte, and the name
//! then   the version's value, 16 bytes; the incarnation of the server that told it, 8 bytes
//! ```

use larder_model::Tag;

use super::error::FrameError;
use super::layout::Reader;
use crate::version::{ENDPOINT_LANES, Stamp, Version, VersionName};

/// What one frame can name: a byte counts them.
pub const MAX_STAMPS: usize = u8::MAX as usize;

const SERVICE: u8 = 0;
const ENDPOINT: u8 = 1;
const TAG: u8 = 2;

/// How many bytes the stamps take.
pub(super) fn encoded_len(stamps: &[Stamp]) -> usize {
    let of_name = |name: &VersionName| match name {
        VersionName::Service => 0,
        VersionName::Endpoint(_) => 2,
        VersionName::Tag(tag) => 1 + tag.as_str().len(),
    };
    let of_stamp = |stamp: &Stamp| 1 + of_name(&stamp.name) + 16 + 8;
    stamps.iter().map(of_stamp).sum()
}

pub(super) fn write(stamps: &[Stamp], out: &mut Vec<u8>) {
    for stamp in stamps {
        match &stamp.name {
            VersionName::Service => out.push(SERVICE),
            VersionName::Endpoint(lane) => {
                out.push(ENDPOINT);
                out.extend_from_slice(&lane.to_le_bytes());
            }
            VersionName::Tag(tag) => {
                // A tag has at most 128 bytes.
                out.extend_from_slice(&[TAG, tag.as_str().len() as u8]);
                out.extend_from_slice(tag.as_str().as_bytes());
            }
        }
        out.extend_from_slice(&stamp.version.value.to_le_bytes());
        out.extend_from_slice(&stamp.version.incarnation.to_le_bytes());
    }
}

/// Reads so many stamps, which are all that there is.
pub(super) fn read(bytes: &[u8], count: u8) -> Result<Vec<Stamp>, FrameError> {
    let mut reader = Reader::new(bytes);
    let mut stamps = Vec::with_capacity(count.into());
    for _ in 0..count {
        stamps.push(read_one(&mut reader).ok_or(FrameError::Malformed)?);
    }
    if reader.rest().is_empty() {
        Ok(stamps)
    } else {
        Err(FrameError::Malformed)
    }
}

fn read_one(reader: &mut Reader<'_>) -> Option<Stamp> {
    let name = match reader.u8()? {
        SERVICE => VersionName::Service,
        ENDPOINT => {
            let lane = reader.u16()?;
            (lane < ENDPOINT_LANES).then_some(VersionName::Endpoint(lane))?
        }
        TAG => {
            let length = reader.u8()?;
            let name = std::str::from_utf8(reader.take(length.into())?).ok()?;
            VersionName::Tag(Tag::new(name).ok()?)
        }
        _ => return None,
    };
    let version = Version {
        value: u128::from_le_bytes(reader.array()?),
        incarnation: reader.u64()?,
    };
    Some(Stamp { name, version })
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn written(stamps: &[Stamp]) -> Vec<u8> {
        let mut out = Vec::new();
        write(stamps, &mut out);
        assert_eq!(out.len(), encoded_len(stamps));
        out
    }

    #[test]
    fn stamps_are_read_back_whole_or_not_at_all() {
        let stamps = samples::frame("1").stamps;
        let bytes = written(&stamps);
        assert_eq!(read(&bytes, 3), Ok(stamps));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end], 3), Err(FrameError::Malformed));
        }
        for count in [0, 2, 4, 255] {
            assert_eq!(read(&bytes, count), Err(FrameError::Malformed), "{count}");
        }
    }

    #[test]
    fn what_no_larder_writes_is_refused() {
        let version = [0; 24];
        for name in [
            &[3][..],
            // Lane 4,096 of 4,096.
            &[ENDPOINT, 0x00, 0x10],
            &[TAG, 0],
            &[TAG, 1, b'*'],
            &[TAG, 1, 0xff],
            &[TAG, 200],
        ] {
            let bytes = [name, &version].concat();
            assert_eq!(read(&bytes, 1), Err(FrameError::Malformed), "{name:?}");
        }
        let bytes = [&[ENDPOINT, 0xff, 0x0f][..], &version].concat();
        assert!(read(&bytes, 1).is_ok());
    }

    #[test]
    fn as_many_as_a_frame_can_name_fit() {
        let tag = Tag::new(&"t".repeat(larder_model::MAX_TAG_BYTES)).unwrap();
        let stamp = Stamp {
            name: VersionName::Tag(tag),
            version: Version {
                value: 1,
                incarnation: 2,
            },
        };
        assert!(encoded_len(&vec![stamp; MAX_STAMPS]) <= u16::MAX.into());
    }
}
