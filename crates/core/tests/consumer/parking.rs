use baton_core::consumer::*;
use bytes::Bytes;

use crate::driver::*;

fn parks() -> Settings {
    Settings { exhausted: Remedy::Park, permanent: Remedy::Park, ..settings() }
}

fn permanent() -> Outcomes {
    Outcomes::All(Outcome::Permanent(failure("rule")))
}

fn offsets(parked: &[Parked]) -> Vec<i64> {
    parked.iter().map(|parked| parked.delivery.offset).collect()
}

/// With key "a" parked, its first message being 0.
fn with_parked_key() -> Driver {
    let mut driver = Driver::assigned(parks());
    driver.deliver(&[(0, "a")]);
    driver.finish(0, permanent());
    let (ticket, ..) = driver.parks.pop().unwrap();
    driver.confirm(ticket);
    driver
}

fn release(driver: &mut Driver) {
    assert!(driver.core.release_key(&partition(0), &Bytes::from_static(b"a"), driver.now_ms));
    driver.take();
}

fn load(driver: &mut Driver, messages: &[(u64, i64)]) {
    let (ticket, _) = driver.loads.pop().unwrap();
    let loaded = |(position, offset): &(u64, i64)| Loaded { position: *position, delivery: delivery(0, *offset, "a") };
    driver.core.parked_loaded(ticket, messages.iter().map(loaded).collect(), driver.now_ms);
    driver.take();
}

/// The mutant "forget to park those that follow".
#[test]
fn those_that_follow_a_parked_message_are_parked_behind_it_and_others_flow() {
    let mut driver = Driver::assigned(parks());
    driver.deliver(&[(0, "a"), (1, "a"), (2, "b")]);
    driver.finish(0, permanent());
    let (ticket, key, messages) = driver.parks.pop().unwrap();
    assert_eq!((key, offsets(&messages)), (Bytes::from_static(b"a"), vec![0, 1]));
    assert_eq!((messages[0].failure.clone(), messages[1].failure.clone()), (Some(failure("rule")), None));
    driver.deliver(&[(3, "a"), (4, "c")]);
    assert_eq!(driver.offsets(), [2, 4]);
    assert!(driver.parks.is_empty(), "two writes of one key at once may change places");
    assert!(driver.settled().is_none_or(|(next, _)| next == 0), "settled before it was parked");
    driver.confirm(ticket);
    let (ticket, _, messages) = driver.parks.pop().unwrap();
    assert_eq!(offsets(&messages), [3]);
    driver.done(2);
    driver.done(4);
    assert_eq!(driver.settled_next(), Some(3));
    driver.confirm(ticket);
    assert_eq!(driver.settled_next(), Some(5));
}

#[test]
fn parked_keys_survive_a_restart() {
    let mut driver = Driver::new(parks());
    driver.assign(Assignment {
        parked: vec![KeyInStore { key: Bytes::from_static(b"a"), messages: 1 }],
        ..assignment(0, Some(5))
    });
    driver.deliver(&[(5, "a"), (6, "b")]);
    assert_eq!((driver.offsets(), offsets(&driver.parks[0].2)), (vec![6], vec![5]));
}

#[test]
fn parking_that_fails_is_tried_again_in_the_same_order() {
    let mut driver = Driver::assigned(parks());
    driver.deliver(&[(0, "a"), (1, "a")]);
    driver.finish(0, permanent());
    let (ticket, ..) = driver.parks.pop().unwrap();
    driver.refuse(ticket);
    driver.deliver(&[(2, "a")]);
    assert!(driver.parks.is_empty() && driver.offsets().is_empty());
    driver.pass(1_000);
    assert_eq!(offsets(&driver.parks[0].2), [0, 1, 2]);
}

#[test]
fn a_message_without_a_key_has_no_followers_and_becomes_a_dead_letter() {
    let mut driver = Driver::assigned(parks());
    driver.deliver(&[(0, "")]);
    driver.finish(0, permanent());
    assert_eq!((driver.letters.len(), driver.parks.len()), (1, 0));
}

#[test]
fn a_key_with_too_many_waiting_is_parked_before_its_last_attempt() {
    let parking = ParkingSettings { lane_messages_max: 3, ..ParkingSettings::default() };
    let mut driver = Driver::assigned(Settings { parking, ..parks() });
    driver.deliver(&[(0, "a"), (1, "a")]);
    driver.finish(0, transient());
    assert!(driver.parks.is_empty());
    driver.deliver(&[(2, "a"), (3, "a")]);
    assert_eq!(offsets(&driver.parks[0].2), [0, 1, 2, 3]);
}

#[test]
fn when_too_many_keys_are_parked_the_next_one_waits_and_keeps_its_order() {
    let parking = ParkingSettings { keys_max: 1, ..ParkingSettings::default() };
    let mut driver = Driver::assigned(Settings { parking, stuck_after_ms: 1_000, ..parks() });
    driver.deliver(&[(0, "a"), (1, "b"), (2, "b"), (3, "c")]);
    driver.finish(0, permanent());
    driver.finish(1, permanent());
    let (ticket, ..) = driver.parks.pop().unwrap();
    driver.confirm(ticket);
    driver.done(3);
    assert!(driver.parks.is_empty() && driver.offsets().is_empty());
    driver.pass(2_000);
    let waits = |report: &Report| matches!(report, Report::Stuck { offset: 1, waits_for: WaitsFor::ParkingRoom, .. });
    assert!(driver.reports.iter().any(waits), "{:?}", driver.reports);
    release(&mut driver);
    load(&mut driver, &[]);
    assert_eq!(offsets(&driver.parks[0].2), [1, 2]);
}

