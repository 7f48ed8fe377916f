//! Commits of a member: one at a time, in order, tried again while the partition stays ours.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use baton_core::TopicPartition;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::consumer::{Position, not_ours};
use super::context::Context;
use super::failure;
use crate::EngineError;

/// How long a commit is tried. A rebalance, a coordinator that moves, a restart of the broker pass in less.
const COMMIT_WAIT: Duration = Duration::from_secs(60);
const TRY_AGAIN: Duration = Duration::from_millis(100);

struct Pending {
    positions: Vec<Position>,
    done: oneshot::Sender<Result<(), EngineError>>,
    refused: Option<EngineError>,
    deadline: Instant,
    not_before: Instant,
}

/// What is to be committed. Only one is under way: the client library may bring several to their end in another order.
#[derive(Default)]
pub(super) struct Commits {
    waiting: VecDeque<Pending>,
    under_way: Option<Pending>,
}

impl Commits {
    pub(super) fn push(&mut self, positions: Vec<Position>, done: oneshot::Sender<Result<(), EngineError>>) {
        let now = Instant::now();
        let pending = Pending { positions, done, refused: None, deadline: now + COMMIT_WAIT, not_before: now };
        self.waiting.push_back(pending);
    }

    /// Whether something of these partitions is not committed yet.
    pub(super) fn concern(&self, partitions: &[TopicPartition]) -> bool {
        let concerns = |pending: &Pending| pending.positions.iter().any(|each| partitions.contains(&each.partition));
        self.under_way.iter().chain(&self.waiting).any(concerns)
    }

    /// The engine has answered the one that is under way.
    pub(super) fn answered(&mut self, result: Result<(), Code>) {
        let Some(mut pending) = self.under_way.take() else { return };
        match result {
            Ok(()) => pending.resolve(Ok(())),
            Err(code) if !failure::commit_may_pass(code) => {
                pending.resolve(Err(EngineError::Caller(format!("committing a position: {code}"))));
            }
            Err(code) if Instant::now() >= pending.deadline => {
                pending.resolve(Err(EngineError::Unavailable(format!("committing a position: {code}"))));
            }
            Err(code) => {
                tracing::debug!(%code, "committing a position is tried again");
                pending.not_before = Instant::now() + TRY_AGAIN;
                self.waiting.push_front(pending);
            }
        }
    }

    /// Starts the next one. What is not ours any more is taken out of it and refused.
    pub(super) fn go_on(&mut self, client: &BaseConsumer<Context>, ours: impl Fn(&TopicPartition, u64) -> bool) {
        while self.under_way.is_none() {
            if self.waiting.front().is_none_or(|pending| Instant::now() < pending.not_before) {
                return;
            }
            let Some(mut pending) = self.waiting.pop_front() else { return };
            let refused = &mut pending.refused;
            pending.positions.retain(|each| {
                let kept = ours(&each.partition, each.epoch);
                if !kept {
                    *refused = Some(not_ours(&each.partition));
                }
                kept
            });
            if pending.positions.is_empty() {
                pending.resolve(Ok(()));
                continue;
            }
            let code = |error: rdkafka::error::KafkaError| error.rdkafka_error_code().unwrap_or(Code::Unknown);
            let asked = list(&pending.positions).and_then(|list| client.commit(&list, CommitMode::Async));
            self.under_way = Some(pending);
            if let Err(error) = asked {
                self.answered(Err(code(error)));
            }
        }
    }

    /// Nothing is ours any more.
    pub(super) fn refuse_all(&mut self) {
        for pending in self.under_way.take().into_iter().chain(self.waiting.drain(..)) {
            let refused = pending.positions.first().map_or(Ok(()), |each| Err(not_ours(&each.partition)));
            pending.resolve(refused);
        }
    }
}

impl Pending {
    fn resolve(self, result: Result<(), EngineError>) {
        let result = result.and(self.refused.map_or(Ok(()), Err));
        // Who asked may have gone.
        let _ = self.done.send(result);
    }
}

fn list(positions: &[Position]) -> rdkafka::error::KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for each in positions {
        let number = i32::try_from(each.partition.partition).unwrap_or(i32::MAX);
        let mut element = list.add_partition(&each.partition.topic, number);
        element.set_offset(Offset::Offset(each.next))?;
        // The client library cannot hold empty metadata.
        if !each.metadata.is_empty() {
            element.set_metadata(&each.metadata);
        }
    }
    Ok(list)
}
