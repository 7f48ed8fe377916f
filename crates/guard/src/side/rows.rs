//! Parked messages as rows of a table, whatever the database.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::Delivery;
use baton_core::consumer::{Loaded, Parked};
use baton_core::partitioner::murmur2;
use bytes::Bytes;

use super::{LOAD_BYTES_MAX, Place, StoreError, codec};
use crate::GROUP_BYTES_MAX;
use crate::error::whole;

/// Bytes of rows that go into one statement, at most, and one row more if that is larger: below what servers accept as a packet.
pub(crate) const STATEMENT_BYTES_MAX: usize = 4 << 20;
/// How long one call may take before it counts as failed, and is made again: a server that was cut off says nothing.
const CALL_WAIT: Duration = Duration::from_secs(30);
/// Longest name of a topic, as on Kafka and in AMQP.
const TOPIC_BYTES_MAX: usize = 255;
/// Longest source and reason of a failure that are kept, in bytes.
const TEXT_BYTES_MAX: usize = 1_000;

/// Positions of one assignment whose offsets do not last: three years of 10,000 messages a second. Leaves room for 8 million assignments.
const ASSIGNMENT_POSITIONS: u64 = 1 << 40;

/// The places that are ours, and what is added to an offset to get a position there.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<Place, u64>>);

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<Place, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an assignment. Where offsets do not last it has a number, counted in the database: whoever had the place before may still be
    /// parking, and two messages at one position would be one of them.
    pub fn open(&self, place: &Place, assignment: Option<i64>) {
        let base = assignment.map_or(0, |number| number.unsigned_abs().saturating_mul(ASSIGNMENT_POSITIONS));
        self.lock().insert(place.clone(), base);
    }

    pub fn forget(&self, place: &Place) {
        self.lock().remove(place);
    }

    /// The rows of messages. Whoever lost the place meanwhile parks nothing.
    pub fn rows(&self, place: &Place, messages: &[Parked]) -> Result<Vec<Row>, StoreError> {
        let base = self.lock().get(place).copied();
        let base = base.ok_or_else(|| StoreError(format!("{} is not ours any more", place.partition)))?;
        if base > 0 && messages.iter().any(|parked| parked.delivery.offset.unsigned_abs() >= ASSIGNMENT_POSITIONS) {
            let text = "has had more messages in one assignment than can be parked: start its consumer again";
            return Err(StoreError(format!("{} {text}", place.partition)));
        }
        Ok(messages.iter().map(|parked| Row::of(base, parked)).collect())
    }
}

/// One parked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub position: i64,
    pub payload: Option<Bytes>,
    pub headers: Vec<u8>,
    pub timestamp_ms: Option<i64>,
    pub attempts: i32,
    pub source: Option<String>,
    pub reason: Option<String>,
}

impl Row {
    fn of(base: u64, parked: &Parked) -> Self {
        let delivery = &parked.delivery;
        let text = |text: &str| shortened(text, TEXT_BYTES_MAX);
        Self {
            position: i64::try_from(base.saturating_add(delivery.offset.unsigned_abs())).unwrap_or(i64::MAX),
            payload: delivery.payload.clone(),
            headers: codec::encode(&delivery.headers),
            timestamp_ms: delivery.timestamp_ms,
            attempts: i32::try_from(parked.attempts).unwrap_or(i32::MAX),
            source: parked.failure.as_ref().map(|failure| text(&failure.source)),
            reason: parked.failure.as_ref().map(|failure| text(&failure.reason)),
        }
    }

    fn bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len) + self.headers.len() + TEXT_BYTES_MAX
    }
}

/// Rows in portions that one statement may carry.
pub(super) fn portions(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |row: &&Row| {
            bytes += row.bytes();
            bytes <= STATEMENT_BYTES_MAX
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (portion, later) = rest.split_at(count);
        rest = later;
        (!portion.is_empty()).then_some(portion)
    })
}

