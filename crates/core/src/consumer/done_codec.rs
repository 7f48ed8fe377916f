//! What is done beyond the frontier, as text for the metadata of a commit, or as bytes for a store beside the engine.
//!
//! `version (1) | form | base (8, big-endian) | lineage (8) | body | CRC-32C (4)`, the text being its base64 (URL alphabet, no padding).
//! `base` is the frontier that it belongs to: a commit that was moved by hand carries metadata that no longer fits, and that must
//! be noticed. The body counts from `base`: either run lengths (not done, done, not done, ...; LEB128), or a bitmap (lowest bit
//! first), whichever tells more in the room there is. Whoever reads a body that was cut to fit misses what lies at its end, which
//! is handled again; nothing is ever taken for done that is not, which is also what the checksum is for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

const VERSION: u8 = 1;
const FORM_RUNS: u8 = 0;
const FORM_BITMAP: u8 = 1;
const HEAD_BYTES: usize = 1 + 1 + 8 + 8;
const CHECKSUM_BYTES: usize = 4;
/// LEB128 of 64 bits.
const NUMBER_BYTES_MAX: usize = 10;

/// What was done beyond a frontier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The frontier.
    pub base: i64,
    /// Names the set in the store beside the engine that belongs to this commit; 0 if there is none.
    pub lineage: u64,
    /// First offset and first offset behind, ascending, not touching each other.
    pub intervals: Vec<(i64, i64)>,
}

/// Not something that this version wrote.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadDone {
    /// Somebody else's text.
    #[error("it is not base64: somebody else's")]
    Foreign,
    /// Too short, or it does not end where it should.
    #[error("it is cut off or has something behind its end")]
    Length,
    /// The checksum does not fit.
    #[error("its checksum is wrong: damaged")]
    Checksum,
    /// A newer version, or none.
    #[error("version {0} is unknown here")]
    Version(u8),
    /// Numbers that no offset can have.
    #[error("it names offsets that cannot be")]
    Offsets,
}

/// Text of at most so many bytes; and whether all of it fitted. Empty if there is nothing to say, or no room to say it.
pub fn encode_text(done: &Done, bytes_max: usize) -> (String, bool) {
    // Four letters of base64 carry three bytes.
    let (bytes, whole) = encode(done, bytes_max / 4 * 3);
    (URL_SAFE_NO_PAD.encode(bytes), whole)
}

/// Bytes, at most so many; and whether all of it fitted. Empty if there is nothing to say, or no room to say it.
pub fn encode(done: &Done, bytes_max: usize) -> (Vec<u8>, bool) {
    if done.intervals.is_empty() && done.lineage == 0 {
        return (Vec::new(), true);
    }
    let Some(room) = bytes_max.checked_sub(HEAD_BYTES + CHECKSUM_BYTES) else {
        return (Vec::new(), done.intervals.is_empty());
    };
    let runs = runs(done, room);
    let bitmap = bitmap(done, room);
    // More is better; of equally much, the shorter one.
    let runs_win =
        (runs.told, std::cmp::Reverse(runs.body.len())) >= (bitmap.told, std::cmp::Reverse(bitmap.body.len()));
    let (form, chosen) = if runs_win { (FORM_RUNS, runs) } else { (FORM_BITMAP, bitmap) };
    let mut bytes = Vec::with_capacity(HEAD_BYTES + chosen.body.len() + CHECKSUM_BYTES);
    bytes.extend([VERSION, form]);
    bytes.extend(done.base.to_be_bytes());
    bytes.extend(done.lineage.to_be_bytes());
    bytes.extend(&chosen.body);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(checksum.to_be_bytes());
    (bytes, chosen.whole)
}

struct Body {
    body: Vec<u8>,
    /// How many offsets it says are done.
    told: u64,
    whole: bool,
}

fn runs(done: &Done, room: usize) -> Body {
    let (mut body, mut told, mut at) = (Vec::new(), 0, done.base);
    for (start, end) in &done.intervals {
        let mut pair = [0; 2 * NUMBER_BYTES_MAX];
        let first = put_number(&mut pair, start.abs_diff(at));
        let length = first + put_number(&mut pair[first..], end.abs_diff(*start));
        if body.len() + length > room {
            return Body { body, told, whole: false };
        }
        body.extend(&pair[..length]);
        told += end.abs_diff(*start);
        at = *end;
    }
    Body { body, told, whole: true }
}

fn bitmap(done: &Done, room: usize) -> Body {
    let span = done.intervals.last().map_or(0, |(_, end)| end.abs_diff(done.base));
    let whole = span.div_ceil(8) <= room as u64;
    let bits = span.min(room as u64 * 8);
    let mut body = vec![0u8; bits.div_ceil(8) as usize];
    let mut told = 0;
    for (start, end) in &done.intervals {
        let (from, to) = (start.abs_diff(done.base), end.abs_diff(done.base).min(bits));
        for bit in from..to {
            body[(bit / 8) as usize] |= 1 << (bit % 8);
        }
        told += to.saturating_sub(from);
    }
    while body.last() == Some(&0) {
        body.pop();
    }
    Body { body, told, whole }
}

fn put_number(out: &mut [u8], mut number: u64) -> usize {
    let mut length = 0;
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        out[length] = if number == 0 { low } else { low | 0x80 };
        length += 1;
        if number == 0 {
            return length;
        }
    }
}

/// Reads what [`encode_text`] wrote.
pub fn decode_text(text: &str) -> Result<Done, BadDone> {
    decode(&URL_SAFE_NO_PAD.decode(text).map_err(|_| BadDone::Foreign)?)
}

