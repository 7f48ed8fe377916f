//! From librdkafka's messages to deliveries.

use std::panic::{AssertUnwindSafe, catch_unwind};

use baton_core::{Delivery, Headers, TopicPartition};
use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers as _};

/// Stands for a header whose name is not UTF-8: the client library cannot read those.
pub(super) const UNREADABLE_HEADER: &str = "baton-unreadable-header";

/// A copy of a message that does not hold on to librdkafka's buffers.
pub(super) fn delivery(message: &BorrowedMessage<'_>, from: TopicPartition) -> Delivery {
    Delivery {
        from,
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        payload: message.payload().map(Bytes::copy_from_slice),
        headers: headers(message),
        timestamp_ms: message.timestamp().to_millis(),
        delivered_before: None,
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let mut headers = Headers::default();
    let Some(native) = message.headers() else { return headers };
    for index in 0..native.count() {
        // The client library panics at a name that is not UTF-8, which anybody may send. Nothing is left half done by that.
        match catch_unwind(AssertUnwindSafe(|| {
            native.try_get(index).map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice)))
        })) {
            Ok(Some((name, value))) => headers.push(name, value),
            Ok(None) => {}
            Err(_) => headers.push(UNREADABLE_HEADER, None),
        }
    }
    headers
}
