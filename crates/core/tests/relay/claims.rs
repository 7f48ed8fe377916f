use std::sync::Arc;

use baton_core::relay::{Change, Claims, Limits, Outgoing, Placed, Row, STUCK_MS};
use baton_core::stamp::Instance;
use baton_core::{Fate, MessageId, SEQUENCES_MAX};
use bytes::Bytes;

const ROW_BYTES: usize = 10;
const LIMITS: Limits = Limits { rows_max: 16, bytes_max: 1_000, window_rows_max: 8 };

fn instance() -> Instance {
    Instance::new("outbox.0").unwrap()
}

fn ours(limits: Limits) -> Claims<()> {
    let mut claims = Claims::new(limits, |_| ROW_BYTES);
    assert!(claims.gained(0, 3, instance(), &[]).unwrap().is_empty());
    claims
}

fn row(position: i64, topic: &str, key: &str) -> Row<()> {
    let key = (!key.is_empty()).then(|| Bytes::copy_from_slice(key.as_bytes()));
    let id = MessageId::new(format!("m{position}")).unwrap();
    Row { position, shard: 0, topic: Arc::from(topic), key, id, item: () }
}

fn find(claims: &mut Claims<()>, rows: Vec<Row<()>>) {
    let (look, _) = claims.look();
    claims.found(look, rows);
}

fn to(partition: u32) -> impl FnMut(&Row<()>) -> Placed {
    move |_| Placed::To(partition)
}

fn positions(outgoing: &[Outgoing<()>]) -> Vec<i64> {
    outgoing.iter().map(|outgoing| outgoing.position).collect()
}

#[test]
fn nothing_goes_to_the_engine_before_its_claim_is_written() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "orders", "a"), row(2, "orders", "b")]);
    let change = claims.change(0, to(0)).unwrap();
    assert_eq!(change.windows.len(), 1);
    assert_eq!(claims.change(0, to(0)), None, "one change at a time");
    let outgoing = claims.written();
    assert_eq!(positions(&outgoing), [1, 2]);
    assert_eq!((outgoing[1].stamp.id.as_str(), outgoing[1].stamp.epoch, outgoing[1].stamp.sequence), ("m2", 3, 2));
}

#[test]
fn a_row_leaves_together_with_its_claim_and_only_when_the_engine_has_it() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "orders", "a"), row(2, "orders", "b")]);
    _ = claims.change(0, to(0));
    _ = claims.written();
    assert_eq!(claims.change(0, to(0)), None, "nothing has ended");
    claims.acknowledged(2, 5);
    let Change { windows, done, .. } = claims.change(5, to(0)).unwrap();
    assert_eq!((windows.len(), done), (1, vec![2]));
    assert_eq!(claims.gained(1, 1, instance(), &windows[0].2), Ok(vec![1]), "what is claimed still");
}

#[test]
fn who_takes_over_sends_what_was_claimed_first_and_under_the_same_stamps() {
    let mut before = ours(LIMITS);
    find(&mut before, vec![row(4, "orders", "a"), row(7, "orders", "b")]);
    let window = before.change(0, to(2)).unwrap().windows[0].2.clone();
    let sent = before.written();

    let mut after = Claims::new(LIMITS, |_| ROW_BYTES);
    assert_eq!(after.gained(0, 4, instance(), &window), Ok(vec![4, 7]));
    find(&mut after, vec![row(4, "orders", "a"), row(7, "orders", "b"), row(9, "orders", "a")]);
    assert_eq!(after.change(0, to(2)), None, "nothing newer goes before it");
    let again = after.resumed(0, vec![row(7, "orders", "b"), row(4, "orders", "a")], 0);
    assert_eq!(again, sent);
    _ = after.change(0, to(2)).unwrap();
    let newer = after.written();
    assert_eq!((newer[0].position, newer[0].stamp.epoch, newer[0].stamp.sequence), (9, 4, 1));
}

#[test]
fn who_was_replaced_writes_nothing_and_the_rest_goes_on() {
    let mut claims = ours(LIMITS);
    _ = claims.gained(1, 1, Instance::new("outbox.1").unwrap(), &[]);
    let mut other = row(2, "orders", "b");
    other.shard = 1;
    find(&mut claims, vec![row(1, "orders", "a"), other]);
    assert_eq!(claims.change(0, to(0)).unwrap().windows.len(), 2);
    claims.fenced(&[(0, 3)]);
    let change = claims.change(0, to(0)).unwrap();
    assert_eq!(change.windows.iter().map(|(shard, ..)| *shard).collect::<Vec<_>>(), [1]);
    assert_eq!(positions(&claims.written()), [2]);
}

