//! The header `traceparent` of W3C Trace Context, which goes with each message so that a trace does not end at the queue.

use bytes::Bytes;
use thiserror::Error;

/// Name of the header.
pub const TRACEPARENT_HEADER: &str = "traceparent";
/// Bytes of the header in the version that is written here, 00.
pub const TRACEPARENT_BYTES: usize = 55;

/// The flags that have a meaning: sampled, and "the trace id is random". Others must be written as 0.
const FLAGS_KNOWN: u8 = 0b11;
const FLAG_SAMPLED: u8 = 0b1;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Where a message stands in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

/// Not a `traceparent`. As W3C says, whoever meets one goes on as if there were none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a traceparent: {0}")]
pub struct BadTraceParent(&'static str);

impl TraceParent {
    /// The root of a new trace. Numbers are random ones; an all-zero one, which W3C forbids, becomes 1.
    pub fn root(trace: u128, span: u64, sampled: bool) -> Self {
        Self { trace: trace.max(1).to_be_bytes(), span: span.max(1).to_be_bytes(), flags: u8::from(sampled) }
    }

    /// A span of the same trace. Its number is a random one; 0, which W3C forbids, becomes 1.
    #[must_use]
    pub fn child(&self, span: u64) -> Self {
        Self { span: span.max(1).to_be_bytes(), flags: self.flags & FLAGS_KNOWN, ..*self }
    }

    /// The trace.
    pub fn trace(&self) -> u128 {
        u128::from_be_bytes(self.trace)
    }

    /// The span that the message was sent from.
    pub fn span(&self) -> u64 {
        u64::from_be_bytes(self.span)
    }

    /// Whether the sender records its part of the trace.
    pub fn sampled(&self) -> bool {
        self.flags & FLAG_SAMPLED != 0
    }

    /// Reads a header. Versions after 00 may append fields, which are passed over.
    pub fn parse(header: &[u8]) -> Result<Self, BadTraceParent> {
        let [version] = hex::<1>(header.get(..2))?;
        let whole = match version {
            0xff => return Err(BadTraceParent("version ff is forbidden")),
            0x00 => header.len() == TRACEPARENT_BYTES,
            _ => header.get(TRACEPARENT_BYTES).is_none_or(|separator| *separator == b'-'),
        };
        let separated = [2, 35, 52].into_iter().all(|at| header.get(at) == Some(&b'-'));
        if !whole || !separated {
            return Err(BadTraceParent("it reads 00-<trace, 32 hex digits>-<span, 16>-<flags, 2>"));
        }
        let (trace, span) = (hex(header.get(3..35))?, hex(header.get(36..52))?);
        let [flags] = hex::<1>(header.get(53..55))?;
        if trace == [0; 16] || span == [0; 8] {
            return Err(BadTraceParent("trace and span must not be all zeros"));
        }
        Ok(Self { trace, span, flags })
    }

    /// The header's value, in version 00.
    pub fn encode(&self) -> Bytes {
        let mut text = [b'-'; TRACEPARENT_BYTES];
        put_hex(&mut text[..2], &[0]);
        put_hex(&mut text[3..35], &self.trace);
        put_hex(&mut text[36..52], &self.span);
        put_hex(&mut text[53..], &[self.flags & FLAGS_KNOWN]);
        Bytes::copy_from_slice(&text)
    }
}

fn put_hex(text: &mut [u8], bytes: &[u8]) {
    for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
        digits.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

/// Lower case only, as W3C has it.
fn hex<const LENGTH: usize>(digits: Option<&[u8]>) -> Result<[u8; LENGTH], BadTraceParent> {
    let digits = digits.filter(|digits| digits.len() == 2 * LENGTH).ok_or(BadTraceParent("it is too short"))?;
    let mut bytes = [0; LENGTH];
    for (at, digit) in digits.iter().enumerate() {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return Err(BadTraceParent("digits are 0-9 and a-f")),
        };
        bytes[at / 2] = (bytes[at / 2] << 4) | value;
    }
    Ok(bytes)
}
