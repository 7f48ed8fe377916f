use baton_core::consumer::*;

use crate::driver::*;

/// What the partition was said to wait for after the watchdog's bound.
fn stuck(driver: &mut Driver) -> WaitsFor {
    driver.reports.clear();
    driver.pass(40_000);
    let found = driver.reports.iter().find_map(|report| match report {
        Report::Stuck { waits_for, .. } => Some(waits_for.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing is stuck: {:?}", driver.reports))
}

/// Others' 8 (docs/TESTING.md): a silent stall, heartbeats healthy.
#[test]
fn a_partition_without_progress_is_reported_with_what_it_waits_for() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    assert_eq!(stuck(&mut driver), WaitsFor::Handler { since_ms: 1_000, cancelled: false });
    assert_eq!(stuck(&mut driver), WaitsFor::Handler { since_ms: 1_000, cancelled: true });
    driver.finish(0, Outcomes::All(Outcome::Permanent(failure("rule"))));
    let since_ms = driver.now_ms;
    assert_eq!(stuck(&mut driver), WaitsFor::DeadLetter { since_ms });
    let mut driver = Driver::assigned(Settings { concurrency: Concurrency::Fixed(1), ..settings() });
    driver.deliver_to(0, &[(0, "a")]);
    driver.assign(assignment(1, Some(0)));
    driver.deliver_to(1, &[(0, "a")]);
    driver.reports.clear();
    driver.pass(40_000);
    let waits = |report: &Report| matches!(report, Report::Stuck { waits_for: WaitsFor::Concurrency, .. });
    assert!(driver.reports.iter().any(waits), "{:?}", driver.reports);
}

#[test]
fn a_settlement_without_an_answer_is_reported() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    driver.done(0);
    driver.pass(1_000);
    assert_eq!(stuck(&mut driver), WaitsFor::Settlement { since_ms: 2_000 });
}

#[test]
fn a_dependency_that_is_down_is_named_as_what_is_waited_for() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a"), (1, "b")]);
    for _ in 0..40 {
        driver.offsets().into_iter().for_each(|offset| {
            driver.finish(offset, Outcomes::All(Outcome::DependencyDown(failure("database"))));
        });
        driver.pass(1_000);
    }
    let waits = |report: &Report| matches!(report, Report::Stuck { waits_for: WaitsFor::Dependency { .. }, .. });
    assert!(driver.reports.iter().any(waits) || !driver.offsets().is_empty(), "{:?}", driver.reports);
}

#[test]
fn a_partition_that_goes_on_or_has_nothing_to_do_is_not_reported() {
    let mut driver = Driver::assigned(settings());
    for offset in 0..20 {
        driver.deliver(&[(offset, "a")]);
        driver.pass(20_000);
        driver.done(offset);
        driver.settled();
    }
    driver.pass(100_000);
    assert!(driver.reports.is_empty(), "{:?}", driver.reports);
}

/// Others' 8 (docs/TESTING.md), the engine's part: partitions that stay assigned, and are no longer read.
#[test]
fn an_engine_that_delivers_nothing_though_it_has_more_is_urged_to() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    driver.done(0);
    driver.settled();
    driver.core.known_end(&partition(0), 1, driver.now_ms);
    driver.pass(100_000);
    assert!(driver.others.is_empty(), "it is at its end");
    driver.core.known_end(&partition(0), 5, driver.now_ms);
    driver.pass(40_000);
    assert_eq!(driver.others, [Action::Seek { partition: partition(0), offset: 1 }]);
    driver.pass(40_000);
    assert_eq!(driver.others.last(), Some(&Action::Rejoin { partition: partition(0) }));
}

#[test]
fn a_partition_that_we_paused_is_not_taken_for_an_engine_that_stalls() {
    let limits = Limits { partition_messages_max: 2, ..Limits::default() };
    let mut driver = Driver::assigned(Settings { limits, ..settings() });
    driver.deliver(&[(0, "a"), (1, "a")]);
    driver.core.known_end(&partition(0), 50, driver.now_ms);
    driver.others.clear();
    driver.pass(100_000);
    assert!(driver.others.is_empty(), "{:?}", driver.others);
}

#[test]
fn messages_that_lie_there_are_not_taken_for_an_engine_that_stalls() {
    let mut driver = Driver::assigned(Settings { concurrency: Concurrency::Fixed(1), ..settings() });
    let messages: Vec<(i64, &str)> = (0..50).map(|offset| (offset, "")).collect();
    driver.deliver(&messages);
    driver.core.known_end(&partition(0), 50, driver.now_ms);
    driver.pass(100_000);
    assert!(driver.others.is_empty(), "all were delivered, and wait for a handler: {:?}", driver.others);
}
