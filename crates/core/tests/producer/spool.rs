use std::collections::{BTreeMap, BTreeSet};

use baton_core::stamp::{Instance, Stamp};
use baton_core::{
    MessageId, OthersEvidence, SPOOL_LOADED_BYTES_MAX, SPOOL_WINDOW_MAX, SpoolFull, SpoolOptions, Spooling,
    TopicPartition,
};
use proptest::prelude::*;

const AWAY_MS: u64 = 1_000;
const BYTES: u64 = 100;
const BYTES_MAX: u64 = 40 * BYTES;

fn options() -> SpoolOptions {
    SpoolOptions { bytes_max: BYTES_MAX, away_after_ms: AWAY_MS }
}

fn orders(partition: u32) -> TopicPartition {
    TopicPartition::new("orders", partition)
}

fn away() -> Spooling {
    let mut spooling = Spooling::new(options());
    spooling.asked(0);
    assert!(spooling.tick(AWAY_MS));
    spooling
}

fn keep(spooling: &mut Spooling, partition: u32, at: u64) {
    spooling.appended(&orders(partition), at, BYTES, 0, false);
    spooling.durable(&orders(partition), at + 1);
}

#[test]
fn the_engine_is_away_when_it_owes_an_answer_for_too_long_and_back_when_it_gives_one() {
    let mut spooling = Spooling::new(options());
    assert!(!spooling.tick(1_000_000), "nothing was asked of it");
    spooling.asked(5_000);
    spooling.asked(5_900);
    assert_eq!(spooling.away_ms(), Some(6_000));
    assert!(!spooling.tick(5_999) && !spooling.takes(&orders(0)));
    spooling.heard(5_999, true);
    assert!(!spooling.tick(6_998), "an answer to anything counts for all");
    assert!(spooling.tick(6_999) && spooling.is_away() && spooling.takes(&orders(0)));
    assert!(!spooling.tick(9_000) && spooling.away_ms().is_none(), "it is said once");
    spooling.heard(9_000, false);
    assert!(!spooling.is_away() && !spooling.takes(&orders(0)) && spooling.away_ms().is_none());
    spooling.asked(10_000);
    spooling.settled();
    assert!(!spooling.tick(20_000), "it owes nothing any more");
}

#[test]
fn nothing_overtakes_what_is_in_the_spool() {
    let mut spooling = away();
    keep(&mut spooling, 0, 0);
    spooling.heard(2_000, false);
    assert!(spooling.takes(&orders(0)), "something of it is there");
    assert!(!spooling.takes(&orders(1)), "nothing of it is");
    let read = spooling.wanted().unwrap();
    assert_eq!((read.partition, read.from), (orders(0), 0));
    assert!(spooling.loaded(&orders(0), 0, BYTES, 0));
    spooling.read(&orders(0));
    assert!(spooling.takes(&orders(0)), "the engine has not said that it has it");
    assert!(spooling.done(&orders(0), 0) && !spooling.done(&orders(0), 0));
    assert!(!spooling.takes(&orders(0)));
}

#[test]
fn what_is_not_durable_does_not_come_out() {
    let mut spooling = away();
    spooling.appended(&orders(0), 0, BYTES, 0, false);
    spooling.appended(&orders(0), 1, BYTES, 0, false);
    assert!(spooling.wanted().is_none());
    spooling.durable(&orders(0), 1);
    assert!(spooling.wanted().is_some() && spooling.wanted().is_none(), "one read at a time");
    assert!(spooling.loaded(&orders(0), 0, BYTES, 0));
    spooling.read(&orders(0));
    assert!(spooling.wanted().is_none());
}

#[test]
fn what_the_engines_client_had_holds_up_its_partition_until_it_is_resolved() {
    let mut spooling = away();
    for at in 0..3 {
        spooling.appended(&orders(0), at, BYTES, 0, at < 2);
    }
    spooling.durable(&orders(0), 3);
    keep(&mut spooling, 1, 0);
    assert_eq!(spooling.wanted().unwrap().partition, orders(1), "others go on");
    assert!(spooling.wanted().is_none());
    assert!(spooling.done(&orders(0), 0), "the client delivered it after all");
    assert!(spooling.wanted().is_none());
    spooling.released(&orders(0), 1);
    assert_eq!(spooling.wanted().unwrap().from, 0);
    let again: Vec<_> = (0..3).filter(|at| spooling.loaded(&orders(0), *at, BYTES, 0)).collect();
    assert_eq!(again, [1, 2], "what was delivered does not go out again");
    assert_eq!(spooling.marks(), [(orders(0), 1)]);
}

