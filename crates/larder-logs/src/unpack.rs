//! Gzip or plain: the first two bytes tell. What is packed is unpacked as it is read.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const BUFFER_BYTES: usize = 64 << 10;

/// The input, with the bytes that were looked at before it.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// An input that is unpacked if it is packed.
pub(crate) enum Unpacked<R> {
    /// Nothing was read yet.
    Unknown(Option<R>),
    Plain(Whole<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Whole<R>>>>),
}

impl<R: Read> Unpacked<R> {
    pub(crate) fn new(input: R) -> Self {
        Self::Unknown(Some(input))
    }

    /// Looks at the first bytes.
    fn look(mut input: R) -> io::Result<Self> {
        let mut first = Vec::with_capacity(GZIP_MAGIC.len());
        input
            .by_ref()
            .take(GZIP_MAGIC.len() as u64)
            .read_to_end(&mut first)?;
        let is_gzip = first == GZIP_MAGIC;
        let whole = Cursor::new(first).chain(input);
        if !is_gzip {
            return Ok(Self::Plain(whole));
        }
        let packed = BufReader::with_capacity(BUFFER_BYTES, whole);
        Ok(Self::Gzip(Box::new(MultiGzDecoder::new(packed))))
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Self::Unknown(input) = self {
            let Some(input) = input.take() else {
                return Ok(0);
            };
            *self = Self::look(input)?;
        }
        match self {
            // Only after an error of the first look.
            Self::Unknown(_) => Ok(0),
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(input) => input.read(buffer),
        }
    }
}
