//! What a consumer says that it saw of each message.

use std::collections::BTreeMap;

use baton_core::consumer::{
    Accept, Assignment, DEAD_PARTITION, DEAD_TOPIC, Done, Filter, Outcome, Outcomes, ParkingSettings, Remedy, Settings,
    Witness, encode_text,
};
use baton_core::stamp::{Instance, STAMP_HEADER};
use baton_core::{
    Delivery, GroupEvidence, Ledger, REPORT_INTERVAL_MS, REPORT_MESSAGES, Ranges, Report, Seen, SequenceName,
};
use bytes::Bytes;

use crate::driver::{Driver, assignment, delivery, failure, partition, settings, transient};

pub const GROUP: &str = "beans-svc";

pub fn witness() -> Witness {
    Witness::new(Instance::new("beans-svc-1").unwrap(), GROUP.into(), 5)
}

pub fn stamped(mut delivery: Delivery, instance: &str, sequence: u64) -> Delivery {
    let stamp = format!("1;id-{instance}-{sequence};{instance};7;{sequence}");
    delivery.headers.push(STAMP_HEADER, Some(stamp.into()));
    delivery
}

pub fn name(instance: &str, number: u32) -> SequenceName {
    SequenceName { partition: partition(number), instance: Instance::new(instance).unwrap(), epoch: 7 }
}

/// A core that keeps what it sees, with partition 0.
struct Watched {
    driver: Driver,
    ledger: Ledger,
}

impl Watched {
    fn new(settings: Settings) -> Self {
        let mut driver = Driver::new(settings.clone());
        driver.core = baton_core::consumer::Core::new(settings, 7).unwrap().with_witness(witness());
        driver.assign(assignment(0, Some(0)));
        Self { driver, ledger: Ledger::default() }
    }

    /// Messages of the producer `p` with these numbers; their offsets are ten times as high.
    fn deliver(&mut self, messages: &[(u64, &str)]) {
        let all = messages.iter().map(|(sequence, key)| message(*sequence, key)).collect();
        self.driver.core.messages(all, self.driver.now_ms);
        self.driver.take();
    }

    /// What the shell does when a handler went well.
    fn applied(&mut self, sequence: u64) {
        let now_ms = self.driver.now_ms;
        self.driver.core.witness().unwrap().saw(&message(sequence, ""), Seen::Applied, now_ms);
        self.driver.done(sequence as i64 * 10);
    }

    fn take(&mut self) -> Vec<Report> {
        self.driver.core.witness().unwrap().take_reports(1_700_000_000_000)
    }

    fn answer(&mut self, report: Report, stored: bool) {
        let now_ms = self.driver.now_ms;
        if stored {
            self.ledger.add(&Report::decode(&report.encode()).unwrap());
        }
        self.driver.core.witness().unwrap().reported(report, stored, now_ms);
    }

    /// All that was said so far of a number.
    fn said(&mut self, sequence: u64) -> Vec<Seen> {
        self.take().into_iter().for_each(|report| self.answer(report, true));
        let evidence = self.ledger.consumed(GROUP, &name("p", 0)).cloned().unwrap_or_default();
        Seen::ALL.into_iter().filter(|seen| evidence.of(*seen).contains(sequence)).collect()
    }

    fn due_ms(&mut self) -> Option<u64> {
        self.driver.core.witness().unwrap().report_due_ms()
    }
}

fn message(sequence: u64, key: &str) -> Delivery {
    stamped(delivery(0, sequence as i64 * 10, key), "p", sequence)
}

fn parking() -> Settings {
    Settings { permanent: Remedy::Park, parking: ParkingSettings::default(), side_store: true, ..settings() }
}

fn permanent() -> Outcomes {
    Outcomes::All(Outcome::Permanent(failure("rule")))
}

#[test]
fn nothing_is_said_before_it_is_certain() {
    let mut world = Watched::new(settings());
    world.deliver(&[(1, "a"), (2, "b"), (3, "c")]);
    assert_eq!(world.said(1), [Seen::Delivered]);
    world.driver.finish(10, transient());
    assert_eq!(world.said(1), [Seen::Delivered], "it is tried again");
    world.driver.finish(20, permanent());
    assert_eq!(world.said(2), [Seen::Delivered], "its dead letter is on its way");
    let (ticket, _) = world.driver.letters.pop().unwrap();
    world.driver.refuse(ticket);
    assert_eq!(world.said(2), [Seen::Delivered], "its dead letter could not be stored");
    world.driver.pass(60_000);
    let (ticket, _) = world.driver.letters.pop().unwrap();
    world.driver.confirm(ticket);
    assert_eq!(world.said(2), [Seen::Delivered, Seen::DeadLettered]);
    world.applied(3);
    assert_eq!(world.said(3), [Seen::Delivered, Seen::Applied]);
}

