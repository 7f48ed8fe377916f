//! A consumer that runs: watching it, stopping it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_core::TopicPartition;
use baton_core::consumer::{Core, Counters, Held, Lag, Report};
use baton_engine::EngineError;
use baton_guard::Weakness;
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;

use super::error::ConsumerError;
use super::work::Tally;

/// Notices that one who listens may be behind. Who is further behind hears how many it missed.
const NOTICES_KEPT_MAX: usize = 1_024;
/// How old a snapshot may be while things happen.
const SNAPSHOT_INTERVAL_MS: u64 = 20;

/// Something that people should know. All of these are logged as well.
#[derive(Debug, Clone)]
pub enum Notice {
    /// From the consumer's decisions.
    Consumer(Report),
    /// The guard says that a partition has a new owner. What was done of it here is dropped; if the engine does not say the same
    /// soon, the group is joined anew.
    Fenced {
        /// Which partition.
        partition: TopicPartition,
    },
    /// Messages are not there any more (`next` above `expected`), or the partition was cut back (`next` below).
    Gap {
        /// In which partition.
        partition: TopicPartition,
        /// The offset that should have come.
        expected: i64,
        /// The offset that comes.
        next: i64,
    },
    /// A partition is ours and cannot be handled yet; it is tried again.
    NotReady {
        /// Which partition.
        partition: TopicPartition,
        /// What fails.
        doing: &'static str,
        /// Why.
        cause: Arc<str>,
    },
    /// The engine failed; it is called again.
    Engine {
        /// What it said.
        error: EngineError,
    },
    /// A dead letter is in another topic than its consumer was told, because it is too large for that one.
    LargeLetter {
        /// Where the message came from.
        partition: TopicPartition,
        /// Its offset there.
        offset: i64,
        /// Where its letter is.
        topic: Arc<str>,
    },
    /// A setting of the guard's store weakens what is promised.
    Weakness(Weakness),
    /// Evidence cannot be stored. It is kept within bounds and tried again, and consuming goes on; said once until it works again.
    EvidenceFailed {
        /// Why.
        cause: Arc<str>,
    },
}

/// What a consumer did and holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerMetrics {
    /// What happened; only grows.
    pub counters: Counters,
    /// What is held in memory.
    pub held: Held,
    /// How many handlers may run at once now.
    pub concurrency: usize,
    /// Messages whose effect was there already: redelivered, or sent twice.
    pub already_done: u64,
    /// Times that a message was left because somebody else was at it.
    pub in_progress: u64,
    /// Handlers that panicked.
    pub panicked: u64,
    /// Commits whose fate had to be asked for.
    pub fates_asked: u64,
    /// Leases that ended before the mark was made (Claim only): effects that may happen twice.
    pub leases_lost: u64,
    /// Times that the guard refused us as the owner of a partition.
    pub fenced: u64,
    /// Reports of evidence that could not be stored; what they say goes into the next ones.
    pub reports_failed: u64,
    /// Ranges of numbers, and counts, that wait to be reported or whose report is not known to be stored. After [`Consumer::stop`]: 0 if
    /// all evidence is stored.
    pub unreported: usize,
    /// How often something was seen that is in no report, because too much waited.
    pub untold: u64,
}

/// How far the group is behind in a partition of this consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// Which partition.
    pub partition: TopicPartition,
    /// Messages that are not done, those in flight included. An upper bound where a partition's offsets have holes.
    pub messages: u64,
    /// How long ago the engine said what it has: some seconds, or more while it does not answer.
    pub age: Duration,
}

/// What the driver shows.
pub(super) struct Board {
    lags: Mutex<Vec<(Lag, Instant)>>,
    metrics: Mutex<(ConsumerMetrics, u64)>,
    notices: broadcast::Sender<Notice>,
    group: Arc<str>,
}

impl Board {
    pub fn new(group: Arc<str>) -> Self {
        Self {
            lags: Mutex::default(),
            metrics: Mutex::default(),
            notices: broadcast::channel(NOTICES_KEPT_MAX).0,
            group,
        }
    }

    pub fn notice(&self, notice: Notice) {
        match &notice {
            Notice::Consumer(
                report @ (Report::DependencyUp | Report::KeyReleased { .. } | Report::DeliveriesResumed { .. }),
            ) => {
                tracing::info!(group = %self.group, ?report, "consumer");
            }
            Notice::Consumer(report) => tracing::warn!(group = %self.group, ?report, "consumer"),
            other => tracing::warn!(group = %self.group, notice = ?other, "consumer"),
        }
        if matches!(notice, Notice::Fenced { .. }) {
            self.lock().0.fenced += 1;
        }
        // Nobody has to listen.
        let _ = self.notices.send(notice);
    }

