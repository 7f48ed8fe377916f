//! What a start makes of what the last process left.

use std::sync::Arc;

use baton_log::{FileDisk, Log, NoObserver, OpenError};
use baton_testkit::{SimClock, SimDisk};

use super::support::*;

fn values(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|at| batch(&format!("{at:0>200}"))).collect()
}

#[test]
fn torn_tail_is_cut_and_earlier_records_survive() {
    let last = batch(&"x".repeat(300));
    // Everything from the end of the earlier record to the last byte of the last one.
    for cut in (0..last.len() + 48).step_by(40) {
        on_both_disks(|mut place| {
            let (log, _) = place.open(small());
            let partition = create_topic(&log, "orders", 1)[0];
            let kept = values(2);
            for value in &kept {
                write(&log, partition, value);
            }
            write(&log, partition, &last);
            drop(log);
            place.crash();
            let (name, at) = place.find(&stored(&last, 2));
            let end = at - 48 + cut;
            place.edit(&name, |bytes| bytes[end..].fill(0));
            let (log, report) = place.open(small());
            assert_holds(&log, partition, &kept);
            assert_eq!(report.damage, []);
            // The first bytes of a frame are not zero, so that whatever is left of it is a tail to report.
            let reported = report.cut.as_ref().map(|cut| (cut.file.as_str(), cut.position));
            assert_eq!(reported, (cut > 0).then_some((name.as_str(), at as u64 - 48)), "cut after {cut} bytes");
            assert_eq!(write(&log, partition, &last), 2, "the offset is given out again");
        });
    }
}

#[test]
fn index_is_rebuilt_when_missing() {
    on_both_disks(|mut place| {
        let written = values(200);
        let partition = fill(&place, &written);
        place.crash();
        let indexes = place.names(".index");
        assert!(indexes.len() > 3);
        indexes.iter().for_each(|name| place.remove(name));
        let (log, report) = place.open(small());
        assert_eq!(report.indexes_rebuilt as usize, indexes.len());
        assert_holds(&log, partition, &written);
        drop(log);
        assert_eq!(place.open(small()).1.indexes_rebuilt, 0, "they are written again");
    });
}

#[test]
fn index_is_rebuilt_when_damaged_wherever_that_is() {
    let written = values(60);
    let place = Place::Simulated(SimDisk::new(1));
    let partition = fill(&place, &written);
    let Place::Simulated(disk) = &place else { unreachable!() };
    let name = &place.names(".index")[1];
    for at in 0..place.content(name).len() as u64 {
        let copy = Place::Simulated(disk.copy());
        copy.edit(name, |bytes| bytes[at as usize] ^= 4);
        let (log, report) = copy.open(small());
        assert_eq!(report.damage, []);
        assert_holds(&log, partition, &written);
        drop(log);
        let (log, report) = copy.open(small());
        assert_eq!((report.indexes_rebuilt, report.damage.len()), (0, 0), "byte {at} was repaired for good");
        assert_holds(&log, partition, &written);
    }
}

#[test]
fn checkpoint_missing_or_damaged_falls_back() {
    on_both_disks(|mut place| {
        let written = values(200);
        let partition = fill(&place, &written);
        place.crash();
        let checkpoints = place.names(".checkpoint");
        assert_eq!(checkpoints.len(), 2);
        let (log, report) = place.open(small());
        let checked = report.checked_bytes;
        drop(log);
        place.edit(&checkpoints[1], |bytes| bytes[40] ^= 1);
        let (log, report) = place.open(small());
        assert!(report.checked_bytes > checked, "the older checkpoint leaves more to check");
        assert_holds(&log, partition, &written);
        assert_eq!(log.table_get(TABLE, b"key").as_deref(), Some(b"value".as_slice()));
        drop(log);
        place.names(".checkpoint").iter().for_each(|name| place.remove(name));
        let (log, _) = place.open(small());
        assert_holds(&log, partition, &written);
        assert_eq!(log.table_get(TABLE, b"key").as_deref(), Some(b"value".as_slice()));
    });
}

