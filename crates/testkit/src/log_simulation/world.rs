//! The simulated machine: log, disk, model, and what lies between an append and its acknowledgement.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use baton_log::{AppendError, AppendOutcome, Log, LogOptions, PartitionId, Ticket};

use super::model::{Batch, Change, Observed, Pending, Placed, State, TableWrite, verdict};
use super::workload::Client;
use super::{Figures, SimulatedMutant, Simulation};
use crate::random::Random;
use crate::sim_clock::SimClock;
use crate::sim_disk::{Lies, SimDisk};

/// `Err` says which promise was broken.
pub(super) type Checked<T = ()> = Result<T, String>;

/// Fails with a text unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+));
        }
    };
}
pub(super) use ensure;

/// Time at which every simulation starts, in milliseconds since 1970.
const START_MS: i64 = 1_700_000_000_000;
/// Space beyond its options that the log may need before it has to take an append.
const SPACE_SLACK_BYTES: u64 = 8 << 10;

/// What a client is to be told once its ticket has resolved.
pub(super) struct Answer {
    pub ticket: Ticket,
    pub client: u64,
    pub partition: PartitionId,
    pub batch: Rc<Batch>,
    pub outcome: AppendOutcome,
}

/// Bits that were flipped.
#[derive(Default)]
pub(super) struct Flips {
    /// The batch that was hit, if one was: its partition and base offset.
    pub batch: Option<(PartitionId, i64)>,
    /// The write to a table that was hit, if one was.
    pub table: Option<Rc<TableWrite>>,
    /// Whether one of them ever was: two of them side by side could not be told apart.
    pub frame_done: bool,
    pub checkpoint: bool,
    pub segment_header: bool,
}

pub(super) struct World {
    pub random: Random,
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    pub options: LogOptions,
    pub log: Option<Log>,
    pub cluster_id: Option<String>,
    /// What is durable: acknowledged, or found after a restart.
    pub state: State,
    /// The same without the last commit group, and that group: a flipped bit in it may pass for a torn tail.
    pub before_last_group: State,
    pub last_group: Vec<Change>,
    pub pending: Vec<Pending>,
    pub clients: Vec<Client>,
    pub answers: Vec<Answer>,
    pub made: u64,
    pub partitions_ever: BTreeSet<PartitionId>,
    pub flips: Flips,
    /// Faults of the device before this life of the process.
    pub faults_before: u64,
    /// Whether something stands in the log's tail that no one has been told of.
    pub tail_may_be_torn: bool,
    /// Whether starts were interrupted before the one that succeeded.
    pub start_interrupted: bool,
    /// Promises that the disk breaks once the log exists.
    lies: Lies,
    pub figures: Figures,
}

fn options(random: &mut Random) -> LogOptions {
    LogOptions {
        segment_bytes: random.between(4, 40) << 10,
        reserve_step_bytes: random.between(1, 16) << 10,
        free_bytes_min: random.between(0, 16) << 10,
        pending_bytes_max: (random.between(24, 96) << 10) as usize,
        index_cache_bytes: random.below(4) as usize * 500,
        ..LogOptions::default()
    }
}

