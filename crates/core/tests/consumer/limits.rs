use baton_core::Delivery;
use baton_core::consumer::*;
use bytes::Bytes;

use crate::driver::*;

fn small() -> Settings {
    let limits = Limits { partition_messages_max: 10, ..Limits::default() };
    Settings { limits, ..settings() }
}

/// Others' 6 and 7 (docs/TESTING.md): memory grew while one key was blocked; one hot partition paused all.
#[test]
fn a_blocked_partition_is_paused_at_its_bound_and_no_other_is() {
    let mut driver = Driver::new(small());
    driver.assign(assignment(0, Some(0)));
    driver.assign(assignment(1, Some(0)));
    let messages: Vec<(i64, &str)> = (0..12).map(|offset| (offset, "hot")).collect();
    driver.deliver(&messages);
    driver.deliver_to(1, &[(0, "a")]);
    assert_eq!(driver.others, [Action::Pause { partition: partition(0) }]);
    assert_eq!(driver.offsets(), [0, 0]);
}

/// The mutant "never resume after a pause".
#[test]
fn a_paused_partition_is_resumed_at_half_of_its_bound() {
    let mut driver = Driver::assigned(small());
    let messages: Vec<(i64, &str)> = (0..10).map(|offset| (offset, "")).collect();
    driver.deliver(&messages);
    assert_eq!(driver.others, [Action::Pause { partition: partition(0) }]);
    driver.others.clear();
    (0..4).for_each(|offset| driver.done(offset));
    assert!(driver.others.is_empty());
    driver.done(4);
    assert_eq!(driver.others, [Action::Resume { partition: partition(0) }]);
}

#[test]
fn bytes_are_bounded_as_messages_are() {
    let limits = Limits { partition_bytes_max: 25, ..Limits::default() };
    let mut driver = Driver::assigned(Settings { limits, ..settings() });
    driver.deliver(&[(0, "a"), (1, "b")]);
    assert!(driver.others.is_empty());
    driver.deliver(&[(2, "c")]);
    assert_eq!(driver.others, [Action::Pause { partition: partition(0) }]);
}

#[test]
fn partitions_share_the_whole_so_that_it_is_bounded_however_many_there_are() {
    let limits = Limits { messages_max: 20, partition_messages_max: 15, ..Limits::default() };
    let mut driver = Driver::new(Settings { limits, ..settings() });
    (0..4).for_each(|number| driver.assign(assignment(number, Some(0))));
    for number in 0..4 {
        let messages: Vec<(i64, &str)> = (0..5).map(|offset| (offset, "a")).collect();
        driver.deliver_to(number, &messages);
    }
    assert_eq!(driver.others.len(), 4);
    // Fewer partitions, larger shares.
    driver.others.clear();
    driver.core.lost(&[partition(0), partition(1), partition(2)], driver.now_ms);
    driver.take();
    assert_eq!(driver.others, [Action::Resume { partition: partition(3) }]);
}

#[test]
fn no_more_handlers_run_than_may() {
    let mut driver = Driver::assigned(Settings { concurrency: Concurrency::Fixed(2), ..settings() });
    driver.deliver(&[(0, "a"), (1, "b"), (2, "c")]);
    assert_eq!(driver.offsets(), [0, 1]);
    // Those of a lost partition still take their places: they run.
    driver.core.lost(&[partition(0)], driver.now_ms);
    driver.assign(Assignment { epoch: 2, ..assignment(0, Some(0)) });
    driver.deliver(&[(0, "a")]);
    assert_eq!(driver.running.len(), 2);
    driver.finish_run(*driver.running.keys().next().unwrap(), Outcomes::All(Outcome::Stopped));
    assert_eq!(driver.running.len(), 2);
}

#[test]
fn settings_that_allow_nothing_are_refused() {
    let none = Settings { concurrency: Concurrency::Fixed(0), ..settings() };
    assert_eq!(Core::new(none, 0).unwrap_err(), BadSettings::Zero("concurrency"));
    let parks = Settings { order: Order::PerPartition, exhausted: Remedy::Park, ..settings() };
    assert_eq!(Core::new(parks, 0).unwrap_err(), BadSettings::ParkingNeedsKeys);
}

/// What is held costs little until its turn is near, and counts for the bounds all the same.
#[test]
fn messages_are_looked_at_only_as_far_ahead_as_handlers_need() {
    let mut driver = Driver::assigned(Settings { concurrency: Concurrency::Fixed(2), ..settings() });
    let messages: Vec<(i64, &str)> = (0..100).map(|offset| (offset, "")).collect();
    driver.deliver(&messages);
    let held = driver.core.held();
    assert_eq!((held.messages, held.bytes, held.handlers), (100, 1_000, 2));
    assert!(held.lanes <= 8, "{held:?}");
    assert_eq!(driver.core.not_looked_at(), 100 - held.lanes, "each of the others has a lane, since it has no key");
    (0..100).for_each(|offset| driver.done(offset));
    assert_eq!(driver.core.not_looked_at(), 0);
    assert_eq!((driver.core.held().messages, driver.settled_next()), (0, Some(100)));
}

#[test]
fn keys_behind_a_hot_one_are_found() {
    let mut driver = Driver::assigned(Settings { concurrency: Concurrency::Fixed(2), ..settings() });
    let mut messages: Vec<(i64, &str)> = (0..50).map(|offset| (offset, "hot")).collect();
    messages.push((50, "other"));
    driver.deliver(&messages);
    assert_eq!(driver.offsets(), [0, 50]);
}

/// Engines lay small contents side by side: one that waits for long must not keep all of its neighbours.
#[test]
fn what_waits_for_long_has_memory_of_its_own() {
    let block = Bytes::from(vec![7; 1_000]);
    let mut driver = Driver::assigned(settings());
    let message = |offset, key| {
        let payload = Some(block.slice(offset as usize..offset as usize + 10));
        Delivery { payload, ..delivery(0, offset, key) }
    };
    let is_in_block = |handed: &Handed| {
        let payload = handed.delivery.payload.as_ref().unwrap();
        block.as_ptr_range().contains(&payload.as_ptr())
    };
    driver.core.messages(vec![message(0, "a"), message(1, "a"), message(2, "b")], driver.now_ms);
    driver.take();
    assert!(driver.running.values().flatten().all(is_in_block), "nothing is copied that does not wait");
    driver.finish(0, transient());
    driver.core.messages(vec![message(3, "a"), message(4, "b")], driver.now_ms);
    driver.pass(10_000);
    for offset in [0, 1, 3] {
        let run = driver.run_of(offset);
        assert!(!driver.running[&run].iter().any(is_in_block), "{offset} waited");
        driver.done(offset);
    }
    driver.done(2);
    assert!(driver.running[&driver.run_of(4)].iter().all(is_in_block), "4 came when its turn seemed near");
    driver.pass(1_000);
    driver.core.messages(vec![message(5, "b")], driver.now_ms);
    driver.done(4);
    assert!(!driver.running[&driver.run_of(5)].iter().any(is_in_block), "5 came behind one that had run for a second");
}
