//! The codecs of record batches, as readers that hold no more than a window of what they decompress.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;

use super::error::BatchError;
use super::header::BatchHeader;
use super::snappy::SnappyReader;

/// Bits of a batch's attributes that hold the codec.
const CODEC_BITS: i16 = 0b111;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Codec {
    /// Not at all.
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Blocks in the framing of snappy-java, or one bare block.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

impl Codec {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The name in Kafka's settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl BatchHeader {
    /// The codec of the records.
    ///
    /// # Errors
    /// When the number is one that nobody knows.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        let number = self.attributes & CODEC_BITS;
        Codec::ALL.into_iter().find(|codec| *codec as i16 == number).ok_or(BatchError::UnknownCodec(number))
    }
}

/// Decompresses the records of one batch.
pub(super) enum Decompressor<'a> {
    Gzip(MultiGzDecoder<&'a [u8]>),
    Snappy(SnappyReader<'a>),
    Lz4(FrameDecoder<&'a [u8]>),
    Zstd(zstd::stream::read::Decoder<'static, &'a [u8]>),
}

impl<'a> Decompressor<'a> {
    /// A reader of what `compressed` holds; `None` when nothing is compressed.
    pub fn new(codec: Codec, compressed: &'a [u8]) -> Result<Option<Self>, BatchError> {
        Ok(Some(match codec {
            Codec::None => return Ok(None),
            Codec::Gzip => Self::Gzip(MultiGzDecoder::new(compressed)),
            Codec::Snappy => Self::Snappy(SnappyReader::new(compressed)),
            Codec::Lz4 => Self::Lz4(FrameDecoder::new(compressed)),
            Codec::Zstd => Self::Zstd(
                zstd::stream::read::Decoder::with_buffer(compressed).map_err(|_| BatchError::Decompression(codec))?,
            ),
        }))
    }

    /// Whether all of the compressed data has been used.
    pub fn input_is_used_up(&self) -> bool {
        match self {
            Self::Gzip(decoder) => decoder.get_ref().is_empty(),
            Self::Snappy(reader) => reader.input_is_used_up(),
            Self::Lz4(decoder) => decoder.get_ref().is_empty(),
            Self::Zstd(decoder) => decoder.get_ref().is_empty(),
        }
    }
}

impl Read for Decompressor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Snappy(reader) => reader.read(buffer),
            Self::Lz4(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}