#[test]
fn what_is_parked_is_said_when_it_is_durable_and_with_all_that_waits_behind_it() {
    let mut world = Watched::new(parking());
    world.deliver(&[(1, "a"), (2, "a"), (3, "a"), (4, "b")]);
    world.driver.finish(10, permanent());
    let (ticket, _, messages) = world.driver.parks.pop().unwrap();
    assert_eq!((messages.len(), world.said(1)), (3, vec![Seen::Delivered]));
    world.driver.confirm(ticket);
    for sequence in 1..=3 {
        assert_eq!(world.said(sequence), [Seen::Delivered, Seen::Parked]);
    }
    assert_eq!(world.said(4), [Seen::Delivered]);
}

#[test]
fn what_is_skipped_is_said_and_why() {
    let filter = Filter { header: "kind".into(), accept: Accept::Present };
    let mut world = Watched::new(Settings { filters: vec![filter], ..settings() });
    world.deliver(&[(1, "a")]);
    assert_eq!(world.said(1), [Seen::Delivered, Seen::Filtered]);
    // An owner before was done with the message at offset 40, and settled that.
    let (metadata, _) = encode_text(&Done { base: 30, lineage: 0, intervals: vec![(40, 41)] }, 100);
    world.driver.assign(Assignment { epoch: 2, metadata, ..assignment(0, Some(30)) });
    world.deliver(&[(3, "a"), (4, "a")]);
    assert_eq!(world.said(3), [Seen::Delivered, Seen::Filtered]);
    assert_eq!(world.said(4), [Seen::Delivered, Seen::DoneBefore]);
}

#[test]
fn what_comes_of_a_partition_that_is_gone_still_counts_and_what_it_gave_up_does_not() {
    let mut world = Watched::new(settings());
    world.deliver(&[(1, "a"), (2, "b")]);
    let now_ms = world.driver.now_ms;
    world.driver.core.lost(&[partition(0)], now_ms);
    // The guard committed the first one all the same.
    world.applied(1);
    world.driver.finish(20, Outcomes::All(Outcome::Stopped));
    assert_eq!(world.driver.core.counters().late_results, 2);
    assert_eq!((world.said(1), world.said(2)), (vec![Seen::Delivered, Seen::Applied], vec![Seen::Delivered]));
    world.deliver(&[(3, "a")]);
    assert_eq!(world.said(3), [], "what is not ours was delivered to somebody else");
}

#[test]
fn a_report_is_due_a_second_after_a_change_and_at_once_after_many_or_when_a_partition_goes() {
    let mut world = Watched::new(settings());
    assert_eq!((world.due_ms(), world.take().len()), (None, 0));
    let began_ms = world.driver.now_ms;
    world.deliver(&[(1, "a")]);
    world.driver.pass(400);
    world.deliver(&[(2, "b")]);
    assert_eq!(world.due_ms(), Some(began_ms + REPORT_INTERVAL_MS));
    assert_eq!(world.take().len(), 1);
    assert_eq!(world.due_ms(), None, "what was taken is due no more");
    for sequence in 1..=REPORT_MESSAGES {
        assert_ne!(world.due_ms(), Some(0), "after {sequence}");
        let now_ms = world.driver.now_ms;
        world.driver.core.witness().unwrap().saw(&message(sequence, ""), Seen::Applied, now_ms);
    }
    assert_eq!(world.due_ms(), Some(0));
    world.take();
    world.deliver(&[(3, "c")]);
    let now_ms = world.driver.now_ms;
    world.driver.core.lost(&[partition(0)], now_ms);
    assert_eq!(world.due_ms(), Some(0));
}

#[test]
fn a_report_that_failed_is_said_again_and_one_that_is_stored_is_not() {
    let mut world = Watched::new(settings());
    world.deliver(&[(1, "a"), (2, "b")]);
    let mut unstamped = delivery(0, 50, "");
    unstamped.headers.push("kind", None);
    world.driver.core.messages(vec![unstamped], world.driver.now_ms);
    let first = world.take();
    assert_eq!(world.driver.core.unreported(), (2, 0), "a range and a count are under way");
    world.applied(1);
    first.into_iter().for_each(|report| world.answer(report, false));
    assert_eq!(world.due_ms(), Some(world.driver.now_ms + REPORT_INTERVAL_MS));
    assert_eq!(world.driver.core.unreported(), (3, 0));
    assert_eq!(world.said(1), [Seen::Delivered, Seen::Applied]);
    assert_eq!(world.said(2), [Seen::Delivered]);
    assert_eq!(world.ledger.unstamped(GROUP, &partition(0), Seen::Delivered), 1);
    assert_eq!((world.driver.core.unreported(), world.take().len()), ((0, 0), 0));
}