#[test]
fn a_row_that_the_engine_refuses_is_parked_and_holds_up_its_key_alone() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "orders", "a")]);
    _ = claims.change(0, to(0));
    _ = claims.written();
    find(&mut claims, vec![row(2, "orders", "a"), row(3, "orders", "b")]);
    claims.refused(1, Fate::NotStored, "too large".to_owned(), 0);
    let change = claims.change(0, to(0)).unwrap();
    assert_eq!((change.parked[0].position, change.done), (1, vec![]));
    assert_eq!(positions(&claims.written()), [3]);

    // Somebody has looked at it: the key flows again, from the beginning.
    let mark = claims.parked_mark();
    claims.set_parked(mark, []);
    let (look, restart) = claims.look();
    assert!(restart);
    claims.found(look, vec![row(2, "orders", "a"), row(3, "orders", "b")]);
    _ = claims.change(0, to(0));
    assert_eq!(positions(&claims.written()), [2]);
}

#[test]
fn a_row_without_a_place_is_parked_with_the_reason() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "nowhere", "a"), row(2, "nowhere", "a"), row(3, "orders", "a")]);
    let place = |row: &Row<()>| match &*row.topic {
        "nowhere" => Placed::Never("there is no topic of this name".to_owned()),
        _ => Placed::To(0),
    };
    let change = claims.change(0, place).unwrap();
    assert_eq!(change.parked.iter().map(|parked| parked.position).collect::<Vec<_>>(), [1], "its key waits behind it");
    assert_eq!(positions(&claims.written()), [3]);
}

#[test]
fn a_partition_that_takes_nothing_leaves_room_to_others_and_loses_nothing() {
    let mut claims = ours(LIMITS);
    let place = |row: &Row<()>| Placed::To(u32::from(row.key.as_deref() != Some(b"stuck")));
    find(&mut claims, (1..=16).map(|position| row(position, "orders", "stuck")).collect());
    _ = claims.change(0, place);
    assert_eq!(claims.written().len(), 4, "a quarter of all room");
    assert_eq!(claims.room(), 0);
    assert_eq!(claims.change(STUCK_MS, place), None);
    assert_eq!(claims.room(), 12, "the rest stays in the table");
    find(&mut claims, vec![row(20, "orders", "well"), row(21, "orders", "stuck")]);
    _ = claims.change(STUCK_MS, place);
    assert_eq!(positions(&claims.written()), [20]);

    (1..=2).for_each(|position| claims.acknowledged(position, STUCK_MS));
    assert!(claims.look().1, "what was left is looked for again");
}

/// Rows for so many partitions that take nothing, as much as there is room for.
fn with_dead_partitions(limits: Limits, dead: u32) -> Claims<()> {
    let mut claims = ours(limits);
    let rows = (1..=i64::try_from(limits.rows_max).unwrap()).map(|position| row(position, "orders", ""));
    find(&mut claims, rows.collect());
    let mut at = 0;
    let place = |_: &Row<()>| {
        at += 1;
        Placed::To(at % dead)
    };
    assert!(claims.change(0, place).is_some());
    assert!(claims.written().len() >= usize::try_from(dead).unwrap());
    // What has no room is looked at once more when it counts as stuck, and leaves.
    assert_eq!(claims.change(STUCK_MS, |row| Placed::To(u32::try_from(row.position).unwrap() % dead)), None);
    claims
}

#[test]
fn however_many_partitions_take_nothing_the_window_of_their_shard_has_room_for_others() {
    let limits = Limits { rows_max: 1_000, bytes_max: 1_000_000, window_rows_max: 64 };
    for dead in 1..=10 {
        let mut claims = with_dead_partitions(limits, dead);
        find(&mut claims, vec![row(2_000, "payments", "well")]);
        _ = claims.change(STUCK_MS, to(0));
        assert_eq!(positions(&claims.written()), [2_000], "{dead} partitions");
    }
}

