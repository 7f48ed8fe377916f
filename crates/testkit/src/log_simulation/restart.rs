//! The end of a process, what may happen to the disk meanwhile, and the start of the next one.

use std::rc::Rc;
use std::sync::Arc;

use baton_log::{Log, NoObserver, OpenError, PartitionId, RecoveryReport};

use super::model::{Change, Observed, Placed, State};
use super::world::{Checked, World, ensure};
use crate::sim_disk::Operation;

/// A start is interrupted at most this often.
const INTERRUPTIONS_MAX: u64 = 4;
/// Bytes of a frame before its batch.
const FRAME_HEADER_BYTES: usize = 48;
/// Bytes of a segment before its first frame.
const SEGMENT_HEADER_BYTES: u64 = 64;
/// Random bytes of this number do not stand anywhere else.
const TELLING_BYTES: usize = 16;

impl World {
    /// The first start, on an empty disk.
    pub fn start(&mut self) -> Checked {
        let report = self.open()?;
        ensure!(report.damage.is_empty(), "an empty disk is called damaged: {:?}", report.damage);
        self.check_visible()
    }

    /// Ends the process in one of the ways in which processes end, and starts the next one.
    pub fn restart(&mut self) -> Checked {
        let unclean = self.disk.crashed() || self.poisoned();
        let percent = self.random.below(100);
        if !unclean && percent < 30 {
            self.close()?;
        }
        self.tail_may_be_torn |= self.disk.crashed();
        self.log = None;
        self.disk.note(|| format!("the process ends, {} changes are pending", self.pending.len()));
        self.end_process(if self.disk.crashed() { 80 } else { 55 });
        if self.random.percent(30) {
            self.flip_a_bit();
        }
        let report = self.open()?;
        self.adopt(&report)?;
        self.check_all_partitions()?;
        self.check_visible()
    }

    /// Closes the log in order: everything pending is committed.
    pub fn close(&mut self) -> Checked {
        let log = self.log()?;
        self.disk.note(|| "closing in order".to_owned());
        self.figures.closes += 1;
        log.close();
        self.settle()?;
        if self.poisoned() {
            return self.found_poisoned();
        }
        ensure!(self.pending.is_empty(), "tickets are left after closing");
        Ok(())
    }

    /// The last start: everything must be there, without any excuse.
    pub fn start_after_close(&mut self) -> Checked {
        self.tail_may_be_torn |= self.disk.crashed();
        self.log = None;
        self.disk.set_capacity(u64::MAX);
        self.end_process(50);
        let report = self.open()?;
        self.adopt(&report)?;
        self.check_all_partitions()
    }

    fn end_process(&mut self, power_loss_percent: u64) {
        if self.random.coin() {
            self.disk.set_capacity(u64::MAX);
        }
        if self.random.percent(power_loss_percent) {
            self.figures.power_losses += 1;
            self.disk = self.disk.lose_power();
        } else {
            self.figures.kills += 1;
            self.disk = self.disk.kill();
        }
        self.faults_before = self.disk.faults_fired();
    }

    /// Opens the log, again and again if the start is interrupted.
    fn open(&mut self) -> Checked<RecoveryReport> {
        let mut interruptions = 0;
        loop {
            if interruptions < INTERRUPTIONS_MAX {
                match self.random.below(10) {
                    0..=2 => self.disk.crash_at(self.random.between(1, 60)),
                    3 => self.disk.fail(Operation::SyncData, self.random.between(1, 3)),
                    4 => self.disk.fail(Operation::SyncDirectory, self.random.between(1, 3)),
                    5 => self.disk.fail(Operation::Read, self.random.between(1, 40)),
                    _ => {}
                }
            }
            let disk = Arc::new(self.disk.clone());
            let opened = Log::open(disk, self.clock.clone(), self.options.clone(), Arc::new(NoObserver));
            match opened {
                Ok((log, report)) if !self.disk.crashed() => {
                    self.disk.forget_faults();
                    self.faults_before = self.disk.faults_fired();
                    self.disk.note(|| format!("open: {report:?}"));
                    let id = self.cluster_id.get_or_insert_with(|| log.cluster_id().to_owned());
                    ensure!(log.cluster_id() == id, "the cluster id was {id} and is {}", log.cluster_id());
                    self.log = Some(log);
                    return Ok(report);
                }
                Ok(_) => {}
                Err(error) => {
                    self.disk.note(|| format!("open failed: {error}"));
                    let full =
                        matches!(&error, OpenError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull);
                    if full {
                        let left = self.disk.left_bytes();
                        let enough = self.options.reserve_step_bytes + self.options.free_bytes_min + (64 << 10);
                        ensure!(left < enough, "opening failed for want of space while {left} bytes are left");
                        self.disk.set_capacity(u64::MAX);
                    } else {
                        ensure!(self.fault_happened(), "opening failed although the disk did nothing wrong: {error}");
                    }
                }
            }
            interruptions += 1;
            self.figures.interrupted_starts += 1;
            self.tail_may_be_torn = true;
            self.start_interrupted = true;
            self.end_process(60);
        }
    }