#[test]
fn a_full_spool_takes_nothing_and_room_comes_back_with_what_is_done() {
    let mut spooling = away();
    for at in 0..40 {
        spooling.room(BYTES).unwrap();
        keep(&mut spooling, 0, at);
    }
    assert_eq!(spooling.room(1), Err(SpoolFull { bytes: BYTES_MAX, max: BYTES_MAX }));
    let _ = spooling.wanted();
    for at in 0..2 {
        spooling.loaded(&orders(0), at, BYTES, 0);
    }
    spooling.done(&orders(0), 1);
    assert!(spooling.room(1).is_err(), "the first of them is not done");
    spooling.done(&orders(0), 0);
    assert_eq!(spooling.room(2 * BYTES), Ok(()));
    assert!(spooling.room(2 * BYTES + 1).is_err());
    assert!(spooling.room(u64::MAX).is_err());
}

/// Which of these messages go to the spool.
fn moved(spooling: &Spooling, unended: &[(u32, u64, bool)]) -> Vec<bool> {
    let partitions: Vec<_> = unended.iter().map(|(partition, ..)| orders(*partition)).collect();
    let told = partitions.iter().zip(unended).map(|(partition, (_, bytes, in_flight))| (partition, *bytes, *in_flight));
    let mut movable = spooling.movable(told);
    partitions.iter().map(|partition| movable.takes(partition)).collect()
}

#[test]
fn what_the_engine_has_of_a_partition_goes_to_the_spool_as_a_whole_or_not_at_all() {
    let mut spooling = away();
    let all = [(0, 1_500, true), (0, 1_500, true), (1, 1_000, true), (0, 100, false)];
    assert_eq!(moved(&spooling, &all), [true; 4], "they fill it");
    let (more, queued) = ((0, 1, true), (0, 100, false));
    assert_eq!(
        moved(&spooling, &[all[0], all[1], all[2], more, queued]),
        [false, false, true, false, true],
        "what would be overtaken by another one that stays with the engine stays too"
    );
    keep(&mut spooling, 1, 0);
    assert_eq!(
        moved(&spooling, &[(1, 1, true), (1, 1, false), (0, 1, true)]),
        [false, false, true],
        "later ones are there"
    );
}

#[test]
fn a_mark_that_could_not_be_set_down_is_given_again() {
    let mut spooling = away();
    keep(&mut spooling, 0, 0);
    spooling.heard(2_000, false);
    assert!(spooling.wanted().is_some() && spooling.loaded(&orders(0), 0, BYTES, 0));
    spooling.read(&orders(0));
    assert!(spooling.done(&orders(0), 0));
    assert_eq!(spooling.marks(), [(orders(0), 1)]);
    assert!(!spooling.has_marks() && spooling.marks().is_empty());
    spooling.unmarked(&orders(0));
    assert!(spooling.has_marks());
    assert_eq!(spooling.marks(), [(orders(0), 1)]);
}

#[test]
fn lag_is_said_in_messages_bytes_and_age() {
    let mut spooling = away();
    assert_eq!(spooling.lag(5_000), Default::default());
    spooling.appended(&orders(0), 0, 70, 1_000, false);
    spooling.appended(&orders(1), 0, 50, 3_000, false);
    let lag = spooling.lag(5_000);
    assert_eq!((lag.messages, lag.bytes, lag.oldest_ms), (2, 120, Some(4_000)));
    spooling.durable(&orders(0), 1);
    let _ = spooling.wanted();
    spooling.loaded(&orders(0), 0, 70, 1_000);
    spooling.done(&orders(0), 0);
    let lag = spooling.lag(5_000);
    assert_eq!((lag.messages, lag.bytes, lag.oldest_ms), (1, 50, Some(2_000)));
}

