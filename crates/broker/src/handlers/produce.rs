//! Produce: checks batches, appends them, and answers when they are on the disk.

use std::borrow::Cow;
use std::sync::Arc;

use baton_log::{AppendError, AppendOutcome, PartitionId, Poisoned, ProducerFault, Ticket, Topic};
use baton_wire::messages::produce_request::{PartitionProduceData, ProduceRequest};
use baton_wire::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use baton_wire::records::{
    BatchError, BatchLimits, TimestampType, set_log_append_time, set_max_timestamp, single_batch, validate_batch,
};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::connection::{CloseReason, Handled};
use crate::metrics::Limit;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// `zstd` may be used from this version of the request on.
const ZSTD_FROM_VERSION: i16 = 7;

/// Answers that say something of the log, and so hold only once it is durable.
const RESTS_ON_THE_LOG: [i16; 3] =
    [ErrorCode::None as i16, ErrorCode::OutOfOrderSequenceNumber as i16, ErrorCode::InvalidProducerEpoch as i16];

/// One partition's answer, and what it must wait for.
struct Answer {
    response: PartitionProduceResponse,
    ticket: Option<Ticket>,
}

/// Too much waits for the disk: to be tried again.
struct Backlogged;

/// Appends everything that a request holds. Where the log is backlogged, the rest is appended by a future.
pub(crate) fn handle(state: &Arc<BrokerState>, context: RequestContext, body: &Bytes) -> Result<Handled, DecodeError> {
    let request = ProduceRequest::decode_request(body, context.api_version)?;
    if request.transactional_id.is_some() || !(-1..=1).contains(&request.acks) {
        let code = if request.transactional_id.is_some() {
            ErrorCode::TransactionalIdAuthorizationFailed
        } else {
            ErrorCode::InvalidRequiredAcks
        };
        return Ok(refuse_all(&request, &context, code));
    }
    let mut progress = Progress::default();
    match append_all(state, &context, &request, &mut progress) {
        Ok(()) => Ok(progress.into_handled(state, context, request.acks)),
        Err(Backlogged) => Ok(Handled::Waiting(Box::pin(append_rest(state.clone(), context, body.clone(), progress)))),
    }
}

/// What has been appended so far.
#[derive(Default)]
struct Progress {
    topics: Vec<TopicProduceResponse>,
    /// Answers of the topic being worked on.
    partitions: Vec<PartitionProduceResponse>,
    /// Largest ticket of all answers.
    ticket: Option<Ticket>,
}

impl Progress {
    fn done(&self) -> (usize, usize) {
        (self.topics.len(), self.partitions.len())
    }

    fn into_response(self, poisoned: Option<&Poisoned>) -> ProduceResponse {
        let mut responses = self.topics;
        if let Some(poisoned) = poisoned {
            let answers = responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
            for partition in answers.filter(|partition| RESTS_ON_THE_LOG.contains(&partition.error_code)) {
                // Whether it is on the disk will be known after a restart. This code says so to clients: stored perhaps, try again.
                *partition = failed(partition.index, ErrorCode::NotEnoughReplicasAfterAppend, &poisoned.to_string());
            }
        }
        ProduceResponse { responses, ..ProduceResponse::default() }
    }

    fn into_handled(self, state: &Arc<BrokerState>, context: RequestContext, acks: i16) -> Handled {
        if acks == 0 {
            context.metrics.answered(context.api_key, context.received.elapsed());
            let failed =
                self.topics.iter().flat_map(|topic| &topic.partition_responses).any(|answer| answer.error_code != 0);
            // The only way to tell a producer that does not listen; Kafka does the same.
            return if failed { Handled::Close(CloseReason::SilentProduceFailed) } else { Handled::Silent };
        }
        match self.ticket {
            None => Handled::Ready(context.encode(&self.into_response(None))),
            Some(ticket) => Handled::Durable(
                state.log.durable(ticket),
                Box::new(move |outcome| context.encode(&self.into_response(outcome.err().as_ref()))),
            ),
        }
    }
}

async fn append_rest(state: Arc<BrokerState>, context: RequestContext, body: Bytes, mut progress: Progress) -> Handled {
    let acks = loop {
        state.log.room().await;
        // Decoded before, so this succeeds.
        let Ok(request) = ProduceRequest::decode_request(&body, context.api_version) else {
            return Handled::Close(CloseReason::Malformed);
        };
        if append_all(&state, &context, &request, &mut progress).is_ok() {
            break request.acks;
        }
    };
    match progress.into_handled(&state, context, acks) {
        Handled::Durable(durable, respond) => Handled::Ready(respond(durable.await)),
        other => other,
    }
}

/// Goes on where `progress` stands, until all is appended or the log is backlogged.
fn append_all(
    state: &BrokerState,
    context: &RequestContext,
    request: &ProduceRequest<'_>,
    progress: &mut Progress,
) -> Result<(), Backlogged> {
    let catalog = state.log.catalog();
    let (topics_done, _) = progress.done();
    for topic_data in request.topic_data.iter().skip(topics_done) {
        let topic = catalog.topic(topic_data.name);
        let limits = topic.map(|topic| state.batch_limits(topic, context.api_version >= ZSTD_FROM_VERSION));
        let (_, partitions_done) = progress.done();
        for data in topic_data.partition_data.iter().skip(partitions_done) {
            let answer = match (topic, &limits) {
                (Some(topic), Some(limits)) => append_one(state, topic, limits, &data)?,
                _ => Answer {
                    response: failed(data.index, ErrorCode::UnknownTopicOrPartition, "this topic does not exist"),
                    ticket: None,
                },
            };
            progress.ticket = progress.ticket.max(answer.ticket);
            progress.partitions.push(answer.response);
        }
        progress.topics.push(TopicProduceResponse {
            name: topic_data.name.to_owned(),
            partition_responses: std::mem::take(&mut progress.partitions),
            ..TopicProduceResponse::default()
        });
    }
    Ok(())
}

