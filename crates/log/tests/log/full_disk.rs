//! A disk without space: refused before anything is lost, readable, and forgotten when there is space again.

use baton_log::AppendError;
use baton_testkit::SimDisk;

use super::support::*;

#[test]
fn full_disk_is_refused_readable_and_recovers() {
    let disk = SimDisk::new(1);
    disk.set_capacity(100 << 10);
    let place = Place::Simulated(disk.clone());
    let (log, _) = place.open(small());
    let partition = create_topic(&log, "orders", 1)[0];
    let value = batch(&"w".repeat(900));
    let mut written = Vec::new();
    let refused = loop {
        match try_append(&log, partition, &value) {
            Ok(receipt) => {
                written.push(value.clone());
                commit(&log, receipt.ticket);
                log.maintain_once();
            }
            Err(error) => break error,
        }
        assert!(written.len() < 1000);
    };
    assert_eq!(refused, AppendError::DiskFull);
    assert!(written.len() > 50, "{} batches fit into 100 KiB", written.len());
    assert_eq!(log.poisoned(), None, "a full disk is no failure");
    assert!(log.stats().refused_full > 0);
    assert!(matches!(
        log.write_table(TABLE, vec![("k".into(), Some(vec![1; 5000].into()))]),
        Err(AppendError::DiskFull)
    ));
    assert_holds(&log, partition, &written);
    disk.set_capacity(1 << 20);
    for _ in 0..20 {
        write(&log, partition, &value);
        written.push(value.clone());
    }
    drop(log);
    let mut place = place;
    place.crash();
    let (log, report) = place.open(small());
    assert_eq!(report.damage, []);
    assert_holds(&log, partition, &written);
}

#[test]
fn what_was_accepted_is_committed_on_a_disk_that_others_fill() {
    let disk = SimDisk::new(1);
    let place = Place::Simulated(disk.clone());
    let (log, _) = place.open(small());
    let partition = create_topic(&log, "orders", 1)[0];
    let mut written = Vec::new();
    for round in 0..60 {
        disk.set_capacity(u64::MAX);
        let value = batch(&format!("{round:0>900}"));
        let receipt = append(&log, partition, &value);
        disk.set_capacity(disk.used_bytes());
        commit(&log, receipt.ticket);
        log.maintain_once();
        written.push(value);
    }
    assert_eq!(log.poisoned(), None);
    assert_holds(&log, partition, &written);
}

#[test]
fn a_log_on_a_full_disk_opens_for_reading() {
    let disk = SimDisk::new(1);
    let mut place = Place::Simulated(disk.clone());
    let (log, _) = place.open(small());
    let partition = create_topic(&log, "orders", 1)[0];
    let written: Vec<Vec<u8>> = (0..30).map(|at| batch(&format!("{at:0>700}"))).collect();
    write_all(&log, partition, &written);
    drop(log);
    place.crash();
    disk.set_capacity(disk.used_bytes());
    let (log, _) = place.open(small());
    assert_holds(&log, partition, &written);
    assert_eq!(try_append(&log, partition, &batch(&"v".repeat(9000))).err(), Some(AppendError::DiskFull));
}
