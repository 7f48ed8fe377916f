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

/// Asks as the shell does, and answers what the engine says.
fn engine_says(driver: &mut Driver, waiting: Waiting) -> BacklogQuestion {
    let question = driver.core.backlog_questions(driver.now_ms).remove(0);
    driver.core.backlog(&question, waiting, question.exact, driver.now_ms);
    driver.take();
    question
}

/// Time passes, and the engine says the same all the while.
fn while_engine_says(driver: &mut Driver, ms: u64, waiting: Waiting) {
    for _ in 0..ms / 5_000 {
        driver.pass(5_000);
        engine_says(driver, waiting);
    }
}

const fn offsets(begin: i64, end: i64) -> Waiting {
    Waiting::Offsets { begin, end }
}

fn resumed(report: &Report) -> bool {
    matches!(report, Report::DeliveriesResumed { .. })
}

/// Others' 8 (docs/TESTING.md), the engine's part: partitions that stay assigned, and are no longer read.
#[test]
fn an_engine_that_delivers_nothing_though_it_has_more_is_urged_to() {
    let mut driver = Driver::assigned(settings());
    driver.deliver(&[(0, "a")]);
    driver.done(0);
    driver.settled();
    while_engine_says(&mut driver, 100_000, offsets(0, 1));
    assert!(driver.others.is_empty() && driver.reports.is_empty(), "it is at its end");
    while_engine_says(&mut driver, 40_000, offsets(0, 5));
    assert_eq!(driver.others, [Action::Seek { partition: partition(0), offset: 1 }]);
    let reported = |report: &Report| matches!(report, Report::NoDeliveries { next: Some(1), waiting, remedy: Urge::Seek, .. } if *waiting == offsets(0, 5));
    assert!(driver.reports.iter().any(reported), "{:?}", driver.reports);
    while_engine_says(&mut driver, 40_000, offsets(0, 5));
    assert_eq!(driver.others.last(), Some(&Action::Rejoin { partition: partition(0) }));
    assert_eq!(driver.others.len(), 2);
    driver.deliver(&[(1, "a")]);
    assert_eq!(driver.reports.iter().filter(|report| resumed(report)).count(), 1, "{:?}", driver.reports);
}

#[test]
fn a_partition_that_never_delivered_anything_is_urged_from_what_is_kept() {
    let mut driver = Driver::new(settings());
    driver.assign(assignment(0, None));
    while_engine_says(&mut driver, 50_000, offsets(7, 9));
    assert_eq!(driver.others, [Action::Seek { partition: partition(0), offset: 7 }]);
}

#[test]
fn nothing_is_done_on_an_answer_that_is_not_exact() {
    let mut driver = Driver::assigned(settings());
    for _ in 0..40 {
        driver.pass(5_000);
        let question = driver.core.backlog_questions(driver.now_ms).remove(0);
        driver.core.backlog(&question, offsets(0, 5), false, driver.now_ms);
        driver.take();
    }
    assert!(driver.others.is_empty(), "{:?}", driver.others);
    // Asked for once it matters, and not before.
    assert!(driver.core.backlog_questions(driver.now_ms)[0].exact);
    driver.deliver(&[(0, "a")]);
    assert!(!driver.core.backlog_questions(driver.now_ms)[0].exact);
}

#[test]
fn an_answer_that_a_delivery_overtook_counts_for_nothing() {
    let mut driver = Driver::assigned(settings());
    while_engine_says(&mut driver, 25_000, offsets(0, 1));
    let question = driver.core.backlog_questions(driver.now_ms).remove(0);
    assert!(question.exact);
    driver.deliver(&[(0, "a")]);
    for _ in 0..3 {
        driver.core.backlog(&question, offsets(0, 5), true, driver.now_ms);
        driver.pass(40_000);
    }
    assert!(driver.others.is_empty(), "{:?}", driver.others);
}

#[test]
fn where_the_group_was_left_in_vain_it_is_left_again_ever_later() {
    let mut driver = Driver::assigned(settings());
    let mut left_at_ms = Vec::new();
    let mut epoch = 1;
    while left_at_ms.len() < 8 {
        while_engine_says(&mut driver, 5_000, offsets(0, 5));
        let rejoin = |action: &Action| matches!(action, Action::Rejoin { .. });
        if std::mem::take(&mut driver.others).iter().any(rejoin) {
            left_at_ms.push(driver.now_ms);
            driver.core.lost(&[partition(0)], driver.now_ms);
            epoch += 1;
            driver.assign(Assignment { epoch, ..assignment(0, Some(0)) });
        }
    }
    let waits: Vec<u64> = left_at_ms.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(waits[0] < 150_000 && (480_000..700_000).contains(&waits[6]), "{waits:?}");
    driver.deliver(&[(0, "a")]);
    assert!(driver.reports.iter().any(resumed), "{:?}", driver.reports);
}

#[test]
fn a_queue_is_not_taken_for_stalled_while_its_messages_are_in_our_hands() {
    let settings = Settings { settling: Settling::Each, handler_deadline_ms: 1_000_000, ..settings() };
    let mut driver = Driver::assigned(settings);
    driver.deliver(&[(0, "a")]);
    while_engine_says(&mut driver, 100_000, Waiting::Undelivered(4));
    assert!(driver.others.is_empty(), "as many as it gives at once may be with us: {:?}", driver.others);
    driver.done(0);
    driver.settled();
    while_engine_says(&mut driver, 50_000, Waiting::Undelivered(4));
    assert_eq!(driver.others, [Action::Rejoin { partition: partition(0) }], "there are no offsets to go to");
}

#[test]
fn a_partition_that_we_paused_is_not_taken_for_an_engine_that_stalls() {
    let limits = Limits { partition_messages_max: 2, ..Limits::default() };
    let mut driver = Driver::assigned(Settings { limits, ..settings() });
    driver.deliver(&[(0, "a"), (1, "a")]);
    driver.others.clear();
    while_engine_says(&mut driver, 100_000, offsets(0, 50));
    assert!(driver.others.is_empty(), "{:?}", driver.others);
}

#[test]
fn messages_that_lie_there_are_not_taken_for_an_engine_that_stalls() {
    let mut driver = Driver::assigned(Settings { concurrency: Concurrency::Fixed(1), ..settings() });
    let messages: Vec<(i64, &str)> = (0..50).map(|offset| (offset, "")).collect();
    driver.deliver(&messages);
    engine_says(&mut driver, offsets(0, 50));
    driver.pass(100_000);
    assert!(driver.others.is_empty(), "all were delivered, and wait for a handler: {:?}", driver.others);
}

#[test]
fn lag_counts_what_is_not_done() {
    let mut driver = Driver::assigned(settings());
    assert!(driver.core.lags().is_empty(), "nobody asked yet");
    engine_says(&mut driver, offsets(0, 10));
    let lag = |driver: &Driver| driver.core.lags()[0].messages;
    assert_eq!(lag(&driver), 10);
    driver.deliver(&[(0, "a"), (1, "b")]);
    assert_eq!(lag(&driver), 10, "in flight is not done");
    driver.done(0);
    assert_eq!(lag(&driver), 9);
    // What is not kept any more will not be done either.
    engine_says(&mut driver, offsets(4, 10));
    assert_eq!(lag(&driver), 6);
}