#[test]
fn messages_without_a_number_are_counted() {
    let mut world = Watched::new(settings());
    let mut unreadable = delivery(0, 1, "a");
    unreadable.headers.push(STAMP_HEADER, Some(Bytes::from_static(b"1;no stamp")));
    let plain = delivery(0, 2, "b");
    world.driver.core.messages(vec![unreadable.clone(), plain.clone()], world.driver.now_ms);
    world.driver.core.witness().unwrap().saw(&plain, Seen::Applied, 0);
    assert_eq!(world.said(1), []);
    // Counts are totals: whoever reads a report twice, or one that was said again, counts nothing twice.
    world.driver.core.witness().unwrap().saw(&plain, Seen::AlreadyApplied, 0);
    let again = world.take();
    again.iter().for_each(|report| world.ledger.add(report));
    again.into_iter().for_each(|report| world.answer(report, true));
    let count = |seen| world.ledger.unstamped(GROUP, &partition(0), seen);
    assert_eq!((count(Seen::Delivered), count(Seen::Applied), count(Seen::AlreadyApplied)), (2, 1, 1));
    assert_eq!(world.ledger.sequences().count(), 0);
}

/// A dead letter that is sent again keeps its stamp, whose number is of the partition that it was first sent to.
#[test]
fn a_number_belongs_to_the_partition_that_its_message_was_first_sent_to() {
    let mut witness = witness();
    let mut again = stamped(delivery(0, 1, "a"), "p", 4);
    again.headers.push(DEAD_TOPIC, Some(Bytes::from_static(b"orders")));
    again.headers.push(DEAD_PARTITION, Some(Bytes::from_static(b"9")));
    witness.saw(&again, Seen::Applied, 0);
    // Nobody could read a report with such a name.
    again.headers.set(DEAD_TOPIC, Some(Bytes::from("t".repeat(256))));
    witness.saw(&again, Seen::Applied, 0);
    let mut ledger = Ledger::default();
    for report in witness.take_reports(0) {
        ledger.add(&Report::decode(&report.encode()).unwrap());
    }
    assert!(ledger.consumed(GROUP, &name("p", 9)).unwrap().of(Seen::Applied).contains(4));
    assert_eq!(ledger.sequences().count(), 1);
    assert_eq!(ledger.unstamped(GROUP, &partition(0), Seen::Applied), 1);
}

fn evidence_of(reports: &[Report], of: &SequenceName) -> GroupEvidence {
    let mut ledger = Ledger::default();
    reports.iter().for_each(|report| ledger.add(report));
    ledger.consumed(GROUP, of).cloned().unwrap_or_default()
}

#[test]
fn beyond_its_bounds_it_counts_and_keeps_what_takes_no_room() {
    let mut witness = witness().bounds(2, 4);
    let mut saw =
        |instance: &str, sequence| witness.saw(&stamped(delivery(0, 1, ""), instance, sequence), Seen::Applied, 0);
    for sequence in [2, 4, 6] {
        saw("a", sequence);
    }
    saw("b", 1);
    // No room for a sequence more, nor for an interval.
    saw("c", 1);
    saw("a", 8);
    saw("b", 3);
    // These make intervals longer, or join two of them.
    saw("a", 7);
    saw("a", 3);
    saw("b", 2);
    assert_eq!((witness.untold(), witness.unreported()), (3, 3));
    let reports = witness.take_reports(0);
    // While they are under way there is room; when they fail, there is none again for what is new.
    for sequence in [20, 30, 40] {
        witness.saw(&stamped(delivery(0, 1, ""), "a", sequence), Seen::Applied, 0);
    }
    for report in reports.clone() {
        witness.reported(report, false, 0);
    }
    let (before, after) = (evidence_of(&reports, &name("a", 0)), evidence_of(&witness.take_reports(0), &name("a", 0)));
    assert_eq!(before.of(Seen::Applied).iter().collect::<Vec<_>>(), [2..=4, 6..=7]);
    assert_eq!(after.of(Seen::Applied).iter().collect::<Vec<_>>(), [2..=4, 20..=20, 30..=30, 40..=40]);
    // 6 and 7 of `a`, 1 and 2 of `b`.
    assert_eq!(witness.untold(), 7);
}

#[test]
fn many_producers_and_partitions_are_kept_apart() {
    let (mut witness, mut expected) = (witness(), BTreeMap::<SequenceName, Ranges>::new());
    for round in 1..=100_u64 {
        for each in 0..50 {
            // Who comes after whom is different in each round.
            let (instance, number) = (format!("p{}", (each * 7 + round) % 50), each as u32 % 3);
            witness.saw(&stamped(delivery(number, 1, ""), &instance, round), Seen::Delivered, 0);
            expected.entry(name(&instance, number)).or_default().insert(round);
        }
    }
    let reports = witness.take_reports(0);
    assert_eq!(expected.len(), 150);
    for (name, numbers) in expected {
        assert_eq!(*evidence_of(&reports, &name).of(Seen::Delivered), numbers, "{name}");
    }
}
