//! Little-endian encoding of what the log writes about itself (control records, index files, checkpoints).

use bytes::Bytes;
use thiserror::Error;

/// The bytes do not hold what they should: damaged, or written by a newer version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("ends too early or holds an impossible value")]
pub(crate) struct Malformed;

/// Appends values to a buffer.
#[derive(Default)]
pub(crate) struct Encoder(pub Vec<u8>);

impl Encoder {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    pub fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    /// A length of four bytes, then the bytes. Everything written is far below 4 GiB: the pending group bounds it.
    pub fn bytes(&mut self, value: &[u8]) {
        self.u32(value.len() as u32);
        self.0.extend_from_slice(value);
    }
    pub fn count(&mut self, value: usize) {
        self.u32(value as u32);
    }
}

/// Takes values off the front of a buffer.
pub(crate) struct Decoder<'a>(pub &'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(front)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (front, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*front)
    }
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_le_bytes)
    }
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }
    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }
    pub fn uuid(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.u32()?;
        self.take(count as usize)
    }
    pub fn owned(&mut self) -> Result<Bytes, Malformed> {
        self.bytes().map(Bytes::copy_from_slice)
    }
    pub fn string(&mut self) -> Result<String, Malformed> {
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| Malformed)
    }
    /// A number of elements that follow, each at least one byte long.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count > self.0.len() { Err(Malformed) } else { Ok(count) }
    }
    pub fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Wraps `body` in a magic, a version, a length and a checksum, as index files and checkpoints are kept.
pub(crate) fn seal_file(magic: [u8; 8], version: u16, body: &[u8]) -> Vec<u8> {
    let mut file = Encoder::default();
    file.0.extend_from_slice(&magic);
    file.u16(version);
    file.u16(0);
    file.u32(crc32c::crc32c(body));
    file.u64(body.len() as u64);
    file.0.extend_from_slice(body);
    file.0
}

/// Bytes that `seal_file` puts before the body.
pub(crate) const SEALED_FILE_HEADER_BYTES: usize = 24;

/// Gives the body back if nothing is missing or changed.
pub(crate) fn unseal_file(magic: [u8; 8], version: u16, file: &[u8]) -> Result<&[u8], Malformed> {
    let mut decoder = Decoder(file);
    let (found_magic, found_version) = (decoder.array::<8>()?, decoder.u16()?);
    let (_reserved, crc, length) = (decoder.u16()?, decoder.u32()?, decoder.u64()?);
    let body = decoder.0;
    if found_magic != magic || found_version != version || body.len() as u64 != length || crc32c::crc32c(body) != crc {
        return Err(Malformed);
    }
    Ok(body)
}
