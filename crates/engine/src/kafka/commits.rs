//! Commits of a member: one at a time, in order, tried again while the partition stays ours.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
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

type Client = Arc<BaseConsumer<Context>>;

/// What is to be committed. Only one is under way: the client library may bring several to their end in another order.
pub(super) struct Commits {
    waiting: VecDeque<Pending>,
    under_way: Option<Pending>,
    worker: Worker,
}

/// A thread that waits for commits in the member's place. The Rust client has no other way to learn how one ended: it listens for the
/// callback of asynchronous commits in a form in which librdkafka never calls it.
struct Worker {
    work: mpsc::Sender<(Client, TopicPartitionList)>,
    results: mpsc::Receiver<Result<(), Code>>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Wakes the thread that starts it whenever a commit has ended.
    fn start() -> std::io::Result<Self> {
        let (work, receiver) = mpsc::channel::<(Client, TopicPartitionList)>();
        let (sender, results) = mpsc::channel();
        let member = std::thread::current();
        let thread = std::thread::Builder::new().name("kafka-commits".to_owned()).spawn(move || {
            for (client, list) in receiver {
                let result = client.commit(&list, CommitMode::Sync);
                // Let go of before it is known that it ended: who hears that may want to be the last to hold the client.
                drop(client);
                if sender.send(result.map_err(code)).is_err() {
                    return;
                }
                member.unpark();
            }
        })?;
        Ok(Self { work, results, thread })
    }
}

fn code(error: rdkafka::error::KafkaError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Unknown)
}

impl Commits {
    pub(super) fn start() -> std::io::Result<Self> {
        Ok(Self { waiting: VecDeque::new(), under_way: None, worker: Worker::start()? })
    }

    /// Waits until none is under way; nothing of it is heard any more.
    pub(super) fn end(self) {
        let Self { worker: Worker { work, thread, .. }, .. } = self;
        drop(work);
        if thread.join().is_err() {
            tracing::warn!("the thread for a Kafka consumer's commits panicked");
        }
    }

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
    fn answered(&mut self, result: Result<(), Code>) {
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

    /// Takes in how the last one ended, and starts the next. What is not ours any more is taken out of it and refused.
    pub(super) fn go_on(&mut self, client: &Client, ours: impl Fn(&TopicPartition, u64) -> bool) {
        while let Ok(result) = self.worker.results.try_recv() {
            self.answered(result);
        }
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
            let list = list(&pending.positions).map_err(code);
            let asked = list.and_then(|list| self.worker.work.send((client.clone(), list)).map_err(|_| Code::Fatal));
            self.under_way = Some(pending);
            if let Err(code) = asked {
                self.answered(Err(code));
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
