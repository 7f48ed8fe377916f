//! When something counts as stored: after its sync, for everyone at once, and never after a failed one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use baton_log::{AppendError, Log, LogObserver, PartitionId, ReadMode, Ticket};
use baton_testkit::{Operation, ProbedDisk, SimDisk};

use super::support::*;

#[test]
fn failed_sync_poisons_until_restart_and_is_never_retried() {
    let disk = SimDisk::new(1);
    let mut place = Place::Simulated(disk.clone());
    let (log, _) = place.open(small());
    let partition = create_topic(&log, "orders", 1)[0];
    write(&log, partition, &batch("durable"));
    disk.fail(Operation::SyncData, 1);
    let lost = append(&log, partition, &batch("not durable"));
    log.commit_once();
    let syncs = disk.counts().syncs;
    let outcome = log.durable(lost.ticket).now();
    assert!(matches!(&outcome, Some(Err(poisoned)) if poisoned.to_string().contains("restart")), "{outcome:?}");
    for _ in 0..3 {
        assert!(!log.commit_once());
        assert!(matches!(try_append(&log, partition, &batch("later")), Err(AppendError::Poisoned(_))));
        assert!(matches!(log.write_table(TABLE, vec![]), Err(AppendError::Poisoned(_))));
        log.maintain_once();
    }
    log.close();
    assert_eq!(disk.counts().syncs, syncs, "the sync was tried again");
    assert!(log.stats().poisoned.is_some());
    assert_holds(&log, partition, &[batch("durable")]);
    drop(log);
    place.crash();
    let (log, _) = place.open(small());
    assert_eq!(log.poisoned(), None);
    assert_eq!(read_from(&log, partition, 0).unwrap()[0], stored(&batch("durable"), 0));
    write(&log, partition, &batch("goes on"));
}

#[test]
fn failed_write_poisons_too() {
    for operation in [Operation::Write, Operation::SyncData] {
        let disk = SimDisk::new(1);
        let (log, _) = Place::Simulated(disk.clone()).open(small());
        let partition = create_topic(&log, "orders", 1)[0];
        disk.fail(operation, 1);
        let lost = append(&log, partition, &batch("lost"));
        log.commit_once();
        assert!(matches!(log.durable(lost.ticket).now(), Some(Err(_))), "{operation:?}");
        assert_eq!(log.bounds(partition).unwrap().high_watermark, 0, "not visible after a failed {operation:?}");
    }
}

#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_not_believed_after_a_restart() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (log, _) = Place::Simulated(disk.clone()).open(small());
        let partition = create_topic(&log, "orders", 1)[0];
        disk.fail(Operation::SyncData, 1);
        append(&log, partition, &batch(&"u".repeat(1500)));
        log.commit_once();
        drop(log);
        // The process is started again, finds the records in the page cache and shows them ...
        let disk = disk.kill();
        let (log, _) = open_on(Arc::new(disk.clone()), small());
        let shown = read_from(&log, partition, 0).unwrap();
        assert_eq!(shown.len(), 1);
        drop(log);
        // ... so that they have to be there after the power failed.
        let (log, _) = open_on(Arc::new(disk.lose_power()), small());
        assert_eq!(read_from(&log, partition, 0).unwrap(), shown, "seed {seed}");
    }
}

