//! What is still to come of partitions: asked beside the member, through a client of its own, so that a member that has fallen silent
//! can be told from a partition that is at its end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use baton_core::TopicPartition;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{failure, reader};
use crate::{Backlog, EngineError, Question, Waiting};

/// How long the brokers may take to say where partitions begin or end.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long a partition may take to give its next message.
const MESSAGE_WAIT: Duration = Duration::from_secs(5);
/// Partitions that are read for one answer at most; of the others nothing exact is said this time.
const READS_MAX: usize = 4;

/// Asks for all members of one engine.
pub(super) struct Backlogs {
    config: ClientConfig,
    client: OnceLock<BaseConsumer>,
}

/// Where a member knows that nothing but marks of transactions and the like lies: from the first offset up to the second.
pub(super) type Voids = Arc<Mutex<HashMap<TopicPartition, (i64, i64)>>>;

type Offsets = HashMap<TopicPartition, i64>;

impl Backlogs {
    /// Nobody is connected to yet.
    pub(super) fn new(config: ClientConfig) -> Self {
        Self { config, client: OnceLock::new() }
    }

    fn client(&self) -> Result<&BaseConsumer, EngineError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = self.config.create().map_err(|error| failure::engine_error("asking for a backlog", &error))?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Blocks.
    pub(super) fn answer(&self, questions: Vec<Question>, voids: &Voids) -> Result<Vec<Backlog>, EngineError> {
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        // In this order, so that an end is never one of before its beginning moved.
        let begins = self.offsets(&questions, Offset::Beginning)?;
        let ends = self.offsets(&questions, Offset::End)?;
        let mut voids = voids.lock().unwrap_or_else(PoisonError::into_inner);
        voids.retain(|partition, _| questions.iter().any(|question| question.partition == *partition));
        let (mut answers, mut reads) = (Vec::with_capacity(questions.len()), 0);
        for Question { partition, next, exact } in questions {
            let (Some(begin), Some(end)) = (begins.get(&partition).copied(), ends.get(&partition).copied()) else {
                continue;
            };
            let next = next.unwrap_or(begin).max(begin);
            let is_void = voids.get(&partition) == Some(&(next, end));
            let mut answer =
                Backlog { waiting: Waiting::Offsets { begin, end }, exact: is_void || next >= end, partition };
            if exact && !answer.exact && reads < READS_MAX {
                reads += 1;
                match reader::first_message(&self.config, &answer.partition, next, MESSAGE_WAIT) {
                    Ok(Some(_)) => answer.exact = true,
                    Ok(None) => {
                        answer.exact = true;
                        voids.insert(answer.partition.clone(), (next, end));
                    }
                    Err(error) => tracing::debug!(%error, partition = %answer.partition, "reading on for a backlog"),
                }
            }
            if voids.get(&answer.partition) == Some(&(next, end)) {
                answer.waiting = Waiting::Offsets { begin, end: next };
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Where partitions begin or end; those of which the brokers do not say it are left out. One request to each broker.
    fn offsets(&self, questions: &[Question], which: Offset) -> Result<Offsets, EngineError> {
        let wrong = |error: &_| failure::engine_error("asking for a backlog", error);
        let mut list = TopicPartitionList::new();
        for Question { partition, .. } in questions {
            if let Ok(number) = i32::try_from(partition.partition) {
                // Beginning and end are times, too, in what is asked here.
                list.add_partition_offset(&partition.topic, number, which).map_err(|error| wrong(&error))?;
            }
        }
        let client = self.client()?;
        // What it has to say about the state of its connections is of no interest, and must not pile up.
        while client.poll(Duration::ZERO).is_some() {}
        let found = client.offsets_for_times(list, ANSWER_WAIT).map_err(|error| wrong(&error))?;
        let elements = found.elements();
        let each = elements.iter().filter_map(|element| match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(offset)) => {
                Some((TopicPartition::new(element.topic(), u32::try_from(element.partition()).ok()?), offset))
            }
            _ => None,
        });
        Ok(each.collect())
    }
}
