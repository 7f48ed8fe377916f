//! CreateTopics: checks every topic as Kafka does, creates those that pass, and answers when they are durable.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use baton_log::Ticket;
use baton_wire::ErrorCode;
use baton_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use baton_wire::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse};
use bytes::Bytes;

use crate::handlers::{describe_configs, within};
use crate::request::RequestContext;
use crate::settings::{TOPIC_SETTINGS, check_topic_configs};
use crate::state::{BrokerState, NODE_ID};
use crate::topics::{self, Creations, TopicError};

/// Kafka's way to say "as the broker is set".
const DEFAULT: i32 = -1;

/// Answers tell the new topic's settings from this version on.
const SETTINGS_FROM_VERSION: i16 = 5;

/// A topic as it is asked for, checked as far as that goes without the catalog.
struct Wanted {
    name: String,
    /// Number of partitions and settings.
    creation: Result<(u32, BTreeMap<String, String>), TopicError>,
}

/// Answers each topic with its own code; the others are created all the same, with one commit.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = CreateTopicsRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let (timeout_ms, validate_only) = (request.timeout_ms, request.validate_only);
    let wanted = wanted(&state, &request);
    let names: Vec<String> = wanted.iter().map(|wanted| wanted.name.clone()).collect();
    drop(body);
    let settings = if context.api_version >= SETTINGS_FROM_VERSION { defaults(&state) } else { Vec::new() };
    let create = move |state: &BrokerState| create(state, wanted, &settings, validate_only);
    let created = within(timeout_ms, topics::change_catalog(&state, create));
    let topics = match created.await {
        Ok(topics) => topics,
        Err(error) => names.into_iter().map(|name| failed(name, error.clone())).collect(),
    };
    context.encode(&CreateTopicsResponse { topics, ..CreateTopicsResponse::default() })
}

/// One entry for each name; what is named twice is refused once, as Kafka does.
fn wanted(state: &BrokerState, request: &CreateTopicsRequest<'_>) -> Vec<Wanted> {
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for topic in &request.topics {
        if !seen.insert(topic.name) {
            twice.insert(topic.name);
        }
    }
    let asked = request.topics.iter().filter(|topic| seen.remove(topic.name)).map(|topic| {
        let creation = if twice.contains(topic.name) {
            Err(TopicError::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            topics::check_name(topic.name).and_then(|()| Ok((partitions(state, &topic)?, configs(&topic)?)))
        };
        Wanted { name: topic.name.to_owned(), creation }
    });
    asked.collect()
}

/// How many partitions are asked for; the words of the refusals are Kafka's.
fn partitions(state: &BrokerState, topic: &CreatableTopic<'_>) -> Result<u32, TopicError> {
    if !topic.assignments.is_empty() {
        return assigned(topic);
    }
    match topic.replication_factor {
        -1 | 1 => {}
        2.. => {
            let message = format!(
                "Unable to replicate the partition {} time(s): The target replication factor of {} cannot be reached \
                 because only 1 broker(s) are registered.",
                topic.replication_factor, topic.replication_factor
            );
            return Err(TopicError::new(ErrorCode::InvalidReplicationFactor, message));
        }
        _ => {
            let message = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(TopicError::new(ErrorCode::InvalidReplicationFactor, message));
        }
    }
    match u32::try_from(topic.num_partitions) {
        Ok(count @ 1..) => Ok(count),
        _ if topic.num_partitions == DEFAULT => Ok(state.settings.values().partitions_default),
        _ => {
            let message = "Number of partitions was set to an invalid non-positive value.";
            Err(TopicError::new(ErrorCode::InvalidPartitions, message))
        }
    }
}

/// Partitions placed by hand: all on the one node there is.
fn assigned(topic: &CreatableTopic<'_>) -> Result<u32, TopicError> {
    let refused = |code, message: String| Err(TopicError::new(code, message));
    if i32::from(topic.replication_factor) != DEFAULT {
        let message = "A manual partition assignment was specified, but replication factor was not set to -1.";
        return refused(ErrorCode::InvalidRequest, message.to_owned());
    }
    if topic.num_partitions != DEFAULT {
        let message = "A manual partition assignment was specified, but numPartitions was not set to -1.";
        return refused(ErrorCode::InvalidRequest, message.to_owned());
    }
    let mut indexes = HashSet::new();
    for assignment in &topic.assignments {
        if !indexes.insert(assignment.partition_index) {
            let index = assignment.partition_index;
            let message = format!("Found multiple manual partition assignments for partition {index}");
            return refused(ErrorCode::InvalidReplicaAssignment, message);
        }
        check_assignment(assignment.broker_ids.iter())?;
    }
    let count = indexes.len();
    if !indexes.iter().all(|index| usize::try_from(*index).is_ok_and(|index| index < count)) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return refused(ErrorCode::InvalidReplicaAssignment, message.to_owned());
    }
    // An array's length is an i32.
    Ok(count as u32)
}