/// A log with many closed segments, each with its index file, and a table entry in the first one.
fn fill(place: &Place, batches: &[Vec<u8>]) -> baton_log::PartitionId {
    let (log, _) = place.open(small());
    let partition = create_topic(&log, "orders", 1)[0];
    let ticket = log.write_table(TABLE, vec![("key".into(), Some("value".into()))]).unwrap();
    commit(&log, ticket);
    for batch in batches {
        write(&log, partition, batch);
        log.maintain_once();
    }
    assert!(log.stats().segments > 2);
    partition
}

#[test]
fn recovery_time_depends_on_unchecked_bytes_only() {
    let read_by_start = |count: usize| {
        let place = Place::Simulated(SimDisk::new(1));
        fill(&place, &values(count));
        let Place::Simulated(disk) = &place else { unreachable!() };
        let before = disk.counts().bytes_read;
        let (log, report) = place.open(small());
        let stored = log.stats().segment_bytes;
        (stored, report.checked_bytes, disk.counts().bytes_read - before)
    };
    let (little, checked_little, read_little) = read_by_start(200);
    let (much, checked_much, read_much) = read_by_start(4_000);
    assert!(much > 15 * little);
    let unchecked = 2 * small().segment_bytes;
    assert!(checked_little <= unchecked && checked_much <= unchecked, "{checked_little}, {checked_much}");
    // The directories of the index files are read as well: their size is that of what they list, not of the records.
    let directories = read_much.saturating_sub(read_little);
    assert!(directories * 20 < much - little, "{directories} bytes more were read of {} bytes more", much - little);
}

#[test]
fn catalog_tables_and_log_starts_come_back() {
    on_both_disks(|mut place| {
        let (log, _) = place.open(small());
        let orders = create_topic(&log, "orders", 2);
        let gone = create_topic(&log, "gone", 3);
        write_all(&log, orders[1], &values(4));
        commit(&log, log.delete_records(orders[1], 3).unwrap());
        commit(&log, log.delete_topic("gone").unwrap());
        commit(&log, log.add_partitions("orders", 3).unwrap());
        let configs = [("retention.ms".to_owned(), "7".to_owned())].into();
        commit(&log, log.set_topic_configs("orders", std::collections::BTreeMap::clone(&configs)).unwrap());
        commit(
            &log,
            log.write_table(TABLE, vec![("a".into(), Some("1".into())), ("b".into(), Some("2".into()))]).unwrap(),
        );
        commit(&log, log.write_table(TABLE, vec![("a".into(), None)]).unwrap());
        let (catalog, id) = (log.catalog(), log.cluster_id().to_owned());
        drop(log);
        place.crash();
        let (log, _) = place.open(small());
        let back = log.catalog();
        assert_eq!(back.topics().collect::<Vec<_>>(), catalog.topics().collect::<Vec<_>>());
        let topic = back.topic("orders").unwrap();
        assert_eq!((topic.partitions.len(), &topic.configs), (3, &configs));
        assert_eq!(log.bounds(orders[1]).map(|bounds| (bounds.log_start, bounds.high_watermark)), Some((3, 4)));
        assert_eq!(log.table_scan(TABLE, b""), [("b".into(), "2".into())]);
        assert_eq!(log.bounds(gone[0]), None);
        assert_eq!(log.cluster_id(), id);
        let new = create_topic(&log, "new", 1)[0];
        assert!(new > topic.partitions[2] && !gone.contains(&new), "numbers are never used again");
    });
}

#[test]
fn a_log_closed_in_order_has_no_tail_to_cut_and_nothing_pending() {
    on_both_disks(|mut place| {
        let (log, _) = place.open(small());
        let partition = create_topic(&log, "orders", 1)[0];
        let receipt = append(&log, partition, &batch("pending"));
        log.close();
        assert_eq!(log.durable(receipt.ticket).now(), Some(Ok(())));
        assert!(try_append(&log, partition, &batch("late")).is_err());
        drop(log);
        place.crash();
        let (log, report) = place.open(small());
        assert_eq!((report.cut, report.damage.len()), (None, 0));
        assert_holds(&log, partition, &[batch("pending")]);
    });
}

