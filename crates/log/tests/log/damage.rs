//! Bits that change in what was acknowledged: reported, never passed over in silence, and nothing else suffers.

use baton_log::{Damage, PartitionId, ReadError, ReadMode, RecoveryReport};
use baton_testkit::SimDisk;

use super::support::*;

/// Bytes of a frame before its batch.
const FRAME_HEADER_BYTES: usize = 48;

struct Written {
    partitions: Vec<PartitionId>,
    batches: Vec<Vec<u8>>,
}

/// Nine batches of two records, in turn to the three partitions of "orders", each in a group of its own.
fn write_nine(place: &Place) -> Written {
    let (log, _) = place.open(small());
    let partitions = create_topic(&log, "orders", 3);
    let batches: Vec<Vec<u8>> = (0..9).map(|at| batch_of((-1, -1, at), 2, 50)).collect();
    for (at, batch) in batches.iter().enumerate() {
        write(&log, partitions[at % 3], batch);
    }
    Written { partitions, batches }
}

fn assert_reported(report: &RecoveryReport, partition: u32, first: i64, last: i64) {
    let [Damage { partition: Some(named), offsets, .. }] = &report.damage[..] else {
        // The bytes between two frames are named as well where a frame's header is hit.
        let named: Vec<_> = report.damage.iter().filter(|damage| damage.partition.is_some()).collect();
        assert_eq!(named.len(), 1, "{report:?}");
        assert_eq!(named[0].offsets, Some((first, last)));
        assert_eq!(named[0].partition, Some(("orders".to_owned(), partition)));
        return;
    };
    assert_eq!((named, offsets), (&("orders".to_owned(), partition), &Some((first, last))));
}

#[test]
fn damage_in_the_middle_is_reported_with_topic_partition_and_offsets() {
    // The frame's magic, checksum, numbers and time; the batch's offset, length, checksum, counts and records.
    for hit in [0, 5, 12, 18, 21, 25, 30, 35, 44, 48, 57, 66, 72, 106, 130, 170] {
        on_both_disks(|mut place| {
            let written = write_nine(&place);
            place.crash();
            // The second batch of partition 1: its offsets 2 and 3.
            let (name, at) = place.find(&stored(&written.batches[4], 2));
            place.edit(&name, |bytes| bytes[at - FRAME_HEADER_BYTES + hit] ^= 0x10);
            let (log, report) = place.open(small());
            assert_reported(&report, 1, 2, 3);
            assert_eq!(report.cut, None);
            for (number, partition) in written.partitions.iter().enumerate() {
                assert_eq!(log.bounds(*partition).unwrap().high_watermark, 6, "hit at {hit}");
                let of_it = |offset: i64| stored(&written.batches[number + 3 * (offset as usize / 2)], offset);
                let first = log.read(*partition, 0, 1 << 20, true, ReadMode::Blocking).unwrap();
                assert_eq!(first.batches[0], of_it(0));
                if number == 1 {
                    assert_eq!(first.batches.len(), 1);
                    let damaged = log.read(*partition, 2, 1 << 20, true, ReadMode::Blocking).err();
                    assert_eq!(damaged, Some(ReadError::Damaged { first: 2, last: 3 }));
                }
                assert_eq!(read_from(&log, *partition, 4).unwrap(), [of_it(4)]);
            }
        });
    }
}

#[test]
fn damage_stays_reported_until_it_is_gone() {
    let mut place = Place::Simulated(SimDisk::new(1));
    let written = write_nine(&place);
    place.crash();
    let (name, at) = place.find(&stored(&written.batches[0], 0));
    place.edit(&name, |bytes| bytes[at + 70] ^= 1);
    for _ in 0..3 {
        let (log, report) = place.open(small());
        assert_reported(&report, 0, 0, 1);
        assert_eq!(log.stats().damaged_ranges, 1);
        // Until the segment is closed and covered by a checkpoint, too.
        for _ in 0..40 {
            write(&log, written.partitions[2], &batch_of((-1, -1, 0), 2, 200));
            log.maintain_once();
        }
        log.close();
        drop(log);
        place.crash();
    }
    let (log, _) = place.open(small());
    let ticket = log.delete_records(written.partitions[0], 2).unwrap();
    commit(&log, ticket);
    assert_eq!(log.stats().damaged_ranges, 0);
    drop(log);
    place.crash();
    assert_eq!(place.open(small()).1.damage, []);
}

#[test]
fn damage_in_a_closed_segment_is_reported_by_the_read_that_meets_it() {
    for hit in [0, 21, 48, 60, 130] {
        on_both_disks(|mut place| {
            let (log, _) = place.open(small());
            let partition = create_topic(&log, "orders", 1)[0];
            let batches: Vec<Vec<u8>> = (0..200).map(|at| batch_of((-1, -1, at), 2, 100)).collect();
            for batch in &batches {
                write(&log, partition, batch);
                log.maintain_once();
            }
            drop(log);
            place.crash();
            let (name, at) = place.find(&stored(&batches[5], 10));
            place.edit(&name, |bytes| bytes[at - FRAME_HEADER_BYTES + hit] ^= 2);
            let (log, report) = place.open(small());
            assert_eq!(report.damage, [], "a start does not read what a checkpoint covers");
            let before = log.read(partition, 0, 1 << 20, true, ReadMode::Blocking).unwrap();
            assert_eq!(before.batches.len(), 5, "hit at {hit}");
            let damaged = log.read(partition, 10, 1 << 20, true, ReadMode::Blocking).err();
            assert_eq!(damaged, Some(ReadError::Damaged { first: 10, last: 11 }), "hit at {hit}");
            assert_eq!(read_from(&log, partition, 12).unwrap().len(), 194);
        });
    }
}

