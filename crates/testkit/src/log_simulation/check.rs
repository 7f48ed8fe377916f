//! Comparing what the log shows with what it must hold.

use baton_log::{PartitionId, ReadError, ReadMode};
use baton_wire::records::BatchHeader;

use super::model::{Observed, Partition};
use super::world::{Checked, World, ensure};

impl World {
    /// Catalog, bounds and tables are those of the durable state: nothing less, and nothing that is still pending.
    pub fn check_visible(&mut self) -> Checked {
        let log = self.log()?;
        match self.state.expected().difference(&Observed::of(&log)) {
            Some(difference) => Err(format!("the log shows something else than what is durable: {difference}")),
            None => Ok(()),
        }
    }

    pub fn check_all_partitions(&mut self) -> Checked {
        let partitions: Vec<PartitionId> = self.state.partitions.keys().copied().collect();
        partitions.into_iter().try_for_each(|partition| self.check_partition(partition))
    }

    /// Reads a partition from start to end and compares every byte.
    pub fn check_partition(&mut self, partition: PartitionId) -> Checked {
        let log = self.log()?;
        let Some(held) = self.state.partitions.get(&partition).cloned() else { return Ok(()) };
        for outside in [held.log_start - 1, held.end() + 1] {
            let read = log.read(partition, outside, 100, true, ReadMode::Blocking);
            let refused = matches!(read, Err(ReadError::OutOfRange(_)));
            ensure!(refused, "reading {outside} of {partition:?} outside of its bounds was answered {read:?}");
        }
        let mut offset = held.log_start;
        let mut wait = false;
        while offset < held.end() {
            let bytes_max = [0, 300, 3_000, 30_000, 1 << 20][self.random.index(5)];
            let mode = if wait || self.random.coin() { ReadMode::Blocking } else { ReadMode::Cached };
            wait = false;
            match log.read(partition, offset, bytes_max, true, mode) {
                Ok(read) => {
                    ensure!(!read.batches.is_empty(), "reading {partition:?} at {offset} gave nothing");
                    let too_much = read.batches.len() > 1 && read.bytes > bytes_max;
                    ensure!(!too_much, "{} bytes were read where {bytes_max} were asked for", read.bytes);
                    for batch in &read.batches {
                        offset = self.check_batch(partition, &held, offset, batch)?;
                    }
                }
                Err(ReadError::NotCached) if mode == ReadMode::Cached => wait = true,
                Err(ReadError::Damaged { first, last }) => {
                    let placed = held.placed.iter().find(|placed| placed.end() > offset);
                    let known = placed.is_some_and(|placed| {
                        held.damaged.contains(&placed.base_offset)
                            && first == offset
                            && (first..placed.end()).contains(&last)
                    });
                    ensure!(known, "offsets {first} to {last} of {partition:?} are called damaged and are not");
                    self.figures.damage_reported += 1;
                    offset = last + 1;
                }
                Err(ReadError::Io(_)) if self.fault_happened() => return Ok(()),
                Err(error) => return Err(format!("reading {partition:?} at {offset}: {error}")),
            }
        }
        self.check_end(partition, &held)
    }

    fn check_end(&self, partition: PartitionId, held: &Partition) -> Checked {
        let log = self.log()?;
        let read = log.read(partition, held.end(), 1000, true, ReadMode::Blocking);
        let empty = read.as_ref().is_ok_and(|read| read.batches.is_empty());
        ensure!(empty, "reading {partition:?} at its end was answered {read:?}");
        let estimate = log.bytes_from(partition, held.end(), 1000);
        ensure!(estimate == 0, "{estimate} bytes are promised at the end of {partition:?}");
        let waiting = log.bytes_from(partition, held.log_start, 1000);
        let there = waiting > 0 || held.log_start == held.end() || !held.damaged.is_empty();
        ensure!(there, "no bytes are promised from {} on in {partition:?}", held.log_start);
        Ok(())
    }

    /// Compares one batch that was read with the one that `offset` lies in; returns the offset after it.
    fn check_batch(&mut self, partition: PartitionId, held: &Partition, offset: i64, found: &[u8]) -> Checked<i64> {
        let at = held.placed.partition_point(|placed| placed.end() <= offset);
        let Some(placed) = held.placed.get(at) else { return Err(format!("{partition:?} goes on after its end")) };
        self.figures.batches_compared += 1;
        let intact = found == placed.batch.stored_at(placed.base_offset);
        if held.damaged.contains(&placed.base_offset) {
            let noticed = BatchHeader::parse(found).is_ok_and(|header| !header.checksum_matches(found));
            ensure!(noticed, "damage of {partition:?} at {} goes unnoticed (intact: {intact})", placed.base_offset);
            self.figures.damage_reported += 1;
        } else {
            let what = BatchHeader::parse(found).map(|header| (header.base_offset, header.record_count));
            ensure!(
                intact,
                "{partition:?} at {} is not what was acknowledged: offset and count {what:?}, {} bytes instead of {}",
                placed.base_offset,
                found.len(),
                placed.batch.bytes.len()
            );
        }
        Ok(placed.end())
    }

    /// Looks records up by time.
    pub fn check_times(&mut self) -> Checked {
        let Some(partition) = self.any_partition() else { return Ok(()) };
        let (log, held) = (self.log()?, self.state.partitions[&partition].clone());
        if !held.damaged.is_empty() {
            return Ok(());
        }
        let records: Vec<(i64, i64)> = held
            .placed
            .iter()
            .flat_map(|placed| (placed.base_offset..).zip(placed.batch.timestamps.iter().copied()))
            .filter(|(offset, _)| *offset >= held.log_start)
            .collect();
        let asked = match self.random.pick(&records) {
            Some((_, timestamp)) => timestamp + self.random.below(3) as i64 - 1,
            None => 0,
        };
        let expected = records.iter().find(|(_, timestamp)| *timestamp >= asked).copied();
        let found = log.offset_at_time(partition, asked);
        let excused = matches!(found, Err(ReadError::Io(_))) && self.fault_happened();
        ensure!(
            excused || self.fault_happened() || found == Ok(expected),
            "first record of {partition:?} at or after {asked} should be {expected:?}, found {found:?}"
        );
        let largest = records.iter().map(|(_, timestamp)| *timestamp).max();
        let expected = records.iter().find(|(_, timestamp)| Some(*timestamp) == largest).copied();
        let found = log.max_timestamp(partition);
        ensure!(
            self.fault_happened() || found == Ok(expected),
            "the largest timestamp of {partition:?} should be {expected:?}, found {found:?}"
        );
        Ok(())
    }
}