#[test]
fn segments_that_hold_nothing_any_more_are_removed() {
    on_both_disks(|mut place| {
        let written = values(300);
        let partition = fill(&place, &written);
        place.crash();
        let (log, _) = place.open(small());
        let before = place_segments(&log);
        let ticket = log.delete_records(partition, 290).unwrap();
        commit(&log, ticket);
        for value in values(200) {
            write(&log, partition, &value);
            log.maintain_once();
        }
        assert!(place_segments(&log) < before, "{} of {before} segments are left", place_segments(&log));
        assert_eq!(log.bounds(partition).unwrap().high_watermark, 500);
        drop(log);
        place.crash();
        let (log, report) = place.open(small());
        assert_eq!(report.damage, []);
        assert_eq!(log.bounds(partition).map(|bounds| (bounds.log_start, bounds.high_watermark)), Some((290, 500)));
        assert_eq!(read_from(&log, partition, 290).unwrap().len(), 210);
    });
}

fn place_segments(log: &Log) -> u64 {
    log.stats().segments
}

#[test]
fn second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let first = FileDisk::open(directory.path()).unwrap();
    let second = FileDisk::open(directory.path()).err().unwrap();
    assert_eq!(second.kind(), std::io::ErrorKind::ResourceBusy);
    assert!(second.to_string().contains("in use by another process"), "{second}");
    drop(first);
    FileDisk::open(directory.path()).unwrap();
}

#[test]
fn a_newer_format_is_refused_by_name() {
    on_both_disks(|mut place| {
        let (log, _) = place.open(small());
        create_topic(&log, "orders", 1);
        drop(log);
        place.crash();
        let name = place.names(".log")[0].clone();
        place.edit(&name, |bytes| {
            bytes[8] = 9;
            let crc = crc32c::crc32c(&bytes[..28]);
            bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        });
        let clock = Arc::new(SimClock::new(NOW_MS));
        let refused = Log::open(place.disk(), clock, small(), Arc::new(NoObserver)).err();
        assert!(matches!(&refused, Some(OpenError::Format { file, found: 9, .. }) if *file == name), "{refused:?}");
    });
}

#[test]
fn a_damaged_meta_file_is_noticed_and_made_again() {
    let place = Place::Simulated(SimDisk::new(1));
    let (log, _) = place.open(small());
    let partition = create_topic(&log, "orders", 1)[0];
    write(&log, partition, &batch("kept"));
    let id = log.cluster_id().to_owned();
    drop(log);
    let Place::Simulated(disk) = &place else { unreachable!() };
    for bit in 0..place.content("baton.meta").len() as u64 * 8 {
        let copy = Place::Simulated(disk.copy());
        let Place::Simulated(damaged) = &copy else { unreachable!() };
        assert!(damaged.flip_bit("baton.meta", bit));
        let (log, _) = copy.open(small());
        assert_holds(&log, partition, &[batch("kept")]);
        // The same id, where the flip changes nothing but the case of a digit, or another one: never nearly the same.
        let made = log.cluster_id().to_owned();
        let changed = made.bytes().zip(id.bytes()).filter(|(made, was)| made != was).count();
        assert!(made.len() == id.len() && (changed == 0 || changed > 4), "bit {bit}: {id} has become {made}");
        drop(log);
        assert_eq!(copy.open(small()).0.cluster_id(), made);
    }
}

#[test]
fn a_segment_created_ahead_and_never_used_is_no_damage() {
    on_both_disks(|mut place| {
        let (log, _) = place.open(small());
        let partition = create_topic(&log, "orders", 1)[0];
        let mut written = Vec::new();
        while place_names(&place, &log) < 2 {
            written.push(batch(&"y".repeat(700)));
            write(&log, partition, &written[written.len() - 1]);
        }
        drop(log);
        place.crash();
        let (log, report) = place.open(small());
        assert_eq!((report.damage.len(), report.cut), (0, None));
        assert_holds(&log, partition, &written);
    });
}

/// Segment files, seen past the lock of the open log.
fn place_names(place: &Place, log: &Log) -> usize {
    match place {
        Place::Simulated(_) => place.names(".log").len(),
        Place::Real(directory) => {
            assert!(log.poisoned().is_none());
            let names = std::fs::read_dir(directory.path()).unwrap();
            names.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".log")).count()
        }
    }
}