#[test]
fn when_too_many_messages_are_parked_the_next_ones_wait_in_order_until_some_are_released() {
    let parking = ParkingSettings { messages_max: 3, ..ParkingSettings::default() };
    let mut driver = Driver::new(Settings { parking, ..parks() });
    driver.assign(Assignment {
        parked: vec![KeyInStore { key: Bytes::from_static(b"a"), messages: 1 }],
        ..assignment(0, Some(0))
    });
    driver.deliver(&[(0, "a"), (1, "a"), (2, "b"), (3, "b"), (4, "a"), (5, "c")]);
    // Nothing is parked of `b` while the store fills up under `a`.
    let (ticket, _, messages) = driver.parks.pop().unwrap();
    assert_eq!(offsets(&messages), [0]);
    driver.confirm(ticket);
    let (ticket, _, messages) = driver.parks.pop().unwrap();
    assert_eq!(offsets(&messages), [1], "one fits, and not the next one");
    // What could not be stored takes no room.
    driver.refuse(ticket);
    assert_eq!(driver.core.held().parked_messages, 2);
    driver.pass(1_000);
    let (ticket, _, messages) = driver.parks.pop().unwrap();
    assert_eq!(offsets(&messages), [1]);
    driver.confirm(ticket);
    driver.finish(2, permanent());
    driver.done(5);
    assert!(driver.parks.is_empty() && driver.offsets().is_empty());
    assert_eq!(driver.core.held().parked_messages, 3);
    let full = |report: &&Report| **report == Report::ParkingFull { partition: partition(0), messages: 3 };
    assert_eq!(driver.reports.iter().filter(full).count(), 1);
    assert_eq!(driver.settled_next(), Some(2));
    // Two are handled and removed: the key that waits longest gets the room, and the next ones of `a` wait for more.
    release(&mut driver);
    load(&mut driver, &[(7, 10), (8, 0), (9, 1)]);
    driver.done(10);
    driver.pass(10);
    driver.finish(0, permanent());
    let (ticket, ..) = driver.removes.pop().unwrap();
    driver.confirm(ticket);
    let (ticket, _, messages) = driver.parks.pop().unwrap();
    assert_eq!(offsets(&messages), [4]);
    driver.confirm(ticket);
    release(&mut driver);
    load(&mut driver, &[(8, 0), (9, 1), (11, 4)]);
    for offset in [0, 1, 4] {
        driver.pass(100);
        driver.done(offset);
    }
    let (ticket, ..) = driver.removes.pop().unwrap();
    driver.confirm(ticket);
    assert_eq!(offsets(&driver.parks[0].2), [2, 3]);
    load(&mut driver, &[]);
    assert_eq!((driver.core.held().parked_keys, driver.core.held().parked_messages), (1, 2));
}

/// Others' 22 (docs/TESTING.md): replay that doubles. What is removed was handled, and is not read again before it is removed.
#[test]
fn a_release_is_ordered_rate_limited_and_what_comes_meanwhile_goes_behind() {
    let mut driver = with_parked_key();
    release(&mut driver);
    assert!(!driver.core.release_key(&partition(0), &Bytes::from_static(b"a"), driver.now_ms), "released twice");
    load(&mut driver, &[(0, 0), (1, 7)]);
    assert_eq!(driver.offsets(), [0]);
    driver.deliver(&[(1, "a"), (2, "b")]);
    assert_eq!((driver.offsets(), offsets(&driver.parks[0].2)), (vec![0, 2], vec![1]));
    driver.done(0);
    assert_eq!(driver.offsets(), [2], "faster than the rate allows");
    driver.pass(10);
    driver.done(7);
    let (ticket, _, up_to) = driver.removes.pop().unwrap();
    assert!(up_to == 1 && driver.loads.is_empty());
    let (park, ..) = driver.parks.pop().unwrap();
    driver.confirm(park);
    driver.confirm(ticket);
    load(&mut driver, &[(2, 1)]);
    driver.pass(10);
    driver.done(1);
    let (ticket, ..) = driver.removes.pop().unwrap();
    driver.confirm(ticket);
    load(&mut driver, &[]);
    assert!(driver.reports.iter().any(|report| matches!(report, Report::KeyReleased { .. })));
    driver.deliver(&[(3, "a")]);
    assert_eq!(driver.offsets(), [2, 3]);
}

#[test]
fn what_was_parked_while_the_store_was_read_is_not_forgotten() {
    let mut driver = with_parked_key();
    release(&mut driver);
    driver.deliver(&[(1, "a")]);
    let (park, ..) = driver.parks.pop().unwrap();
    driver.confirm(park);
    // The answer is from before that.
    load(&mut driver, &[]);
    driver.deliver(&[(2, "a")]);
    assert!(driver.offsets().is_empty());
    driver.pass(1_000);
    assert_eq!(driver.loads.len(), 1);
}

#[test]
fn a_release_stops_at_a_message_that_fails_and_removes_what_was_handled_before() {
    let mut driver = with_parked_key();
    release(&mut driver);
    load(&mut driver, &[(4, 0), (5, 1), (6, 2)]);
    driver.done(0);
    driver.pass(10);
    driver.finish(1, permanent());
    let (ticket, _, up_to) = driver.removes.pop().unwrap();
    assert_eq!(up_to, 4);
    driver.confirm(ticket);
    assert!(driver.loads.is_empty() && driver.offsets().is_empty());
    assert!(driver.reports.iter().any(|report| matches!(report, Report::ReleaseStopped { .. })));
    release(&mut driver);
    assert_eq!(driver.loads.len(), 1);
}