#[test]
fn no_more_than_a_window_is_out_at_a_time() {
    let mut spooling = Spooling::new(SpoolOptions { bytes_max: u64::MAX, ..options() });
    spooling.found(orders(0), 5, 5 + 3_000, 3_000 * BYTES);
    let read = spooling.wanted().unwrap();
    assert_eq!((read.from, read.messages_max), (5, SPOOL_WINDOW_MAX));
    for at in 5..5 + SPOOL_WINDOW_MAX as u64 {
        assert!(spooling.loaded(&orders(0), at, BYTES, 0));
    }
    spooling.read(&orders(0));
    assert!(spooling.wanted().is_none());
    spooling.done(&orders(0), 5);
    assert_eq!(spooling.wanted().unwrap().messages_max, 1);
}

/// Reads as much as is wanted, from partitions that hold messages of so many bytes each; how much is out then.
fn load_all(spooling: &mut Spooling, message_bytes: u64) -> BTreeMap<u32, u64> {
    let mut out: BTreeMap<u32, u64> = BTreeMap::new();
    while let Some(read) = spooling.wanted() {
        let messages = (read.bytes_max / message_bytes).max(1).min(read.messages_max as u64);
        for at in read.from..read.from + messages {
            assert!(spooling.loaded(&read.partition, at, message_bytes, 0));
        }
        spooling.read(&read.partition);
        *out.entry(read.partition.partition).or_default() += messages * message_bytes;
    }
    out
}

#[test]
fn what_is_out_of_the_spool_is_bounded_over_all_partitions_and_shared_by_them() {
    const PARTITIONS: u32 = 64;
    const MESSAGE_BYTES: u64 = 10_000;
    let mut spooling = Spooling::new(SpoolOptions { bytes_max: u64::MAX, ..options() });
    for partition in 0..PARTITIONS {
        spooling.found(orders(partition), 0, 10_000, 10_000 * MESSAGE_BYTES);
    }
    let out = load_all(&mut spooling, MESSAGE_BYTES);
    assert_eq!(out.len(), PARTITIONS as usize, "none waits for another one to end");
    let all = out.values().sum::<u64>();
    assert!((SPOOL_LOADED_BYTES_MAX..SPOOL_LOADED_BYTES_MAX + MESSAGE_BYTES).contains(&all), "{all}");
    assert!(spooling.done(&orders(7), 0) && spooling.done(&orders(7), 1));
    let more = load_all(&mut spooling, MESSAGE_BYTES).values().sum::<u64>();
    assert!((1..=2).contains(&(more / MESSAGE_BYTES)), "as much room as came back is used: {more}");
}

#[test]
fn a_partition_that_came_late_has_one_message_out_whatever_the_others_have() {
    const MESSAGE_BYTES: u64 = 1 << 20;
    let mut spooling = Spooling::new(SpoolOptions { bytes_max: u64::MAX, ..options() });
    for partition in 0..8 {
        spooling.found(orders(partition), 0, 100, 100 * MESSAGE_BYTES);
    }
    assert_eq!(load_all(&mut spooling, MESSAGE_BYTES).values().sum::<u64>(), SPOOL_LOADED_BYTES_MAX);
    for partition in 8..20 {
        spooling.found(orders(partition), 0, 100, 100 * MESSAGE_BYTES);
    }
    let late = load_all(&mut spooling, MESSAGE_BYTES);
    assert_eq!(late, (8..20).map(|partition| (partition, MESSAGE_BYTES)).collect());
}

