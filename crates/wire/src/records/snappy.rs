//! Snappy as Kafka's clients write it: framed by snappy-java, or as one bare block.

use std::io::{self, Read};

/// What the framing of snappy-java begins with.
const FRAMING_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Bytes of magic, version and oldest compatible version.
const FRAMING_HEADER_BYTES: usize = 16;
/// The best that Snappy's format can do: a copy of 64 bytes takes 3. A block that claims more is refused before
/// anything is allocated for it.
const EXPANSION_MAX: usize = 22;

/// Decompresses block by block.
pub(super) struct SnappyReader<'a> {
    input: &'a [u8],
    is_framed: bool,
    decoder: snap::raw::Decoder,
    block: Vec<u8>,
    /// Bytes of `block` that have been read.
    at: usize,
}

impl<'a> SnappyReader<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        let is_framed = input.starts_with(&FRAMING_MAGIC);
        Self { input, is_framed, decoder: snap::raw::Decoder::new(), block: Vec::new(), at: 0 }
    }

    pub fn input_is_used_up(&self) -> bool {
        self.input.is_empty()
    }

    /// The next compressed block; `None` at the end.
    fn next_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        if !self.is_framed {
            return Ok(Some(std::mem::take(&mut self.input)).filter(|block| !block.is_empty()));
        }
        // Streams may follow one another, each with its header.
        while self.input.starts_with(&FRAMING_MAGIC) {
            self.input = self.input.get(FRAMING_HEADER_BYTES..).ok_or(io::ErrorKind::UnexpectedEof)?;
        }
        if self.input.is_empty() {
            return Ok(None);
        }
        let (length, rest) = self.input.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, rest) = rest.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.input = rest;
        Ok(Some(block))
    }
}

impl Read for SnappyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            let Some(block) = self.next_block()? else { return Ok(0) };
            let bytes = snap::raw::decompress_len(block)?;
            if bytes > block.len() * EXPANSION_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.block.resize(bytes, 0);
            self.decoder.decompress(block, &mut self.block)?;
            self.at = 0;
        }
        let count = buffer.len().min(self.block.len() - self.at);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Compresses in the framing of snappy-java.
pub(super) fn compress_framed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    /// Bytes that go into one block; snappy-java's own choice.
    const BLOCK_BYTES: usize = 32 * 1024;
    let mut framed = FRAMING_MAGIC.to_vec();
    framed.extend_from_slice(&1i32.to_be_bytes());
    framed.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in bytes.chunks(BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        framed.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        framed.extend_from_slice(&compressed);
    }
    Ok(framed)
}
