//! Rows as messages on their way to the engine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use baton_core::relay::{Outgoing, Row};
use baton_core::stamp::{Instance, STAMP_HEADER};
use baton_core::{End, Ended, Fate, Headers, MESSAGE_BYTES, Retry, SendId, SendOptions, Sends, Sequences, Why};
use baton_engine::{Answer, Answers, EngineProducer, NoRoom, Record, SendError, SendOutcome};
use baton_outbox::{OutboxRow, decode_headers};
use bytes::Bytes;
use tokio::sync::Notify;

/// How soon a message is tried again that the engine did not take: from here, doubled, up to [`RETRY_MAX`], for ever.
const RETRY_FIRST: Duration = Duration::from_millis(50);
/// See [`RETRY_FIRST`].
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How many messages of a partition the engine may have at a time.
const IN_FLIGHT_MAX: u32 = 2_048;
/// Messages handed over before anything else is looked at.
const HAND_OVERS_MAX: usize = 1_024;

/// What a row holds, beside what is decided with.
pub(super) struct Content {
    pub(super) key: Option<Bytes>,
    pub(super) payload: Option<Bytes>,
    /// Or why they cannot be read.
    pub(super) headers: Result<Headers, String>,
    pub(super) partition: Option<u32>,
    pub(super) timestamp_ms: Option<i64>,
    pub(super) written_ms: i64,
}

impl Content {
    pub(super) fn of(row: Row<OutboxRow>) -> Row<Content> {
        let Row { position, shard, topic, key, id, item } = row;
        let headers = match item.headers.as_deref().map(decode_headers) {
            None => Ok(Headers::default()),
            Some(headers) => headers.map_err(|error| error.to_string()),
        };
        let OutboxRow { payload, partition, written_ms, timestamp_ms, .. } = item;
        let item = Content { key: key.clone(), payload, headers, partition, timestamp_ms, written_ms };
        Row { position, shard, topic, key, id, item }
    }

    pub(super) fn bytes(&self) -> usize {
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        of(&self.key) + of(&self.payload) + self.headers.as_ref().map_or(0, Headers::bytes) + MESSAGE_BYTES
    }
}

/// A message on its way.
pub(super) struct Item {
    pub(super) position: i64,
    pub(super) shard: u16,
    pub(super) written_ms: i64,
    record: Record,
    cause: Option<String>,
}

/// How a row ended.
pub(super) struct EndedRow {
    pub(super) item: Item,
    /// Why the engine does not take it, if it does not.
    pub(super) refused: Option<(Fate, String)>,
}

/// What the engine says, until somebody looks.
#[derive(Default)]
pub(super) struct Said {
    answers: Mutex<Vec<(SendId, SendOutcome)>>,
    pub(super) came: Notify,
}

impl Answers for Said {
    fn answer(&self, name: u128, outcome: SendOutcome) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.push((SendId::of_number(name), outcome));
        if answers.len() == 1 {
            drop(answers);
            self.came.notify_one();
        }
    }
}

/// All messages that are with the engine, or are to be.
pub(super) struct Sending {
    sends: Sends<Item>,
    said: Arc<Said>,
    producer: Arc<dyn EngineProducer>,
    stamp_header: Arc<str>,
    /// The engine's client is full.
    pub(super) full: bool,
}

impl Sending {
    pub(super) fn new(producer: Arc<dyn EngineProducer>, instance: Instance) -> Self {
        let retry = Retry::exponential(RETRY_FIRST, 2, RETRY_MAX).max_attempts(u32::MAX);
        let options = SendOptions { retry, in_flight_max: IN_FLIGHT_MAX, ..SendOptions::default() };
        // Nothing is numbered here: every message comes with its stamp.
        let sends = Sends::new(options, Sequences::new(instance, 0));
        Self { sends, said: Arc::default(), producer, stamp_header: STAMP_HEADER.into(), full: false }
    }

    pub(super) fn said(&self) -> Arc<Said> {
        Arc::clone(&self.said)
    }

    pub(super) fn len(&self) -> usize {
        self.sends.len()
    }

