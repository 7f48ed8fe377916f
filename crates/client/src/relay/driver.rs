//! The one task of a relay: asks the database, decides with [`Claims`], and hands to the engine.

mod jobs;
mod shards;

use std::sync::Arc;
use std::time::Duration;

use baton_core::Report;
use baton_core::relay::{Change, Claims, Limits, Shares};
use baton_core::stamp::Instance;
use baton_engine::{Engine, EngineProducer};
use baton_outbox::{Lease, Look, OutboxError, OutboxStore, Search, Written};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::metrics::RelayMetrics;
use super::sending::{Content, Sending};
use super::topics::Topics;
use super::{Command, RelayBoard, RelayError};
use crate::producer::clock::{Clock, wall_ms, whole_ms};
use crate::producer::random::Random;
use jobs::{Came, Jobs};

/// Rows that one query brings at most.
const LOOK_ROWS_MAX: usize = 2_000;
/// A query waits until there is room for so many, or for a quarter of those that are worked on. Less than what is kept for partitions that move.
const LOOK_ROWS_MIN: usize = 256;
/// That rows are done is written with the next claims, or when there are so many, or after so long, in milliseconds.
const DONE_ROWS: usize = 500;
/// See [`DONE_ROWS`].
const DONE_LINGER_MS: u64 = 20;
/// How long a database that failed is left alone, in milliseconds.
const DATABASE_WAIT_MS: u64 = 300;
/// How often done rows are pruned, in milliseconds.
const PRUNE_INTERVAL_MS: u64 = 5_000;
/// A lease is renewed so many times while it lasts.
const BEATS: u64 = 3;
/// After so many leases what was asked of the database is given up, and the connection with it: a server that hangs keeps its connections
/// open for ever, and who hears nothing for so long has lost its leases anyway.
const TURN_LEASES: u32 = 3;
/// See [`TURN_LEASES`]; but not before so long: with short leases a busy database would be asked anew, each time from a new connection on, and
/// never be heard.
const TURN_MAX_MIN: Duration = Duration::from_secs(10);

/// How it is to work.
pub(super) struct Options {
    pub(super) lease: Lease,
    pub(super) poll: Duration,
    pub(super) limits: Limits,
    pub(super) keep_done: Option<Duration>,
    /// Of the outbox: shards are called after it.
    pub(super) instance: Instance,
}

/// What it works with.
pub(super) struct Parts {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) producer: Arc<dyn EngineProducer>,
    pub(super) store: Arc<dyn OutboxStore>,
    pub(super) evidence: Option<Evidence>,
    pub(super) random: Random,
    pub(super) board: RelayBoard,
}

pub(super) type Evidence = (mpsc::Sender<Vec<Report>>, mpsc::UnboundedReceiver<Vec<(Report, bool)>>);

pub(super) struct Driver {
    options: Options,
    parts: Parts,
    claims: Claims<Content>,
    shares: Shares,
    sending: Sending,
    topics: Topics,
    /// A set of reports is being sent.
    reporting: bool,
    clock: Clock,
    metrics: RelayMetrics,
    jobs: Jobs,
    /// Between two queries.
    search: Option<Box<dyn Search>>,
    look_ms: u64,
    sleeping: Option<AbortHandle>,
    /// There was nothing more the last time.
    idle: bool,
    /// A change that could not be written, or nobody knows whether it was.
    unwritten: Option<Change>,
    writing: bool,
    write_ms: u64,
    done_since_ms: Option<u64>,
    beating: bool,
    beat_ms: u64,
    /// When our leases were renewed last, by our clock, before the database was asked.
    renewed_ms: Option<u64>,
    taking: bool,
    prune_ms: u64,
    pruning: bool,
    /// More keys are parked than can be held: nothing is looked for.
    halted: bool,
    stop_ms: Option<u64>,
}

