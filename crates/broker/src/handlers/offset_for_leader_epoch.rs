//! OffsetForLeaderEpoch: consumers ask it to find out whether records they have read were lost. Here, none ever is: there is
//! one leader, its epoch is 0, and it ends at the high watermark.

use baton_log::PartitionId;
use baton_wire::messages::offset_for_leader_epoch_request::{OffsetForLeaderEpochRequest, OffsetForLeaderPartition};
use baton_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::request::RequestContext;
use crate::state::BrokerState;

/// The only epoch there ever was.
const EPOCH: i32 = 0;

/// Answers each partition with its own code.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = OffsetForLeaderEpochRequest::decode_request(body, context.api_version)?;
    let catalog = state.log.catalog();
    let topics = request.topics.iter().map(|asked| {
        let topic = catalog.topic(asked.topic);
        let partitions = asked.partitions.iter().map(|partition| {
            let id = usize::try_from(partition.partition).ok().and_then(|at| topic?.partitions.get(at).copied());
            end_of_epoch(state, id, &partition)
        });
        OffsetForLeaderTopicResult { topic: asked.topic.to_owned(), partitions: partitions.collect() }
    });
    let response = OffsetForLeaderEpochResponse { topics: topics.collect(), ..OffsetForLeaderEpochResponse::default() };
    Ok(context.encode(&response))
}

fn end_of_epoch(state: &BrokerState, id: Option<PartitionId>, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let answer = EpochEndOffset { partition: asked.partition, ..EpochEndOffset::default() };
    let Some(bounds) = id.and_then(|id| state.log.bounds(id)) else {
        return EpochEndOffset { error_code: ErrorCode::UnknownTopicOrPartition.code(), ..answer };
    };
    if asked.current_leader_epoch > EPOCH {
        return EpochEndOffset { error_code: ErrorCode::UnknownLeaderEpoch.code(), ..answer };
    }
    if asked.leader_epoch == EPOCH {
        return EpochEndOffset { leader_epoch: EPOCH, end_offset: bounds.high_watermark, ..answer };
    }
    // An epoch that never was: undefined, as Kafka answers.
    answer
}
