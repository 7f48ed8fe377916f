use baton_core::consumer::*;

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
