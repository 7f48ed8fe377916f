use baton_core::consumer::*;

use crate::driver::*;

#[test]
fn messages_of_one_key_go_one_after_the_other_and_others_at_once() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "a"), (2, "b"), (3, "a"), (4, "")]);
    assert_eq!(driver.offsets(), [0, 2, 4]);
    driver.done(0);
    assert_eq!(driver.offsets(), [2, 4, 1]);
}

#[test]
fn messages_without_a_key_wait_for_none() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, ""), (1, ""), (2, "")]);
    assert_eq!(driver.offsets(), [0, 1, 2]);
}

#[test]
fn a_partition_goes_one_by_one_when_order_is_per_partition() {
    let mut driver = Driver::assigned(Settings { order: Order::PerPartition, ..settings() });
    driver.assign(assignment(1, Some(0)));
    driver.deliver(&[(0, "a"), (1, "b")]);
    driver.deliver_to(1, &[(5, "c")]);
    assert_eq!(driver.offsets(), [0, 5]);
    driver.done(0);
    assert_eq!(driver.offsets(), [5, 1]);
}

#[test]
fn without_order_messages_of_one_key_go_at_once() {
    let mut driver = Driver::assigned(Settings { order: Order::None, ..settings() });
    driver.deliver(&[(0, "a"), (1, "a")]);
    assert_eq!(driver.offsets(), [0, 1]);
}

/// Others' 16 (docs/TESTING.md): a backoff of minutes must not hold up the partition.
#[test]
fn only_the_key_of_a_failed_message_waits() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "a"), (2, "b")]);
    driver.finish(0, transient());
    driver.done(2);
    driver.deliver(&[(3, "b"), (4, "a")]);
    assert_eq!(driver.offsets(), [3]);
    driver.pass(1_000);
    assert_eq!(driver.offsets(), [3, 0]);
    assert_eq!(driver.running[&driver.run_of(0)][0].attempt, 2);
}

/// Others' 9 and 10 (docs/TESTING.md): two failures in one partition lose none and keep the order of their keys.
#[test]
fn two_messages_that_fail_in_one_partition_are_both_tried_again_in_order() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b"), (2, "a"), (3, "b")]);
    driver.finish(0, transient());
    driver.finish(1, transient());
    assert_eq!(driver.offsets(), [0; 0]);
    driver.pass(1_000);
    let mut offsets = driver.offsets();
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 1]);
    driver.done(0);
    driver.done(1);
    assert_eq!(driver.offsets(), [2, 3]);
}

#[test]
fn a_hot_partition_does_not_starve_others() {
    let mut driver = Driver::new(Settings { concurrency: Concurrency::Fixed(1), ..settings() });
    driver.assign(assignment(0, Some(0)));
    driver.assign(assignment(1, Some(100)));
    let hot: Vec<(i64, &str)> = (0..50).map(|offset| (offset, "")).collect();
    driver.deliver(&hot);
    driver.deliver_to(1, &[(100, ""), (101, "")]);
    let mut order = Vec::new();
    for _ in 0..6 {
        let offset = driver.offsets()[0];
        order.push(offset);
        driver.done(offset);
    }
    assert!(order.contains(&100) && order.contains(&101), "{order:?}");
}
