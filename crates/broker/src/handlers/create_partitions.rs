//! CreatePartitions: gives topics more partitions; answered when they are durable.

use std::collections::HashMap;
use std::sync::Arc;

use baton_log::{Catalog, Ticket};
use baton_wire::ErrorCode;
use baton_wire::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use baton_wire::messages::create_partitions_response::{CreatePartitionsResponse, CreatePartitionsTopicResult};
use bytes::Bytes;

use crate::handlers::create_topics::check_assignment;
use crate::handlers::within;
use crate::request::RequestContext;
use crate::state::BrokerState;
use crate::topics::{self, Room, TopicError};

/// What is asked for one topic.
struct Wanted {
    name: String,
    count: i32,
    /// Number of placements by hand, or what is wrong with the request.
    assignments: Result<Option<usize>, TopicError>,
}

/// Answers each topic with its own code; the others get their partitions all the same, with one commit.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = CreatePartitionsRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let (timeout_ms, validate_only) = (request.timeout_ms, request.validate_only);
    let wanted = wanted(&request);
    let names: Vec<String> = wanted.iter().map(|wanted| wanted.name.clone()).collect();
    drop(body);
    let added = within(timeout_ms, topics::change_catalog(&state, move |state| add(state, wanted, validate_only)));
    let results = match added.await {
        Ok(results) => results,
        Err(error) => names.into_iter().map(|name| result(name, Err(error.clone()))).collect(),
    };
    context.encode(&CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() })
}

fn wanted(request: &CreatePartitionsRequest<'_>) -> Vec<Wanted> {
    let mut counts = HashMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name).or_insert(0_usize) += 1;
    }
    let once = request.topics.iter().filter_map(|topic| Some((topic, counts.remove(topic.name)?)));
    let wanted = once.map(|(topic, count)| {
        let assignments = match count {
            1 => assignments(&topic),
            _ => Err(TopicError::new(ErrorCode::InvalidRequest, "Duplicate topic name.")),
        };
        Wanted { name: topic.name.to_owned(), count: topic.count, assignments }
    });
    wanted.collect()
}

fn assignments(topic: &CreatePartitionsTopic<'_>) -> Result<Option<usize>, TopicError> {
    let Some(assignments) = &topic.assignments else { return Ok(None) };
    for assignment in assignments {
        check_assignment(assignment.broker_ids.iter())?;
    }
    Ok(Some(assignments.len()))
}

fn add(
    state: &BrokerState,
    wanted: Vec<Wanted>,
    validate_only: bool,
) -> (Vec<CreatePartitionsTopicResult>, Option<Ticket>) {
    let catalog = state.log.catalog();
    let mut room = Room::new(state, &catalog);
    let mut last = None;
    let results = wanted.into_iter().map(|Wanted { name, count, assignments }| {
        let added = assignments.and_then(|assignments| {
            let more = more(&catalog, &name, count, assignments)?;
            room.take(0, more)?;
            if !validate_only {
                // Larger than a number that is not negative.
                last = Some(state.log.add_partitions(&name, count as u32)?);
                tracing::info!(topic = name, partitions = count, "partitions added");
            }
            Ok(())
        });
        result(name, added)
    });
    let results = results.collect();
    (results, last)
}

/// How many partitions are to be added; the words of the refusals are Kafka's.
fn more(catalog: &Catalog, name: &str, count: i32, assignments: Option<usize>) -> Result<u32, TopicError> {
    let unknown =
        || TopicError::new(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.");
    let there = catalog.topic(name).ok_or_else(unknown)?.partitions.len();
    let wanted = usize::try_from(count).unwrap_or(0);
    let refused = |code, message: String| Err(TopicError::new(code, message));
    if wanted == there {
        return refused(ErrorCode::InvalidPartitions, format!("Topic already has {there} partition(s)."));
    }
    if wanted < there {
        return refused(
            ErrorCode::InvalidPartitions,
            format!("The topic {name} currently has {there} partition(s); {count} would not be an increase."),
        );
    }
    let more = wanted - there;
    match assignments {
        Some(placed) if placed != more => refused(
            ErrorCode::InvalidReplicaAssignment,
            format!("Attempted to add {more} additional partition(s), but only {placed} assignment(s) were specified."),
        ),
        // Not more than `count`.
        _ => Ok(more as u32),
    }
}

fn result(name: String, added: Result<(), TopicError>) -> CreatePartitionsTopicResult {
    let error = added.err();
    CreatePartitionsTopicResult {
        name,
        error_code: error.as_ref().map_or(ErrorCode::None, |error| error.code).code(),
        error_message: error.map(|error| error.message),
    }
}