impl World {
    pub fn new(simulation: &Simulation) -> Self {
        let mut random = Random::new(simulation.seed);
        let disk = SimDisk::new(random.next_u64());
        let clock = Arc::new(SimClock::new(START_MS));
        if simulation.trace {
            disk.start_trace();
        }
        disk.set_cache_misses(random.below(3) * 20);
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut, reason = "only a mutant changes an option"))]
        let mut options = options(&mut random);
        #[cfg(feature = "mutants")]
        {
            options.mutant = match simulation.mutant {
                Some(SimulatedMutant::TailNotChecked) => Some(baton_log::mutants::Mutant::TailNotChecked),
                Some(SimulatedMutant::FailedSyncRetried) => Some(baton_log::mutants::Mutant::FailedSyncRetried),
                _ => None,
            };
        }
        Self {
            random,
            disk,
            clock,
            options,
            log: None,
            cluster_id: None,
            state: State::default(),
            before_last_group: State::default(),
            last_group: Vec::new(),
            pending: Vec::new(),
            clients: Vec::new(),
            answers: Vec::new(),
            made: 0,
            partitions_ever: BTreeSet::new(),
            flips: Flips::default(),
            faults_before: 0,
            tail_may_be_torn: false,
            start_interrupted: false,
            lies: Lies {
                sync_data: simulation.mutant == Some(SimulatedMutant::SyncTakenOut),
                sync_directory: simulation.mutant == Some(SimulatedMutant::DirectorySyncTakenOut),
            },
            figures: Figures { seeds: 1, ..Figures::default() },
        }
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.disk.take_trace()
    }

    pub fn run(&mut self) -> Checked<Figures> {
        self.start()?;
        self.disk.set_lies(self.lies);
        for _ in 0..self.random.between(3, 7) {
            self.live()?;
            self.restart()?;
        }
        self.close()?;
        self.start_after_close()?;
        self.figures.disk_operations = self.disk.counts().operations;
        self.figures.faults = self.disk.faults_fired();
        Ok(self.figures)
    }

    pub fn log(&self) -> Checked<Log> {
        self.log.clone().ok_or_else(|| "the simulation has no open log".to_owned())
    }

    /// Whether the disk has refused something in this life that a log may be stopped by.
    pub fn fault_happened(&self) -> bool {
        self.disk.crashed() || self.disk.faults_fired() > self.faults_before
    }

    pub fn poisoned(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.poisoned().is_some())
    }

    /// What can be said about an append that was refused.
    pub fn explain(&mut self, error: &AppendError, bytes: usize) -> Checked {
        match error {
            AppendError::Poisoned(_) => {
                ensure!(self.poisoned(), "an append was refused as poisoned by a log that says it is not");
                ensure!(self.fault_happened(), "the log is poisoned although the disk did nothing wrong: {error}");
            }
            AppendError::DiskFull => {
                self.figures.refused_full += 1;
                let options = &self.options;
                let enough = options.reserve_step_bytes + options.free_bytes_min + bytes as u64 + SPACE_SLACK_BYTES;
                let left = self.disk.left_bytes();
                ensure!(
                    left < enough || self.fault_happened(),
                    "an append of {bytes} bytes was refused as full while {left} bytes are left"
                );
            }
            AppendError::Backlogged => {
                ensure!(!self.pending.is_empty(), "backlogged, and nothing is pending");
                self.commit()?;
            }
            other => return Err(format!("an append was refused: {other}")),
        }
        Ok(())
    }

    /// First offset that the next batch of a partition must get.
    fn next_offset(&self, partition: PartitionId) -> i64 {
        let pending = self.pending.iter().rev().find_map(|pending| match &pending.change {
            Change::Batch { partition: of, placed } if *of == partition => Some(placed.end()),
            _ => None,
        });
        pending.or_else(|| self.state.partitions.get(&partition).map(|held| held.end())).unwrap_or(0)
    }

    /// The batches of a producer in a partition, those that are pending too.
    fn history(&self, partition: PartitionId, producer_id: i64) -> Vec<Placed> {
        let durable = self.state.partitions.get(&partition).into_iter().flat_map(|held| &held.placed);
        let pending = self.pending.iter().filter_map(|pending| match &pending.change {
            Change::Batch { partition: of, placed } if *of == partition => Some(placed),
            _ => None,
        });
        let own = |placed: &&Placed| placed.batch.header.producer_id == producer_id;
        durable.chain(pending).filter(own).cloned().collect()
    }

    /// Appends a batch; `None` if it was refused for a reason that lies with the disk.
    pub fn append(&mut self, partition: PartitionId, client: u64, batch: &Rc<Batch>) -> Checked<Option<AppendOutcome>> {
        let log = self.log()?;
        if !self.state.partitions.contains_key(&partition) {
            // Deleted since it was chosen.
            return Ok(None);
        }
        let history = self.history(partition, batch.header.producer_id);
        let expected = verdict(&history, self.next_offset(partition), batch);
        let receipt = match log.append(partition, &batch.header, &batch.bytes) {
            Ok(receipt) => receipt,
            Err(error) => {
                self.disk.note(|| format!("append to {partition:?}: {error}"));
                self.explain(&error, batch.bytes.len())?;
                return Ok(None);
            }
        };
        let sequence = (batch.header.producer_id, batch.header.base_sequence, batch.count());
        self.disk.note(|| format!("append to {partition:?} of {sequence:?}: {:?}", receipt.outcome));
        ensure!(
            receipt.outcome == expected,
            "append to {partition:?} of producer, sequence, count {sequence:?} was answered {:?}, should be {expected:?}",
            receipt.outcome
        );
        if let AppendOutcome::Stored { base_offset } = receipt.outcome {
            let known = log.durable(receipt.ticket).now();
            ensure!(known.is_none(), "a batch counts as {known:?} before anything was written");
            let placed = Placed { base_offset, batch: batch.clone() };
            self.pending.push(Pending { ticket: receipt.ticket, change: Change::Batch { partition, placed } });
        } else if matches!(receipt.outcome, AppendOutcome::Duplicate { .. }) {
            self.figures.duplicates += 1;
        }
        let (ticket, outcome) = (receipt.ticket, receipt.outcome);
        self.answers.push(Answer { ticket, client, partition, batch: batch.clone(), outcome });
        self.settle()?;
        Ok(Some(outcome))
    }

    /// Remembers a change that the log has taken.
    pub fn took(&mut self, change: Change, taken: Result<Ticket, AppendError>) -> Checked {
        let text = || format!("{change:?}").chars().take(120).collect::<String>();
        match taken {
            Ok(ticket) => {
                self.disk.note(|| format!("asked for {}", text()));
                self.pending.push(Pending { ticket, change });
            }
            Err(error) => {
                self.disk.note(|| format!("asked for {}: {error}", text()));
                self.explain(&error, 2 << 10)?;
            }
        }
        Ok(())
    }

    pub fn commit(&mut self) -> Checked {
        let log = self.log()?;
        let expected = !self.pending.is_empty() && !self.poisoned();
        let committed = log.commit_once();
        ensure!(committed == expected, "commit_once said {committed}, should be {expected}");
        self.settle()?;
        if self.poisoned() {
            return self.found_poisoned();
        }
        ensure!(self.pending.is_empty(), "tickets are left after a commit: {:?}", self.pending.first());
        Ok(())
    }

    pub fn found_poisoned(&mut self) -> Checked {
        ensure!(self.fault_happened(), "the log was poisoned although the disk did nothing wrong");
        self.tail_may_be_torn = true;
        Ok(())
    }

    /// Takes note of every ticket that has resolved.
    pub fn settle(&mut self) -> Checked {
        let log = self.log()?;
        let durable = |ticket: Ticket| log.durable(ticket).now() == Some(Ok(()));
        let count = self.pending.iter().take_while(|pending| durable(pending.ticket)).count();
        ensure!(
            !self.pending[count..].iter().any(|pending| durable(pending.ticket)),
            "a ticket resolved before an earlier one"
        );
        if count > 0 {
            self.figures.commits += 1;
            self.before_last_group = self.state.clone();
            self.last_group = self.pending.drain(..count).map(|pending| pending.change).collect();
            let catalog = self.last_group.iter().any(Change::is_of_catalog);
            let observed = if catalog { Observed::of(&log) } else { Observed::default() };
            let changes = std::mem::take(&mut self.last_group);
            for change in &changes {
                self.state.apply(change, &observed);
                self.figures.acknowledged += u64::from(matches!(change, Change::Batch { .. }));
            }
            self.last_group = changes;
            if catalog {
                self.note_new_partitions()?;
            }
        }
        self.settle_answers(&log)
    }

    /// Partition numbers are never used again once anyone could have seen them.
    pub fn note_new_partitions(&mut self) -> Checked {
        let before: BTreeSet<PartitionId> = self.before_last_group.partitions.keys().copied().collect();
        for partition in self.state.partitions.keys().filter(|partition| !before.contains(partition)) {
            ensure!(self.partitions_ever.insert(*partition), "{partition:?} was used before");
        }
        Ok(())
    }

    fn settle_answers(&mut self, log: &Log) -> Checked {
        let resolved = |answer: &mut Answer| log.durable(answer.ticket).now() == Some(Ok(()));
        let answers: Vec<Answer> = self.answers.extract_if(.., resolved).collect();
        for answer in answers {
            let at = match answer.outcome {
                AppendOutcome::Stored { base_offset } | AppendOutcome::Duplicate { base_offset } => base_offset,
                AppendOutcome::Refused(_) => continue,
            };
            if let Some(held) = self.state.partitions.get(&answer.partition) {
                let there = held
                    .placed
                    .iter()
                    .any(|placed| placed.base_offset == at && placed.batch.bytes == answer.batch.bytes);
                ensure!(there, "{:?} at {:?} was answered before it was durable", answer.outcome, answer.partition);
            }
            if let Some(client) = self.clients.iter_mut().find(|client| client.id == answer.client) {
                client.answered(&answer.batch);
            }
        }
        Ok(())
    }
}
