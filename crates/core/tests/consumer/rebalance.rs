use baton_core::consumer::*;

use crate::driver::*;

/// Others' 2 and 4 (docs/TESTING.md): what runs is waited for and settled; what waits is left to the next owner.
#[test]
fn a_partition_that_is_revoked_finishes_what_runs_settles_and_is_released() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "a"), (2, "b")]);
    driver.core.revoking(&[partition(0)], driver.now_ms);
    driver.take();
    driver.done(0);
    assert!(driver.others.is_empty() && driver.offsets() == [2]);
    driver.done(2);
    let (ticket, settlements) = driver.settles.pop().unwrap();
    assert!(driver.others.is_empty(), "released before it was settled");
    let Settlement::Frontier { next, metadata, .. } = &settlements[0] else { panic!("{settlements:?}") };
    assert_eq!((*next, decode_text(metadata).unwrap().intervals), (1, vec![(2, 3)]));
    driver.confirm(ticket);
    assert_eq!(driver.others, [Action::Release { partition: partition(0) }]);
    assert_eq!(driver.core.held(), Held::default());
}

#[test]
fn a_handler_that_does_not_end_holds_a_rebalance_up_for_the_bound_only() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b")]);
    driver.done(1);
    driver.core.revoking(&[partition(0)], driver.now_ms);
    driver.pass(9_999);
    driver
        .settles
        .iter()
        .for_each(|(_, settlements)| assert!(matches!(settlements[0], Settlement::Frontier { next: 0, .. })));
    let tickets: Vec<Ticket> = driver.settles.drain(..).map(|(ticket, _)| ticket).collect();
    tickets.into_iter().for_each(|ticket| driver.confirm(ticket));
    assert!(driver.others.is_empty());
    driver.pass(1);
    // What there was to say was settled before: nothing is left to wait for.
    assert!(driver.settles.is_empty());
    assert_eq!(driver.others, [Action::Release { partition: partition(0) }]);
    assert_eq!(driver.cancelled.len(), 1);
    driver.done(0);
    assert_eq!((driver.core.counters().late_results, driver.settled_next()), (1, None));
}

#[test]
fn a_partition_is_released_without_its_last_settlement_when_the_engine_does_not_answer() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    driver.core.revoking(&[partition(0)], driver.now_ms);
    driver.done(0);
    assert_eq!(driver.settles.len(), 1);
    driver.pass(5_000);
    assert_eq!(driver.others, [Action::Release { partition: partition(0) }]);
}

#[test]
fn nothing_is_settled_after_lost() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b")]);
    driver.done(0);
    // Asked for, but not taken by the shell yet.
    driver.core.tick(driver.now_ms + 5_000);
    driver.core.lost(&[partition(0)], driver.now_ms + 5_000);
    driver.take();
    assert!(driver.settles.iter().all(|(_, settlements)| settlements.is_empty()), "{:?}", driver.settles);
    driver.settles.clear();
    driver.done(1);
    assert_eq!((driver.settled_next(), driver.core.counters().late_results), (None, 1));
}

/// The mutant "ignore the assignment's epoch".
#[test]
fn a_result_of_an_earlier_assignment_does_not_count_for_the_next() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    let zombie = driver.run_of(0);
    driver.core.lost(&[partition(0)], driver.now_ms);
    driver.assign(Assignment { epoch: 2, ..assignment(0, Some(0)) });
    driver.deliver(&[(0, "a"), (1, "a")]);
    driver.finish_run(zombie, Outcomes::All(Outcome::Done));
    assert_eq!((driver.settled_next(), driver.offsets()), (None, vec![0]));
    driver.done(0);
    assert_eq!(driver.settled_next(), Some(1));
}

/// Others' 3 (docs/TESTING.md): a stale entry swallowed the fresh delivery, and consumption stalled.
#[test]
fn what_was_in_flight_in_an_earlier_assignment_is_handled_when_it_is_delivered_again() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "a"), (2, "b")]);
    driver.assign(Assignment { epoch: 2, ..assignment(0, Some(0)) });
    driver.running.clear();
    driver.deliver(&[(0, "a"), (1, "a"), (2, "b")]);
    assert_eq!(driver.offsets(), [0, 2]);
    [0, 1, 2].into_iter().for_each(|offset| driver.done(offset));
    assert_eq!(driver.settled_next(), Some(3));
}

#[test]
fn an_assignment_that_is_older_than_ours_is_ignored() {
    let mut driver = Driver::new(settings());
    driver.assign(Assignment { epoch: 5, ..assignment(0, Some(7)) });
    driver.assign(Assignment { epoch: 4, ..assignment(0, Some(2)) });
    assert_eq!(driver.reports, [Report::OldAssignment { partition: partition(0) }]);
}

#[test]
fn a_message_that_is_delivered_again_while_it_is_in_flight_is_handled_once() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b"), (0, "a"), (1, "b")]);
    assert_eq!((driver.offsets(), driver.core.counters().duplicates_in_flight), (vec![0, 1], 2));
}