#[test]
fn what_others_left_behind_is_reported_under_their_names() {
    let mut others = OthersEvidence::default();
    let stamp = |instance: &str, epoch, sequence| Stamp {
        id: MessageId::from(sequence),
        instance: Instance::new(instance).unwrap(),
        epoch,
        sequence,
    };
    assert_eq!((others.due_ms(), others.take_reports(0).len()), (None, 0));
    for sequence in [4, 5, 7] {
        others.acknowledged(&stamp("a", 1, sequence), &orders(0), 100);
    }
    others.acknowledged(&stamp("b", 9, 1), &orders(1), 100);
    assert_eq!(others.due_ms(), Some(1_100));
    let reports = others.take_reports(1_100);
    assert_eq!(others.due_ms(), None);
    let names: Vec<_> = reports.iter().map(|report| report.instance.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let told = &reports[0].sequences[0];
    assert_eq!((told.epoch, told.partition.clone(), told.evidence.highest), (1, orders(0), 7));
    assert_eq!(told.evidence.acknowledged.iter().collect::<Vec<_>>(), [4..=5, 7..=7]);
    assert!(!told.evidence.closed, "nobody knows here whether more was sent");
    for report in reports {
        others.give_back(&report.instance, report.sequences, 2_000);
    }
    others.acknowledged(&stamp("a", 1, 6), &orders(0), 2_000);
    let again = others.take_reports(3_000);
    assert_eq!(again[0].sequences[0].evidence.acknowledged.iter().collect::<Vec<_>>(), [4..=7]);
}

#[test]
fn evidence_that_cannot_be_reported_is_kept_within_a_bound_and_what_is_not_kept_is_counted() {
    let mut others = OthersEvidence::bounded(3);
    let stamp =
        |sequence| Stamp { id: MessageId::from(sequence), instance: Instance::new("a").unwrap(), epoch: 1, sequence };
    for sequence in [1, 2, 3, 5, 7, 9, 11] {
        others.acknowledged(&stamp(sequence), &orders(0), 0);
    }
    assert_eq!(others.dropped(), 2);
    let reports = others.take_reports(1_000);
    let told: Vec<_> = reports[0].sequences[0].evidence.acknowledged.iter().collect();
    assert_eq!(told, [1..=3, 5..=5, 7..=7]);
    for sequence in [21, 23, 25] {
        others.acknowledged(&stamp(sequence), &orders(0), 2_000);
    }
    for report in reports {
        others.give_back(&report.instance, report.sequences, 2_000);
    }
    assert_eq!(others.dropped(), 2 + 5);
    others.take_reports(3_000);
    others.acknowledged(&stamp(30), &orders(0), 4_000);
    assert_eq!(others.take_reports(5_000).len(), 1, "there is room again");
}

/// A log that survives, an engine that comes and goes, and a process that dies.
struct Model {
    spooling: Spooling,
    now_ms: u64,
    /// What each partition was given, in order.
    sent: BTreeMap<u32, Vec<u64>>,
    /// What is in the log: message, and whether it is durable there.
    log: BTreeMap<u32, Vec<(u64, bool)>>,
    kept_marks: BTreeMap<u32, u64>,
    /// Out of the spool, not answered.
    out: Vec<(u32, u64)>,
    /// What reached the engine, in order, each message once.
    engine: BTreeMap<u32, Vec<u64>>,
    acknowledged: BTreeSet<(u32, u64)>,
    next: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Send(u32),
    Sync,
    Silence,
    Read,
    Answer(usize),
    Mark,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_u32).prop_map(Step::Send),
        3 => Just(Step::Sync),
        1 => Just(Step::Silence),
        4 => Just(Step::Read),
        6 => any::<usize>().prop_map(Step::Answer),
        1 => Just(Step::Mark),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..200)
}

impl Model {
    fn new() -> Self {
        Self {
            spooling: Spooling::new(options()),
            now_ms: 0,
            sent: BTreeMap::new(),
            log: BTreeMap::new(),
            kept_marks: BTreeMap::new(),
            out: Vec::new(),
            engine: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            next: 0,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Send(partition) => self.send(*partition),
            Step::Sync => {
                for (partition, log) in &mut self.log {
                    log.iter_mut().for_each(|(_, durable)| *durable = true);
                    self.spooling.durable(&orders(*partition), log.len() as u64);
                }
            }
            Step::Silence => {
                self.spooling.asked(self.now_ms);
                self.now_ms += 2 * AWAY_MS;
                self.spooling.tick(self.now_ms);
            }
            Step::Read => {
                while let Some(read) = self.spooling.wanted() {
                    let partition = read.partition.partition;
                    for at in read.from..self.log[&partition].len() as u64 {
                        let (_, durable) = self.log[&partition][at as usize];
                        if durable && self.spooling.loaded(&read.partition, at, BYTES, self.now_ms) {
                            self.arrive(partition, at);
                            self.out.push((partition, at));
                        }
                    }
                    self.spooling.read(&read.partition);
                }
            }
            Step::Answer(which) if !self.out.is_empty() => {
                let (partition, at) = self.out.swap_remove(which % self.out.len());
                assert!(self.spooling.done(&orders(partition), at));
                self.acknowledged.insert((partition, at));
                self.spooling.heard(self.now_ms, !self.out.is_empty());
            }
            Step::Answer(_) => {}
            Step::Mark => {
                for (partition, mark) in self.spooling.marks() {
                    assert!((0..mark).all(|at| self.acknowledged.contains(&(partition.partition, at))));
                    self.kept_marks.insert(partition.partition, mark);
                }
            }
            Step::Crash => self.crash(),
        }
    }

