//! Cuts what there is to say into reports that are short enough.

use super::REPORT_BYTES_MAX;
use crate::Ranges;

/// `[9007199254740991,9007199254740991],`
const INTERVAL_BYTES: usize = 36;
/// A sequence without its names and its intervals, and a report without its sequences; both take less.
pub(super) const FIXED_BYTES: usize = 256;

/// What is said of one sequence.
pub(super) trait Said: Sized {
    /// How many intervals it takes.
    fn intervals(&self) -> usize;

    /// The first `intervals` of it, and the rest if there is any.
    fn cut(self, intervals: usize) -> (Self, Option<Self>);
}

/// As many lists as it takes to leave each of them short enough for a report, whose other fields take `besides` bytes. Each thing comes
/// with the bytes of its names.
pub(super) fn lists<N: Clone, S: Said>(
    besides: usize,
    all: impl IntoIterator<Item = (N, usize, S)>,
) -> Vec<Vec<(N, S)>> {
    let room_max = REPORT_BYTES_MAX.saturating_sub(FIXED_BYTES + besides);
    let (mut lists, mut current, mut room) = (Vec::new(), Vec::new(), room_max);
    for (name, bytes, said) in all {
        let fixed = FIXED_BYTES + bytes;
        let mut rest = Some(said);
        while let Some(said) = rest.take() {
            if room < fixed + INTERVAL_BYTES {
                lists.push(std::mem::take(&mut current));
                room = room_max;
            }
            let (piece, more) = said.cut((room.saturating_sub(fixed) / INTERVAL_BYTES).max(1));
            room = room.saturating_sub(fixed + piece.intervals() * INTERVAL_BYTES);
            current.push((name.clone(), piece));
            rest = more;
        }
    }
    if !current.is_empty() {
        lists.push(current);
    }
    lists
}

/// The first so many intervals of several sets, and the others.
pub(super) fn cut<const SETS: usize>(sets: [&Ranges; SETS], intervals: usize) -> ([Ranges; SETS], [Ranges; SETS]) {
    let (mut near, mut far) = (std::array::from_fn(|_| Ranges::new()), std::array::from_fn(|_| Ranges::new()));
    let mut room = intervals;
    for (set, (near, far)) in sets.into_iter().zip(near.iter_mut().zip(&mut far)) {
        near.extend(set.iter().take(room));
        far.extend(set.iter().skip(room));
        room = room.saturating_sub(set.intervals());
    }
    (near, far)
}

/// Longest that JSON makes of a text: what needs an escape takes up to 6 bytes.
pub(super) fn json_length(text: &str) -> usize {
    text.bytes().map(|byte| if byte < b' ' || byte == b'"' || byte == b'\\' { 6 } else { 1 }).sum()
}