#[test]
fn a_log_that_was_cut_is_handled_again_and_never_skipped() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b"), (2, "c")]);
    [0, 1, 2].into_iter().for_each(|offset| driver.done(offset));
    driver.deliver(&[(1, "other")]);
    assert_eq!(driver.offsets(), [1]);
    assert_eq!(driver.reports, [Report::OffsetsWentBack { partition: partition(0), offset: 1 }]);
    let (next, metadata) = driver.settled().unwrap();
    assert_eq!((next, metadata.as_str()), (1, ""));
}

/// Settles everything, and says what it was.
fn settle_all(driver: &mut Driver, settled: &mut Vec<Settlement>) {
    while let Some((ticket, settlements)) = driver.settles.pop() {
        settled.extend(settlements);
        driver.confirm(ticket);
    }
}

#[test]
fn what_is_undone_of_a_partition_that_goes_is_given_back_in_its_order_where_each_is_settled() {
    let mut driver = Driver::assigned(Settings { settling: Settling::Each, ..settings() });
    driver.deliver(&[(1, "a"), (2, "a"), (3, "b"), (4, "a"), (5, "a")]);
    driver.core.revoking(&[partition(0)], driver.now_ms);
    driver.take();
    let mut settled = Vec::new();
    settle_all(&mut driver, &mut settled);
    driver.done(3);
    settle_all(&mut driver, &mut settled);
    driver.done(1);
    settle_all(&mut driver, &mut settled);
    let back = |offset| Settlement::GiveBack { partition: partition(0), offset };
    let done = |offset| Settlement::Done { partition: partition(0), offset };
    assert_eq!(settled, [back(2), back(4), back(5), done(3), done(1)]);
    assert_eq!(driver.others, [Action::Release { partition: partition(0) }]);
}

#[test]
fn whoever_stops_gives_nothing_back_one_by_one_where_each_is_settled() {
    let mut driver = Driver::assigned(Settings { settling: Settling::Each, ..settings() });
    driver.deliver(&[(1, "a"), (2, "a"), (3, "b")]);
    driver.core.drain(driver.now_ms + 100, driver.now_ms);
    driver.take();
    // What is delivered meanwhile is left as well.
    driver.deliver(&[(4, "c")]);
    let mut settled = Vec::new();
    driver.done(3);
    settle_all(&mut driver, &mut settled);
    driver.pass(100);
    settle_all(&mut driver, &mut settled);
    assert_eq!(settled, [Settlement::Done { partition: partition(0), offset: 3 }]);
    assert_eq!(driver.others, [Action::Drained]);
}

#[test]
fn whoever_stops_gives_nothing_back_of_what_it_has_not_looked_at_where_each_is_settled() {
    let concurrency = Concurrency::Fixed(1);
    let mut driver = Driver::assigned(Settings { settling: Settling::Each, concurrency, ..settings() });
    let keys: Vec<String> = (0..200).map(|key| key.to_string()).collect();
    let messages: Vec<(i64, &str)> = keys.iter().enumerate().map(|(at, key)| (at as i64, key.as_str())).collect();
    driver.deliver(&messages);
    driver.core.drain(driver.now_ms + 100, driver.now_ms);
    driver.take();
    let mut settled = Vec::new();
    driver.done(0);
    settle_all(&mut driver, &mut settled);
    driver.pass(100);
    settle_all(&mut driver, &mut settled);
    assert_eq!(settled, [Settlement::Done { partition: partition(0), offset: 0 }]);
}

#[test]
fn draining_settles_the_last_frontier_before_it_says_that_all_is_done() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b")]);
    driver.core.drain(driver.now_ms + 1_000, driver.now_ms);
    driver.take();
    driver.deliver(&[(2, "c")]);
    driver.done(0);
    driver.done(1);
    assert!(driver.others.is_empty());
    let (ticket, settlements) = driver.settles.pop().unwrap();
    assert!(matches!(settlements[0], Settlement::Frontier { next: 2, .. }), "{settlements:?}");
    driver.confirm(ticket);
    assert_eq!(driver.others, [Action::Drained]);
}

#[test]
fn whoever_stops_takes_no_partition_any_more() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    driver.core.drain(driver.now_ms + 1_000, driver.now_ms);
    driver.assign(assignment(1, Some(0)));
    driver.deliver_to(1, &[(0, "b")]);
    driver.finish(0, Outcomes::All(Outcome::Stopped));
    assert_eq!((driver.others, driver.core.held()), (vec![Action::Drained], Held::default()));
}

#[test]
fn a_probe_that_is_lost_before_it_began_is_not_waited_for() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    driver.finish(0, Outcomes::All(Outcome::DependencyDown(failure("database"))));
    driver.now_ms += 10_000;
    // The probe is asked for here, and not taken by the shell before the partition goes.
    driver.core.tick(driver.now_ms);
    driver.core.lost(&[partition(0)], driver.now_ms);
    driver.assign(Assignment { epoch: 2, ..assignment(0, Some(0)) });
    driver.deliver(&[(0, "a")]);
    driver.pass(20_000);
    assert_eq!(driver.offsets(), [0]);
}
