use baton_core::stamp::Instance;
use baton_core::{
    EpochTooLow, Fate, NoSequence, REPORT_INTERVAL_MS, REPORT_MESSAGES, Report, Sequences, TopicPartition,
};

fn sequences() -> Sequences {
    Sequences::new(Instance::new("test-1").unwrap(), 7)
}

fn orders(partition: u32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

fn ranges(report: &Report, sequence: usize) -> (u64, String) {
    let evidence = &report.sequences[sequence].evidence;
    let sets =
        [&evidence.acknowledged, &evidence.not_stored, &evidence.unknown].map(|set| set.iter().collect::<Vec<_>>());
    (evidence.highest, format!("{sets:?}"))
}

#[test]
fn numbers_begin_at_1_in_each_partition_and_have_no_gaps() {
    let mut sequences = sequences();
    for expected in 1..=3 {
        for partition in 0..2 {
            let ticket = sequences.allot(&orders(partition), 0).unwrap();
            assert_eq!((ticket.epoch(), ticket.sequence()), (7, expected));
            assert!(sequences.acknowledged(ticket, 0));
        }
    }
}

#[test]
fn a_report_tells_how_messages_ended_since_the_one_before() {
    let mut sequences = sequences();
    let mut tickets: Vec<_> = (0..5).map(|_| sequences.allot(&orders(0), 0).unwrap()).collect();
    assert!(sequences.acknowledged(tickets.remove(0), 0));
    assert!(sequences.abandoned(tickets.remove(0), Fate::NotStored, 0));
    assert!(sequences.abandoned(tickets.remove(0), Fate::Unknown, 0));
    let report = sequences.take_reports(1).remove(0);
    assert_eq!(ranges(&report, 0), (5, "[[1..=1], [2..=2], [3..=3]]".into()));
    sequences.reported(report);
    assert_eq!(sequences.take_reports(2), []);
    assert!(sequences.acknowledged(tickets.remove(1), 3));
    assert_eq!(ranges(&sequences.take_reports(3)[0], 0), (5, "[[5..=5], [], []]".into()));
    assert_eq!(sequences.in_flight(), 1);
}

#[test]
fn a_report_that_was_given_back_is_in_the_next_one() {
    let mut sequences = sequences();
    let ticket = sequences.allot(&orders(0), 0).unwrap();
    assert!(sequences.acknowledged(ticket, 0));
    let report = sequences.take_reports(0).remove(0);
    let ticket = sequences.allot(&orders(0), 0).unwrap();
    assert!(sequences.give_back(report, 0).is_empty());
    assert!(sequences.acknowledged(ticket, 0));
    assert_eq!(ranges(&sequences.take_reports(0)[0], 0), (2, "[[1..=2], [], []]".into()));
}

#[test]
fn a_report_is_due_after_a_second_or_ten_thousand_messages() {
    let mut sequences = sequences();
    assert_eq!(sequences.report_due_ms(), None);
    for ended in 1..=REPORT_MESSAGES {
        let ticket = sequences.allot(&orders(0), 500).unwrap();
        assert_eq!(sequences.report_due_ms(), Some(500 + REPORT_INTERVAL_MS), "{ended}");
        assert!(sequences.acknowledged(ticket, 600));
    }
    assert_eq!(sequences.report_due_ms(), Some(0));
    sequences.take_reports(700);
    assert_eq!(sequences.report_due_ms(), None);
}

#[test]
fn the_last_reports_close_all_sequences_and_no_number_comes_after_them() {
    let mut sequences = sequences();
    let done = sequences.allot(&orders(0), 0).unwrap();
    assert!(sequences.acknowledged(done, 0));
    sequences.take_reports(0).into_iter().for_each(|report| sequences.reported(report));
    let open = sequences.allot(&orders(1), 0).unwrap();
    let last = sequences.take_last_reports(1).remove(0);
    assert_eq!(last.sequences.len(), 2);
    assert!(last.sequences.iter().all(|sequence| sequence.evidence.closed && sequence.evidence.highest == 1));
    assert_eq!(sequences.allot(&orders(0), 2), Err(NoSequence::Closed));
    assert!(sequences.acknowledged(open, 2));
    assert_eq!(ranges(&sequences.take_last_reports(3)[0], 1), (1, "[[1..=1], [], []]".into()));
}

#[test]
fn a_ticket_of_other_sequences_ends_nothing() {
    let (mut ours, mut theirs) = (sequences(), Sequences::new(Instance::new("test-1").unwrap(), 8));
    let ticket = ours.allot(&orders(0), 0).unwrap();
    let _other = theirs.allot(&orders(0), 0).unwrap();
    assert!(!theirs.acknowledged(ticket, 0));
    assert_eq!((ours.in_flight(), theirs.in_flight()), (1, 1));
}

#[test]
fn sequences_are_bounded_and_expire_only_when_all_is_reported() {
    let mut sequences = sequences().bounds(1, 100);
    let ticket = sequences.allot(&orders(0), 0).unwrap();
    assert_eq!(sequences.allot(&orders(1), 0), Err(NoSequence::TooMany(1)));
    sequences.take_reports(0).into_iter().for_each(|report| sequences.reported(report));
    assert_eq!(sequences.expire(10, 8, 100), Ok(0), "in flight");
    assert!(sequences.acknowledged(ticket, 100));
    assert_eq!(sequences.expire(10, 9, 200), Ok(0), "not reported");
    let report = sequences.take_reports(200).remove(0);
    assert_eq!(sequences.expire(10, 10, 200), Ok(0), "the report is under way");
    sequences.reported(report);
    assert_eq!(sequences.expire(150, 11, 200), Ok(0), "not idle for long enough");
    assert_eq!(sequences.expire(100, 11, 200), Err(EpochTooLow { new: 11, current: 11 }));
    assert_eq!(sequences.expire(100, 12, 200), Ok(1));
    let ticket = sequences.allot(&orders(0), 300).unwrap();
    assert_eq!((ticket.epoch(), ticket.sequence()), (12, 1));
    assert!(sequences.acknowledged(ticket, 300));
}

#[test]
fn what_a_report_says_of_sequences_of_an_earlier_epoch_is_no_part_of_these_and_not_lost() {
    let mut sequences = sequences();
    let ticket = sequences.allot(&orders(0), 0).unwrap();
    assert!(sequences.acknowledged(ticket, 0));
    let mut report = sequences.take_reports(1).remove(0);
    let mut earlier = report.sequences[0].clone();
    earlier.epoch -= 1;
    report.sequences.push(earlier.clone());
    assert_eq!(sequences.give_back(report, 2), [earlier]);
    assert_eq!(ranges(&sequences.take_reports(3)[0], 0), (1, "[[1..=1], [], []]".into()));
}

#[test]
fn what_waits_to_be_reported_is_bounded() {
    let mut sequences = sequences().bounds(1, 2);
    let tickets: Vec<_> = (0..4).map(|_| sequences.allot(&orders(0), 0).unwrap()).collect();
    for ticket in tickets.into_iter().filter(|ticket| ticket.sequence() % 2 == 1) {
        assert!(sequences.acknowledged(ticket, 0));
    }
    assert_eq!(sequences.allot(&orders(0), 0), Err(NoSequence::Unreported));
    let report = sequences.take_reports(0).remove(0);
    assert!(sequences.allot(&orders(0), 0).is_ok());
    assert!(sequences.give_back(report, 0).is_empty());
    assert_eq!(sequences.allot(&orders(0), 0), Err(NoSequence::Unreported));
}

#[test]
fn topics_without_a_proper_name_have_no_sequence() {
    assert_eq!(sequences().allot(&TopicPartition::new("", 0), 0), Err(NoSequence::TopicName(0)));
    assert_eq!(sequences().allot(&TopicPartition::new("x".repeat(256), 0), 0), Err(NoSequence::TopicName(256)));
}