    /// When something is to be handed over that waits.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.sends.due_ms().filter(|_| !self.full)
    }

    /// Takes rows whose claims are written, in their order.
    pub(super) fn accept(&mut self, outgoing: Vec<Outgoing<Content>>, now_ms: u64) {
        for Outgoing { position, shard, to, stamp, item } in outgoing {
            let Content { key, payload, headers, timestamp_ms, written_ms, .. } = item;
            let mut headers = headers.unwrap_or_default();
            headers.push(Arc::clone(&self.stamp_header), Some(stamp.encode()));
            let id = Some(stamp.id.shared());
            let timestamp_ms = Some(timestamp_ms.unwrap_or(written_ms));
            let record = Record { to: to.clone(), key, payload, headers, timestamp_ms, id };
            let item = Item { position, shard, written_ms, record, cause: None };
            if let Err(refused) = self.sends.accept_stamped(now_ms, &to, stamp, item) {
                // Only when there are too many partitions at once: what is claimed is sent again by who takes the shard over.
                tracing::error!(topic = &*to.topic, partition = to.partition, "{}", refused.refusal);
            }
        }
    }

    /// Hands over what is due.
    pub(super) fn hand_over(&mut self, now_ms: u64) {
        for _ in 0..HAND_OVERS_MAX {
            let Some(next) = self.sends.next(now_ms) else { return };
            let id = next.id;
            let said: Arc<dyn Answers> = Arc::clone(&self.said) as Arc<dyn Answers>;
            if let Err(NoRoom) = self.producer.hand_over(&next.item.record, Answer::of(said, id.to_number())) {
                self.sends.full(id);
                self.full = true;
                return;
            }
        }
    }

    /// What has ended since this was called last.
    pub(super) fn take_ended(&mut self, now_ms: u64, mut draw: impl FnMut() -> u64) -> Vec<EndedRow> {
        let said = std::mem::take(&mut *self.said.answers.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, outcome) in said {
            let result = outcome.as_ref().map(drop).map_err(SendError::failure);
            if let (Err(error), Some(item)) = (outcome, self.sends.item_mut(id)) {
                item.cause = Some(error.cause);
            }
            let random = if result.is_ok() { 0 } else { draw() };
            self.sends.resolved(id, now_ms, random, result);
        }
        let mut ended = Vec::new();
        while let Some(Ended { item, end, .. }) = self.sends.take_ended() {
            let refused = match end {
                End::Acknowledged => None,
                End::GivenUp { fate, why } => {
                    Some((fate, item.cause.clone().unwrap_or_else(|| given_up(&why).to_owned())))
                }
            };
            ended.push(EndedRow { item, refused });
        }
        ended
    }

    /// Forgets these shards: they are somebody else's to send. What the engine has goes on, and nobody hears of it.
    pub(super) fn forget(&mut self, now_ms: u64, lost: impl Fn(u16) -> bool) {
        drop(self.sends.take_out(now_ms, |item| lost(item.shard)));
    }
}

fn given_up(why: &Why) -> &'static str {
    match why {
        Why::Refused => "the engine refused it",
        Why::Deadline | Why::Attempts | Why::NoSequence(_) | Why::Closed => "it was given up",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
mod tests {
    use baton_core::stamp::Stamp;
    use baton_core::{MessageId, TopicPartition};
    use baton_engine::EngineFuture;

    use super::*;

    /// Answers everything alike.
    struct Refuses(baton_engine::Retry);

    impl EngineProducer for Refuses {
        fn hand_over(&self, _: &Record, answer: Answer) -> Result<(), NoRoom> {
            let (fate, cause) = (baton_engine::Fate::NotStored, "no".to_owned());
            answer.give(Err(SendError { fate, retry: self.0, cause }));
            Ok(())
        }

        fn room(&self) -> EngineFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }

        fn flush(&self, _: Duration) -> EngineFuture<'_, usize> {
            Box::pin(std::future::ready(0))
        }
    }

    /// How many rows have ended after one was handed over.
    fn ended_of(retry: baton_engine::Retry) -> usize {
        let instance = Instance::new("outbox.0").unwrap();
        let mut sending = Sending::new(Arc::new(Refuses(retry)), instance.clone());
        let stamp = Stamp { id: MessageId::new("m1").unwrap(), instance, epoch: 1, sequence: 1 };
        let (key, payload, headers) = (None, None, Ok(Headers::default()));
        let item = Content { key, payload, headers, partition: None, timestamp_ms: None, written_ms: 0 };
        let to = TopicPartition::new("orders", 0);
        sending.accept(vec![Outgoing { position: 1, shard: 0, to, stamp, item }], 0);
        sending.hand_over(0);
        sending.take_ended(0, || 0).len()
    }

    #[test]
    fn a_row_is_given_up_only_if_no_other_attempt_can_help() {
        assert_eq!(ended_of(baton_engine::Retry::Never), 1);
        assert_eq!(ended_of(baton_engine::Retry::Later), 0);
        assert_eq!(ended_of(baton_engine::Retry::Subscribed), 0, "a group may subscribe yet");
    }
}