    fn send(&mut self, partition: u32) {
        self.next += 1;
        if !self.spooling.takes(&orders(partition)) {
            self.sent.entry(partition).or_default().push(self.next);
            self.engine.entry(partition).or_default().push(self.next);
        } else if self.spooling.room(BYTES).is_ok() {
            self.sent.entry(partition).or_default().push(self.next);
            let log = self.log.entry(partition).or_default();
            self.spooling.appended(&orders(partition), log.len() as u64, BYTES, self.now_ms, false);
            log.push((self.next, false));
        }
    }

    /// The engine stores it; a repeat is known by its stamp.
    fn arrive(&mut self, partition: u32, at: u64) {
        let message = self.log[&partition][at as usize].0;
        let stored = self.engine.entry(partition).or_default();
        if !stored.contains(&message) {
            stored.push(message);
        }
    }

    fn crash(&mut self) {
        self.out.clear();
        self.spooling = Spooling::new(options());
        for (partition, log) in &mut self.log {
            // Nobody was told of what was not durable.
            let torn: Vec<u64> = log.iter().filter(|(_, durable)| !durable).map(|(message, _)| *message).collect();
            log.retain(|(_, durable)| *durable);
            if let Some(sent) = self.sent.get_mut(partition) {
                sent.retain(|message| !torn.contains(message));
            }
            let (mark, end) = (self.kept_marks.get(partition).copied().unwrap_or(0), log.len() as u64);
            self.spooling.found(orders(*partition), mark, end, (end - mark) * BYTES);
        }
    }
}

/// What one partition of a spool really holds.
#[derive(Default)]
struct Holding {
    /// Bytes of each message; none of a damaged one.
    sizes: Vec<u64>,
    done: BTreeSet<u64>,
    mark: u64,
    loaded: u64,
    /// Behind the last of those whose bytes are an estimate until they are loaded.
    found_end: u64,
    damaged: bool,
}

impl Holding {
    fn end(&self) -> u64 {
        self.sizes.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.sizes[self.mark as usize..].iter().sum()
    }

    fn is_exact(&self) -> bool {
        self.loaded >= self.found_end && (!self.damaged || self.loaded == self.end())
    }

    fn load(&mut self, spooling: &mut Spooling, partition: u32, damaged: bool) {
        if self.loaded == self.end() {
            return;
        }
        let at = self.loaded;
        if damaged {
            self.sizes[at as usize] = 0;
            self.damaged = true;
        }
        assert!(spooling.loaded(&orders(partition), at, self.sizes[at as usize], 0));
        self.loaded += 1;
        if damaged {
            self.end_one(spooling, partition, at);
        }
    }

    fn end_one(&mut self, spooling: &mut Spooling, partition: u32, at: u64) {
        assert_eq!(spooling.done(&orders(partition), at), self.done.insert(at));
        while self.done.contains(&self.mark) {
            self.mark += 1;
        }
        // A spool that is empty has nothing to be unsure of.
        self.damaged &= self.mark < self.end();
    }
}

#[derive(Debug, Clone)]
enum Use {
    Append(u32, u64),
    Load(u32, bool),
    Done(u32, prop::sample::Index),
    /// The process ends; the next one is this many percent off.
    Restart(u64),
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let one = prop_oneof![
        8 => (0..3_u32, 0..1_000_u64).prop_map(|(partition, bytes)| Use::Append(partition, bytes)),
        8 => (0..3_u32, prop::bool::weighted(0.1)).prop_map(|(partition, damaged)| Use::Load(partition, damaged)),
        8 => (0..3_u32, any::<prop::sample::Index>()).prop_map(|(partition, which)| Use::Done(partition, which)),
        1 => (0..300_u64).prop_map(Use::Restart),
    ];
    proptest::collection::vec(one, 1..300)
}

