//! Reading of requests: primitives, strings and arrays that stay in the request's buffer.

use std::fmt;
use std::marker::PhantomData;

use thiserror::Error;

use crate::messages::ApiKey;

/// Elements that the arrays of one request may have together. Each may be answered with far more bytes than it takes here, so
/// their number needs a bound of its own; real requests stay far below.
pub const ELEMENTS_MAX: u32 = 250_000;
/// Bytes of the longest unsigned varint that still fits 32 bits.
const VARINT_BYTES_MAX: u32 = 5;

/// Longest string: what the two bytes of its length can say in versions that are not flexible, and the limit in those that are.
pub const STRING_BYTES_MAX: u32 = i16::MAX as u32;

/// Why some bytes are not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{wanted} bytes wanted, {left} left")]
    Truncated {
        /// Bytes that the value needs.
        wanted: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length below zero where null is not allowed, or below -1.
    #[error("length {0} is negative")]
    NegativeLength(i32),
    /// Null in a field, or a version, that has no null.
    #[error("null is not allowed here")]
    UnexpectedNull,
    /// An array claims more elements than bytes are left.
    #[error("an array of {count} elements in {left} bytes")]
    ArrayTooLong {
        /// Elements claimed.
        count: u32,
        /// Bytes that are left.
        left: usize,
    },
    /// The arrays of the request have more than [`ELEMENTS_MAX`] elements together.
    #[error("more than {ELEMENTS_MAX} elements in the arrays of one request")]
    TooManyElements,
    /// A string is longer than [`STRING_BYTES_MAX`].
    #[error("a string of {0} bytes; no string has more than {STRING_BYTES_MAX}")]
    StringTooLong(u32),
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    /// A varint is longer than 5 bytes or larger than 32 bits.
    #[error("a varint is larger than 32 bits")]
    InvalidVarint,
    /// The value ends before the bytes do.
    #[error("{0} bytes too many")]
    TrailingBytes(usize),
    /// A key that Kafka does not know.
    #[error("unknown API key {0}")]
    UnknownApiKey(i16),
    /// A version without a schema.
    #[error("{} version {version} is not supported", api_key.name())]
    UnsupportedVersion {
        /// The request's API.
        api_key: ApiKey,
        /// The version asked for.
        version: i16,
    },
}

/// What is left of a request, and how it is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader<'a> {
    /// The bytes not read yet.
    pub bytes: &'a [u8],
    /// The version of the request.
    pub version: i16,
    /// Whether the version has compact lengths and tagged fields.
    pub flexible: bool,
    /// Elements that further arrays may have.
    elements_left: u32,
}

/// A value that can be read from a request without allocating.
pub trait Decode<'a>: Sized {
    /// Reads the value from the front of `reader`.
    ///
    /// # Errors
    /// When the bytes are not such a value; `reader` is then somewhere within it.
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
}

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    pub fn new(bytes: &'a [u8], version: i16, flexible: bool) -> Self {
        Self { bytes, version, flexible, elements_left: ELEMENTS_MAX }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(|| self.truncated(count))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or_else(|| self.truncated(N))?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn truncated(&self, wanted: usize) -> DecodeError {
        DecodeError::Truncated { wanted, left: self.bytes.len() }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// When something is.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes(self.bytes.len())) }
    }

    /// An unsigned varint of at most 32 bits.
    ///
    /// # Errors
    /// When it is cut short or larger.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for at in 0..VARINT_BYTES_MAX {
            let [byte] = self.chunk()?;
            let bits = u32::from(byte & 0x7f);
            if at == VARINT_BYTES_MAX - 1 && byte > 0x0f {
                return Err(DecodeError::InvalidVarint);
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::InvalidVarint)
    }

    /// A length in the form that a flexible version uses: 0 is null, else one more than the length.
    fn compact_length(&mut self) -> Result<Option<u32>, DecodeError> {
        Ok(self.unsigned_varint()?.checked_sub(1))
    }

    /// A length in the form that other versions use for all but strings: -1 is null.
    fn plain_length(&mut self) -> Result<Option<u32>, DecodeError> {
        Self::signed_length(i32::from_be_bytes(self.chunk()?))
    }

    fn signed_length(length: i32) -> Result<Option<u32>, DecodeError> {
        match u32::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(DecodeError::NegativeLength(length)),
        }
    }

    fn length(&mut self) -> Result<Option<u32>, DecodeError> {
        if self.flexible { self.compact_length() } else { self.plain_length() }
    }

    /// A string that may be null.
    ///
    /// # Errors
    /// When it is cut short, too long, not UTF-8, or of a negative length other than -1.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, DecodeError> {
        let length = if self.flexible {
            self.compact_length()?
        } else {
            Self::signed_length(i32::from(i16::from_be_bytes(self.chunk()?)))?
        };
        let Some(length) = length else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(DecodeError::StringTooLong(length));
        }
        let bytes = self.take(length as usize)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| DecodeError::InvalidUtf8)
    }

    /// A string.
    ///
    /// # Errors
    /// As [`Self::nullable_string`], and when it is null.
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        self.nullable_string()?.ok_or(DecodeError::UnexpectedNull)
    }

    /// Bytes or records that may be null.
    ///
    /// # Errors
    /// When they are cut short, or of a negative length other than -1.
    pub fn nullable_byte_string(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.length()? {
            Some(length) => self.take(length as usize).map(Some),
            None => Ok(None),
        }
    }

    /// Bytes or records.
    ///
    /// # Errors
    /// As [`Self::nullable_byte_string`], and when they are null.
    pub fn byte_string(&mut self) -> Result<&'a [u8], DecodeError> {
        self.nullable_byte_string()?.ok_or(DecodeError::UnexpectedNull)
    }

    /// An array that may be null; every element is read once, so that the array is known to be whole.
    ///
    /// # Errors
    /// When it claims more elements than bytes are left or than a request may have, or an element is wrong.
    pub fn nullable_array<T: Decode<'a>>(&mut self) -> Result<Option<Array<'a, T>>, DecodeError> {
        let Some(count) = self.length()? else { return Ok(None) };
        if count as usize > self.bytes.len() {
            return Err(DecodeError::ArrayTooLong { count, left: self.bytes.len() });
        }
        self.elements_left = self.elements_left.checked_sub(count).ok_or(DecodeError::TooManyElements)?;
        // Counted now; who reads the elements again need not count again.
        let start = Self { elements_left: u32::MAX, ..*self };
        for _ in 0..count {
            T::decode(self)?;
        }
        let bytes = &start.bytes[..start.bytes.len() - self.bytes.len()];
        Ok(Some(Array { elements: Reader { bytes, ..start }, count, element: PhantomData }))
    }

    /// An array.
    ///
    /// # Errors
    /// As [`Self::nullable_array`], and when it is null.
    pub fn array<T: Decode<'a>>(&mut self) -> Result<Array<'a, T>, DecodeError> {
        self.nullable_array()?.ok_or(DecodeError::UnexpectedNull)
    }

    /// How many tagged fields follow; none in a version that is not flexible.
    ///
    /// # Errors
    /// When the number is cut short.
    pub fn tagged_field_count(&mut self) -> Result<u32, DecodeError> {
        if self.flexible { self.unsigned_varint() } else { Ok(0) }
    }

    /// The tag and the content of the next tagged field.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn tagged_field(&mut self) -> Result<(u32, Self), DecodeError> {
        let tag = self.unsigned_varint()?;
        let size = self.unsigned_varint()?;
        let bytes = self.take(size as usize)?;
        Ok((tag, Self { bytes, ..*self }))
    }

    /// Reads past all the tagged fields of a structure that has none known here.
    ///
    /// # Errors
    /// When one is cut short.
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        for _ in 0..self.tagged_field_count()? {
            self.tagged_field()?;
        }
        Ok(())
    }
}

