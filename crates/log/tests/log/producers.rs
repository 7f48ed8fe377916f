//! Idempotent producers: recognised across restarts, by log and by checkpoint.

use baton_log::{AppendOutcome, ProducerFault};

use super::support::*;

#[test]
fn duplicate_batch_after_restart_gets_its_first_offset() {
    on_both_disks(|mut place| {
        let (log, _) = place.open(small());
        let partition = create_topic(&log, "orders", 1)[0];
        write(&log, partition, &batch("somebody else"));
        let batches: Vec<Vec<u8>> = (0..5).map(|at| batch_of((7, 0, at * 3), 3, 40)).collect();
        write_all(&log, partition, &batches);
        drop(log);
        place.crash();
        let (log, _) = place.open(small());
        for (at, batch) in batches.iter().enumerate() {
            let receipt = append(&log, partition, batch);
            assert_eq!(receipt.outcome, AppendOutcome::Duplicate { base_offset: 1 + 3 * at as i64 });
            assert_eq!(log.durable(receipt.ticket).now(), Some(Ok(())));
        }
        assert_eq!(log.bounds(partition).unwrap().high_watermark, 16, "nothing was stored twice");
        assert_eq!(log.stats().duplicates, 5);
        assert_eq!(write(&log, partition, &batch_of((7, 0, 15), 1, 10)), 16);
    });
}

#[test]
fn producers_are_recognised_from_a_checkpoint_too() {
    on_both_disks(|mut place| {
        let (log, _) = place.open(small());
        let partition = create_topic(&log, "orders", 1)[0];
        let first = batch_of((7, 2, 0), 3, 40);
        write(&log, partition, &first);
        for _ in 0..200 {
            write(&log, partition, &batch(&"z".repeat(300)));
            log.maintain_once();
        }
        drop(log);
        place.crash();
        let (log, report) = place.open(small());
        assert!(report.checked_bytes < 30_000, "the batch lies before what is replayed: {report:?}");
        assert_eq!(append(&log, partition, &first).outcome, AppendOutcome::Duplicate { base_offset: 0 });
        assert_eq!(log.stats().producers, 1);
    });
}

#[test]
fn sequence_gap_is_refused() {
    on_both_disks(|mut place| {
        let (log, _) = place.open(small());
        let partition = create_topic(&log, "orders", 1)[0];
        write(&log, partition, &batch_of((7, 1, 0), 3, 40));
        let refused = |log: &baton_log::Log, producer, fault| {
            let outcome = append(log, partition, &batch_of(producer, 1, 10)).outcome;
            assert_eq!(outcome, AppendOutcome::Refused(fault), "{producer:?}");
        };
        refused(&log, (7, 1, 4), ProducerFault::OutOfOrderSequence);
        drop(log);
        place.crash();
        let (log, _) = place.open(small());
        refused(&log, (7, 1, 4), ProducerFault::OutOfOrderSequence);
        refused(&log, (7, 0, 3), ProducerFault::StaleEpoch);
        refused(&log, (7, 2, 3), ProducerFault::OutOfOrderSequence);
        assert_eq!(write(&log, partition, &batch_of((7, 1, 3), 1, 10)), 3);
    });
}

#[test]
fn an_answer_about_a_pending_batch_waits_for_it() {
    on_both_disks(|place| {
        let (log, _) = place.open(small());
        let partition = create_topic(&log, "orders", 1)[0];
        let first = append(&log, partition, &batch_of((7, 0, 0), 1, 10));
        let again = append(&log, partition, &batch_of((7, 0, 0), 1, 10));
        let gap = append(&log, partition, &batch_of((7, 0, 5), 1, 10));
        assert_eq!(again.outcome, AppendOutcome::Duplicate { base_offset: 0 });
        for receipt in [first, again, gap] {
            assert_eq!(log.durable(receipt.ticket).now(), None, "nothing is known before the commit");
        }
        log.commit_once();
        for receipt in [first, again, gap] {
            assert_eq!(log.durable(receipt.ticket).now(), Some(Ok(())));
        }
    });
}
