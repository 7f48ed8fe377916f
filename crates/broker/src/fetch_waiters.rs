//! Fetches that wait for records: woken when one of their partitions is published.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_log::{LogObserver, PartitionId};
use tokio::sync::{Notify, watch};

/// Lists are spread over this many locks, so that a commit over many partitions and many fetches do not meet at one.
const SHARDS: usize = 16;

type Waiting = HashMap<PartitionId, Vec<Arc<Notify>>>;

/// Who waits for which partition.
#[derive(Default)]
pub(crate) struct FetchWaiters {
    shards: [Mutex<Waiting>; SHARDS],
    /// Fetches that wait at the moment: without any, a commit costs nothing here.
    waiting: AtomicUsize,
    /// Why the log stopped.
    poisoned: watch::Sender<Option<String>>,
}

/// A registration; ends when dropped.
pub(crate) struct Registration<'a> {
    waiters: &'a FetchWaiters,
    partitions: Vec<PartitionId>,
    notify: Arc<Notify>,
}

impl FetchWaiters {
    /// From now on `Registration::published` is told of every change in these partitions. Register first, look second:
    /// then nothing is missed.
    pub fn register(&self, mut partitions: Vec<PartitionId>) -> Registration<'_> {
        // Each is told by the thread that commits: once is enough, however often it was asked for.
        partitions.sort_unstable();
        partitions.dedup();
        let notify = Arc::new(Notify::new());
        self.waiting.fetch_add(1, Ordering::SeqCst);
        for partition in &partitions {
            self.shard(*partition).entry(*partition).or_default().push(notify.clone());
        }
        Registration { waiters: self, partitions, notify }
    }

    /// Resolves with the reason when the log has stopped.
    pub async fn poisoned_reason(&self) -> String {
        let mut poisoned = self.poisoned.subscribe();
        // The sender lives as long as we do, so there is a reason in the end.
        let reason = poisoned.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// Fetches that wait at the moment.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn shard(&self, partition: PartitionId) -> MutexGuard<'_, Waiting> {
        self.shards[partition.0 as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogObserver for FetchWaiters {
    fn published(&self, partitions: &[PartitionId]) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        for partition in partitions {
            if let Some(waiting) = self.shard(*partition).get(partition) {
                // A permit stays with whoever is not waiting at this very moment.
                waiting.iter().for_each(|notify| notify.notify_one());
            }
        }
    }

    fn poisoned(&self, reason: &str) {
        self.poisoned.send_replace(Some(reason.to_owned()));
    }
}

impl Registration<'_> {
    /// Resolves when one of the partitions was published since the registration, or since this last resolved.
    pub async fn published(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        for partition in &self.partitions {
            let mut shard = self.waiters.shard(*partition);
            if let Some(waiting) = shard.get_mut(partition) {
                waiting.retain(|notify| !Arc::ptr_eq(notify, &self.notify));
                if waiting.is_empty() {
                    shard.remove(partition);
                }
            }
        }
        self.waiters.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
