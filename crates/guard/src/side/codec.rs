//! Headers as bytes: for each, the length of its name (4 bytes, big endian), its name, the length of its value (4 bytes; `0xffffffff` if it
//! has none), its value.

use baton_core::Headers;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The length of a value that is not there.
const ABSENT: u32 = u32::MAX;

pub(crate) fn encode(headers: &Headers) -> Vec<u8> {
    let mut bytes = BytesMut::with_capacity(headers.bytes() + headers.len() * 8);
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(ABSENT);
    for header in headers {
        bytes.put_u32(length(header.name.as_bytes()));
        bytes.put_slice(header.name.as_bytes());
        match &header.value {
            None => bytes.put_u32(ABSENT),
            Some(value) => {
                bytes.put_u32(length(value));
                bytes.put_slice(value);
            }
        }
    }
    bytes.to_vec()
}

/// `None` if it was not written by [`encode`].
pub(crate) fn decode(bytes: Vec<u8>) -> Option<Headers> {
    let mut bytes = Bytes::from(bytes);
    let mut headers = Headers::default();
    while bytes.has_remaining() {
        let name = part(&mut bytes)??;
        let name = std::str::from_utf8(&name).ok()?.to_owned();
        headers.push(name, part(&mut bytes)?);
    }
    Some(headers)
}

/// The outer one is `None` if nothing more can be read, the inner one if there is no value.
#[allow(clippy::option_option, reason = "damaged and absent are two things")]
fn part(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    let length = bytes.try_get_u32().ok()?;
    if length == ABSENT {
        return Some(None);
    }
    let length = usize::try_from(length).ok().filter(|length| *length <= bytes.remaining())?;
    Some(Some(bytes.split_to(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_in_their_order_and_damage_is_told() {
        let mut headers = Headers::default();
        for (name, value) in [("b", Some("1")), ("a", None), ("b", Some("")), ("ä", Some("x"))] {
            headers.push(name, value.map(|value| Bytes::copy_from_slice(value.as_bytes())));
        }
        let bytes = encode(&headers);
        assert_eq!(decode(bytes.clone()), Some(headers));
        assert_eq!(decode(Vec::new()), Some(Headers::default()));
        for cut in 1..bytes.len() {
            // Where it ends between two headers it is a shorter list; anywhere else it is damaged.
            assert!(decode(bytes[..cut].to_vec()).is_none_or(|shorter| shorter.len() < 4), "{cut}");
        }
        assert_eq!(decode(vec![0xff; 4]), None, "a header without a name");
        assert_eq!(decode(vec![0, 0, 0, 1, 0xff, 0, 0, 0, 0]), None, "a name that is no text");
    }
}
