//! What librdkafka calls back with, kept until the member's thread looks at it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_core::TopicPartition;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

/// How long a client that leaves is waited for where it answers for the last time, and how long between two looks.
const CLOSED_WAIT_MAX: Duration = Duration::from_millis(100);
const CLOSED_LOOK: Duration = Duration::from_millis(1);

/// What the group wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rebalance {
    Assign(Vec<TopicPartition>),
    Revoke(Vec<TopicPartition>),
}

/// Shared between librdkafka's callbacks and the member's thread, which is the one that they run on.
#[derive(Clone, Default)]
pub(super) struct Context {
    heard: Arc<Mutex<VecDeque<Rebalance>>>,
    /// How often anything was called back: a poll that gave nothing may have done so.
    count: Arc<AtomicU64>,
    /// Nobody waits for rebalances any more: they are answered on the spot.
    closing: Arc<AtomicBool>,
}

impl Context {
    fn heard(&self) -> MutexGuard<'_, VecDeque<Rebalance>> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, reason, "Kafka consumer");
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn stats_raw(&self, _: &[u8]) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl ConsumerContext for Context {
    /// Only notes it down. The group goes on when the member's thread has answered with `assign` or `unassign`.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assign = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            self.count.fetch_add(1, Ordering::Relaxed);
            answer(consumer, assign, list);
            if !assign {
                wait_until_closed(consumer);
            }
            return;
        }
        let partitions = partitions(list);
        let rebalance = if assign { Rebalance::Assign(partitions) } else { Rebalance::Revoke(partitions) };
        self.heard().push_back(rebalance);
    }
}

/// A client that is dropped waits until the group has let it go, and looks whether it has when something happens, or else every
/// 100 ms. Nothing happens any more once it has given its partitions back: so it is waited for here, and the end of a service is not put
/// off. What takes longer than this is left to the drop.
fn wait_until_closed(consumer: &BaseConsumer<Context>) {
    let deadline = Instant::now() + CLOSED_WAIT_MAX;
    while !consumer.closed() && Instant::now() < deadline {
        std::thread::sleep(CLOSED_LOOK);
    }
}

/// Tells the group that its wish is fulfilled.
pub(super) fn answer(consumer: &BaseConsumer<Context>, assign: bool, list: &TopicPartitionList) {
    let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
    let done = match (assign, cooperative) {
        (true, true) => consumer.incremental_assign(list),
        (true, false) => consumer.assign(list),
        (false, true) => consumer.incremental_unassign(list),
        (false, false) => consumer.unassign(),
    };
    if let Err(error) = done {
        tracing::warn!(%error, assign, "Kafka consumer: the answer to a rebalance was refused");
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    let partition = |number: i32| u32::try_from(number).ok();
    elements
        .iter()
        .filter_map(|element| Some(TopicPartition::new(element.topic(), partition(element.partition())?)))
        .collect()
}