/// Whether a partition may be placed on these nodes.
pub(crate) fn check_assignment(nodes: impl Iterator<Item = i32>) -> Result<(), TopicError> {
    let refused = |message: String| Err(TopicError::new(ErrorCode::InvalidReplicaAssignment, message));
    let mut count = 0;
    for node in nodes {
        if node != NODE_ID {
            return refused(format!(
                "The manual partition assignment includes broker {node}, but no such broker is registered."
            ));
        }
        count += 1;
    }
    match count {
        0 => refused("The manual partition assignment includes an empty replica list.".to_owned()),
        1 => Ok(()),
        _ => refused(format!("The manual partition assignment includes the broker {NODE_ID} more than once.")),
    }
}

fn configs(topic: &CreatableTopic<'_>) -> Result<BTreeMap<String, String>, TopicError> {
    check_topic_configs(topic.configs.iter().map(|config| (config.name, config.value)))
        .map_err(|error| TopicError::new(ErrorCode::InvalidConfig, error.to_string()))
}

/// The settings of a topic for which nothing is set.
fn defaults(state: &BrokerState) -> Vec<CreatableTopicConfigs> {
    let none = BTreeMap::new();
    let values = TOPIC_SETTINGS.iter().filter_map(|definition| {
        let first = describe_configs::topic_values(state, &none, definition).into_iter().next()?;
        Some(CreatableTopicConfigs {
            name: definition.name.to_owned(),
            value: first.value,
            config_source: first.source,
            ..CreatableTopicConfigs::default()
        })
    });
    values.collect()
}

/// The same for a topic with settings of its own.
fn described(defaults: &[CreatableTopicConfigs], configs: &BTreeMap<String, String>) -> Vec<CreatableTopicConfigs> {
    let described = defaults.iter().map(|default| match configs.get(&default.name) {
        None => default.clone(),
        Some(value) => CreatableTopicConfigs {
            value: Some(value.clone()),
            config_source: describe_configs::SET_FOR_TOPIC,
            ..default.clone()
        },
    });
    described.collect()
}

/// Creates what can be; all of it under one ticket.
fn create(
    state: &BrokerState,
    wanted: Vec<Wanted>,
    settings: &[CreatableTopicConfigs],
    validate_only: bool,
) -> (Vec<CreatableTopicResult>, Option<Ticket>) {
    let mut creations = Creations::new(state);
    let mut results = Vec::with_capacity(wanted.len());
    for Wanted { name, creation } in wanted {
        let created = creation.and_then(|(partitions, configs)| {
            creations.check(&name, partitions)?;
            let settings = described(settings, &configs);
            let id = if validate_only { [0; 16] } else { creations.create(&name, partitions, configs)? };
            Ok((id, partitions, settings))
        });
        results.push(match created {
            Ok((topic_id, partitions, settings)) => CreatableTopicResult {
                name,
                topic_id,
                // Not more than what the settings allow, which is far less.
                num_partitions: partitions as i32,
                replication_factor: 1,
                configs: Some(settings),
                ..CreatableTopicResult::default()
            },
            Err(error) => failed(name, error),
        });
    }
    (results, creations.ticket())
}

fn failed(name: String, error: TopicError) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: error.code.code(),
        error_message: Some(error.message),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    }
}
