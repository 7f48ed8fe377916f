use baton_core::consumer::*;
use baton_core::{Headers, TopicPartition};
use bytes::Bytes;

use crate::driver::*;

/// Others' 17 (docs/TESTING.md) and the mutant "commit highest instead of contiguous".
#[test]
fn only_what_is_contiguous_is_settled() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b"), (2, "c")]);
    driver.done(1);
    driver.done(2);
    let (next, metadata) = driver.settled().unwrap();
    assert_eq!(next, 0);
    assert_eq!(decode_text(&metadata).unwrap().intervals, [(1, 3)]);
    driver.done(0);
    assert_eq!(driver.settled(), Some((3, String::new())));
}

#[test]
fn nothing_is_settled_before_anything_is_done() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    assert_eq!(driver.settled(), None);
}

#[test]
fn what_an_earlier_assignment_did_is_skipped_and_counted() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b"), (2, "c")]);
    driver.done(1);
    let (next, metadata) = driver.settled().unwrap();
    let mut after = Driver::new(settings());
    after.assign(Assignment { metadata, ..assignment(0, Some(next)) });
    after.deliver(&[(0, "a"), (1, "b"), (2, "c"), (3, "b")]);
    assert_eq!(after.offsets(), [0, 2, 3]);
    assert_eq!(after.core.counters().skipped_done, 1);
}

#[test]
fn metadata_that_cannot_be_read_is_reported_and_its_messages_are_handled() {
    let moved = encode_text(&Done { base: 0, lineage: 0, intervals: vec![(1, 3)] }, 4_096).0;
    for (metadata, frontier) in [("somebody else's".to_owned(), 0), ("AAAA".to_owned(), 0), (moved, 1)] {
        let mut driver = Driver::new(settings());
        driver.assign(Assignment { metadata, ..assignment(0, Some(frontier)) });
        assert!(matches!(driver.reports[..], [Report::DoneIgnored { .. }]), "{:?}", driver.reports);
        driver.deliver(&[(frontier, "a"), (frontier + 1, "b")]);
        assert_eq!(driver.offsets().len(), 2);
    }
}

fn every_second_done(settings: Settings) -> Driver {
    let mut driver = Driver::assigned(Settings { concurrency: Concurrency::Fixed(10_000), ..settings });
    let messages: Vec<(i64, &str)> = (0..2_000).map(|offset| (offset, "")).collect();
    driver.deliver(&messages);
    (1..2_000).step_by(2).for_each(|offset| driver.done(offset));
    driver
}

/// Others' 5 (docs/TESTING.md): consumption stopped when the map was larger than 4,096 bytes.
#[test]
fn what_does_not_fit_in_the_metadata_goes_to_the_side_store_and_comes_back() {
    // Messages are looked at as far ahead as there are handlers: here all of them.
    let concurrency = Concurrency::Fixed(10_000);
    let small = Settings { metadata_bytes_max: 100, side_store: true, concurrency, ..settings() };
    let mut driver = every_second_done(small.clone());
    driver.pass(1_000);
    let (ticket, stored_done) = driver.stores.pop().unwrap();
    driver.confirm(ticket);
    let (next, metadata) = driver.settled().unwrap();
    assert!(next == 0 && metadata.len() <= 100, "{next} {metadata}");
    let messages: Vec<(i64, &str)> = (0..2_000).map(|offset| (offset, "")).collect();
    let mut after = Driver::new(small.clone());
    after.assign(Assignment { metadata, stored_done: stored_done.clone(), ..assignment(0, Some(next)) });
    after.deliver(&messages);
    assert_eq!(after.core.counters().skipped_done, 1_000);
    // A group that was reset by hand has lost its metadata: what the store holds is no longer true for it.
    let mut reset = Driver::new(small);
    reset.assign(Assignment { stored_done, ..assignment(0, Some(0)) });
    reset.deliver(&messages);
    assert_eq!(reset.core.counters().skipped_done, 0);
}

#[test]
fn without_a_side_store_the_metadata_is_cut_and_nothing_stops() {
    let mut driver = every_second_done(Settings { metadata_bytes_max: 100, ..settings() });
    let (next, metadata) = driver.settled().unwrap();
    assert!(next == 0 && !metadata.is_empty() && metadata.len() <= 100);
    assert!(driver.reports.contains(&Report::DoneCut { partition: partition(0) }));
    driver.deliver(&[(2_000, "x")]);
    assert!(driver.offsets().contains(&2_000));
}

#[test]
fn a_settlement_that_failed_is_made_again() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    driver.done(0);
    driver.pass(1_000);
    let (ticket, _) = driver.settles.pop().unwrap();
    driver.refuse(ticket);
    assert_eq!(driver.settled_next(), Some(1));
}

#[test]
fn deliveries_are_settled_each_for_itself_where_the_engine_does_so() {
    let mut driver = Driver::assigned(Settings { settling: Settling::Each, ..settings() });
    driver.deliver(&[(1, "a"), (2, "b"), (3, "c")]);
    driver.done(3);
    let (ticket, first) = driver.settles.pop().unwrap();
    driver.done(1);
    assert!(driver.settles.is_empty(), "one settlement at a time");
    driver.confirm(ticket);
    let (_, second) = driver.settles.pop().unwrap();
    let done = |offset| Settlement::Done { partition: partition(0), offset };
    assert_eq!((first, second), (vec![done(3)], vec![done(1)]));
}

#[test]
fn messages_that_a_filter_skips_are_done_and_counted() {
    let filter = Filter { header: "kind".into(), accept: Accept::OneOf(vec![Bytes::from_static(b"paid")]) };
    let mut driver = Driver::assigned(Settings { filters: vec![filter], ..settings() });
    let with = |offset, kind: &'static [u8]| {
        let mut headers = Headers::default();
        headers.push("kind", Some(Bytes::from_static(kind)));
        baton_core::Delivery { headers, ..delivery(0, offset, "a") }
    };
    driver.core.messages(vec![with(0, b"seen"), with(1, b"paid"), delivery(0, 2, "a")], 1_000);
    driver.take();
    assert_eq!(driver.offsets(), [1]);
    driver.done(1);
    assert_eq!(driver.settled_next(), Some(3));
    assert_eq!(driver.core.counters().filtered, 2);
}

#[test]
fn messages_of_a_partition_that_is_not_ours_are_not_handled() {
    let mut driver = Driver::assigned(settings());
    driver.core.messages(vec![delivery(9, 0, "a")], 1_000);
    driver.take();
    assert_eq!((driver.offsets(), driver.core.counters().not_ours), (vec![], 1));
    assert_eq!(partition(9), TopicPartition::new("orders", 9));
}

#[test]
fn a_set_in_the_side_store_that_belongs_to_another_commit_is_not_used() {
    let metadata = encode_text(&Done { base: 0, lineage: 5, intervals: vec![(1, 2)] }, 4_096).0;
    for (lineage, handled) in [(5, vec![0, 3]), (6, vec![0, 2, 3])] {
        let (stored_done, _) = encode(&Done { base: 0, lineage, intervals: vec![(2, 3)] }, 4_096);
        let mut driver = Driver::new(settings());
        driver.assign(Assignment { metadata: metadata.clone(), stored_done, ..assignment(0, Some(0)) });
        driver.deliver(&[(0, "a"), (1, "b"), (2, "c"), (3, "d")]);
        assert_eq!(driver.offsets(), handled);
    }
}
