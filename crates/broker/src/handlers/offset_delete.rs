//! OffsetDelete: an operator makes a group forget some partitions.

use std::sync::Arc;

use baton_log::Catalog;
use baton_wire::ErrorCode;
use baton_wire::messages::offset_delete_request::{OffsetDeleteRequest, OffsetDeleteRequestTopic};
use baton_wire::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use bytes::Bytes;

use crate::groups::limits::PARTITIONS_MAX;
use crate::groups::service::GroupService;
use crate::request::RequestContext;
use crate::state::BrokerState;

/// Deletes the offsets of topics that the group does not read; answers when that is durable.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = OffsetDeleteRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let catalog = state.log.catalog();
    let response = match delete(&state.groups, &catalog, &request).await {
        Ok(topics) => OffsetDeleteResponse { topics, ..OffsetDeleteResponse::default() },
        Err(error) => OffsetDeleteResponse { error_code: error.code(), ..OffsetDeleteResponse::default() },
    };
    context.encode(&response)
}

async fn delete(
    groups: &GroupService,
    catalog: &Catalog,
    request: &OffsetDeleteRequest<'_>,
) -> Result<Vec<OffsetDeleteResponseTopic>, ErrorCode> {
    if request.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>() > PARTITIONS_MAX {
        return Err(ErrorCode::InvalidRequest);
    }
    let exists = |topic: &OffsetDeleteRequestTopic<'_>, index: i32| {
        let partitions = catalog.topic(topic.name).map_or(0, |topic| topic.partitions.len());
        usize::try_from(index).is_ok_and(|index| index < partitions)
    };
    let mut known = Vec::new();
    for topic in request.topics {
        known.extend(
            topic
                .partitions
                .iter()
                .map(|asked| (topic.name, asked.partition_index))
                .filter(|(_, index)| exists(&topic, *index)),
        );
    }
    let mut answers = groups.delete_offsets(request.group_id, &known).await?.into_iter();
    let mut answer = |topic: &OffsetDeleteRequestTopic<'_>, index: i32| {
        let known = exists(topic, index).then(|| answers.next()).flatten();
        let error = known.unwrap_or(ErrorCode::UnknownTopicOrPartition);
        OffsetDeleteResponsePartition { partition_index: index, error_code: error.code() }
    };
    let topics = request.topics.iter().map(|topic| OffsetDeleteResponseTopic {
        name: topic.name.to_owned(),
        partitions: topic.partitions.iter().map(|asked| answer(&topic, asked.partition_index)).collect(),
    });
    Ok(topics.collect())
}