impl Driver {
    pub(super) fn new(options: Options, parts: Parts) -> Self {
        Self {
            claims: Claims::new(options.limits, Content::bytes),
            shares: Shares::new(options.lease.member.clone()),
            sending: Sending::new(Arc::clone(&parts.producer), options.instance.clone()),
            topics: Topics::default(),
            reporting: false,
            clock: Clock::start(),
            metrics: RelayMetrics::default(),
            jobs: Jobs::new(
                Arc::clone(&parts.store),
                Arc::clone(&parts.engine),
                (options.lease.lasts * TURN_LEASES).max(TURN_MAX_MIN),
            ),
            search: Some(parts.store.search()),
            look_ms: 0,
            sleeping: None,
            idle: false,
            unwritten: None,
            writing: false,
            write_ms: 0,
            done_since_ms: None,
            beating: false,
            beat_ms: 0,
            renewed_ms: None,
            taking: false,
            prune_ms: 0,
            pruning: false,
            halted: false,
            stop_ms: None,
            options,
            parts,
        }
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) -> Result<(), RelayError> {
        let said = self.sending.said();
        let producer = Arc::clone(&self.parts.producer);
        loop {
            let now_ms = self.clock.now_ms();
            self.round(now_ms);
            if self.is_over(now_ms) {
                break;
            }
            let due = tokio::time::Instant::from_std(self.clock.instant(self.due_ms(now_ms).max(now_ms + 1)));
            let reports = async {
                match &mut self.parts.evidence {
                    Some((_, reports)) => reports.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(came) = self.jobs.next() => match came {
                    Ok(came) => self.came(came)?,
                    // One that was woken up is no failure.
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => {
                        tracing::error!(%error, "a part of the relay has failed");
                        return Err(RelayError::Ended);
                    }
                },
                () = said.came.notified() => {}
                () = producer.room(), if self.sending.full => self.sending.full = false,
                Some(reports) = reports => self.reported(reports),
                command = commands.recv(), if self.stop_ms.is_none() => {
                    let Command::Stop(wait) = command.unwrap_or(Command::Stop(Duration::ZERO));
                    self.stop(now_ms, wait);
                }
                () = tokio::time::sleep_until(due) => {}
            }
        }
        self.leave().await;
        Ok(())
    }

    /// Does all that can be done now.
    fn round(&mut self, now_ms: u64) {
        self.end_rows(now_ms);
        if self.has_leases(now_ms) {
            self.sending.hand_over(now_ms);
        }
        self.write(now_ms);
        self.look(now_ms);
        self.beat(now_ms);
        self.ask(now_ms);
        self.report(now_ms);
        self.prune(now_ms);
        self.release(now_ms);
        self.show();
    }

    /// Who could not renew its leases may have been replaced: what is not handed over yet is left to the successor.
    fn has_leases(&self, now_ms: u64) -> bool {
        let lease_ms = whole_ms(self.options.lease.lasts);
        self.renewed_ms.is_some_and(|renewed_ms| now_ms.saturating_sub(renewed_ms) < lease_ms)
    }

    /// What the engine has said meanwhile.
    fn end_rows(&mut self, now_ms: u64) {
        let random = &mut self.parts.random;
        let ended = self.sending.take_ended(now_ms, || random.u64());
        if ended.is_empty() {
            return;
        }
        let wall_ms = wall_ms();
        for row in ended {
            match row.refused {
                None => {
                    self.claims.acknowledged(row.item.position, now_ms);
                    self.metrics.acknowledged += 1;
                    let written_ms = u64::try_from(row.item.written_ms).unwrap_or(0);
                    self.metrics.latency.add(wall_ms.saturating_sub(written_ms));
                }
                Some((fate, reason)) => {
                    tracing::warn!(position = row.item.position, reason, "the engine refuses a row: it is parked");
                    self.claims.refused(row.item.position, fate, reason, now_ms);
                    self.metrics.parked += 1;
                }
            }
        }
        self.done_since_ms.get_or_insert(now_ms);
    }

    fn write(&mut self, now_ms: u64) {
        if self.writing || now_ms < self.write_ms {
            return;
        }
        if self.unwritten.is_some() && !self.claims.is_writing() {
            self.unwritten = None;
        }
        let done_due = self.done_since_ms.is_some_and(|since_ms| now_ms >= since_ms + DONE_LINGER_MS);
        let worth =
            self.claims.waiting() > 0 || self.claims.unwritten() >= DONE_ROWS || done_due || self.stop_ms.is_some();
        let change = match self.unwritten.take() {
            Some(change) => change,
            None if !worth => return,
            None => {
                let (topics, random) = (&mut self.topics, &mut self.parts.random);
                let parked = self.claims.unwritten();
                let change = self.claims.change(now_ms, |row| topics.place(row, now_ms, || random.u32()));
                self.metrics.parked += (self.claims.unwritten() - parked) as u64;
                self.done_since_ms = None;
                let Some(change) = change else { return };
                change
            }
        };
        self.writing = true;
        self.jobs.write(change, self.options.keep_done.is_some());
    }

    fn look(&mut self, now_ms: u64) {
        if self.claims.is_restarting() {
            self.idle = false;
            if let Some(sleeping) = self.sleeping.take() {
                sleeping.abort();
            }
        }
        let may = self.stop_ms.is_none() && !self.halted && !self.taking && now_ms >= self.look_ms;
        if !may || self.sleeping.is_some() {
            return;
        }
        let shards = self.claims.shards();
        if shards.is_empty() {
            return;
        }
        if self.idle {
            self.idle = false;
            self.sleeping = Some(self.jobs.sleep(self.options.poll));
            return;
        }
        let (room, bytes_max) = (self.claims.room(), self.claims.room_bytes());
        if self.search.is_none() || room < (self.claims.len() / 4).min(LOOK_ROWS_MIN) || room == 0 || bytes_max == 0 {
            return;
        }
        let Some(search) = self.search.take() else { return };
        let (number, restart) = self.claims.look();
        let look = Look { restart, shards: shards.into_iter().collect(), rows_max: room.min(LOOK_ROWS_MAX), bytes_max };
        self.jobs.look(search, look, number);
    }

    fn beat(&mut self, now_ms: u64) {
        if self.beating || now_ms < self.beat_ms || self.stop_ms.is_some() {
            return;
        }
        self.beating = true;
        self.beat_ms = now_ms.saturating_add(whole_ms(self.options.lease.lasts) / BEATS);
        self.jobs.beat(self.options.lease.clone(), now_ms);
    }

    fn ask(&mut self, now_ms: u64) {
        while let Some(topic) = self.topics.ask(now_ms) {
            self.jobs.ask(topic);
        }
    }

    fn report(&mut self, now_ms: u64) {
        let Some((evidence, _)) = self.parts.evidence.as_ref().filter(|_| !self.reporting) else { return };
        let reports = self.claims.take_reports(now_ms);
        if !reports.is_empty() {
            // One set at a time, so that there is room for it.
            self.reporting = evidence.try_send(reports).is_ok();
        }
    }

    fn reported(&mut self, reports: Vec<(Report, bool)>) {
        self.reporting = false;
        let now_ms = self.clock.now_ms();
        reports.into_iter().for_each(|(report, stored)| self.claims.reported(report, stored, now_ms));
    }

    fn prune(&mut self, now_ms: u64) {
        let Some(kept) = self.options.keep_done.filter(|_| !self.pruning && now_ms >= self.prune_ms) else { return };
        self.pruning = true;
        self.prune_ms = now_ms.saturating_add(PRUNE_INTERVAL_MS);
        self.jobs.prune(kept);
    }

    fn show(&mut self) {
        self.metrics.shards = self.claims.shards().len();
        self.metrics.held = self.claims.len();
        self.metrics.in_flight = self.sending.len();
        self.metrics.parked_keys = self.claims.parked_keys();
        self.parts.board.show(&self.metrics);
    }

    /// What a job has brought.
    fn came(&mut self, came: Came) -> Result<(), RelayError> {
        let now_ms = self.clock.now_ms();
        match came {
            Came::Found { search, number, found } => {
                self.search = Some(search);
                match found {
                    Ok(found) => {
                        self.idle = !found.more;
                        self.claims.found(number, found.rows.into_iter().map(Content::of).collect());
                    }
                    Err(error) => {
                        self.claims.found(number, Vec::new());
                        self.look_ms = now_ms.saturating_add(DATABASE_WAIT_MS);
                        self.failed(error)?;
                    }
                }
            }
            Came::Slept(slept) => {
                self.sleeping = None;
                if let Err(error) = slept {
                    self.look_ms = now_ms.saturating_add(DATABASE_WAIT_MS);
                    self.failed(error)?;
                }
            }
            Came::Written { change, written } => {
                self.writing = false;
                match written {
                    Ok(Written::Done) => {
                        let outgoing = self.claims.written();
                        self.sending.accept(outgoing, now_ms);
                    }
                    Ok(Written::Fenced(lost)) => {
                        let lost = self.claims.fenced(&lost);
                        self.lost(&lost, now_ms);
                    }
                    Err(error) => {
                        self.unwritten = Some(change);
                        self.write_ms = now_ms.saturating_add(DATABASE_WAIT_MS);
                        self.failed(error)?;
                    }
                }
            }
            Came::Beat { asked_ms, members } => {
                self.beating = false;
                match members {
                    Ok(members) => self.turn_over(&members, asked_ms, now_ms),
                    Err(error) => {
                        self.beat_ms = now_ms.saturating_add(DATABASE_WAIT_MS);
                        self.failed(error)?;
                    }
                }
            }
            Came::Taken { mark, taken } => self.taken(taken, mark, now_ms)?,
            Came::Partitions { topic, answer } => {
                if self.topics.learned(&topic, answer, now_ms) {
                    self.claims.topic_known(&topic);
                }
            }
            Came::Released => {}
            Came::Pruned(pruned) => {
                self.pruning = false;
                if let Err(error) = pruned {
                    self.failed(error)?;
                }
            }
        }
        Ok(())
    }

    /// What may pass is passed over; the rest ends the relay.
    fn failed(&mut self, error: OutboxError) -> Result<(), RelayError> {
        self.metrics.database_errors += 1;
        match error {
            OutboxError::NotPrepared(_) | OutboxError::Caller(_) => Err(error.into()),
            error => {
                tracing::warn!(%error, "the outbox's database; it is tried again");
                Ok(())
            }
        }
    }

    fn lost(&mut self, shards: &[u16], now_ms: u64) {
        if shards.is_empty() {
            return;
        }
        tracing::warn!(?shards, "these shards have another relay now");
        self.metrics.fenced += 1;
        self.sending.forget(now_ms, |shard| shards.contains(&shard));
    }
}