/// What was read of a message: position, payload, headers and timestamp.
pub(super) type Read = (i64, Option<Vec<u8>>, Vec<u8>, Option<i64>);

/// The message as it came.
pub(super) fn loaded(place: &Place, key: &Bytes, read: Read) -> Result<Loaded, StoreError> {
    let (position, payload, headers, timestamp_ms) = read;
    let damaged = || StoreError(format!("the parked message {position} of {} is damaged", place.partition));
    let headers = codec::decode(headers).ok_or_else(damaged)?;
    let delivery = Delivery {
        from: place.partition.clone(),
        offset: position,
        key: Some(key.clone()),
        payload: payload.map(Bytes::from),
        headers,
        timestamp_ms,
        delivered_before: None,
    };
    Ok(Loaded { position: u64::try_from(position).map_err(|_| damaged())?, delivery })
}

/// Of the oldest messages, given with their sizes, the last one that is still to be read now.
pub(crate) fn last_to_load(sizes: impl IntoIterator<Item = (i64, u64)>) -> Option<i64> {
    let mut bytes = 0_u64;
    let mut last = None;
    for (position, size) in sizes {
        bytes = bytes.saturating_add(size);
        if last.is_some() && bytes > LOAD_BYTES_MAX as u64 {
            break;
        }
        last = Some(position);
    }
    last
}

/// Finds the rows of a key: an index over keys themselves would have to hold whatever somebody uses as a key.
pub(super) fn hash(key: &[u8]) -> i64 {
    i64::from(murmur2(key))
}

/// Names that the columns can carry; a longer one must not be cut, or two places would become one.
pub(crate) fn check(place: &Place) -> Result<(), StoreError> {
    if place.group.len() <= GROUP_BYTES_MAX && place.partition.topic.len() <= TOPIC_BYTES_MAX {
        return Ok(());
    }
    let longest = GROUP_BYTES_MAX.min(TOPIC_BYTES_MAX);
    Err(StoreError(format!("the names of group and topic may have {longest} bytes: {place:?}")))
}

/// Bounds a call.
pub(crate) async fn within<T>(
    store: &'static str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(CALL_WAIT, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError(format!("{store}: no answer in {} s", CALL_WAIT.as_secs()))),
    }
}

/// An error and what it comes from, in one line.
pub(crate) fn failed(store: &'static str, error: &dyn Error) -> StoreError {
    StoreError(format!("{store}: {}", whole(error)))
}

/// At most so many bytes, cut between characters; without the one character that Postgres cannot keep.
fn shortened(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(position: i64, bytes: usize) -> Row {
        Row {
            position,
            payload: Some(vec![0; bytes].into()),
            headers: Vec::new(),
            timestamp_ms: None,
            attempts: 1,
            source: None,
            reason: None,
        }
    }

    #[test]
    fn a_statement_carries_what_fits_and_one_row_at_least() {
        let half = STATEMENT_BYTES_MAX / 2;
        let rows = [row(0, half), row(1, half), row(2, 2 * STATEMENT_BYTES_MAX), row(3, 1), row(4, 1)];
        let counts: Vec<usize> = portions(&rows).map(<[Row]>::len).collect();
        assert_eq!(counts, [1, 1, 1, 2]);
        assert_eq!(portions(&[]).count(), 0);
    }

    #[test]
    fn what_is_read_at_once_is_bounded_in_bytes_and_is_something() {
        let most = LOAD_BYTES_MAX as u64;
        assert_eq!(last_to_load([(5, most), (6, 1)]), Some(5));
        assert_eq!(last_to_load([(5, 2 * most), (6, 1)]), Some(5));
        assert_eq!(last_to_load([(5, 1), (6, 1), (9, most)]), Some(6));
        assert_eq!(last_to_load([]), None);
    }

    #[test]
    fn texts_of_failures_fit_everywhere() {
        assert_eq!(shortened("a\0b", 10), "a b");
        assert_eq!(shortened("ää", 3), "ä");
    }
}
