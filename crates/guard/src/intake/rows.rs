//! Stored messages as rows of a table, whatever the database.

use baton_core::{Delivery, TopicPartition};
use bytes::Bytes;

use super::{IntakeError, Ownership, Place, Taken};
use crate::side::rows::within;
use crate::side::{StoreError, codec};

/// What was read of a message: position, key, payload, headers and timestamp.
pub(super) type Read = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>, Option<i64>);

/// What was read of a place: epoch, frontier, metadata, next and acknowledged.
pub(super) type ReadPlace = (i64, Option<i64>, String, Option<i64>, Option<i64>);

/// Headers as a column.
pub(super) fn headers(message: &Delivery) -> Vec<u8> {
    codec::encode(&message.headers)
}

/// The message as it came.
pub(super) fn message(from: &TopicPartition, read: Read) -> Result<Delivery, StoreError> {
    let (offset, key, payload, headers, timestamp_ms) = read;
    let damaged = || StoreError(format!("the stored message {offset} of {from} is damaged"));
    Ok(Delivery {
        from: from.clone(),
        offset,
        key: key.map(Bytes::from),
        payload: payload.map(Bytes::from),
        headers: codec::decode(headers).ok_or_else(damaged)?,
        timestamp_ms,
        delivered_before: None,
    })
}

/// A place as it was found.
pub(super) fn taken(place: &Place, read: ReadPlace) -> Taken {
    let (epoch, frontier, metadata, next, acknowledged) = read;
    Taken { ownership: Ownership { place: place.clone(), epoch }, frontier, metadata, next, acknowledged }
}

/// Positions of messages that are appended: the first, and the first one behind them. `None` if there are none.
pub(super) fn span(messages: &[Delivery]) -> Option<(i64, i64)> {
    Some((messages.first()?.offset, messages.last()?.offset.saturating_add(1)))
}

/// Bounds a call that may be refused.
pub(super) async fn bounded<T>(
    store: &'static str,
    call: impl Future<Output = Result<T, IntakeError>>,
) -> Result<T, IntakeError> {
    within(store, async {
        match call.await {
            Err(IntakeError::Store(error)) => Err(error),
            Err(IntakeError::Fenced) => Ok(Err(IntakeError::Fenced)),
            Ok(done) => Ok(Ok(done)),
        }
    })
    .await?
}
