//! At most once: messages are settled first, and handled when that is durable.

use std::collections::{BTreeSet, HashMap};

use baton_core::TopicPartition;
use baton_core::consumer::{RunId, Settling};
use baton_engine::Settlement;

use super::calls::Call;

/// Calls that wait for their settlement, and what was settled ahead of the core.
#[derive(Default)]
pub(super) struct AtMostOnce {
    waiting: HashMap<RunId, Call>,
    frontiers: HashMap<TopicPartition, i64>,
    done: HashMap<TopicPartition, BTreeSet<i64>>,
}

impl AtMostOnce {
    /// What is to be settled before this call begins.
    pub fn before(&mut self, run: RunId, call: Call, settling: Settling) -> Vec<Settlement> {
        let mut settlements = Vec::new();
        match settling {
            Settling::Each => {
                for delivery in call.messages.iter().map(|handed| &handed.delivery) {
                    let (partition, offset) = (delivery.from.clone(), delivery.offset);
                    self.done.entry(partition.clone()).or_default().insert(offset);
                    settlements.push(Settlement::Done { partition, offset });
                }
            }
            Settling::Frontier => {
                let mut frontiers: HashMap<&TopicPartition, i64> = HashMap::new();
                for delivery in call.messages.iter().map(|handed| &handed.delivery) {
                    let next = frontiers.entry(&delivery.from).or_insert(0);
                    *next = delivery.offset.saturating_add(1).max(*next);
                }
                for (partition, next) in frontiers {
                    self.frontiers.insert(partition.clone(), next);
                    let (partition, metadata) = (partition.clone(), String::new());
                    settlements.push(Settlement::Frontier { partition, next, metadata });
                }
            }
        }
        self.waiting.insert(run, call);
        settlements
    }

    /// The call, once it may begin.
    pub fn take(&mut self, run: RunId) -> Option<Call> {
        self.waiting.remove(&run)
    }

    /// The core counts as done what a handler has finished. What was settled before that is not taken back.
    pub fn reconcile(&mut self, settlements: &mut Vec<Settlement>) {
        settlements.retain_mut(|settlement| match settlement {
            Settlement::Frontier { partition, next, metadata } => {
                if let Some(ahead) = self.frontiers.get(partition).filter(|ahead| **ahead > *next) {
                    *next = *ahead;
                    metadata.clear();
                }
                true
            }
            Settlement::Done { partition, offset } => {
                !self.done.get_mut(partition).is_some_and(|done| done.remove(offset))
            }
            Settlement::GiveBack { partition, offset } => {
                !self.done.get(partition).is_some_and(|done| done.contains(offset))
            }
        });
    }

    /// A partition is not ours any more.
    pub fn forget(&mut self, partition: &TopicPartition) {
        self.frontiers.remove(partition);
        self.done.remove(partition);
    }
}