proptest! {
    #[test]
    fn no_message_goes_to_the_spool_before_one_that_stays_with_the_engine(
        unended in proptest::collection::vec((0..3_u32, 0..500_u64, any::<bool>()), 0..40)
    ) {
        let spooling = away();
        let moved = moved(&spooling, &unended);
        for partition in 0..3 {
            let of_it = || unended.iter().zip(&moved).filter(|((of, ..), _)| *of == partition);
            let staying = of_it().take_while(|(_, moved)| !**moved).count();
            prop_assert!(of_it().skip(staying).all(|((_, _, in_flight), moved)| *moved && (staying == 0 || !*in_flight)));
        }
        let last = unended.iter().zip(&moved).rposition(|((_, _, in_flight), moved)| *in_flight && *moved);
        let needed: u64 = unended.iter().take(last.map_or(0, |last| last + 1)).map(|(_, bytes, _)| bytes).sum();
        prop_assert!(needed <= BYTES_MAX, "there is room for all that may not end for want of it");
    }

    #[test]
    fn the_bytes_that_are_counted_are_those_that_are_kept(uses in uses()) {
        let options = || SpoolOptions { bytes_max: u64::MAX, ..options() };
        let mut spooling = Spooling::new(options());
        let mut holdings: [Holding; 3] = Default::default();
        for step in uses {
            match step {
                Use::Append(partition, bytes) => {
                    let holding = &mut holdings[partition as usize];
                    spooling.appended(&orders(partition), holding.end(), bytes, 0, false);
                    holding.sizes.push(bytes);
                }
                Use::Load(partition, damaged) => {
                    holdings[partition as usize].load(&mut spooling, partition, damaged);
                }
                Use::Done(partition, which) => {
                    let holding = &mut holdings[partition as usize];
                    if holding.mark < holding.loaded {
                        let at = holding.mark + which.index((holding.loaded - holding.mark) as usize) as u64;
                        holding.end_one(&mut spooling, partition, at);
                    }
                }
                Use::Restart(percent) => {
                    spooling = Spooling::new(options());
                    for (partition, holding) in (0..).zip(&mut holdings) {
                        (holding.found_end, holding.loaded) = (holding.end(), holding.mark);
                        holding.done.retain(|at| *at < holding.mark);
                        let about = holding.bytes() * percent / 100;
                        spooling.found(orders(partition), holding.mark, holding.end(), about);
                    }
                }
            }
            if holdings.iter().all(Holding::is_exact) {
                let kept: u64 = holdings.iter().map(Holding::bytes).sum();
                prop_assert_eq!(spooling.lag(0).bytes, kept);
            }
        }
        for (partition, holding) in (0..).zip(&mut holdings) {
            (0..holding.end()).for_each(|_| holding.load(&mut spooling, partition, false));
            (holding.mark..holding.end()).for_each(|at| holding.end_one(&mut spooling, partition, at));
        }
        prop_assert_eq!((spooling.lag(0).bytes, spooling.lag(0).messages), (0, 0));
    }

    #[test]
    fn everything_reaches_the_engine_in_order_whatever_happens(steps in steps()) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
            prop_assert!(model.spooling.lag(model.now_ms).bytes <= BYTES_MAX);
        }
        while model.spooling.lag(model.now_ms).messages > 0 {
            model.step(&Step::Sync);
            model.step(&Step::Read);
            prop_assert!(!model.out.is_empty(), "something is stuck");
            model.step(&Step::Answer(0));
        }
        prop_assert_eq!(model.spooling.lag(model.now_ms).bytes, 0);
        for (partition, sent) in &model.sent {
            let stored = model.engine.get(partition).cloned().unwrap_or_default();
            prop_assert_eq!(&stored, sent, "partition {}", partition);
            prop_assert!(!model.spooling.takes(&orders(*partition)) || model.spooling.is_away());
        }
    }
}
