//! What a relay waits for beside its other work.

use std::sync::Arc;
use std::time::Duration;

use baton_core::relay::{Change, Row, TopicKey, Window};
use baton_engine::{Engine, EngineError};
use baton_outbox::{
    Found, Lease, Look, Members, OutboxError, OutboxFuture, OutboxRow, OutboxStore, Search, Tenure, Written,
};
use tokio::task::{AbortHandle, JoinError, JoinSet};

/// Parked rows that one query brings.
const PARKED_PAGE: usize = 1_000;
/// Parked rows that are held in memory: what is more halts the relay, since it could not tell which rows have to wait.
pub(super) const PARKED_MAX: usize = 100_000;
/// Done rows that one statement deletes: it holds nobody up for longer than a moment.
const PRUNE_ROWS: usize = 2_000;

/// What a job has brought.
pub(super) enum Came {
    Found { search: Box<dyn Search>, number: u64, found: Result<Found, OutboxError> },
    Slept(Result<(), OutboxError>),
    Written { change: Change, written: Result<Written, OutboxError> },
    Beat { asked_ms: u64, members: Result<Members, OutboxError> },
    Taken { mark: Option<u64>, taken: Result<Taken, OutboxError> },
    Partitions { topic: Arc<str>, answer: Result<u32, EngineError> },
    Pruned(Result<(), OutboxError>),
    Released,
}

/// Shards that were taken, with the rows that others had claimed of them, and the rows that are parked, with their keys.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) shards: Vec<(Tenure, Vec<Row<OutboxRow>>)>,
    pub(super) parked: Vec<(i64, Option<TopicKey>)>,
}

/// What runs beside the relay.
pub(super) struct Jobs {
    running: JoinSet<Came>,
    store: Arc<dyn OutboxStore>,
    engine: Arc<dyn Engine>,
    /// How long the database may take for one thing.
    turn_max: Duration,
}

/// What the database does, for so long at most: a turn that is dropped takes its connection with it.
async fn timed<T>(doing: &'static str, at_most: Duration, turn: OutboxFuture<'_, T>) -> Result<T, OutboxError> {
    let silent = |_| {
        let source = format!("no answer for {at_most:?}").into();
        Err(OutboxError::Unavailable { doing, source })
    };
    tokio::time::timeout(at_most, turn).await.unwrap_or_else(silent)
}

impl Jobs {
    pub(super) fn new(store: Arc<dyn OutboxStore>, engine: Arc<dyn Engine>, turn_max: Duration) -> Self {
        Self { running: JoinSet::new(), store, engine, turn_max }
    }

    /// The next one that has ended.
    pub(super) async fn next(&mut self) -> Option<Result<Came, JoinError>> {
        self.running.join_next().await
    }

    pub(super) async fn shutdown(&mut self) {
        self.running.shutdown().await;
    }

    pub(super) fn look(&mut self, mut search: Box<dyn Search>, look: Look, number: u64) {
        let (store, turn_max) = (Arc::clone(&self.store), self.turn_max);
        self.running.spawn(async move {
            let found = timed("looking for rows", turn_max, search.next(&look)).await;
            if found.is_err() {
                // Of one that was dropped in the middle nobody knows how far it came.
                search = store.search();
            }
            Came::Found { search, number, found }
        });
    }

    pub(super) fn sleep(&mut self, at_most: Duration) -> AbortHandle {
        let (store, turn_max) = (Arc::clone(&self.store), at_most + self.turn_max);
        self.running.spawn(async move { Came::Slept(timed("waiting for rows", turn_max, store.wait(at_most)).await) })
    }

    pub(super) fn write(&mut self, change: Change, keep_done: bool) {
        let (store, turn_max) = (Arc::clone(&self.store), self.turn_max);
        self.running.spawn(async move {
            let written = timed("writing claims", turn_max, store.write(&change, keep_done)).await;
            Came::Written { change, written }
        });
    }

    pub(super) fn beat(&mut self, lease: Lease, asked_ms: u64) {
        let (store, turn_max) = (Arc::clone(&self.store), self.turn_max);
        self.running.spawn(async move {
            let members = timed("renewing leases", turn_max, store.heartbeat(&lease)).await;
            Came::Beat { asked_ms, members }
        });
    }

    pub(super) fn ask(&mut self, topic: Arc<str>) {
        let engine = Arc::clone(&self.engine);
        self.running.spawn(async move {
            let answer = engine.partitions(&topic).await;
            Came::Partitions { topic, answer }
        });
    }

    pub(super) fn prune(&mut self, kept: Duration) {
        let (store, turn_max) = (Arc::clone(&self.store), self.turn_max);
        self.running.spawn(async move {
            loop {
                match timed("pruning done rows", turn_max, store.prune(kept, PRUNE_ROWS)).await {
                    Ok(rows) if rows >= PRUNE_ROWS as u64 => {}
                    pruned => return Came::Pruned(pruned.map(drop)),
                }
            }
        });
    }

    /// Gives a shard up. Should it fail, it is taken again or given up again: it bears our name.
    pub(super) fn release(&mut self, shard: u16, epoch: u32) {
        let (store, turn_max) = (Arc::clone(&self.store), self.turn_max);
        self.running.spawn(async move {
            _ = timed("releasing a shard", turn_max, store.release(shard, epoch)).await;
            Came::Released
        });
    }

    /// Takes shards, and reads what is known of them.
    pub(super) fn take(&mut self, lease: Lease, shards: Vec<u16>, mark: Option<u64>) {
        let (store, turn_max) = (Arc::clone(&self.store), self.turn_max);
        self.running.spawn(async move {
            let mut taken = Taken::default();
            let filled = Box::pin(fill(&*store, &lease, &shards, &mut taken));
            let taken = match timed("taking shards", turn_max, filled).await {
                Ok(()) => Ok(taken),
                Err(error) => {
                    // What was taken and is not worked on must not wait for its lease to end.
                    for (tenure, _) in taken.shards {
                        _ = timed("releasing shards", turn_max, store.release(tenure.shard, tenure.epoch)).await;
                    }
                    Err(error)
                }
            };
            Came::Taken { mark, taken }
        });
    }
}

async fn fill(store: &dyn OutboxStore, lease: &Lease, shards: &[u16], taken: &mut Taken) -> Result<(), OutboxError> {
    for shard in shards {
        let Some(tenure) = store.take(lease, *shard).await? else { continue };
        let claimed = Window::decode(&tenure.window).unwrap_or_default();
        let positions: Vec<i64> = claimed.iter().map(|(position, _)| position).collect();
        taken.shards.push((tenure, Vec::new()));
        if !positions.is_empty() {
            let rows = store.rows(&positions).await?;
            if let Some((_, claimed)) = taken.shards.last_mut() {
                *claimed = rows;
            }
        }
    }
    let mut after = i64::MIN;
    loop {
        let page = store.parked(after, PARKED_PAGE).await?;
        let last = page.len() < PARKED_PAGE;
        after = page.last().map_or(after, |row| row.position);
        taken.parked.extend(page.into_iter().map(|row| (row.position, row.key.map(|key| (Arc::from(row.topic), key)))));
        if last || taken.parked.len() > PARKED_MAX {
            return Ok(());
        }
    }
}