/// An array that lies in the request's bytes and was found whole; its elements are read again at each iteration.
pub struct Array<'a, T> {
    elements: Reader<'a>,
    count: u32,
    element: PhantomData<T>,
}

impl<'a, T: Decode<'a>> Array<'a, T> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements, in order.
    pub fn iter(&self) -> Elements<'a, T> {
        Elements { elements: self.elements, left: self.count, element: PhantomData }
    }
}

impl<T> Clone for Array<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Array<'_, T> {}

impl<T> Default for Array<'_, T> {
    fn default() -> Self {
        Self { elements: Reader::new(&[], 0, false), count: 0, element: PhantomData }
    }
}

impl<'a, T: Decode<'a> + fmt::Debug> fmt::Debug for Array<'a, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self).finish()
    }
}

impl<'a, T: Decode<'a> + PartialEq> PartialEq for Array<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Decode<'a> + Eq> Eq for Array<'a, T> {}

impl<'a, T: Decode<'a>> IntoIterator for Array<'a, T> {
    type Item = T;
    type IntoIter = Elements<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: Decode<'a>> IntoIterator for &Array<'a, T> {
    type Item = T;
    type IntoIter = Elements<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The elements of an [`Array`].
pub struct Elements<'a, T> {
    elements: Reader<'a>,
    left: u32,
    element: PhantomData<T>,
}

impl<'a, T: Decode<'a>> Iterator for Elements<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        let element = T::decode(&mut self.elements);
        debug_assert!(element.is_ok(), "an array is only made after each of its elements was read");
        element.ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<'a, T: Decode<'a>> ExactSizeIterator for Elements<'a, T> {}

macro_rules! decode_integers {
    ($($integer:ty),*) => {$(
        impl Decode<'_> for $integer {
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.chunk().map(<$integer>::from_be_bytes)
            }
        }
    )*};
}

decode_integers!(i8, i16, i32, i64);

impl Decode<'_> for bool {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.chunk().map(|[byte]| byte != 0)
    }
}

impl Decode<'_> for [u8; 16] {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.chunk()
    }
}

impl<'a> Decode<'a> for &'a str {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        reader.string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(length: u32) -> Vec<u8> {
        let mut varint = length + 1;
        let mut bytes = Vec::new();
        while varint > 0x7f {
            bytes.push(0x80 | (varint & 0x7f) as u8);
            varint >>= 7;
        }
        bytes.push(varint as u8);
        bytes.resize(bytes.len() + length as usize, b's');
        bytes
    }

    #[test]
    fn no_string_is_longer_than_two_bytes_of_length_can_say_in_flexible_versions_either() {
        let longest = compact(STRING_BYTES_MAX);
        assert_eq!(Reader::new(&longest, 1, true).string().map(str::len), Ok(STRING_BYTES_MAX as usize));
        let longer = compact(STRING_BYTES_MAX + 1);
        assert_eq!(Reader::new(&longer, 1, true).string(), Err(DecodeError::StringTooLong(STRING_BYTES_MAX + 1)));
    }
}
