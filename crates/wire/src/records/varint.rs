//! Zigzag varints in byte slices.

use super::error::RecordFault;

/// Takes a 32-bit varint off the front of `bytes`.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<i32, RecordFault> {
    let value = take_unsigned(bytes, 5)? as u32;
    Ok((value >> 1) as i32 ^ -((value & 1) as i32))
}

/// Takes a 64-bit varint off the front of `bytes`.
pub(super) fn take_varlong(bytes: &mut &[u8]) -> Result<i64, RecordFault> {
    let value = take_unsigned(bytes, 10)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn take_unsigned(bytes: &mut &[u8], bytes_max: u32) -> Result<u64, RecordFault> {
    let mut value = 0;
    for at in 0..bytes_max {
        let (byte, rest) = bytes.split_first().ok_or(RecordFault::Truncated)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(RecordFault::InvalidVarint)
}

/// Takes `count` bytes off the front of `bytes`.
pub(super) fn take_bytes<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], RecordFault> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(RecordFault::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

/// Takes a length and as many bytes off the front of `bytes`; a length of -1 is null.
pub(super) fn take_nullable_bytes<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordFault> {
    let length = take_varint(bytes)?;
    match usize::try_from(length) {
        Ok(length) => take_bytes(bytes, length).map(Some),
        Err(_) if length == -1 => Ok(None),
        Err(_) => Err(RecordFault::NegativeLength),
    }
}

/// Appends a varint.
pub(super) fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}