#[test]
fn partitions_that_take_nothing_one_after_the_other_leave_room_too() {
    let limits = Limits { rows_max: 100_000, bytes_max: usize::MAX, window_rows_max: 512 };
    let mut claims = ours(limits);
    for dead in 0..40_i64 {
        find(&mut claims, (0..600).map(|at| row(dead * 600 + at, "orders", "")).collect());
        _ = claims.change(0, to(u32::try_from(dead).unwrap()));
        assert!(!claims.written().is_empty(), "{dead}");
        _ = claims.change(STUCK_MS, to(u32::try_from(dead).unwrap()));
        assert_eq!(claims.waiting(), 0);
    }
    find(&mut claims, vec![row(100_000, "payments", "well")]);
    _ = claims.change(STUCK_MS, to(0));
    assert_eq!(positions(&claims.written()), [100_000]);
}

#[test]
fn large_rows_for_a_partition_that_takes_nothing_leave_bytes_to_others() {
    let limits = Limits { rows_max: 1_000, bytes_max: 20 * ROW_BYTES, window_rows_max: 500 };
    let mut claims = with_dead_partitions(limits, 1);
    assert!(claims.room_bytes() >= limits.bytes_max / 2);
    find(&mut claims, vec![row(2_000, "payments", "well")]);
    _ = claims.change(STUCK_MS, to(0));
    assert_eq!(positions(&claims.written()), [2_000]);
    (1..=5).for_each(|position| claims.acknowledged(position, STUCK_MS));
    assert!(claims.look().1, "what was left is looked for again");
}

#[test]
fn a_row_larger_than_all_room_is_sent_alone() {
    let mut claims = ours(Limits { bytes_max: ROW_BYTES / 2, ..LIMITS });
    for position in 1..=2 {
        assert!(claims.room_bytes() > 0);
        find(&mut claims, vec![row(position, "orders", "a")]);
        _ = claims.change(0, to(0));
        assert_eq!(positions(&claims.written()), [position]);
        assert_eq!(claims.room_bytes(), 0);
        claims.acknowledged(position, 0);
        _ = claims.change(0, to(0));
        _ = claims.written();
    }
}

#[test]
fn a_shard_that_has_no_more_sequences_is_given_up_to_begin_anew_under_its_next_epoch() {
    let rows_max = SEQUENCES_MAX + 1;
    let mut claims = ours(Limits { rows_max, bytes_max: usize::MAX, window_rows_max: rows_max });
    find(&mut claims, (0..rows_max).map(|at| row(i64::try_from(at).unwrap(), &format!("topic-{at}"), "")).collect());
    _ = claims.change(0, to(0));
    assert_eq!(claims.written().len(), SEQUENCES_MAX);
    assert!(claims.shards().is_empty());
    (0..rows_max).for_each(|at| claims.acknowledged(i64::try_from(at).unwrap(), 0));
    _ = claims.change(0, to(0));
    _ = claims.written();
    assert_eq!(claims.left(0), [(0, 3)]);
    assert!(claims.is_empty());
}

#[test]
fn a_row_for_a_topic_that_cannot_be_is_parked_and_waits_for_nothing() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, &"t".repeat(256), "a"), row(2, "orders", "a")]);
    let change = claims.change(0, to(0)).unwrap();
    assert_eq!(change.parked[0].position, 1);
    assert_eq!(positions(&claims.written()), [2]);
    assert_eq!(claims.room(), LIMITS.rows_max - 1);
}

#[test]
fn a_row_that_is_gone_is_not_taken_from_a_query_that_saw_it_before() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "orders", "a")]);
    _ = claims.change(0, to(0));
    _ = claims.written();
    let (look, _) = claims.look();
    claims.acknowledged(1, 0);
    _ = claims.change(0, to(0));
    _ = claims.written();
    claims.found(look, vec![row(1, "orders", "a")]);
    assert_eq!(claims.change(0, to(0)), None);
    assert!(claims.is_empty());
}

#[test]
fn a_shard_is_left_only_when_nothing_of_it_is_claimed() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "orders", "a"), row(2, "orders", "b")]);
    _ = claims.change(0, to(0));
    _ = claims.written();
    claims.leave(0, 0);
    find(&mut claims, vec![row(3, "orders", "a")]);
    assert!(claims.left(0).is_empty());
    (1..=2).for_each(|position| claims.acknowledged(position, 0));
    assert!(claims.left(0).is_empty(), "that it is done is not written yet");
    assert!(claims.change(0, to(0)).is_some());
    _ = claims.written();
    assert_eq!(claims.left(0), [(0, 3)]);
    assert!(claims.is_empty());
}