#[test]
fn no_acknowledgement_and_no_reader_is_ahead_of_the_sync() {
    let probe: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>> = Arc::default();
    let disk = ProbedDisk::new(SimDisk::new(1), {
        let probe = probe.clone();
        move || {
            if let Some(probe) = probe.get() {
                probe();
            }
            Ok(())
        }
    });
    let (log, _) = open_on(Arc::new(disk), small());
    let partition = create_topic(&log, "orders", 1)[0];
    let waiting: Arc<Mutex<Option<(Ticket, i64)>>> = Arc::default();
    let probes = Arc::new(AtomicU64::new(0));
    let look = {
        let (log, waiting, probes) = (log.clone(), waiting.clone(), probes.clone());
        move || {
            // Syncs after the first one belong to the preparation of the next segment.
            let Some((ticket, offset)) = waiting.lock().unwrap().take() else { return };
            probes.fetch_add(1, Ordering::Relaxed);
            assert_eq!(log.durable(ticket).now(), None, "acknowledged before the sync");
            assert_eq!(log.bounds(partition).unwrap().high_watermark, offset);
            let read = log.read(partition, offset, 1000, true, ReadMode::Blocking).unwrap();
            assert!(read.batches.is_empty(), "visible before the sync");
            assert_eq!(log.table_get(TABLE, &offset.to_be_bytes()), None);
        }
    };
    assert!(probe.set(Box::new(look)).is_ok());
    for offset in 0..100_i64 {
        let receipt = append(&log, partition, &batch(&"t".repeat(200)));
        log.write_table(TABLE, vec![(offset.to_be_bytes().to_vec().into(), Some("v".into()))]).unwrap();
        *waiting.lock().unwrap() = Some((receipt.ticket, offset));
        log.commit_once();
        assert_eq!(*waiting.lock().unwrap(), None, "no sync took place");
        assert_eq!(log.durable(receipt.ticket).now(), Some(Ok(())));
        assert_eq!(log.bounds(partition).unwrap().high_watermark, offset + 1);
        assert!(log.table_get(TABLE, &offset.to_be_bytes()).is_some());
    }
    assert_eq!(probes.load(Ordering::Relaxed), 100, "each commit was looked at");
}

#[test]
fn commit_cost_does_not_grow_with_partitions() {
    let cost = |partitions: u32| {
        let disk = SimDisk::new(1);
        let (log, _) = Place::Simulated(disk.clone()).open(baton_log::LogOptions::default());
        let ids = create_topic(&log, "orders", partitions);
        let mut ticket = None;
        for at in 0..1000 {
            ticket = Some(append(&log, ids[at % ids.len()], &batch("same work")).ticket);
        }
        let before = disk.counts();
        commit(&log, ticket.unwrap());
        let after = disk.counts();
        assert_eq!(after.syncs - before.syncs, 1);
        (after.operations - before.operations, after.bytes_written - before.bytes_written)
    };
    assert_eq!(cost(1), cost(1000));
    assert_eq!(cost(1).0, 2, "one write and one sync");
}

#[test]
fn what_arrives_during_a_sync_shares_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = Place::Real(directory).open(baton_log::LogOptions::default());
    log.start().unwrap();
    let ticket = log.create_topic("orders", [1; 16], 8, Default::default()).unwrap();
    log.wait_durable(ticket).unwrap();
    let partitions = log.catalog().topic("orders").unwrap().partitions.clone();
    let before = log.stats();
    std::thread::scope(|scope| {
        for partition in &partitions {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let receipt = append(&log, *partition, &batch("together"));
                        log.wait_durable(receipt.ticket).unwrap();
                    }
                });
            }
        }
    });
    let stats = log.stats();
    let (batches, syncs) = (stats.batches - before.batches, stats.syncs - before.syncs);
    assert_eq!(batches, 1600);
    assert!(syncs * 2 < batches, "{syncs} syncs for {batches} batches");
    assert!(partitions.iter().all(|partition| log.bounds(*partition).unwrap().high_watermark == 200));
    log.close();
}

#[derive(Default)]
struct Told {
    published: Mutex<Vec<Vec<PartitionId>>>,
    poisoned: Mutex<Vec<String>>,
}

impl LogObserver for Told {
    fn published(&self, partitions: &[PartitionId]) {
        self.published.lock().unwrap().push(partitions.to_vec());
    }
    fn poisoned(&self, reason: &str) {
        self.poisoned.lock().unwrap().push(reason.to_owned());
    }
}

#[test]
fn the_observer_is_told_once_per_commit_and_of_the_poisoning() {
    let (disk, told) = (SimDisk::new(1), Arc::new(Told::default()));
    let (log, _): (Log, _) = open_observed(Arc::new(disk.clone()), small(), told.clone());
    let partitions = create_topic(&log, "orders", 3);
    told.published.lock().unwrap().clear();
    for partition in [partitions[2], partitions[0], partitions[2]] {
        append(&log, partition, &batch("news"));
    }
    log.commit_once();
    assert_eq!(*told.published.lock().unwrap(), [vec![partitions[0], partitions[2]]]);
    disk.fail(Operation::Write, 1);
    append(&log, partitions[1], &batch("lost"));
    log.commit_once();
    assert_eq!(told.published.lock().unwrap().len(), 1);
    assert_eq!(told.poisoned.lock().unwrap().len(), 1);
}
