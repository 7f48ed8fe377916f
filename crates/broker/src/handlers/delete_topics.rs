//! DeleteTopics: by name or by id; answered when the deletion is durable.

use std::collections::HashMap;
use std::sync::Arc;

use baton_log::Ticket;
use baton_wire::ErrorCode;
use baton_wire::messages::delete_topics_request::DeleteTopicsRequest;
use baton_wire::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use bytes::Bytes;

use crate::handlers::within;
use crate::request::RequestContext;
use crate::state::BrokerState;
use crate::topics::{self, TopicError};

/// Clients know the code "topic deletion disabled" from this version on.
const DELETION_DISABLED_FROM_VERSION: i16 = 3;
/// "No id".
const NO_ID: [u8; 16] = [0; 16];

/// What a topic to delete is named by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Named {
    name: Option<String>,
    id: [u8; 16],
}

/// Answers each topic with its own code; the others are deleted all the same, with one commit.
pub(crate) async fn handle(state: Arc<BrokerState>, context: RequestContext, body: Bytes) -> Vec<Bytes> {
    let Ok(request) = DeleteTopicsRequest::decode_request(&body, context.api_version) else { return Vec::new() };
    let timeout_ms = request.timeout_ms;
    let wanted = wanted(&request);
    let asked: Vec<Named> = wanted.iter().map(|(named, _)| named.clone()).collect();
    drop(body);
    if !state.settings.values().delete_topics {
        return context.encode(&refuse_all(asked, context.api_version));
    }
    let deleted = within(timeout_ms, topics::change_catalog(&state, move |state| delete(state, wanted)));
    let responses = match deleted.await {
        Ok(responses) => responses,
        Err(error) => asked.into_iter().map(|named| failed(named, error.clone())).collect(),
    };
    state.groups.topics_deleted();
    context.encode(&DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() })
}

fn refuse_all(asked: Vec<Named>, version: i16) -> DeleteTopicsResponse {
    let code = match version {
        DELETION_DISABLED_FROM_VERSION.. => ErrorCode::TopicDeletionDisabled,
        _ => ErrorCode::InvalidRequest,
    };
    let error = TopicError::new(code, "Topic deletion is disabled.");
    let responses = asked.into_iter().map(|named| failed(named, error.clone())).collect();
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

/// One entry for each topic that is named, and what is wrong with the way it is named.
fn wanted(request: &DeleteTopicsRequest<'_>) -> Vec<(Named, Result<(), TopicError>)> {
    let by_name = request.topic_names.iter().map(|name| Named { name: Some(name.to_owned()), id: NO_ID });
    let by_either =
        request.topics.iter().map(|topic| Named { name: topic.name.map(str::to_owned), id: topic.topic_id });
    let mut counts = HashMap::new();
    let mut order = Vec::new();
    for named in by_name.chain(by_either) {
        let count = counts.entry(named.clone()).or_insert(0_usize);
        *count += 1;
        if *count == 1 {
            order.push(named);
        }
    }
    let refused = |message: &str| Err(TopicError::new(ErrorCode::InvalidRequest, message));
    let checked = order.into_iter().map(|named| {
        let twice = counts.get(&named).is_some_and(|count| *count > 1);
        let check = match (&named.name, named.id) {
            (None, NO_ID) => refused("Neither topic name nor id were specified."),
            (Some(_), NO_ID) if twice => refused("Duplicate topic name."),
            (None, _) if twice => refused("Duplicate topic id."),
            (Some(_), NO_ID) | (None, _) => Ok(()),
            (Some(_), _) => refused("You may not specify both topic name and topic id."),
        };
        (named, check)
    });
    checked.collect()
}

fn delete(
    state: &BrokerState,
    wanted: Vec<(Named, Result<(), TopicError>)>,
) -> (Vec<DeletableTopicResult>, Option<Ticket>) {
    let catalog = state.log.catalog();
    let mut last = None;
    let mut deleted = std::collections::HashSet::new();
    let mut delete = |named: &Named| {
        let found = match &named.name {
            Some(name) => catalog.topic(name),
            None => catalog.topic_by_id(&named.id),
        };
        // Named by its name and by its id: the second finds it gone.
        let topic = found.filter(|topic| deleted.insert(topic.id)).ok_or_else(|| match named.name {
            Some(_) => {
                TopicError::new(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.")
            }
            None => TopicError::new(ErrorCode::UnknownTopicId, "This server does not host this topic ID."),
        })?;
        last = Some(state.log.delete_topic(&topic.name)?);
        tracing::info!(topic = &*topic.name, "topic deleted");
        Ok(topic.clone())
    };
    let results = wanted.into_iter().map(|(named, check)| match check.and_then(|()| delete(&named)) {
        Ok(topic) => DeletableTopicResult {
            name: Some(topic.name.to_string()),
            topic_id: topic.id,
            ..DeletableTopicResult::default()
        },
        Err(error) => failed(named, error),
    });
    let results = results.collect();
    (results, last)
}

fn failed(named: Named, error: TopicError) -> DeletableTopicResult {
    DeletableTopicResult {
        name: named.name,
        topic_id: named.id,
        error_code: error.code.code(),
        error_message: Some(error.message),
    }
}