#[test]
fn a_damaged_control_record_is_reported() {
    on_both_disks(|mut place| {
        let (log, _) = place.open(small());
        let partition = create_topic(&log, "orders", 1)[0];
        let ticket = log.write_table(TABLE, vec![("group".into(), Some("a value that is looked for".into()))]).unwrap();
        commit(&log, ticket);
        write(&log, partition, &batch("after"));
        drop(log);
        place.crash();
        let (name, at) = place.find(b"a value that is looked for");
        place.edit(&name, |bytes| bytes[at] ^= 1);
        let (log, report) = place.open(small());
        assert_eq!(report.damage.len(), 1, "{report:?}");
        assert!(report.damage[0].detail.contains(&name), "{report:?}");
        assert_holds(&log, partition, &[batch("after")]);
    });
}

#[test]
fn a_flipped_bit_in_the_last_group_ends_the_log_there_and_says_so() {
    on_both_disks(|mut place| {
        let written = write_nine(&place);
        place.crash();
        let (name, at) = place.find(&stored(&written.batches[8], 4));
        place.edit(&name, |bytes| bytes[at + 90] ^= 1);
        let (log, report) = place.open(small());
        let cut = report.cut.expect("it cannot be told from a torn tail");
        assert_eq!((cut.file, cut.position), (name, (at - FRAME_HEADER_BYTES) as u64));
        assert_eq!(log.bounds(written.partitions[2]).unwrap().high_watermark, 4);
        assert_eq!(log.bounds(written.partitions[1]).unwrap().high_watermark, 6);
    });
}

#[test]
fn a_torn_last_group_is_cut_at_its_beginning_even_behind_damage() {
    on_both_disks(|mut place| {
        let written = write_nine(&place);
        let (log, _) = place.open(small());
        let torn = [batch("torn away"), batch("whole, but never acknowledged")];
        for batch in &torn {
            append(&log, written.partitions[0], batch);
        }
        log.commit_once();
        drop(log);
        place.crash();
        let (name, acknowledged) = place.find(&stored(&written.batches[8], 4));
        let (_, torn_at) = place.find(&stored(&torn[0], 6));
        place.edit(&name, |bytes| {
            bytes[acknowledged - FRAME_HEADER_BYTES] ^= 1;
            bytes[torn_at - FRAME_HEADER_BYTES..torn_at + 20].fill(0);
        });
        let (log, report) = place.open(small());
        assert_eq!(report.cut.map(|cut| cut.position), Some((torn_at - FRAME_HEADER_BYTES) as u64));
        assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
        assert_eq!(log.bounds(written.partitions[0]).unwrap().high_watermark, 6, "nothing of the torn group is there");
    });
}

#[test]
fn a_log_closed_in_order_tells_damage_at_its_end_from_a_torn_tail() {
    on_both_disks(|mut place| {
        let written = write_nine(&place);
        place.crash();
        let (log, _) = place.open(small());
        log.close();
        drop(log);
        place.crash();
        let (name, at) = place.find(&stored(&written.batches[8], 4));
        place.edit(&name, |bytes| bytes[at + 90] ^= 1);
        let (log, report) = place.open(small());
        assert_reported(&report, 2, 4, 5);
        assert_eq!(log.bounds(written.partitions[2]).unwrap().high_watermark, 6);
    });
}

#[test]
fn a_missing_segment_is_reported_with_the_offsets_that_it_held() {
    for (nth, named) in [(1, false), (0, true)] {
        on_both_disks(|mut place| {
            let (log, _) = place.open(small());
            let partition = create_topic(&log, "orders", 1)[0];
            let batches: Vec<Vec<u8>> = (0..120).map(|at| batch_of((-1, -1, at), 2, 100)).collect();
            for batch in &batches {
                write(&log, partition, batch);
                log.maintain_once();
            }
            // Records after the missing segment tell that something is missing.
            let last = log.bounds(partition).unwrap().high_watermark;
            drop(log);
            place.crash();
            let segments = place.names(".log");
            // Before the newest checkpoint, or, without one, in what is replayed.
            if named {
                place.names(".checkpoint").iter().for_each(|name| place.remove(name));
            }
            let gone = &segments[segments.len() / 2 - nth];
            place.remove(gone);
            let (log, report) = place.open(small());
            let holes: Vec<(i64, i64)> = report.damage.iter().filter_map(|damage| damage.offsets).collect();
            let [(first, hole_last)] = holes[..] else { panic!("one hole expected: {report:?}") };
            assert_eq!(report.damage.iter().any(|damage| damage.detail == format!("{gone} is missing")), named);
            assert_eq!(log.bounds(partition).unwrap().high_watermark, last);
            let damaged = log.read(partition, first, 1000, true, ReadMode::Blocking).err();
            assert_eq!(damaged, Some(ReadError::Damaged { first, last: hole_last }));
            assert_eq!(read_from(&log, partition, hole_last + 1).unwrap().len() as i64, (last - hole_last - 1) / 2);
        });
    }
}
