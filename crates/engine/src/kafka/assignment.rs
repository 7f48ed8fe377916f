//! Where a member begins with the partitions that it was given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use baton_core::TopicPartition;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, RebalanceProtocol};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Context;
use crate::Start;

/// A partition, and the position that its group has there.
pub(super) struct Found {
    pub(super) partition: TopicPartition,
    pub(super) number: i32,
    pub(super) offset: Option<i64>,
    pub(super) metadata: String,
}

/// Asks for the group's positions. A group that begins at the end gets its position committed here: if it only began there, a crash
/// before its first commit would make it begin at a later end, and skip what came between.
pub(super) fn positions(
    client: &BaseConsumer<Context>,
    partitions: &[TopicPartition],
    start: Start,
    wait: Duration,
) -> KafkaResult<Vec<Found>> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        if let Ok(number) = i32::try_from(partition.partition) {
            list.add_partition(&partition.topic, number);
        }
    }
    let list = client.committed_offsets(list, wait)?;
    let mut found = Vec::with_capacity(partitions.len());
    for element in list.elements() {
        element.error()?;
        let partition = TopicPartition::new(element.topic(), u32::try_from(element.partition()).unwrap_or(u32::MAX));
        let offset = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        // The client library panics at metadata that is not UTF-8; only others than Baton write such.
        let metadata = catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned())).unwrap_or_default();
        found.push(Found { partition, number: element.partition(), offset, metadata });
    }
    if start == Start::Latest {
        begin_at_the_end(client, &mut found, wait)?;
    }
    Ok(found)
}

fn begin_at_the_end(client: &BaseConsumer<Context>, found: &mut [Found], wait: Duration) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for each in found.iter_mut().filter(|each| each.offset.is_none()) {
        let (_, end) = client.fetch_watermarks(&each.partition.topic, each.number, wait)?;
        list.add_partition_offset(&each.partition.topic, each.number, Offset::Offset(end))?;
        each.offset = Some(end);
    }
    if list.count() > 0 {
        client.commit(&list, CommitMode::Sync)?;
    }
    Ok(())
}

/// Begins a partition anew at another offset, where the client library has stopped fetching it. `all` is everything that is ours, with
/// where it goes on, and whether it is the one that is meant.
pub(super) fn replace(
    client: &BaseConsumer<Context>,
    stopped: &TopicPartitionList,
    all: &[(TopicPartition, i32, i64, bool)],
) -> KafkaResult<()> {
    let cooperative = matches!(client.rebalance_protocol(), RebalanceProtocol::Cooperative);
    let mut list = TopicPartitionList::new();
    for (partition, number, offset, _) in all.iter().filter(|(.., meant)| *meant || !cooperative) {
        list.add_partition_offset(&partition.topic, *number, Offset::from_raw(*offset))?;
    }
    if cooperative {
        client.incremental_unassign(stopped)?;
        client.incremental_assign(&list)
    } else {
        client.assign(&list)
    }
}
