//! DescribeConfigs: the settings of topics and of the broker, with where their values come from.

use std::collections::{BTreeMap, HashSet};

use baton_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use baton_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::handlers::config_changes::{BROKER, TOPIC, refused};
use crate::request::RequestContext;
use crate::settings::{BROKER_SETTINGS, Definition, TOPIC_SETTINGS, Update, find_broker_setting};
use crate::state::{BrokerState, NODE_ID};
use crate::topics::{self, TopicError};

/// Kafka's numbers for where a value comes from.
pub(crate) const SET_FOR_TOPIC: i8 = 1;
const CHANGED_FOR_BROKER: i8 = 2;
const CHANGED_FOR_ALL_BROKERS: i8 = 3;
const GIVEN_AT_START: i8 = 4;
const DEFAULT: i8 = 5;

/// What the client wants to see besides the values.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

/// Answers each resource once, with its own code. A description is far larger than its request: naming one resource many times
/// must not make many of it.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = DescribeConfigsRequest::decode_request(body, context.api_version)?;
    let wanted = Wanted { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let mut named = HashSet::new();
    let once =
        request.resources.iter().filter(|resource| named.insert((resource.resource_type, resource.resource_name)));
    let results = once.map(|resource| result(state, &resource, wanted)).collect();
    Ok(context.encode(&DescribeConfigsResponse { results, ..DescribeConfigsResponse::default() }))
}

fn result(state: &BrokerState, resource: &DescribeConfigsResource<'_>, wanted: Wanted) -> DescribeConfigsResult {
    let described = match resource.resource_type {
        TOPIC => describe_topic(state, resource, wanted),
        BROKER => describe_broker(state, resource, wanted),
        other => Err(refused(format!("Unsupported resource type: {other}"))),
    };
    let result = DescribeConfigsResult {
        resource_type: resource.resource_type,
        resource_name: resource.resource_name.to_owned(),
        ..DescribeConfigsResult::default()
    };
    match described {
        Ok(configs) => DescribeConfigsResult { configs, ..result },
        Err(error) => {
            DescribeConfigsResult { error_code: error.code.code(), error_message: Some(error.message), ..result }
        }
    }
}

/// Whether the client asks for this setting: it names those it wants, or none for all.
fn is_asked(resource: &DescribeConfigsResource<'_>, name: &str) -> bool {
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    keys.is_none_or(|keys| keys.iter().any(|key| key == name))
}

fn describe_topic(
    state: &BrokerState,
    resource: &DescribeConfigsResource<'_>,
    wanted: Wanted,
) -> Result<Vec<DescribeConfigsResourceResult>, TopicError> {
    topics::check_name(resource.resource_name)?;
    let catalog = state.log.catalog();
    let unknown =
        || TopicError::new(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.");
    let topic = catalog.topic(resource.resource_name).ok_or_else(unknown)?;
    let asked = TOPIC_SETTINGS.iter().filter(|definition| is_asked(resource, definition.name));
    Ok(asked
        .map(|definition| entry(definition, topic_values(state, &topic.configs, definition), false, wanted))
        .collect())
}

fn describe_broker(
    state: &BrokerState,
    resource: &DescribeConfigsResource<'_>,
    wanted: Wanted,
) -> Result<Vec<DescribeConfigsResourceResult>, TopicError> {
    let asked = BROKER_SETTINGS.iter().filter(|definition| is_asked(resource, definition.name));
    if resource.resource_name.is_empty() {
        let changed = state.settings.changed();
        let described = asked.filter_map(|definition| {
            let value = changed.get(definition.name)?;
            let values = vec![value_from(definition, value, CHANGED_FOR_ALL_BROKERS)];
            Some(entry(definition, values, false, wanted))
        });
        return Ok(described.collect());
    }
    match resource.resource_name.parse::<i32>() {
        // Only written like this: see `handle`.
        Ok(NODE_ID) if resource.resource_name.len() == 1 => {}
        Ok(_) => {
            return Err(refused(format!(
                "Unexpected broker id, expected {NODE_ID} or empty string, but received {}",
                resource.resource_name
            )));
        }
        Err(_) => {
            return Err(refused(format!("Broker id must be an integer, but it is: {}", resource.resource_name)));
        }
    }
    let described = asked.map(|definition| {
        let is_read_only = definition.update == Update::Restart;
        entry(definition, broker_values(state, definition), is_read_only, wanted)
    });
    Ok(described.collect())
}

fn value_from(definition: &Definition, value: &str, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym { name: definition.name.to_owned(), value: Some(value.to_owned()), source }
}

/// All values that a setting of the broker has somewhere; the first counts.
fn broker_values(state: &BrokerState, definition: &'static Definition) -> Vec<DescribeConfigsSynonym> {
    let changed = state.settings.changed();
    let changed = changed.get(definition.name).map(|value| value_from(definition, value, CHANGED_FOR_BROKER));
    let given = state.settings.given(definition).map(|value| value_from(definition, value, GIVEN_AT_START));
    let default = value_from(definition, definition.default, DEFAULT);
    changed.into_iter().chain(given).chain([default]).collect()
}

/// The same for a setting of a topic: its own value, and those of the broker's setting behind it.
pub(crate) fn topic_values(
    state: &BrokerState,
    configs: &BTreeMap<String, String>,
    definition: &'static Definition,
) -> Vec<DescribeConfigsSynonym> {
    let own = configs.get(definition.name).map(|value| value_from(definition, value, SET_FOR_TOPIC));
    let broker = match definition.synonym.map(find_broker_setting) {
        Some(Ok(synonym)) => broker_values(state, synonym),
        _ => vec![value_from(definition, definition.default, DEFAULT)],
    };
    own.into_iter().chain(broker).collect()
}

fn entry(
    definition: &Definition,
    values: Vec<DescribeConfigsSynonym>,
    read_only: bool,
    wanted: Wanted,
) -> DescribeConfigsResourceResult {
    let first = values.first();
    DescribeConfigsResourceResult {
        name: definition.name.to_owned(),
        value: first.and_then(|value| value.value.clone()),
        read_only,
        config_source: first.map_or(DEFAULT, |value| value.source),
        is_sensitive: false,
        synonyms: if wanted.synonyms { values } else { Vec::new() },
        config_type: definition.kind.type_number(),
        documentation: wanted.documentation.then(|| definition.document.trim().to_owned()),
    }
}
