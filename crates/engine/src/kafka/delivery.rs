//! From librdkafka's messages to deliveries.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use baton_core::{Delivery, Headers, TopicPartition};
use bytes::{Bytes, BytesMut};
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers as _};

/// Stands for a header whose name is not UTF-8: the client library cannot read those.
pub(super) const UNREADABLE_HEADER: &str = "baton-unreadable-header";

/// Small contents are copied side by side into blocks of this size: an allocation for each costs more than the copying. One that is kept
/// for long keeps its whole block, see [`Delivery::detached`].
const BLOCK_BYTES: usize = 16 << 10;
/// What is larger gets memory of its own.
const IN_BLOCK_BYTES_MAX: usize = BLOCK_BYTES / 4;
/// Different names of headers that are remembered within a batch.
const NAMES_MAX: usize = 16;

/// Copies messages, so that they do not hold on to librdkafka's buffers.
#[derive(Default)]
pub(super) struct Copies {
    block: BytesMut,
    /// Names of this batch's topics and headers. Those of another batch are others, though they read the same: threads that count
    /// references to the same text wait for each other.
    topics: Vec<Arc<str>>,
    names: Vec<Arc<str>>,
}

impl Copies {
    /// A batch begins.
    pub(super) fn begin(&mut self) {
        self.topics.clear();
        self.names.clear();
    }

    /// A copy of a message.
    pub(super) fn delivery(&mut self, message: &BorrowedMessage<'_>, from: &TopicPartition) -> Delivery {
        Delivery {
            from: TopicPartition { topic: shared(&mut self.topics, &from.topic), partition: from.partition },
            offset: message.offset(),
            key: message.key().map(|key| self.bytes(key)),
            payload: message.payload().map(|payload| self.bytes(payload)),
            headers: self.headers(message),
            timestamp_ms: message.timestamp().to_millis(),
            delivered_before: None,
        }
    }

    fn headers(&mut self, message: &BorrowedMessage<'_>) -> Headers {
        let Some(native) = message.headers() else { return Headers::default() };
        let mut headers = Headers::with_capacity(native.count());
        for index in 0..native.count() {
            // The client library panics at a name that is not UTF-8, which anybody may send. Nothing is left half done by that.
            match catch_unwind(AssertUnwindSafe(|| native.try_get(index))) {
                Ok(Some(header)) => {
                    let value = header.value.map(|value| self.bytes(value));
                    headers.push(shared(&mut self.names, header.key), value);
                }
                Ok(None) => {}
                Err(_) => headers.push(UNREADABLE_HEADER, None),
            }
        }
        headers
    }

    fn bytes(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > IN_BLOCK_BYTES_MAX {
            return Bytes::copy_from_slice(bytes);
        }
        if self.block.capacity() < bytes.len() {
            self.block = BytesMut::with_capacity(BLOCK_BYTES);
        }
        self.block.extend_from_slice(bytes);
        self.block.split().freeze()
    }
}

/// The text, shared with others of this batch that read the same.
fn shared(texts: &mut Vec<Arc<str>>, text: &str) -> Arc<str> {
    if let Some(found) = texts.iter().find(|other| &***other == text) {
        return found.clone();
    }
    let new: Arc<str> = text.into();
    if texts.len() < NAMES_MAX {
        texts.push(new.clone());
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_contents_share_a_block_and_large_ones_do_not() {
        let mut copies = Copies::default();
        let (one, two) = (copies.bytes(b"one"), copies.bytes(b"two"));
        assert_eq!((&*one, &*two), (&b"one"[..], &b"two"[..]));
        assert_eq!(two.as_ptr() as usize - one.as_ptr() as usize, one.len());
        assert!(!one.is_unique(), "both hold the block");
        let large = vec![7; IN_BLOCK_BYTES_MAX + 1];
        assert!(copies.bytes(&large).is_unique());
        let all: Vec<Bytes> = (0..=255u8).map(|byte| copies.bytes(&[byte; 1_000])).collect();
        assert!(all.iter().enumerate().all(|(at, bytes)| **bytes == [at as u8; 1_000]));
    }

    #[test]
    fn a_text_is_kept_once_for_a_batch_and_not_longer() {
        let mut copies = Copies::default();
        let one = shared(&mut copies.names, "tenant");
        assert!(Arc::ptr_eq(&one, &shared(&mut copies.names, "tenant")));
        copies.begin();
        assert!(!Arc::ptr_eq(&one, &shared(&mut copies.names, "tenant")));
        (0..100).for_each(|number| drop(shared(&mut copies.names, &number.to_string())));
        assert_eq!(copies.names.len(), NAMES_MAX);
    }
}