    /// Compares what came back with what must, and takes it over as what is durable now.
    fn adopt(&mut self, report: &RecoveryReport) -> Checked {
        let log = self.log()?;
        let observed = Observed::of(&log);
        self.figures.indexes_rebuilt += report.indexes_rebuilt;
        if report.cut.is_some() {
            self.figures.cuts += 1;
            let explained = self.tail_may_be_torn || self.flips.batch.is_some();
            ensure!(explained, "a tail was cut although nothing was torn: {:?}", report.cut);
        }
        self.tail_may_be_torn = false;
        self.answers.clear();
        self.clients.iter_mut().for_each(super::workload::Client::repeat);
        match self.survivors(&self.state, &observed) {
            Ok(kept) => self.adopt_pending(kept, &observed)?,
            Err(_) if self.adopt_without_table_write(report, &observed)? => {}
            Err(difference) => {
                // A start that was interrupted after the cut has reported it; the next one finds nothing to cut.
                let cut = (report.cut.is_some() || self.start_interrupted) && self.adopt_cut(&observed);
                ensure!(cut, "after the restart ({report:?}): {difference}");
            }
        }
        self.start_interrupted = false;
        self.check_report(report)
    }

    /// How many of the pending changes survived: they must be the first ones, in the order in which they were asked for.
    fn survivors(&self, durable: &State, observed: &Observed) -> Checked<usize> {
        let mut state = durable.clone();
        let mut nearest = String::new();
        let mut found = None;
        for kept in 0..=self.pending.len() {
            if let Some(pending) = kept.checked_sub(1).and_then(|at| self.pending.get(at)) {
                state.apply(&pending.change, observed);
            }
            match state.expected().difference(observed) {
                None => found = Some(kept),
                Some(difference) => {
                    nearest = format!("with {kept} of {} pending changes {difference}", self.pending.len())
                }
            }
        }
        found.ok_or(nearest)
    }

    fn adopt_pending(&mut self, kept: usize, observed: &Observed) -> Checked {
        self.figures.unknown_kept += kept as u64;
        self.figures.unknown_lost += (self.pending.len() - kept) as u64;
        let changes: Vec<Change> = self.pending.drain(..).take(kept).map(|pending| pending.change).collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.before_last_group = self.state.clone();
        changes.iter().for_each(|change| self.state.apply(change, observed));
        self.last_group = changes;
        self.note_new_partitions()
    }

    /// A damaged write to a table is lost, which must have been reported.
    fn adopt_without_table_write(&mut self, report: &RecoveryReport, observed: &Observed) -> Checked<bool> {
        let Some(hit) = &self.flips.table else { return Ok(false) };
        let Some(at) = self.state.table_writes.iter().position(|write| Rc::ptr_eq(write, hit)) else {
            return Ok(false);
        };
        let mut state = self.state.clone();
        state.forget_table_write(at);
        let Ok(kept) = self.survivors(&state, observed) else { return Ok(false) };
        let reported = report.damage.iter().any(|damage| damage.partition.is_none());
        ensure!(reported, "a write to a table was lost and not reported: {report:?}");
        self.figures.damage_reported += 1;
        self.state = state;
        self.adopt_pending(kept, observed)?;
        Ok(true)
    }

    /// A bit flipped in the last commit group cannot be told from a torn tail: the log may end there, if it says so.
    fn adopt_cut(&mut self, observed: &Observed) -> bool {
        let Some((hit, base)) = self.flips.batch else { return false };
        let is_hit = |change: &Change| matches!(change, Change::Batch { partition, placed } if *partition == hit && placed.base_offset == base);
        let Some(at) = self.last_group.iter().position(is_hit) else { return false };
        let mut state: State = self.before_last_group.clone();
        self.last_group[..at].iter().for_each(|change| state.apply(change, observed));
        if state.expected() != *observed {
            return false;
        }
        self.figures.damage_reported += 1;
        // Partitions that were created behind the cut never were: their numbers are free.
        self.partitions_ever.retain(|id| !self.state.partitions.contains_key(id) || state.partitions.contains_key(id));
        self.state = state;
        self.last_group.truncate(at);
        self.pending.clear();
        self.clients.clear();
        self.flips.batch = None;
        true
    }

