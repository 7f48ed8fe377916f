//! OffsetCommit: how far a group has come, as durable as the records themselves.

use std::collections::HashMap;
use std::sync::Arc;

use baton_log::{Catalog, Topic};
use baton_wire::ErrorCode;
use baton_wire::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestTopic};
use baton_wire::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use bytes::Bytes;

use crate::groups::core::Identity;
use crate::groups::limits::{NAME_BYTES_MAX, PARTITIONS_MAX};
use crate::groups::service::{CommitOffset, GroupService};
use crate::request::RequestContext;
use crate::state::BrokerState;

/// From this version on topics are named by their ids.
const TOPIC_ID_FROM_VERSION: i16 = 10;
/// What a client sends that leaves the retention to the broker.
const DEFAULT_RETENTION_MS: i64 = -1;

/// Commits what may be committed; answers each partition when that is durable.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = OffsetCommitRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let catalog = state.log.catalog();
    context.encode(&commit(&state.groups, &catalog, context.api_version, &request).await)
}

async fn commit(
    groups: &GroupService,
    catalog: &Catalog,
    version: i16,
    request: &OffsetCommitRequest<'_>,
) -> OffsetCommitResponse {
    let uses_ids = version >= TOPIC_ID_FROM_VERSION;
    let topics: Vec<_> = request.topics.iter().map(|asked| (asked, find(catalog, &asked, uses_ids))).collect();
    let known = topics.iter().filter_map(|(asked, topic)| Some((asked, topic.as_ref()?)));
    let offsets: Vec<CommitOffset<'_>> =
        known.flat_map(|(asked, topic)| offsets_of(asked, topic)).take(PARTITIONS_MAX + 1).collect();
    let answers = answers(groups, version, request, &offsets).await;
    let answered: HashMap<(&str, i32), ErrorCode> =
        offsets.iter().zip(answers).map(|(offset, error)| ((offset.topic, offset.partition), error)).collect();

    let unknown = if uses_ids { ErrorCode::UnknownTopicId } else { ErrorCode::UnknownTopicOrPartition };
    let answer = |(asked, topic): &(OffsetCommitRequestTopic<'_>, Option<Arc<Topic>>)| {
        let error = |partition: i32| match topic {
            None => unknown,
            Some(topic) => {
                answered.get(&(&*topic.name, partition)).copied().unwrap_or(ErrorCode::UnknownTopicOrPartition)
            }
        };
        let partition = |partition_index: i32| OffsetCommitResponsePartition {
            partition_index,
            error_code: error(partition_index).code(),
        };
        OffsetCommitResponseTopic {
            name: asked.name.to_owned(),
            topic_id: asked.topic_id,
            partitions: asked.partitions.iter().map(|asked| partition(asked.partition_index)).collect(),
        }
    };
    OffsetCommitResponse { topics: topics.iter().map(answer).collect(), ..OffsetCommitResponse::default() }
}

fn find(catalog: &Catalog, asked: &OffsetCommitRequestTopic<'_>, uses_ids: bool) -> Option<Arc<Topic>> {
    if uses_ids { catalog.topic_by_id(&asked.topic_id) } else { catalog.topic(asked.name) }.cloned()
}

/// What can be committed: the partitions that exist.
fn offsets_of<'a>(
    asked: &OffsetCommitRequestTopic<'a>,
    topic: &'a Arc<Topic>,
) -> impl Iterator<Item = CommitOffset<'a>> + use<'a> {
    let exists = |index: i32| usize::try_from(index).is_ok_and(|index| index < topic.partitions.len());
    let partitions = asked.partitions.into_iter().filter(move |partition| exists(partition.partition_index));
    partitions.map(|partition| CommitOffset {
        topic: &topic.name,
        topic_id: topic.id,
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata,
    })
}

async fn answers(
    groups: &GroupService,
    version: i16,
    request: &OffsetCommitRequest<'_>,
    offsets: &[CommitOffset<'_>],
) -> Vec<ErrorCode> {
    // As in Kafka, the group is not asked about topics that do not exist.
    if offsets.is_empty() {
        return Vec::new();
    }
    if request.group_id.len() > NAME_BYTES_MAX {
        return vec![ErrorCode::InvalidGroupId; offsets.len()];
    }
    if offsets.len() > PARTITIONS_MAX {
        return vec![ErrorCode::InvalidCommitOffsetSize; offsets.len()];
    }
    let identity = Identity {
        group_id: request.group_id,
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        generation: request.generation_id_or_member_epoch,
    };
    let retention_ms = Some(request.retention_time_ms).filter(|retention_ms| *retention_ms != DEFAULT_RETENTION_MS);
    match groups.commit(&identity, version, retention_ms, offsets).await {
        Ok(answers) => answers,
        Err(error) => vec![error; offsets.len()],
    }
}
