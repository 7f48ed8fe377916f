//! Metadata: the node, the topics, their partitions. Creates topics that are asked for, where that is allowed.

use std::collections::HashSet;
use std::sync::Arc;

use baton_log::{Catalog, Topic};
use baton_wire::ErrorCode;
use baton_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use baton_wire::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use bytes::Bytes;

use crate::request::RequestContext;
use crate::state::{BrokerState, NODE_ID};
use crate::topics;

/// Kafka's way to say that authorised operations were not asked for.
const NOT_ASKED: i32 = i32::MIN;
/// An empty list of topics means "none" from this version on, "all" before.
const NULL_MEANS_ALL_FROM_VERSION: i16 = 1;
/// Clients say whether topics may be created from this version on; before, they may.
const CREATION_ASKED_FROM_VERSION: i16 = 4;

/// Answers with what is durable; a topic is created first where the client wants it and the settings allow it.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = MetadataRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let all = match &request.topics {
        None => true,
        Some(topics) => topics.is_empty() && context.api_version < NULL_MEANS_ALL_FROM_VERSION,
    };
    let may_create = (request.allow_auto_topic_creation || context.api_version < CREATION_ASKED_FROM_VERSION)
        && state.settings.values().auto_create_topics;
    let topics = if all {
        state.log.catalog().topics().map(|topic| known(topic)).collect()
    } else {
        let topics = answer_asked(&state, &request, may_create);
        create_missing(&state, topics).await
    };
    let (host, port) = state.advertised.clone();
    context.encode(&MetadataResponse {
        brokers: vec![MetadataResponseBroker { node_id: NODE_ID, host, port: i32::from(port), rack: None }],
        cluster_id: Some(state.log.cluster_id().to_owned()),
        controller_id: NODE_ID,
        topics,
        cluster_authorized_operations: NOT_ASKED,
        ..MetadataResponse::default()
    })
}

/// A topic's answer, or the name of one that is to be created first.
enum Asked {
    Answered(MetadataResponseTopic),
    ToCreate(String),
}

fn answer_asked(state: &BrokerState, request: &MetadataRequest<'_>, may_create: bool) -> Vec<Asked> {
    let catalog = state.log.catalog();
    // The Java client sends an empty name with an id.
    let answer = |asked: MetadataRequestTopic<'_>| match asked.name.filter(|_| asked.topic_id == [0; 16]) {
        None => Asked::Answered(by_id(&catalog, asked.topic_id)),
        Some(name) => match (catalog.topic(name), topics::check_name(name)) {
            (Some(topic), _) => Asked::Answered(known(topic)),
            (None, Err(error)) => Asked::Answered(unknown(Some(name), [0; 16], error.code)),
            (None, Ok(())) if may_create => Asked::ToCreate(name.to_owned()),
            (None, Ok(())) => Asked::Answered(unknown(Some(name), [0; 16], ErrorCode::UnknownTopicOrPartition)),
        },
    };
    // Once each, as in Kafka: a topic's answer may be large, its question is small.
    let mut seen = HashSet::new();
    let asked = request.topics.iter().flatten().filter(|asked| seen.insert((asked.name, asked.topic_id)));
    asked.map(answer).collect()
}

async fn create_missing(state: &Arc<BrokerState>, asked: Vec<Asked>) -> Vec<MetadataResponseTopic> {
    let mut topics = Vec::with_capacity(asked.len());
    for asked in asked {
        topics.push(match asked {
            Asked::Answered(topic) => topic,
            Asked::ToCreate(name) => match topics::create_with_defaults(state, &name).await {
                Ok(()) => match state.log.catalog().topic(&name) {
                    Some(topic) => known(topic),
                    None => unknown(Some(&name), [0; 16], ErrorCode::UnknownTopicOrPartition),
                },
                Err(error) => unknown(Some(&name), [0; 16], error.code),
            },
        });
    }
    topics
}

fn by_id(catalog: &Catalog, id: [u8; 16]) -> MetadataResponseTopic {
    catalog.topic_by_id(&id).map_or_else(|| unknown(None, id, ErrorCode::UnknownTopicId), |topic| known(topic))
}

fn unknown(name: Option<&str>, topic_id: [u8; 16], code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: code.code(),
        name: Some(name.unwrap_or_default().to_owned()),
        topic_id,
        topic_authorized_operations: NOT_ASKED,
        ..MetadataResponseTopic::default()
    }
}

fn known(topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.partitions.len() as i32).map(|partition_index| MetadataResponsePartition {
        partition_index,
        leader_id: NODE_ID,
        leader_epoch: 0,
        replica_nodes: vec![NODE_ID],
        isr_nodes: vec![NODE_ID],
        ..MetadataResponsePartition::default()
    });
    MetadataResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        partitions: partitions.collect(),
        topic_authorized_operations: NOT_ASKED,
        ..MetadataResponseTopic::default()
    }
}
