//! Writing of responses: small values are collected, large ones are spliced in without a copy.

use bytes::{BufMut, Bytes, BytesMut};

use crate::messages::ApiKey;

/// Bytes from which a value is spliced into the response; copying a smaller one costs less than one more buffer to send.
const SPLICE_BYTES_MIN: usize = 1024;
/// Bytes that a response starts with; most small ones fit.
const INITIAL_BYTES: usize = 256;
/// Bytes of the length before each response.
const LENGTH_PREFIX_BYTES: usize = 4;

/// A value of a response.
pub trait Encode {
    /// Appends the value, in the form of the writer's version.
    fn encode(&self, writer: &mut Writer);
}

/// A whole response body.
pub trait Response: Encode {
    /// The API it belongs to.
    const API_KEY: ApiKey;
}

/// A response that is being put together.
#[derive(Debug)]
pub struct Writer {
    /// The version of the response.
    pub version: i16,
    /// Whether the version has compact lengths and tagged fields.
    pub flexible: bool,
    /// What came before the first spliced value; kept apart because the length is written into it last.
    head: Option<BytesMut>,
    chunks: Vec<Bytes>,
    tail: BytesMut,
    /// Bytes of `head` and `chunks`.
    sealed_bytes: usize,
}

/// Encodes a response with its length prefix and header, as a chain of buffers to be sent in order.
///
/// `version` must be one of the schema's. A non-default value in a field that the version lacks is left out.
pub fn encode_response<R: Response>(correlation_id: i32, api_key: ApiKey, version: i16, response: &R) -> Vec<Bytes> {
    debug_assert_eq!(api_key, R::API_KEY, "the response must be of the request's API");
    let mut writer = Writer::new(version, api_key.is_flexible(version));
    writer.tail.put_bytes(0, LENGTH_PREFIX_BYTES);
    writer.tail.put_i32(correlation_id);
    if api_key.response_header_version(version) == 1 {
        writer.no_tagged_fields();
    }
    response.encode(&mut writer);
    writer.finish()
}

impl Writer {
    /// A writer without anything in it.
    pub fn new(version: i16, flexible: bool) -> Self {
        Self {
            version,
            flexible,
            head: None,
            chunks: Vec::new(),
            tail: BytesMut::with_capacity(INITIAL_BYTES),
            sealed_bytes: 0,
        }
    }

    /// Everything written, with the length filled in at its front.
    fn finish(mut self) -> Vec<Bytes> {
        // A response never gets near 2 GiB: what a fetch returns is bounded by a 32-bit setting far below.
        let length = self.sealed_bytes + self.tail.len() - LENGTH_PREFIX_BYTES;
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let Some(mut head) = self.head else {
            self.tail[..LENGTH_PREFIX_BYTES].copy_from_slice(&length);
            return vec![self.tail.freeze()];
        };
        head[..LENGTH_PREFIX_BYTES].copy_from_slice(&length);
        let mut chain = Vec::with_capacity(self.chunks.len() + 2);
        chain.push(head.freeze());
        chain.append(&mut self.chunks);
        if !self.tail.is_empty() {
            chain.push(self.tail.freeze());
        }
        chain
    }

    /// Appends bytes without a length.
    pub fn raw(&mut self, bytes: &Bytes) {
        if bytes.len() < SPLICE_BYTES_MIN {
            self.tail.put_slice(bytes);
            return;
        }
        self.sealed_bytes += self.tail.len() + bytes.len();
        let before = self.tail.split();
        if self.head.is_none() {
            self.head = Some(before);
        } else if !before.is_empty() {
            self.chunks.push(before.freeze());
        }
        self.chunks.push(bytes.clone());
    }

    /// Appends an unsigned varint.
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.tail.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(value as u8);
    }

    fn length(&mut self, length: Option<usize>) {
        // Lengths beyond 31 bits cannot occur: no response is that large.
        if self.flexible {
            self.unsigned_varint(length.map_or(0, |length| length as u32 + 1));
        } else {
            self.tail.put_i32(length.map_or(-1, |length| length as i32));
        }
    }

    /// Appends a string that may be null. In a version with 16-bit lengths a string of more than 32,767 bytes is cut
    /// there; it can only have come from a client that used a later version.
    pub fn nullable_string(&mut self, value: Option<&str>) {
        if self.flexible {
            self.length(value.map(str::len));
            self.tail.put_slice(value.unwrap_or_default().as_bytes());
            return;
        }
        let Some(value) = value else {
            self.tail.put_i16(-1);
            return;
        };
        let length = value.floor_char_boundary(i16::MAX as usize);
        self.tail.put_i16(length as i16);
        self.tail.put_slice(&value.as_bytes()[..length]);
    }

    /// Appends a string.
    pub fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }

    /// Appends bytes that may be null.
    pub fn nullable_byte_string(&mut self, value: Option<&Bytes>) {
        self.length(value.map(Bytes::len));
        if let Some(value) = value {
            self.raw(value);
        }
    }

    /// Appends bytes.
    pub fn byte_string(&mut self, value: &Bytes) {
        self.nullable_byte_string(Some(value));
    }

    /// Appends records that may be null: the chunks, one after the other, as one value.
    pub fn nullable_records(&mut self, chunks: Option<&[Bytes]>) {
        self.length(chunks.map(|chunks| chunks.iter().map(Bytes::len).sum()));
        for chunk in chunks.unwrap_or_default() {
            self.raw(chunk);
        }
    }

    /// Appends an array that may be null.
    pub fn nullable_array<T: Encode>(&mut self, elements: Option<&[T]>) {
        self.length(elements.map(<[T]>::len));
        for element in elements.unwrap_or_default() {
            element.encode(self);
        }
    }

    /// Appends an array.
    pub fn array<T: Encode>(&mut self, elements: &[T]) {
        self.nullable_array(Some(elements));
    }

    /// Ends a structure that has no tagged field set.
    pub fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.tail.put_u8(0);
        }
    }

    /// Appends a tagged field; the caller has written their number and keeps their order.
    pub fn tagged_field(&mut self, tag: u32, content: impl FnOnce(&mut Self)) {
        let mut inner = Self::new(self.version, self.flexible);
        content(&mut inner);
        self.unsigned_varint(tag);
        self.unsigned_varint((inner.sealed_bytes + inner.tail.len()) as u32);
        for chunk in inner.head.map(BytesMut::freeze).iter().chain(&inner.chunks) {
            self.raw(chunk);
        }
        self.tail.put_slice(&inner.tail);
    }
}

macro_rules! encode_integers {
    ($($integer:ty: $put:ident),*) => {$(
        impl Encode for $integer {
            fn encode(&self, writer: &mut Writer) {
                writer.tail.$put(*self);
            }
        }
    )*};
}

encode_integers!(i8: put_i8, i16: put_i16, i32: put_i32, i64: put_i64);

impl Encode for bool {
    fn encode(&self, writer: &mut Writer) {
        writer.tail.put_u8(u8::from(*self));
    }
}

impl Encode for [u8; 16] {
    fn encode(&self, writer: &mut Writer) {
        writer.tail.put_slice(self);
    }
}

impl Encode for String {
    fn encode(&self, writer: &mut Writer) {
        writer.string(self);
    }
}
