//! A file as atomics that processes share.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

/// A mapped file of fixed length: words first, then bytes.
pub(crate) struct SharedMemory {
    map: MmapRaw,
    words: usize,
}

impl SharedMemory {
    /// Maps a file that is at least `words` × 8 bytes long and whose blocks exist.
    ///
    /// The file lies in a folder of this user alone, was preallocated, and nobody of Larder ever shortens it; who
    /// acts as this user can anyway do all that this process can.
    pub(crate) fn map(file: &File, words: usize) -> io::Result<Self> {
        let map = MmapOptions::new().map_raw(file)?;
        if map.len() < words * 8 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self { map, words })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the map begins at a page, so it is aligned for u64; it holds at least `words` × 8 bytes (checked in
        // `map`) for as long as `self` lives. The memory is only ever accessed through atomics, here and in other
        // processes.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<AtomicU64>(), self.words) }
    }

    /// Half of a word, that the kernel can wait on. Who uses it never uses the whole word.
    pub(crate) fn half(word: &AtomicU64) -> &AtomicU32 {
        // SAFETY: the word's eight bytes live as long as the reference, are aligned for it, and are only ever accessed
        // through atomics; those of this half through none of another size.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    /// Has the processor fetch what stands somewhere, while other work is done.
    pub(crate) fn prefetch<T>(place: &T) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: it has no effect but on the caches, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
    }

    pub(crate) fn bytes(&self) -> &[AtomicU8] {
        let begin = self.words * 8;
        // SAFETY: `begin` is at most the map's length (checked in `map`), the slice ends where the map ends, bytes need no
        // alignment, and this memory too is only ever accessed through atomics.
        unsafe {
            std::slice::from_raw_parts(
                self.map.as_mut_ptr().add(begin).cast::<AtomicU8>(),
                self.map.len() - begin,
            )
        }
    }
}