    /// So many more reports could not be stored.
    pub fn reports_failed(&self, reports: u64) {
        if reports > 0 {
            self.lock().0.reports_failed += reports;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (ConsumerMetrics, u64)> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows how far the group is behind; the times of these began to run then.
    pub fn lags(&self, lags: Vec<Lag>, began: Instant) {
        let timed = |lag: Lag| {
            let at = began + Duration::from_millis(lag.asked_ms);
            (lag, at)
        };
        let lags = lags.into_iter().map(timed).collect();
        *self.lags.lock().unwrap_or_else(PoisonError::into_inner) = lags;
    }

    /// Shows how things stand, unless that was done just now.
    pub fn publish(&self, core: &Core, tally: &Tally, now_ms: u64, last: bool) -> bool {
        let mut shown = self.lock();
        if now_ms < shown.1 && !last {
            return false;
        }
        let (fenced, reports_failed) = (shown.0.fenced, shown.0.reports_failed);
        let (unreported, untold) = core.unreported();
        let mut counters = core.counters();
        counters.filtered += tally.filtered;
        counters.done -= tally.filtered.min(counters.done);
        let metrics = ConsumerMetrics {
            counters,
            held: core.held(),
            concurrency: core.concurrency(),
            already_done: tally.already_done,
            in_progress: tally.in_progress,
            panicked: tally.panicked,
            fates_asked: tally.fates_asked,
            leases_lost: tally.leases_lost,
            fenced,
            reports_failed,
            unreported,
            untold,
        };
        *shown = (metrics, now_ms + SNAPSHOT_INTERVAL_MS);
        true
    }
}

/// What the driver is told.
pub(super) enum Command {
    Stop { wait: Duration },
    Release { partition: TopicPartition, key: Bytes, reply: oneshot::Sender<bool> },
}

/// A consumer that runs. Dropped, it stops as with [`Consumer::stop`], in the background.
#[must_use = "a consumer stops when it is dropped"]
pub struct Consumer {
    commands: UnboundedSender<Command>,
    board: Arc<Board>,
    task: JoinHandle<Result<(), ConsumerError>>,
}

impl Consumer {
    pub(super) fn new(
        commands: UnboundedSender<Command>,
        board: Arc<Board>,
        task: JoinHandle<Result<(), ConsumerError>>,
    ) -> Self {
        Self { commands, board, task }
    }

    /// What happened so far and what is held, at most some milliseconds old.
    pub fn metrics(&self) -> ConsumerMetrics {
        self.board.lock().0
    }

    /// How far the group is behind in each partition of this consumer of which the engine has said what it has, which it is asked every few
    /// seconds.
    pub fn lags(&self) -> Vec<PartitionLag> {
        let lags = self.board.lags.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |(lag, at): &(Lag, Instant)| PartitionLag {
            partition: lag.partition.clone(),
            messages: lag.messages,
            age: at.elapsed(),
        };
        lags.iter().map(shown).collect()
    }

    /// What people should know, from now on.
    pub fn notices(&self) -> Notices {
        Notices(self.board.notices.subscribe())
    }

    /// Begins to handle what is parked of a key, in order and no faster than the settings say. Says whether the key is parked in
    /// a partition of this consumer, and not being released already.
    pub async fn release(&self, partition: &TopicPartition, key: impl Into<Bytes>) -> bool {
        let (reply, answer) = oneshot::channel();
        let (partition, key) = (partition.clone(), key.into());
        let sent = self.commands.send(Command::Release { partition, key, reply });
        sent.is_ok() && answer.await.unwrap_or(false)
    }

    /// Takes nothing new, lets handlers that run finish for at most `wait`, settles what is done, gives back the rest, and leaves
    /// the group. Handlers that are not done by then are cancelled: their transactions are rolled back, and their messages go to
    /// another consumer of the group.
    pub async fn stop(self, wait: Duration) -> Result<ConsumerMetrics, ConsumerError> {
        // If it has ended already, waiting for it says how.
        let _ = self.commands.send(Command::Stop { wait });
        self.ended().await
    }

    /// Stops without waiting for any handler.
    pub async fn cancel(self) -> Result<ConsumerMetrics, ConsumerError> {
        self.stop(Duration::ZERO).await
    }

    /// Waits until it ends by itself, which it does only if it cannot go on.
    pub async fn ended(mut self) -> Result<ConsumerMetrics, ConsumerError> {
        match (&mut self.task).await {
            Ok(ended) => ended.map(|()| self.metrics()),
            Err(error) => Err(ConsumerError::Ended(error.to_string())),
        }
    }

    /// Runs until `shutdown` is ready, then stops as with [`Consumer::stop`].
    pub async fn until(
        mut self,
        shutdown: impl Future<Output = ()>,
        wait: Duration,
    ) -> Result<ConsumerMetrics, ConsumerError> {
        tokio::select! {
            ended = &mut self.task => match ended {
                Ok(ended) => ended.map(|()| self.metrics()),
                Err(error) => Err(ConsumerError::Ended(error.to_string())),
            },
            () = shutdown => self.stop(wait).await,
        }
    }
}

/// What people should know.
pub struct Notices(broadcast::Receiver<Notice>);

impl Notices {
    /// The next one; `None` when the consumer has ended. What was missed because nobody called for too long is passed over: it is
    /// in the log.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            match self.0.recv().await {
                Ok(notice) => return Some(notice),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "notices of a consumer were not taken in time");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
