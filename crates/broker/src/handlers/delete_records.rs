//! DeleteRecords: moves the beginning of partitions; answered when that is durable.

use std::sync::Arc;

use baton_log::{AppendError, PartitionId, Ticket};
use baton_wire::ErrorCode;
use baton_wire::messages::delete_records_request::DeleteRecordsRequest;
use baton_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use bytes::Bytes;

use crate::handlers::produce::append_error_code;
use crate::handlers::within;
use crate::request::RequestContext;
use crate::state::BrokerState;
use crate::topics;

/// "Everything that can be read."
const HIGH_WATERMARK: i64 = -1;
/// Where a partition begins that could not be looked at.
const NO_LOW_WATERMARK: i64 = -1;

/// What is asked for one topic: partition indexes and the offsets to begin at.
struct Wanted {
    name: String,
    partitions: Vec<(i32, i64)>,
}

/// Answers each partition with its own code, and with where it begins from now on.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = DeleteRecordsRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let timeout_ms = request.timeout_ms;
    let wanted: Vec<Wanted> = request
        .topics
        .iter()
        .map(|topic| Wanted {
            name: topic.name.to_owned(),
            partitions: topic.partitions.iter().map(|asked| (asked.partition_index, asked.offset)).collect(),
        })
        .collect();
    let asked: Vec<(String, Vec<i32>)> = wanted
        .iter()
        .map(|topic| (topic.name.clone(), topic.partitions.iter().map(|(index, _)| *index).collect()))
        .collect();
    drop(body);
    // Two at once could move a beginning back, so they take turns, as changes of the catalog do.
    let deleted = within(timeout_ms, topics::change_catalog(&state, move |state| delete(state, wanted)));
    let topics = match deleted.await {
        Ok(topics) => topics,
        Err(error) => asked
            .into_iter()
            .map(|(name, indexes)| DeleteRecordsTopicResult {
                name,
                partitions: indexes.into_iter().map(|index| result(index, Err(error.code))).collect(),
            })
            .collect(),
    };
    context.encode(&DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() })
}

fn delete(state: &BrokerState, wanted: Vec<Wanted>) -> (Vec<DeleteRecordsTopicResult>, Option<Ticket>) {
    let catalog = state.log.catalog();
    let mut last = None;
    let mut results = Vec::with_capacity(wanted.len());
    for Wanted { name, partitions } in wanted {
        let topic = catalog.topic(&name);
        let answers = partitions.into_iter().map(|(index, offset)| {
            let id = usize::try_from(index).ok().and_then(|at| topic?.partitions.get(at).copied());
            let deleted = id.ok_or(ErrorCode::UnknownTopicOrPartition).and_then(|id| {
                let (log_start, ticket) = delete_before(state, id, offset)?;
                last = last.max(ticket);
                Ok(log_start)
            });
            result(index, deleted)
        });
        let partitions = answers.collect();
        results.push(DeleteRecordsTopicResult { name, partitions });
    }
    (results, last)
}

/// Where the partition will begin. A beginning never moves back.
fn delete_before(state: &BrokerState, partition: PartitionId, offset: i64) -> Result<(i64, Option<Ticket>), ErrorCode> {
    let bounds = state.log.bounds(partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let before = if offset == HIGH_WATERMARK { bounds.high_watermark } else { offset };
    if before >= 0 && before <= bounds.log_start {
        return Ok((bounds.log_start, None));
    }
    match state.log.delete_records(partition, before) {
        Ok(ticket) => Ok((before, Some(ticket))),
        Err(AppendError::OffsetOutOfRange) => Err(ErrorCode::OffsetOutOfRange),
        Err(error) => Err(append_error_code(&error)),
    }
}

fn result(partition_index: i32, deleted: Result<i64, ErrorCode>) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult {
        partition_index,
        low_watermark: deleted.unwrap_or(NO_LOW_WATERMARK),
        error_code: deleted.err().unwrap_or(ErrorCode::None).code(),
    }
}