#[test]
fn a_shard_whose_claims_do_not_end_is_left_to_others_with_them() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "orders", "a"), row(2, "orders", "b")]);
    let window = claims.change(0, to(0)).unwrap().windows[0].2.clone();
    let sent = claims.written();
    claims.leave(0, 10);
    assert!(claims.left(STUCK_MS).is_empty());
    assert_eq!(claims.left(10 + STUCK_MS), [(0, 3)]);
    assert!(claims.is_empty());

    let mut after = Claims::new(LIMITS, |_| ROW_BYTES);
    assert_eq!(after.gained(0, 4, instance(), &window), Ok(vec![1, 2]));
    assert_eq!(after.resumed(0, vec![row(1, "orders", "a"), row(2, "orders", "b")], 0), sent);
}

#[test]
fn rows_for_a_topic_that_is_not_known_fill_neither_rows_nor_bytes() {
    for limits in [LIMITS, Limits { rows_max: 1_000, bytes_max: 16 * ROW_BYTES, ..LIMITS }] {
        let mut claims = ours(limits);
        find(&mut claims, (1..=16).map(|position| row(position, "unknown", "")).collect());
        assert_eq!(claims.change(0, |_| Placed::Later), None);
        assert_eq!((claims.room(), claims.room_bytes()), (limits.rows_max, limits.bytes_max));
        claims.topic_known("unknown");
        assert!(claims.look().1, "what was left is looked for again");
    }
}

#[test]
fn what_is_reported_says_how_each_claimed_row_ended() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "orders", "a"), row(2, "orders", "b"), row(3, "orders", "c")]);
    _ = claims.change(0, to(0));
    _ = claims.written();
    claims.acknowledged(1, 0);
    claims.refused(2, Fate::Unknown, "?".to_owned(), 0);
    assert!(claims.take_reports(10).is_empty(), "not every moment");
    let reports = claims.take_reports(2_000);
    let evidence = &reports[0].sequences[0].evidence;
    assert_eq!((evidence.highest, evidence.acknowledged.contains(1), evidence.unknown.contains(2)), (3, true, true));
    let again = reports[0].clone();
    claims.reported(reports.into_iter().next().unwrap(), false, 2_000);
    assert_eq!(claims.take_reports(4_000)[0].sequences, again.sequences, "what was not stored is said again");
}

#[test]
fn a_list_that_was_read_before_a_row_was_parked_lets_nothing_go() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "orders", "a")]);
    _ = claims.change(0, to(0));
    _ = claims.written();
    let mark = claims.parked_mark();
    claims.refused(1, Fate::NotStored, "too large".to_owned(), 0);
    _ = claims.change(0, to(0));
    _ = claims.written();
    claims.set_parked(mark, []);
    assert!(!claims.look().1, "nothing was let go");
    find(&mut claims, vec![row(2, "orders", "a")]);
    assert_eq!(claims.change(0, to(0)), None);
}

#[test]
fn a_row_that_is_let_go_goes_before_a_later_one_of_its_key_that_is_parked() {
    let mut claims = ours(LIMITS);
    let key = || Some((Arc::from("orders"), Bytes::from_static(b"a")));
    claims.set_parked(claims.parked_mark(), [(1, key()), (5, key()), (7, None)]);
    _ = claims.look();
    claims.set_parked(claims.parked_mark(), [(5, key()), (7, None)]);
    let (look, restart) = claims.look();
    assert!(restart, "also when its key stays");
    claims.found(look, vec![row(1, "orders", "a"), row(3, "orders", "a"), row(6, "orders", "a")]);
    _ = claims.change(0, to(0));
    assert_eq!(positions(&claims.written()), [1, 3]);
    claims.set_parked(claims.parked_mark(), [(5, key())]);
    assert!(claims.look().1, "so is one without a key");
}

#[test]
fn a_refusal_of_an_older_tenure_takes_nothing_from_the_new_one() {
    let mut claims = ours(LIMITS);
    find(&mut claims, vec![row(1, "orders", "a")]);
    _ = claims.change(0, to(0));
    claims.lost(0);
    _ = claims.gained(0, 7, instance(), &[]);
    assert!(claims.fenced(&[(0, 3)]).is_empty());
    assert!(claims.shards().contains(&0));
}
