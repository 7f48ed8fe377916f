use baton_core::consumer::*;

use crate::driver::*;

/// Others' 1, 17, 18 (docs/TESTING.md), and the mutant "settle before the dead letter is durable".
#[test]
fn an_exhausted_message_is_settled_only_after_its_dead_letter_is_durable() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "a")]);
    for _ in 0..3 {
        driver.finish(0, transient());
        driver.pass(1_000);
    }
    let (ticket, letter) = driver.letters.pop().unwrap();
    assert_eq!((letter.class, letter.attempts, letter.failure), (FailureClass::Exhausted, 3, failure("database")));
    assert_eq!(*letter.delivery, delivery(0, 0, "a"));
    assert!(driver.offsets().is_empty() && driver.settled().is_none_or(|(next, _)| next == 0));
    driver.confirm(ticket);
    assert_eq!((driver.offsets(), driver.settled_next()), (vec![1], Some(1)));
}

#[test]
fn permanent_and_undecodable_messages_go_to_the_dead_letters_at_once() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b")]);
    driver.finish(0, Outcomes::All(Outcome::Permanent(failure("rule"))));
    driver.finish(1, Outcomes::All(Outcome::Undecodable(failure("json"))));
    let classes: Vec<_> = driver.letters.iter().map(|(_, letter)| (letter.class, letter.attempts)).collect();
    assert_eq!(classes, [(FailureClass::Permanent, 1), (FailureClass::Undecodable, 1)]);
}

/// Others' 11 (docs/TESTING.md): a poison message looped inside the dead letter's publisher, without end and without pause.
#[test]
fn a_dead_letter_that_cannot_be_stored_is_tried_again_later_and_holds_up_only_its_key() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "a"), (2, "b")]);
    driver.finish(0, Outcomes::All(Outcome::Permanent(failure("rule"))));
    let (ticket, _) = driver.letters.pop().unwrap();
    driver.refuse(ticket);
    assert!(driver.letters.is_empty(), "asked again without a pause");
    driver.done(2);
    driver.pass(1_000);
    let (ticket, _) = driver.letters.pop().unwrap();
    driver.confirm(ticket);
    assert_eq!(driver.offsets(), [1]);
}

#[test]
fn a_dependency_that_is_down_pauses_with_one_probe_at_a_time_and_burns_no_attempts() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b"), (2, "c")]);
    let down = || Outcomes::All(Outcome::DependencyDown(failure("database")));
    (0..3).for_each(|offset| driver.finish(offset, down()));
    assert_eq!(driver.reports, [Report::DependencyDown { failure: failure("database"), told: true }]);
    driver.deliver(&[(3, "d")]);
    assert!(driver.offsets().is_empty());
    for _ in 0..20 {
        driver.pass(10_000);
        assert_eq!(driver.offsets().len(), 1, "one probe at a time");
        driver.finish(driver.offsets()[0], down());
    }
    driver.pass(10_000);
    driver.done(driver.offsets()[0]);
    assert_eq!(driver.reports.last(), Some(&Report::DependencyUp));
    assert_eq!(driver.offsets().len(), 3, "never resumed after the pause");
    assert!(driver.running.values().flatten().all(|handed| handed.attempt == 1));
}

#[test]
fn many_keys_that_fail_alike_count_as_a_dependency_that_is_down() {
    let mut driver = Driver::assigned(settings());
    let keys: Vec<String> = (0..30).map(|key| format!("key-{key}")).collect();
    let messages: Vec<(i64, &str)> = keys.iter().enumerate().map(|(at, key)| (at as i64, key.as_str())).collect();
    driver.deliver(&messages);
    (0..19).for_each(|offset| driver.finish(offset, transient()));
    assert!(driver.reports.is_empty());
    driver.finish(19, transient());
    assert_eq!(driver.reports, [Report::DependencyDown { failure: failure("database"), told: false }]);
}

#[test]
fn keys_that_fail_among_many_that_succeed_do_not_count_as_a_dependency() {
    let mut driver = Driver::assigned(settings());
    for round in 0..100 {
        driver.deliver(&[(round * 2, ""), (round * 2 + 1, "")]);
        driver.finish(round * 2, transient());
        driver.done(round * 2 + 1);
    }
    assert!(driver.reports.is_empty(), "{:?}", driver.reports);
}

/// Else they would be probed for ever, and never become dead letters.
#[test]
fn poison_messages_that_only_look_like_a_dependency_end_as_dead_letters() {
    let mut driver = Driver::assigned(settings());
    let messages: Vec<(i64, &str)> = (0..25).map(|offset| (offset, "")).collect();
    driver.deliver(&messages);
    for _ in 0..2_000 {
        driver.offsets().into_iter().for_each(|offset| driver.finish(offset, transient()));
        std::mem::take(&mut driver.letters).into_iter().for_each(|(ticket, _)| driver.confirm(ticket));
        driver.pass(1_000);
    }
    assert_eq!(driver.core.counters().dead_lettered, 25);
}

#[test]
fn a_handler_past_its_deadline_is_cancelled_and_its_key_waits_until_it_has_ended() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "a")]);
    driver.pass(59_999);
    assert!(driver.cancelled.is_empty());
    driver.pass(1);
    assert_eq!(driver.cancelled, [driver.run_of(0)]);
    driver.pass(100_000);
    assert_eq!(driver.offsets(), [0], "two handlers of one key at once");
    driver.finish(0, Outcomes::All(Outcome::Stopped));
    driver.pass(1_000);
    assert_eq!(driver.running[&driver.run_of(0)][0].attempt, 2);
    assert_eq!(driver.core.counters().deadline_exceeded, 1);
}

#[test]
fn a_handler_that_is_done_in_spite_of_its_cancellation_is_done() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    driver.pass(60_000);
    driver.done(0);
    assert_eq!(driver.settled_next(), Some(1));
}

/// Others counted from the arrival: what had waited for long was given up while it was handled, and handled twice.
#[test]
fn a_deadline_counts_from_the_start_of_the_handler_and_not_from_the_arrival_of_its_message() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "a")]);
    driver.pass(59_000);
    driver.done(0);
    driver.pass(59_999);
    assert!(driver.cancelled.is_empty());
    driver.pass(1);
    assert_eq!(driver.cancelled, [driver.run_of(1)]);
}
