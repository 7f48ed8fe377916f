//! DescribeLogDirs: the one data directory, and how many bytes of it each partition's records are.

use std::collections::HashSet;

use baton_log::Topic;
use baton_wire::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use baton_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use baton_wire::{DecodeError, ErrorCode};
use bytes::Bytes;

use crate::request::RequestContext;
use crate::state::BrokerState;

/// Partitions that do not exist are left out, as Kafka does.
pub(crate) fn handle(state: &BrokerState, context: &RequestContext, body: &[u8]) -> Result<Vec<Bytes>, DecodeError> {
    let request = DescribeLogDirsRequest::decode_request(body, context.api_version)?;
    let catalog = state.log.catalog();
    let topics = match &request.topics {
        None => catalog.topics().map(|topic| describe(state, topic, 0..topic.partitions.len())).collect(),
        Some(asked) => {
            let mut seen = HashSet::new();
            let topics = asked.iter().filter(|asked| seen.insert(asked.topic)).filter_map(|asked| {
                let topic = catalog.topic(asked.topic)?;
                let indexes: HashSet<usize> =
                    asked.partitions.iter().filter_map(|index| usize::try_from(index).ok()).collect();
                let mut indexes: Vec<usize> =
                    indexes.into_iter().filter(|index| *index < topic.partitions.len()).collect();
                indexes.sort_unstable();
                (!indexes.is_empty()).then(|| describe(state, topic, indexes))
            });
            topics.collect()
        }
    };
    let stats = state.log.stats();
    let (used, free) = (signed(stats.segment_bytes), signed(stats.free_bytes));
    let code = if stats.poisoned.is_some() { ErrorCode::KafkaStorageError } else { ErrorCode::None };
    let result = DescribeLogDirsResult {
        error_code: code.code(),
        log_dir: state.data.clone(),
        topics,
        total_bytes: used.saturating_add(free),
        usable_bytes: free,
        ..DescribeLogDirsResult::default()
    };
    Ok(context.encode(&DescribeLogDirsResponse { results: vec![result], ..DescribeLogDirsResponse::default() }))
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn describe(state: &BrokerState, topic: &Topic, indexes: impl IntoIterator<Item = usize>) -> DescribeLogDirsTopic {
    let partitions = indexes.into_iter().filter_map(|index| {
        let partition = *topic.partitions.get(index)?;
        Some(DescribeLogDirsPartition {
            partition_index: index as i32,
            partition_size: signed(state.log.partition_bytes(partition)),
            ..DescribeLogDirsPartition::default()
        })
    });
    DescribeLogDirsTopic { name: topic.name.to_string(), partitions: partitions.collect() }
}
