use baton_core::consumer::*;

use crate::driver::*;

fn batches(across_partitions: bool) -> Settings {
    let batches = Batches { messages_max: 3, bytes_max: 1_000, wait_ms: 20, across_partitions };
    Settings { order: Order::Batches(batches), ..settings() }
}

#[test]
fn a_batch_begins_when_it_is_full_or_has_waited() {
    let mut driver = Driver::assigned(batches(false));
    driver.deliver(&[(0, "a"), (1, "b")]);
    assert!(driver.running.is_empty());
    assert_eq!(driver.core.wake_at_ms(), Some(driver.now_ms + 20));
    driver.pass(20);
    assert_eq!(driver.offsets(), [0, 1]);
    driver.deliver(&[(2, "a"), (3, "b"), (4, "c"), (5, "d")]);
    assert_eq!(driver.running.len(), 1, "two batches of one partition at once");
    driver.done(0);
    assert_eq!(driver.offsets(), [2, 3, 4]);
}

#[test]
fn a_batch_is_full_by_bytes_and_a_larger_message_goes_alone() {
    let mut driver = Driver::assigned(batches(false));
    let large =
        |offset, bytes| baton_core::Delivery { payload: Some(vec![0; bytes].into()), ..delivery(0, offset, "a") };
    driver.core.messages(vec![large(0, 5_000), large(1, 600), large(2, 600)], driver.now_ms);
    driver.take();
    assert_eq!(driver.offsets(), [0]);
    driver.done(0);
    assert_eq!(driver.offsets(), [1]);
}

#[test]
fn a_batch_that_failed_is_tried_one_by_one_and_no_attempt_is_counted() {
    let mut driver = Driver::assigned(batches(false));
    driver.deliver(&[(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e"), (5, "f")]);
    driver.finish(0, transient());
    for offset in 0..3 {
        assert_eq!(driver.offsets(), [offset]);
        assert_eq!(driver.running[&driver.run_of(offset)][0].attempt, 1);
        driver.done(offset);
    }
    assert_eq!(driver.offsets(), [3, 4, 5]);
}

#[test]
fn a_batch_may_say_how_each_of_its_messages_fared() {
    let mut driver = Driver::assigned(batches(false));
    driver.deliver(&[(0, "a"), (1, "b"), (2, "c")]);
    let poison = Outcome::Permanent(failure("rule"));
    driver.finish(0, Outcomes::Each(vec![Outcome::Done, poison, Outcome::Done]));
    assert_eq!(driver.settled_next(), Some(1));
    let (ticket, letter) = driver.letters.pop().unwrap();
    assert_eq!(letter.delivery.offset, 1);
    driver.confirm(ticket);
    assert_eq!(driver.settled_next(), Some(3));
}

#[test]
fn a_batch_across_partitions_takes_of_each() {
    let mut driver = Driver::assigned(batches(true));
    driver.assign(assignment(1, Some(10)));
    driver.deliver(&[(0, "a")]);
    driver.deliver_to(1, &[(10, "b"), (11, "c"), (12, "d")]);
    assert_eq!(driver.offsets(), [0, 10, 11]);
    // The partition that is lost meanwhile takes nothing of the others with it.
    driver.core.lost(&[partition(0)], driver.now_ms);
    driver.take();
    driver.done(10);
    driver.pass(20);
    assert_eq!(driver.offsets(), [12]);
}
