//! What all connections share.

use std::sync::Arc;

use baton_log::{Clock, Log, TableId, Topic};
use baton_wire::records::{BatchLimits, TimestampType};
use tokio::sync::{Mutex, Semaphore, watch};

use crate::connection::OutputBudget;
use crate::fetch_waiters::FetchWaiters;
use crate::groups::service::GroupService;
use crate::metrics::Metrics;
use crate::producer_ids::ProducerIds;
use crate::settings::LiveSettings;

/// Tables of the log that the broker uses; numbers are on disk and never change. See docs/FORMAT.md.
pub(crate) mod tables {
    use super::TableId;

    /// The next producer id that has not been given out in a block.
    pub const PRODUCER_IDS: TableId = TableId(0);
    /// Settings changed while the broker runs: name to value. Tables 1 and 2 are those of the groups.
    pub const BROKER_SETTINGS: TableId = TableId(3);
}

/// The one node there is: its id in all answers.
pub(crate) const NODE_ID: i32 = 0;

/// A broker's state. All handlers work on it.
pub(crate) struct BrokerState {
    pub log: Log,
    pub clock: Arc<dyn Clock>,
    pub settings: LiveSettings,
    pub metrics: Arc<Metrics>,
    pub groups: GroupService,
    /// The data directory, as clients are told.
    pub data: String,
    pub fetch_waiters: Arc<FetchWaiters>,
    /// Reads that wait for the disk at the same time.
    pub disk_reads: Arc<Semaphore>,
    /// Bytes of fetched records that may be on their way to clients.
    pub fetched_bytes: Arc<Semaphore>,
    /// Bytes of responses that peers have not read.
    pub unread: Arc<OutputBudget>,
    /// Held while the catalog is looked at, changed, and the change becomes durable: see `topics::change_catalog`.
    pub catalog_changes: Arc<Mutex<()>>,
    pub producer_ids: ProducerIds,
    /// Where clients are told to connect.
    pub advertised: (String, u16),
    pub shutdown: watch::Receiver<bool>,
}

impl BrokerState {
    /// Resolves when the broker begins to shut down.
    pub async fn shutting_down(&self) {
        // An error means that the broker is gone.
        let _ = self.shutdown.clone().wait_for(|shutdown| *shutdown).await;
    }

    /// What a topic accepts in a batch.
    pub fn batch_limits(&self, topic: &Topic, zstd_allowed: bool) -> BatchLimits {
        let values = self.settings.topic(&topic.configs);
        BatchLimits {
            batch_bytes_max: values.message_bytes_max,
            now_ms: self.clock.now_ms(),
            timestamp_before_max_ms: values.timestamp_before_max_ms,
            timestamp_after_max_ms: values.timestamp_after_max_ms,
            timestamp_type: if values.log_append_time {
                TimestampType::LogAppendTime
            } else {
                TimestampType::CreateTime
            },
            zstd_allowed,
            ..BatchLimits::default()
        }
    }

    /// The most bytes that a fetch response holds, unless a single batch is larger.
    pub fn fetch_bytes_max(&self) -> usize {
        self.settings.values().fetch_bytes_max
    }
}
