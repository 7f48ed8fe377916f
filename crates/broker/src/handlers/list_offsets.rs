//! ListOffsets: the first, the last, or the one at a time.

use std::collections::HashSet;
use std::sync::Arc;

use baton_log::{PartitionId, ReadError};
use baton_wire::ErrorCode;
use baton_wire::messages::list_offsets_request::ListOffsetsRequest;
use baton_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use bytes::Bytes;

use crate::request::RequestContext;
use crate::state::BrokerState;

/// Times that are none.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// The first offset on this node's disk: the same as the earliest, as there is no other storage.
const EARLIEST_LOCAL: i64 = -4;
/// The last offset moved to other storage: there is none.
const LATEST_TIERED: i64 = -5;

/// Answers say the leader's epoch from this version on.
const LEADER_EPOCH_FROM_VERSION: i16 = 4;

/// Looks offsets up. Times may have to be read from the disk: such a request is done where waiting is allowed.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = ListOffsetsRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let needs_records = |timestamp| timestamp >= 0 || timestamp == MAX_TIMESTAMP;
    let mut partitions = request.topics.iter().flat_map(|topic| topic.partitions);
    if !partitions.any(|partition| needs_records(partition.timestamp)) {
        return context.encode(&look_all_up(&state, &context, &request));
    }
    // The semaphore is never closed, and a look-up does not panic.
    let Ok(_permit) = state.disk_reads.clone().acquire_owned().await else { return Vec::new() };
    let answered = tokio::task::spawn_blocking(move || {
        let Ok(request) = ListOffsetsRequest::decode_request(&body, context.api_version) else { return Vec::new() };
        context.encode(&look_all_up(&state, &context, &request))
    });
    answered.await.unwrap_or_default()
}

fn look_all_up(state: &BrokerState, context: &RequestContext, request: &ListOffsetsRequest<'_>) -> ListOffsetsResponse {
    let catalog = state.log.catalog();
    let mut seen = HashSet::new();
    let topics = request.topics.iter().map(|asked| {
        let topic = catalog.topic(asked.name);
        let partitions = asked.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let id = usize::try_from(index).ok().and_then(|at| topic?.partitions.get(at).copied());
            let found = match id {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                // As in Kafka; a look-up may have to read from the disk.
                Some(id) if !seen.insert(id) => Err(ErrorCode::InvalidRequest),
                Some(_) if partition.current_leader_epoch > 0 => Err(ErrorCode::UnknownLeaderEpoch),
                Some(id) => look_up(state, id, partition.timestamp),
            };
            answer(index, found, context.api_version)
        });
        ListOffsetsTopicResponse { name: asked.name.to_owned(), partitions: partitions.collect() }
    });
    ListOffsetsResponse { topics: topics.collect(), ..ListOffsetsResponse::default() }
}

/// Offset and timestamp; the timestamp is -1 where none was asked for, both are where there is no such record.
fn look_up(state: &BrokerState, partition: PartitionId, timestamp: i64) -> Result<(i64, i64), ErrorCode> {
    let bounds = state.log.bounds(partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let found = match timestamp {
        LATEST => return Ok((bounds.high_watermark, -1)),
        EARLIEST | EARLIEST_LOCAL => return Ok((bounds.log_start, -1)),
        LATEST_TIERED => return Ok((-1, -1)),
        MAX_TIMESTAMP => state.log.max_timestamp(partition),
        time if time >= 0 => state.log.offset_at_time(partition, time),
        _ => return Err(ErrorCode::InvalidRequest),
    };
    match found {
        Ok(found) => Ok(found.unwrap_or((-1, -1))),
        Err(ReadError::UnknownPartition) => Err(ErrorCode::UnknownTopicOrPartition),
        Err(error) => {
            tracing::error!(%error, "looking up a time failed");
            Err(ErrorCode::KafkaStorageError)
        }
    }
}

fn answer(index: i32, found: Result<(i64, i64), ErrorCode>, version: i16) -> ListOffsetsPartitionResponse {
    let (offset, timestamp) = found.unwrap_or((-1, -1));
    ListOffsetsPartitionResponse {
        partition_index: index,
        error_code: found.err().unwrap_or(ErrorCode::None).code(),
        timestamp,
        offset,
        leader_epoch: if offset >= 0 && version >= LEADER_EPOCH_FROM_VERSION { 0 } else { -1 },
    }
}