/// Reads what [`encode`] wrote.
pub fn decode(bytes: &[u8]) -> Result<Done, BadDone> {
    let version = *bytes.first().ok_or(BadDone::Length)?;
    if version != VERSION {
        return Err(BadDone::Version(version));
    }
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(BadDone::Length)?;
    if crc32c::crc32c(content) != u32::from_be_bytes(*checksum) {
        return Err(BadDone::Checksum);
    }
    let (head, rest) = content.split_first_chunk::<2>().ok_or(BadDone::Length)?;
    let (base, rest) = rest.split_first_chunk::<8>().ok_or(BadDone::Length)?;
    let (lineage, body) = rest.split_first_chunk::<8>().ok_or(BadDone::Length)?;
    let base = i64::from_be_bytes(*base);
    let intervals = match head[1] {
        FORM_RUNS => read_runs(base, body)?,
        FORM_BITMAP => read_bitmap(base, body)?,
        form => return Err(BadDone::Version(form)),
    };
    Ok(Done { base, lineage: u64::from_be_bytes(*lineage), intervals })
}

fn read_runs(base: i64, mut body: &[u8]) -> Result<Vec<(i64, i64)>, BadDone> {
    let (mut intervals, mut at) = (Vec::new(), base);
    while !body.is_empty() {
        let start = at.checked_add_unsigned(take_number(&mut body)?).ok_or(BadDone::Offsets)?;
        let length = take_number(&mut body)?;
        let end = start.checked_add_unsigned(length).ok_or(BadDone::Offsets)?;
        if length == 0 {
            return Err(BadDone::Offsets);
        }
        intervals.push((start, end));
        at = end;
    }
    Ok(intervals)
}

fn read_bitmap(base: i64, body: &[u8]) -> Result<Vec<(i64, i64)>, BadDone> {
    let mut intervals: Vec<(i64, i64)> = Vec::new();
    for bit in 0..body.len() as u64 * 8 {
        if body[(bit / 8) as usize] & (1 << (bit % 8)) == 0 {
            continue;
        }
        let offset = base.checked_add_unsigned(bit).filter(|offset| *offset < i64::MAX).ok_or(BadDone::Offsets)?;
        match intervals.last_mut().filter(|(_, end)| *end == offset) {
            Some((_, end)) => *end = offset + 1,
            None => intervals.push((offset, offset + 1)),
        }
    }
    Ok(intervals)
}

fn take_number(body: &mut &[u8]) -> Result<u64, BadDone> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = body.split_first().ok_or(BadDone::Length)?;
        *body = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return Err(BadDone::Offsets);
        }
        number |= low << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(BadDone::Length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn done(base: i64, gaps: &[(u16, u16)]) -> Done {
        let (mut at, mut intervals) = (base, Vec::new());
        for (gap, length) in gaps {
            let start = at + i64::from(*gap) + 1;
            at = start + i64::from(*length) + 1;
            intervals.push((start, at));
        }
        Done { base, lineage: 0, intervals }
    }

    #[test]
    fn one_stuck_message_before_a_million_done_takes_a_few_bytes() {
        let (text, whole) = encode_text(&Done { base: 7, lineage: 0, intervals: vec![(8, 1_000_008)] }, 4_096);
        assert!(whole && text.len() < 48, "{text}");
    }

    #[test]
    fn every_second_message_done_becomes_a_bitmap() {
        let intervals: Vec<_> = (0..8_000).map(|at| (at * 2 + 1, at * 2 + 2)).collect();
        let set = Done { base: 0, lineage: 9, intervals };
        let (bytes, whole) = encode(&set, 1 << 20);
        assert!(whole && bytes.len() < 2_100, "{}", bytes.len());
        assert_eq!(decode(&bytes), Ok(set));
    }

    #[test]
    fn an_unknown_version_and_foreign_text_are_refused() {
        assert_eq!(decode_text("hello, world!"), Err(BadDone::Foreign));
        assert_eq!(decode_text(""), Err(BadDone::Length));
        assert_eq!(decode(&[9; 40]), Err(BadDone::Version(9)));
    }

    #[test]
    fn a_run_of_nothing_or_beyond_the_last_offset_is_refused() {
        let mut bytes = vec![VERSION, FORM_RUNS];
        bytes.extend(i64::MAX.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend([1, 1]);
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        assert_eq!(decode(&bytes), Err(BadDone::Offsets));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(base in -5i64..1 << 40, lineage: u64, gaps in prop::collection::vec((0u16..9, 0u16..300), 0..200)) {
            let set = Done { lineage, ..done(base, &gaps) };
            let (text, whole) = encode_text(&set, 1 << 20);
            prop_assert!(whole);
            if set.intervals.is_empty() && lineage == 0 {
                prop_assert_eq!(text, "");
            } else {
                prop_assert_eq!(decode_text(&text), Ok(set));
            }
        }

        #[test]
        fn what_is_cut_to_fit_says_less_but_nothing_wrong(gaps in prop::collection::vec((0u16..5, 0u16..40), 0..300), room in 0usize..400) {
            let set = done(100, &gaps);
            let (text, whole) = encode_text(&set, room);
            prop_assert!(text.len() <= room);
            if !text.is_empty() {
                let read = decode_text(&text).unwrap();
                prop_assert_eq!(whole, read == set);
                for (start, end) in read.intervals {
                    prop_assert!(set.intervals.iter().any(|(first, behind)| *first <= start && end <= *behind));
                }
            }
        }

        #[test]
        fn damage_is_noticed(gaps in prop::collection::vec((0u16..9, 0u16..99), 1..50), at: prop::sample::Index, bit in 0u8..8) {
            let (mut bytes, _) = encode(&done(5, &gaps), 1 << 20);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn whatever_comes_never_panics(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
