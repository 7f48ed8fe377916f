//! What a relay waits for beside its other work.

use std::sync::Arc;
use std::time::Duration;

use baton_core::relay::{Change, Row, TopicKey, Window};
use baton_engine::{Engine, EngineError};
use baton_outbox::{Found, Lease, Look, Members, OutboxError, OutboxRow, OutboxStore, Search, Tenure, Written};
use tokio::task::{AbortHandle, JoinSet};

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
}

/// Shards that were taken, with the rows that others had claimed of them, and the rows that are parked, with their keys.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) shards: Vec<(Tenure, Vec<Row<OutboxRow>>)>,
    pub(super) parked: Vec<(i64, Option<TopicKey>)>,
}

pub(super) fn look(jobs: &mut JoinSet<Came>, mut search: Box<dyn Search>, number: u64, look: Look) {
    jobs.spawn(async move {
        let found = search.next(&look).await;
        Came::Found { search, number, found }
    });
}

pub(super) fn sleep(jobs: &mut JoinSet<Came>, store: Arc<dyn OutboxStore>, at_most: Duration) -> AbortHandle {
    jobs.spawn(async move { Came::Slept(store.wait(at_most).await) })
}

pub(super) fn write(jobs: &mut JoinSet<Came>, store: Arc<dyn OutboxStore>, change: Change, keep_done: bool) {
    jobs.spawn(async move {
        let written = store.write(&change, keep_done).await;
        Came::Written { change, written }
    });
}

pub(super) fn beat(jobs: &mut JoinSet<Came>, store: Arc<dyn OutboxStore>, lease: Lease, asked_ms: u64) {
    jobs.spawn(async move { Came::Beat { asked_ms, members: store.heartbeat(&lease).await } });
}

pub(super) fn ask(jobs: &mut JoinSet<Came>, engine: Arc<dyn Engine>, topic: Arc<str>) {
    jobs.spawn(async move {
        let answer = engine.partitions(&topic).await;
        Came::Partitions { topic, answer }
    });
}

pub(super) fn prune(jobs: &mut JoinSet<Came>, store: Arc<dyn OutboxStore>, kept: Duration) {
    jobs.spawn(async move {
        loop {
            match store.prune(kept, PRUNE_ROWS).await {
                Ok(rows) if rows >= PRUNE_ROWS as u64 => {}
                pruned => return Came::Pruned(pruned.map(drop)),
            }
        }
    });
}

/// Takes shards, and reads what is known of them.
pub(super) fn take(
    jobs: &mut JoinSet<Came>,
    store: Arc<dyn OutboxStore>,
    lease: Lease,
    shards: Vec<u16>,
    mark: Option<u64>,
) {
    jobs.spawn(async move {
        let mut taken = Taken::default();
        let taken = match fill(&*store, &lease, &shards, &mut taken).await {
            Ok(()) => Ok(taken),
            Err(error) => {
                // What was taken and is not worked on must not wait for its lease to end.
                for (tenure, _) in taken.shards {
                    _ = store.release(tenure.shard, tenure.epoch).await;
                }
                Err(error)
            }
        };
        Came::Taken { mark, taken }
    });
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