/// Checks and appends the batch of one partition.
fn append_one(
    state: &BrokerState,
    topic: &Topic,
    limits: &BatchLimits,
    data: &PartitionProduceData<'_>,
) -> Result<Answer, Backlogged> {
    let refused = |code, message: &str| Ok(Answer { response: failed(data.index, code, message), ticket: None });
    let Some(partition) = usize::try_from(data.index).ok().and_then(|index| topic.partitions.get(index)) else {
        return refused(ErrorCode::UnknownTopicOrPartition, "this partition does not exist");
    };
    let checked = single_batch(data.records).and_then(|batch| Ok((batch, validate_batch(batch, limits)?)));
    let (batch, valid) = match checked {
        Ok(checked) => checked,
        Err(error) => return Ok(Answer { response: invalid(data.index, &error), ticket: None }),
    };
    let mut batch = Cow::Borrowed(batch);
    let mut header = valid.header;
    let mut log_append_time_ms = -1;
    if limits.timestamp_type == TimestampType::LogAppendTime {
        log_append_time_ms = limits.now_ms;
        set_log_append_time(batch.to_mut(), limits.now_ms);
        header.max_timestamp = limits.now_ms;
    } else if valid.max_timestamp_is_wrong() {
        set_max_timestamp(batch.to_mut(), valid.max_timestamp);
        header.max_timestamp = valid.max_timestamp;
    }
    match state.log.append(*partition, &header, &batch) {
        Ok(receipt) => {
            let response = match receipt.outcome {
                AppendOutcome::Stored { base_offset } | AppendOutcome::Duplicate { base_offset } => {
                    stored(state, *partition, data.index, base_offset, log_append_time_ms)
                }
                AppendOutcome::Refused(ProducerFault::OutOfOrderSequence) => failed(
                    data.index,
                    ErrorCode::OutOfOrderSequenceNumber,
                    "the sequence number does not follow the producer's last one",
                ),
                AppendOutcome::Refused(ProducerFault::StaleEpoch) => failed(
                    data.index,
                    ErrorCode::InvalidProducerEpoch,
                    "a newer incarnation of the producer has written",
                ),
            };
            Ok(Answer { response, ticket: Some(receipt.ticket) })
        }
        Err(AppendError::Backlogged) => {
            state.metrics.limit_hit(Limit::PendingBytes);
            Err(Backlogged)
        }
        Err(error) => {
            match error {
                AppendError::TooManyProducers => state.metrics.limit_hit(Limit::Producers),
                AppendError::DiskFull => state.metrics.limit_hit(Limit::DiskFreeBytes),
                _ => {}
            }
            refused(append_error_code(&error), &error.to_string())
        }
    }
}

/// What a client is told when the log did not take something.
pub(crate) fn append_error_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::Poisoned(_) | AppendError::DiskFull => ErrorCode::KafkaStorageError,
        AppendError::UnknownPartition | AppendError::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        AppendError::TopicExists => ErrorCode::TopicAlreadyExists,
        AppendError::TooLarge(_) => ErrorCode::MessageTooLarge,
        AppendError::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
        AppendError::TooManyPartitions => ErrorCode::InvalidPartitions,
        // Retriable for every client, and no fault of theirs.
        AppendError::TooManyProducers | AppendError::Backlogged => ErrorCode::ThrottlingQuotaExceeded,
    }
}

fn stored(
    state: &BrokerState,
    partition: PartitionId,
    index: i32,
    base_offset: i64,
    log_append_time_ms: i64,
) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        base_offset,
        log_append_time_ms,
        log_start_offset: state.log.bounds(partition).map_or(-1, |bounds| bounds.log_start),
        ..PartitionProduceResponse::default()
    }
}

fn failed(index: i32, code: ErrorCode, message: &str) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: code.code(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        error_message: Some(message.to_owned()),
        ..PartitionProduceResponse::default()
    }
}

fn invalid(index: i32, error: &BatchError) -> PartitionProduceResponse {
    let message = error.to_string();
    let record_errors = error.record().map(|record| BatchIndexAndErrorMessage {
        batch_index: record as i32,
        batch_index_error_message: Some(message.clone()),
    });
    PartitionProduceResponse {
        record_errors: record_errors.into_iter().collect(),
        ..failed(index, error.code(), &message)
    }
}

fn refuse_all(request: &ProduceRequest<'_>, context: &RequestContext, code: ErrorCode) -> Handled {
    let message = match code {
        ErrorCode::InvalidRequiredAcks => "acks must be -1, 0 or 1",
        _ => "transactions are not served by this version of Baton",
    };
    let responses = request.topic_data.iter().map(|topic| TopicProduceResponse {
        name: topic.name.to_owned(),
        partition_responses: topic.partition_data.iter().map(|data| failed(data.index, code, message)).collect(),
        ..TopicProduceResponse::default()
    });
    if request.acks == 0 {
        return Handled::Close(CloseReason::SilentProduceFailed);
    }
    Handled::Ready(context.encode(&ProduceResponse { responses: responses.collect(), ..ProduceResponse::default() }))
}