    /// Every damage that is reported was planted.
    fn check_report(&mut self, report: &RecoveryReport) -> Checked {
        for damage in &report.damage {
            let planted = match (&damage.partition, damage.offsets) {
                (Some((topic, index)), Some((first, last))) => self.state.partitions.values().any(|held| {
                    let hits = |placed: &Placed| {
                        held.damaged.contains(&placed.base_offset) && first >= placed.base_offset && last < placed.end()
                    };
                    held.topic == *topic && held.index == *index && held.placed.iter().any(hits)
                }),
                _ => self.flips.frame_done || self.flips.segment_header,
            };
            ensure!(planted, "damage is reported that is none: {damage:?}");
            self.figures.damage_reported += u64::from(damage.partition.is_some());
        }
        Ok(())
    }

    fn flip_a_bit(&mut self) {
        let flipped = match self.random.below(10) {
            0..=3 if !self.flips.frame_done => self.flip_in_a_batch(),
            4 if !self.flips.frame_done => self.flip_in_a_table_write(),
            5 => {
                let name = self.any_file(".log");
                let bit = self.random.below(SEGMENT_HEADER_BYTES * 8);
                let flipped = name.is_some_and(|name| self.disk.flip_bit(&name, bit));
                self.flips.segment_header |= flipped;
                flipped
            }
            6 | 7 if !self.flips.checkpoint => {
                self.flips.checkpoint = self.flip_in_a_file(".checkpoint");
                self.flips.checkpoint
            }
            _ => self.flip_in_a_file(".index"),
        };
        self.figures.flips += u64::from(flipped);
    }

    fn any_file(&mut self, extension: &str) -> Option<String> {
        let names: Vec<String> = self.disk.names().into_iter().filter(|name| name.ends_with(extension)).collect();
        self.random.pick(&names).cloned()
    }

    fn flip_in_a_file(&mut self, extension: &str) -> bool {
        let Some(name) = self.any_file(extension) else { return false };
        let bits = self.disk.content(&name).map_or(0, |content| content.len() as u64 * 8);
        let bit = self.random.below(bits);
        self.disk.flip_bit(&name, bit)
    }

    /// Flips a bit in a value that was written to a table, before the last commit group.
    fn flip_in_a_table_write(&mut self) -> bool {
        let in_last_group = self.last_group.iter().filter(|change| matches!(change, Change::Table { .. })).count();
        let writes = &self.state.table_writes;
        let older = &writes[..writes.len().saturating_sub(in_last_group)];
        let Some(write) = self.random.pick(older).cloned() else { return false };
        let values = write.changes.iter().filter_map(|(_, value)| value.as_ref());
        let Some(value) = values.max_by_key(|value| value.len()).filter(|value| value.len() >= TELLING_BYTES) else {
            return false;
        };
        let Some((name, at)) = self.find_in_segments(value) else { return false };
        let bit = (at * 8) as u64 + self.random.below(value.len() as u64 * 8);
        let flipped = self.disk.flip_bit(&name, bit);
        if flipped {
            self.flips.frame_done = true;
            self.flips.table = Some(write);
        }
        flipped
    }

    /// The segment in which these bytes stand, and where.
    fn find_in_segments(&self, wanted: &[u8]) -> Option<(String, usize)> {
        let names = self.disk.names().into_iter().filter(|name| name.ends_with(".log"));
        names.into_iter().find_map(|name| {
            let content = self.disk.content(&name)?;
            let at = content.windows(wanted.len()).position(|window| window == wanted)?;
            Some((name, at))
        })
    }

    /// Flips a bit in the frame of an acknowledged batch.
    fn flip_in_a_batch(&mut self) -> bool {
        // Cutting off a moved log start would bring back records that were given up: too much for the model.
        if self.last_group.iter().any(|change| matches!(change, Change::LogStart { .. })) {
            return false;
        }
        let durable: Vec<(PartitionId, Placed)> = self
            .state
            .partitions
            .iter()
            .flat_map(|(id, held)| held.placed.iter().map(|placed| (*id, held.log_start, placed.clone())))
            .filter(|(_, log_start, placed)| placed.end() > *log_start)
            .map(|(id, _, placed)| (id, placed))
            .collect();
        let Some((partition, placed)) = self.random.pick(&durable).cloned() else { return false };
        let stored = placed.batch.stored_at(placed.base_offset);
        let Some((name, at)) = self.find_in_segments(&stored) else { return false };
        let from = (at - FRAME_HEADER_BYTES) as u64 * 8;
        let bit = self.random.between(from, (at + stored.len()) as u64 * 8 - 1);
        if !self.disk.flip_bit(&name, bit) {
            return false;
        }
        self.flips.batch = Some((partition, placed.base_offset));
        self.flips.frame_done = true;
        let producer_id = placed.batch.header.producer_id;
        self.clients.retain(|client| !client.is(producer_id));
        if let Some(held) = self.state.partitions.get_mut(&partition) {
            held.damaged.insert(placed.base_offset);
        }
        true
    }
}
