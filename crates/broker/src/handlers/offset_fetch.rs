//! OffsetFetch: where groups have come to.

use std::collections::HashSet;

use baton_log::Catalog;
use baton_wire::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestGroup};
use baton_wire::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::groups::limits::{GROUPS_MAX, PARTITIONS_MAX};
use crate::groups::service::{FetchedOffset, GroupService};
use crate::request::RequestContext;
use crate::state::BrokerState;

/// From this version on a request asks for several groups.
const SEVERAL_GROUPS_FROM_VERSION: i16 = 8;
/// From this version on topics are named by their ids.
const TOPIC_ID_FROM_VERSION: i16 = 10;
/// In the place of an offset, where none is committed.
const NO_OFFSET: i64 = -1;

/// Answers what is durable. There are no transactions, so that every committed offset is stable.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = OffsetFetchRequest::decode_request(body, context.api_version)?;
    let catalog = state.log.catalog();
    let response = if context.api_version >= SEVERAL_GROUPS_FROM_VERSION {
        several_groups(&state.groups, &catalog, context.api_version, &request)
    } else {
        one_group(&state.groups, &request)
    };
    Ok(context.encode(&response))
}

fn one_group(groups: &GroupService, request: &OffsetFetchRequest<'_>) -> OffsetFetchResponse {
    let topic = |name: &str, offsets: Vec<(i32, Option<FetchedOffset>)>| OffsetFetchResponseTopic {
        name: name.to_owned(),
        partitions: offsets
            .into_iter()
            .map(|(index, offset)| to_older(partition(index, offset, ErrorCode::None)))
            .collect(),
    };
    let asked = request.topics.iter().flatten().map(|topic| topic.partition_indexes.len()).sum::<usize>();
    if asked > PARTITIONS_MAX {
        return OffsetFetchResponse { error_code: ErrorCode::InvalidRequest.code(), ..OffsetFetchResponse::default() };
    }
    let topics = match &request.topics {
        Some(topics) => topics
            .iter()
            .map(|asked| {
                let offsets = groups.fetch(request.group_id, asked.name, asked.partition_indexes.iter());
                topic(asked.name, asked.partition_indexes.iter().zip(offsets).collect())
            })
            .collect(),
        None => all_of(groups, request.group_id).into_iter().map(|found| topic(&found.name, found.offsets)).collect(),
    };
    OffsetFetchResponse { topics, ..OffsetFetchResponse::default() }
}

fn several_groups(
    groups: &GroupService,
    catalog: &Catalog,
    version: i16,
    request: &OffsetFetchRequest<'_>,
) -> OffsetFetchResponse {
    let asked_in = |group: &OffsetFetchRequestGroup<'_>| -> usize {
        group.topics.iter().flatten().map(|topic| topic.partition_indexes.len()).sum()
    };
    let is_too_long = request.groups.len() > GROUPS_MAX
        || request.groups.iter().map(|group| asked_in(&group)).sum::<usize>() > PARTITIONS_MAX;
    let mut seen = HashSet::new();
    let answer = |asked: OffsetFetchRequestGroup<'_>| {
        // Asking twice would make the answer larger than anything the question brought.
        if is_too_long || !seen.insert(asked.group_id.to_owned()) {
            let error_code = ErrorCode::InvalidRequest.code();
            return OffsetFetchResponseGroup { group_id: asked.group_id.to_owned(), error_code, topics: Vec::new() };
        }
        group(groups, catalog, version, &asked)
    };
    let answered = request.groups.iter().take(GROUPS_MAX).map(answer).collect();
    OffsetFetchResponse { groups: answered, ..OffsetFetchResponse::default() }
}

fn group(
    groups: &GroupService,
    catalog: &Catalog,
    version: i16,
    asked: &OffsetFetchRequestGroup<'_>,
) -> OffsetFetchResponseGroup {
    let Some(topics) = &asked.topics else {
        let topics = all_of(groups, asked.group_id).into_iter().map(|found| OffsetFetchResponseTopics {
            name: found.name,
            topic_id: found.topic_id,
            partitions: found
                .offsets
                .into_iter()
                .map(|(index, offset)| partition(index, offset, ErrorCode::None))
                .collect(),
        });
        return OffsetFetchResponseGroup {
            group_id: asked.group_id.to_owned(),
            topics: topics.collect(),
            error_code: 0,
        };
    };
    let uses_ids = version >= TOPIC_ID_FROM_VERSION;
    let topics = topics.iter().map(|topic| {
        let name =
            if uses_ids { catalog.topic_by_id(&topic.topic_id).map(|topic| &*topic.name) } else { Some(topic.name) };
        let partitions = match name {
            Some(name) => {
                let offsets = groups.fetch(asked.group_id, name, topic.partition_indexes.iter());
                let found = topic.partition_indexes.iter().zip(offsets);
                found.map(|(index, offset)| partition(index, offset, ErrorCode::None)).collect()
            }
            None => {
                topic.partition_indexes.iter().map(|index| partition(index, None, ErrorCode::UnknownTopicId)).collect()
            }
        };
        OffsetFetchResponseTopics { name: topic.name.to_owned(), topic_id: topic.topic_id, partitions }
    });
    OffsetFetchResponseGroup { group_id: asked.group_id.to_owned(), topics: topics.collect(), error_code: 0 }
}

/// A topic of which a group has offsets.
struct Found {
    name: String,
    topic_id: [u8; 16],
    offsets: Vec<(i32, Option<FetchedOffset>)>,
}

fn all_of(groups: &GroupService, group_id: &str) -> Vec<Found> {
    let found = groups.fetch_all(group_id).into_iter().map(|topic| Found {
        name: topic.topic,
        topic_id: topic.topic_id,
        offsets: topic.offsets.into_iter().map(|offset| (offset.partition, Some(offset))).collect(),
    });
    found.collect()
}

fn partition(index: i32, offset: Option<FetchedOffset>, error: ErrorCode) -> OffsetFetchResponsePartitions {
    let (committed_offset, committed_leader_epoch, metadata) = match offset {
        Some(offset) => (offset.offset, offset.leader_epoch, offset.metadata.to_string()),
        None => (NO_OFFSET, -1, String::new()),
    };
    OffsetFetchResponsePartitions {
        partition_index: index,
        committed_offset,
        committed_leader_epoch,
        metadata: Some(metadata),
        error_code: error.code(),
    }
}

/// The same as versions before several groups have it.
fn to_older(partition: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    }
}
