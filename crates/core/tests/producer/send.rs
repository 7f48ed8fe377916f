use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton_core::stamp::{Instance, Stamp};
use baton_core::{
    End, Ended, Failure, Fate, IN_FLIGHT_GRACE_MS, MESSAGE_BYTES, MessageId, NoSequence, Refusal, Retry, SEQUENCES_MAX,
    SendId, SendOptions, Sends, Sequences, TopicPartition, Why,
};
use proptest::prelude::*;

const PARTITIONS: u32 = 3;
const TIMEOUT_MS: u64 = 5_000;
const ATTEMPTS_MAX: u32 = 5;
const STORED: Result<(), Failure> = Ok(());
const NOT_STORED: Result<(), Failure> = Err(Failure { fate: Fate::NotStored, retryable: true });
const UNKNOWN: Result<(), Failure> = Err(Failure { fate: Fate::Unknown, retryable: true });
const REFUSED: Result<(), Failure> = Err(Failure { fate: Fate::NotStored, retryable: false });

fn sends(in_flight_max: u32) -> Sends<u64> {
    let retry = Retry::exponential(Duration::from_millis(50), 2, Duration::from_millis(400)).max_attempts(ATTEMPTS_MAX);
    let options = SendOptions { in_flight_max, retry, delivery_timeout_ms: TIMEOUT_MS, buffer_bytes_max: 40 * 300 };
    Sends::new(options, Sequences::new(Instance::new("test-1").unwrap(), 7))
}

fn accept(sends: &mut Sends<u64>, now_ms: u64, partition: u32, item: u64) -> SendId {
    let partition = TopicPartition::new("orders", partition);
    sends.accept(now_ms, &partition, MessageId::from(item), 10, item).unwrap()
}

fn hand_over(sends: &mut Sends<u64>, now_ms: u64) -> Option<(SendId, u64, Stamp)> {
    sends.next(now_ms).map(|next| (next.id, *next.item, next.stamp.clone()))
}

fn all_ended(sends: &mut Sends<u64>) -> Vec<Ended<u64>> {
    std::iter::from_fn(|| sends.take_ended()).collect()
}

/// An engine that fails in every way that the contract allows, and what it saw.
struct Model {
    sends: Sends<u64>,
    in_flight_max: u32,
    now_ms: u64,
    accepted: BTreeMap<u64, (u32, u64)>,
    /// Handed over and not resolved, and whether it is stored by then.
    at_engine: Vec<(SendId, u64, bool)>,
    waiting: BTreeMap<u32, BTreeSet<u64>>,
    handed: BTreeMap<u64, Stamp>,
    stored: Vec<(u64, Stamp)>,
    ended: BTreeMap<u64, Ended<u64>>,
}

impl Model {
    fn new(in_flight_max: u32) -> Self {
        Self {
            sends: sends(in_flight_max),
            in_flight_max,
            now_ms: 1,
            accepted: BTreeMap::new(),
            at_engine: Vec::new(),
            waiting: BTreeMap::new(),
            handed: BTreeMap::new(),
            stored: Vec::new(),
            ended: BTreeMap::new(),
        }
    }

    fn step(&mut self, random: u64) {
        let choice = random >> 8;
        match random % 16 {
            0..=5 => self.accept(choice),
            6..=9 => self.hand_over(choice),
            10..=13 => self.resolve(choice),
            14 => self.now_ms += choice % 200,
            _ => self.sends.tick(self.now_ms),
        }
        self.collect();
    }

    fn accept(&mut self, choice: u64) {
        let item = self.accepted.len() as u64;
        let partition = (choice % u64::from(PARTITIONS)) as u32;
        let to = TopicPartition::new("orders", partition);
        match self.sends.accept(self.now_ms, &to, MessageId::from(item), (choice % 50) as usize, item) {
            Ok(_) => assert!(self.accepted.insert(item, (partition, self.now_ms)).is_none()),
            Err(refused) => assert!(matches!(refused.refusal, Refusal::Full { .. })),
        }
    }

    fn hand_over(&mut self, choice: u64) {
        let Some(next) = self.sends.next(self.now_ms) else { return };
        let (id, item, stamp, attempt) = (next.id, *next.item, next.stamp.clone(), next.attempt);
        let (partition, accepted_ms) = self.accepted[&item];
        assert_eq!(next.partition.partition, partition);
        assert!(self.now_ms < accepted_ms + TIMEOUT_MS, "{item} was handed over after its deadline");
        assert!((1..=ATTEMPTS_MAX).contains(&attempt));
        if let Some(earlier) = self.handed.insert(item, stamp.clone()) {
            assert_eq!(earlier, stamp, "{item} was tried again under another stamp");
        }
        let waiting = self.waiting.entry(partition).or_default();
        waiting.remove(&item);
        assert!(waiting.first().is_none_or(|first| *first > item), "{item} overtook {waiting:?}");
        let lane = |(_, other, _): &&(SendId, u64, bool)| self.accepted[other].0 == partition;
        let ours = self.at_engine.iter().filter(lane).count();
        assert!(ours < self.in_flight_max as usize, "{ours} of one partition are in flight already");
        if choice.is_multiple_of(11) {
            self.sends.full(id);
            waiting.insert(item);
        } else {
            let stored = choice.is_multiple_of(2);
            if stored {
                self.stored.push((item, stamp));
            }
            self.at_engine.push((id, item, stored));
        }
    }

    fn resolve(&mut self, choice: u64) {
        if self.at_engine.is_empty() || choice.is_multiple_of(23) {
            return;
        }
        let (id, item, stored) = self.at_engine.swap_remove(choice as usize % self.at_engine.len());
        let result = match (choice >> 16) % 16 {
            0..=9 => STORED,
            10 if !stored => REFUSED,
            10..=13 if !stored => NOT_STORED,
            _ => UNKNOWN,
        };
        if result.is_ok() && !stored {
            self.stored.push((item, self.handed[&item].clone()));
        }
        if self.sends.resolved(id, self.now_ms, choice.wrapping_mul(0x9e37_79b9_7f4a_7c15), result) && result != STORED
        {
            self.waiting.entry(self.accepted[&item].0).or_default().insert(item);
        }
    }

    fn collect(&mut self) {
        for ended in all_ended(&mut self.sends) {
            let (partition, accepted_ms) = self.accepted[&ended.item];
            assert!(
                self.now_ms <= accepted_ms + TIMEOUT_MS + IN_FLIGHT_GRACE_MS + 200,
                "{} ended too late",
                ended.item
            );
            assert!(ended.attempts <= ATTEMPTS_MAX);
            self.waiting.entry(partition).or_default().remove(&ended.item);
            self.at_engine.retain(|(_, item, _)| *item != ended.item);
            let before = self.ended.insert(ended.item, ended);
            assert!(before.is_none(), "ended twice: {before:?}");
        }
    }

    /// Lets everything end: by the engine's word if `choice` says so, or by time alone.
    fn finish(&mut self, choice: u64) {
        for round in 0..2_000 {
            if choice.is_multiple_of(3) && round == 10 {
                self.sends.abandon(self.now_ms);
            } else if choice.is_multiple_of(2) {
                self.hand_over(1);
                self.resolve(1);
            }
            let due_ms = self.sends.due_ms();
            assert!(due_ms.is_some() || self.sends.is_empty(), "nothing is due, and not all have ended");
            self.now_ms = self.now_ms.max(due_ms.unwrap_or(0)).min(self.now_ms + 200);
            self.sends.tick(self.now_ms);
            self.collect();
            if self.sends.is_empty() {
                return;
            }
            self.now_ms += 20;
        }
        panic!("{} messages never ended", self.sends.len());
    }

    fn check(mut self) {
        assert_eq!(self.ended.keys().collect::<Vec<_>>(), self.accepted.keys().collect::<Vec<_>>());
        assert_eq!((self.sends.bytes(), self.sends.len(), self.sends.sequences().in_flight()), (0, 0, 0));
        let stored: BTreeSet<_> = self.stored.iter().map(|(item, _)| *item).collect();
        let mut expected: BTreeMap<u32, [BTreeSet<u64>; 3]> = BTreeMap::new();
        let mut numbers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (item, ended) in &self.ended {
            assert_eq!(ended.stamp.as_ref(), self.handed.get(item));
            let partition = self.accepted[item].0;
            let kind = match ended.end {
                End::Acknowledged => {
                    assert!(stored.contains(item), "{item} was acknowledged and is not stored");
                    0
                }
                End::GivenUp { fate: Fate::NotStored, .. } => {
                    assert!(!stored.contains(item), "{item} is stored, and was said not to be");
                    1
                }
                End::GivenUp { fate: Fate::Unknown, .. } => 2,
            };
            if let Some(stamp) = &ended.stamp {
                assert_eq!(stamp.id, MessageId::from(*item));
                numbers.entry(partition).or_default().push(stamp.sequence);
                expected.entry(partition).or_default()[kind].insert(stamp.sequence);
            }
        }
        for numbers in numbers.values() {
            assert_eq!(*numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "a number is missing or out of order");
        }
        for reported in self.sends.sequences().take_reports(self.now_ms).into_iter().flat_map(|report| report.sequences)
        {
            let evidence = reported.evidence;
            let sets = [evidence.acknowledged, evidence.not_stored, evidence.unknown]
                .map(|set| set.iter().flatten().collect());
            assert_eq!(expected.remove(&reported.partition.partition), Some(sets));
        }
        assert!(expected.is_empty(), "not reported: {expected:?}");
        if self.in_flight_max == 1 {
            self.check_order();
        }
    }

    /// Where one is in flight at a time, messages are stored for the first time in the order in which they were accepted.
    fn check_order(&self) {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (item, _) in self.stored.iter().filter(|(item, _)| seen.insert(*item)) {
            if let Some(before) = last.insert(self.accepted[item].0, *item) {
                assert!(before < *item, "{item} was stored after {before}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn every_message_ends_once_and_is_what_it_was_said_to_be(
        steps in prop::collection::vec(any::<u64>(), 0..400),
        in_flight_max in prop::sample::select(vec![1_u32, 2, 8]),
        finish in any::<u64>(),
    ) {
        let mut model = Model::new(in_flight_max);
        for random in steps {
            model.step(random);
        }
        model.finish(finish);
        model.check();
    }
}

#[test]
fn a_retry_keeps_the_stamp() {
    let mut sends = sends(8);
    accept(&mut sends, 0, 0, 1);
    let (id, _, first) = hand_over(&mut sends, 0).unwrap();
    assert!(sends.resolved(id, 10, u64::MAX, UNKNOWN));
    assert_eq!(hand_over(&mut sends, 11), None);
    let (_, _, second) = hand_over(&mut sends, 60).unwrap();
    assert_eq!((first.sequence, &first), (1, &second));
}

/// Messages that waited elsewhere (for the number of partitions, say) come behind younger ones.
#[test]
fn a_message_that_waited_elsewhere_keeps_its_own_deadline() {
    let mut sends = sends(8);
    let to = TopicPartition::new("orders", 0);
    let mut deadlines = Vec::new();
    for (item, deadline_ms) in [50, 90, 20, 30, 30, 95, 10, 25, 60].into_iter().enumerate() {
        sends.accept_until(0, deadline_ms, &to, MessageId::from(item as u64), 10, item as u64).unwrap();
        deadlines.push(deadline_ms);
    }
    for now_ms in 0..100 {
        sends.tick(now_ms);
        for ended in all_ended(&mut sends) {
            assert_eq!(deadlines[ended.item as usize], now_ms, "{}", ended.item);
        }
    }
    assert!(sends.is_empty());
}

#[test]
fn a_number_is_allotted_only_when_a_message_is_handed_over() {
    let mut sends = sends(1);
    accept(&mut sends, 0, 0, 1);
    accept(&mut sends, 0, 0, 2);
    assert_eq!(sends.sequences().in_flight(), 0);
    let (id, _, _) = hand_over(&mut sends, 0).unwrap();
    assert_eq!(sends.sequences().in_flight(), 1);
    sends.tick(TIMEOUT_MS);
    let ended = all_ended(&mut sends);
    assert_eq!(ended.len(), 1, "the engine has the other one");
    assert_eq!((ended[0].item, &ended[0].stamp), (2, &None));
    assert!(sends.resolved(id, TIMEOUT_MS, 0, STORED));
}

#[test]
fn later_messages_of_a_partition_wait_for_the_retry_and_other_partitions_do_not() {
    let mut sends = sends(8);
    for item in 1..=3 {
        accept(&mut sends, 0, 0, item);
    }
    accept(&mut sends, 0, 1, 4);
    let (first, item, _) = hand_over(&mut sends, 0).unwrap();
    assert_eq!(item, 1);
    assert!(sends.resolved(first, 0, u64::MAX, NOT_STORED));
    assert_eq!(hand_over(&mut sends, 10).unwrap().1, 4);
    assert_eq!(hand_over(&mut sends, 10), None, "2 overtook 1");
    let (first, item, _) = hand_over(&mut sends, 60).unwrap();
    assert_eq!(item, 1);
    assert_eq!(hand_over(&mut sends, 60), None, "after a failure one goes at a time");
    assert!(sends.resolved(first, 61, 0, STORED));
    assert_eq!(hand_over(&mut sends, 61).unwrap().1, 2);
    assert_eq!(hand_over(&mut sends, 61).unwrap().1, 3);
}

#[test]
fn a_full_client_is_no_failed_attempt_and_loses_no_place() {
    let mut sends = sends(8);
    accept(&mut sends, 0, 0, 1);
    accept(&mut sends, 0, 0, 2);
    for _ in 0..3 * ATTEMPTS_MAX {
        let (id, item, stamp) = hand_over(&mut sends, 0).unwrap();
        assert_eq!((item, stamp.sequence), (1, 1));
        sends.full(id);
    }
    assert_eq!(sends.next(0).unwrap().attempt, 1);
}

#[test]
fn the_buffer_is_bounded_in_bytes() {
    let mut sends = sends(8);
    let to = TopicPartition::new("orders", 0);
    let mut offer = |bytes| sends.accept(0, &to, MessageId::from(1), bytes, 0).map_err(|refused| refused.refusal);
    assert_eq!(offer(20_000), Err(Refusal::TooLarge { bytes: 20_000 + MESSAGE_BYTES, max: 12_000 }));
    assert!(offer(12_000 - 2 * MESSAGE_BYTES).is_ok());
    assert!(offer(0).is_ok());
    assert_eq!(offer(0), Err(Refusal::Full { bytes: 12_000, max: 12_000 }));
}

#[test]
fn an_engine_that_never_answers_leaves_nothing_behind() {
    let mut sends = sends(1);
    accept(&mut sends, 0, 0, 1);
    let (id, _, _) = hand_over(&mut sends, 0).unwrap();
    sends.tick(TIMEOUT_MS + IN_FLIGHT_GRACE_MS - 1);
    assert_eq!(all_ended(&mut sends).len(), 0);
    assert_eq!(sends.due_ms(), Some(TIMEOUT_MS + IN_FLIGHT_GRACE_MS));
    sends.tick(TIMEOUT_MS + IN_FLIGHT_GRACE_MS);
    assert_eq!(all_ended(&mut sends)[0].end, End::GivenUp { fate: Fate::Unknown, why: Why::Deadline });
    assert!(!sends.resolved(id, TIMEOUT_MS + IN_FLIGHT_GRACE_MS, 0, STORED), "it has ended");
    accept(&mut sends, 2 * TIMEOUT_MS, 0, 2);
    assert_eq!(hand_over(&mut sends, 2 * TIMEOUT_MS).unwrap().1, 2, "its partition goes on");
}

#[test]
fn an_unknown_attempt_is_not_forgotten_when_a_later_one_is_refused() {
    let mut sends = sends(1);
    accept(&mut sends, 0, 0, 1);
    let (id, _, _) = hand_over(&mut sends, 0).unwrap();
    assert!(sends.resolved(id, 0, 0, UNKNOWN));
    let (id, _, _) = hand_over(&mut sends, 0).unwrap();
    assert!(sends.resolved(id, 0, 0, REFUSED));
    assert_eq!(all_ended(&mut sends)[0].end, End::GivenUp { fate: Fate::Unknown, why: Why::Refused });
}

#[test]
fn closing_accepts_nothing_and_abandoning_says_what_is_known() {
    let mut sends = sends(1);
    accept(&mut sends, 0, 0, 1);
    accept(&mut sends, 0, 0, 2);
    hand_over(&mut sends, 0).unwrap();
    sends.close();
    let refused = sends.accept(0, &TopicPartition::new("orders", 0), MessageId::from(3), 0, 3);
    assert_eq!(refused.unwrap_err().refusal, Refusal::Closed);
    sends.abandon(1);
    let ends: Vec<_> = all_ended(&mut sends).into_iter().map(|ended| (ended.item, ended.end)).collect();
    let given_up = |fate| End::GivenUp { fate, why: Why::Closed };
    assert_eq!(ends, [(1, given_up(Fate::Unknown)), (2, given_up(Fate::NotStored))]);
    assert_eq!((sends.bytes(), sends.due_ms()), (0, None));
}

#[test]
fn without_a_number_a_message_ends_or_waits() {
    let sequences = Sequences::new(Instance::new("test-1").unwrap(), 1).bounds(1, 1);
    let mut sends: Sends<u64> = Sends::new(SendOptions::default(), sequences);
    accept(&mut sends, 0, 0, 1);
    accept(&mut sends, 0, 1, 2);
    let (id, _, _) = hand_over(&mut sends, 0).unwrap();
    assert_eq!(hand_over(&mut sends, 0), None);
    let ended = all_ended(&mut sends).remove(0);
    assert_eq!(
        (ended.item, ended.end),
        (2, End::GivenUp { fate: Fate::NotStored, why: Why::NoSequence(NoSequence::TooMany(1)) })
    );
    assert!(sends.resolved(id, 0, 0, STORED));
    accept(&mut sends, 0, 0, 3);
    assert_eq!(hand_over(&mut sends, 0), None, "too much waits to be reported");
    assert!(sends.due_ms().unwrap() > 0, "nobody is to spin until it is");
    assert_eq!(sends.sequences().take_reports(0).len(), 1);
    assert_eq!(hand_over(&mut sends, 0).unwrap().1, 3);
}

#[test]
fn acknowledgements_from_before_a_failure_do_not_end_the_caution_after_it() {
    let mut sends = sends(8);
    for item in 1..=7 {
        accept(&mut sends, 0, 0, item);
    }
    let ids: Vec<_> = (0..4).map(|_| hand_over(&mut sends, 0).unwrap().0).collect();
    assert!(sends.resolved(ids[0], 0, u64::MAX, NOT_STORED));
    for id in &ids[1..] {
        assert!(sends.resolved(*id, 1, 0, STORED));
    }
    // Only the last of them says something of how it goes now: two at a time.
    let items: Vec<_> = std::iter::from_fn(|| hand_over(&mut sends, 60)).map(|(_, item, _)| item).collect();
    assert_eq!(items, [1, 5]);
}

#[test]
fn a_full_client_beyond_the_deadline_ends_the_message() {
    let mut sends = sends(8);
    accept(&mut sends, 0, 0, 1);
    let (id, _, _) = hand_over(&mut sends, 0).unwrap();
    sends.tick(TIMEOUT_MS);
    sends.full(id);
    assert_eq!(all_ended(&mut sends)[0].end, End::GivenUp { fate: Fate::NotStored, why: Why::Deadline });
    assert_eq!((sends.next(TIMEOUT_MS).map(|next| next.id), sends.len()), (None, 0));
}

#[test]
fn a_late_answer_says_nothing_of_another_message() {
    let mut sends = sends(8);
    accept(&mut sends, 0, 0, 1);
    let (first, _, _) = hand_over(&mut sends, 0).unwrap();
    assert!(sends.resolved(first, 0, 0, STORED));
    accept(&mut sends, 0, 0, 2);
    let (second, _, _) = hand_over(&mut sends, 0).unwrap();
    assert!(!sends.resolved(first, 0, 0, REFUSED));
    assert!(sends.resolved(second, 0, 0, STORED));
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let mut sends = sends(8);
    sends.tick(TIMEOUT_MS);
    accept(&mut sends, 0, 0, 1);
    sends.tick(TIMEOUT_MS);
    assert_eq!((sends.len(), sends.due_ms()), (1, Some(TIMEOUT_MS)));
}

#[test]
fn partitions_with_messages_are_bounded_and_idle_ones_make_room() {
    let sequences = Sequences::new(Instance::new("test-1").unwrap(), 1);
    let mut sends: Sends<u64> = Sends::new(SendOptions::default(), sequences);
    let most = SEQUENCES_MAX as u32;
    for partition in 0..most {
        accept(&mut sends, 0, partition, partition.into());
    }
    let offer = |sends: &mut Sends<u64>| {
        let refused = sends.accept(0, &TopicPartition::new("orders", most), MessageId::from(0), 0, 0);
        refused.map(|_| ()).map_err(|refused| refused.refusal)
    };
    assert_eq!(offer(&mut sends), Err(Refusal::TooManyPartitions(SEQUENCES_MAX)));
    let (id, _, _) = hand_over(&mut sends, 0).unwrap();
    assert!(sends.resolved(id, 0, 0, STORED));
    assert_eq!(offer(&mut sends), Ok(()));
}

fn stamp(sequence: u64) -> Stamp {
    Stamp { id: MessageId::from(sequence), instance: Instance::new("before-1").unwrap(), epoch: 3, sequence }
}

#[test]
fn a_lasting_message_keeps_its_stamp_and_is_tried_until_the_engine_has_it() {
    let mut sends = sends(10);
    let orders = TopicPartition::new("orders", 0);
    let id = sends.accept_lasting(0, &orders, stamp(41), 41).unwrap();
    let mut now_ms = 0;
    for attempt in 0..4 * ATTEMPTS_MAX {
        now_ms = sends.due_ms().unwrap().max(now_ms);
        let (handed, item, stamped) = hand_over(&mut sends, now_ms).expect("it is due");
        assert_eq!((handed, item, stamped), (id, 41, stamp(41)));
        // Neither a refusal for good nor any time ends it: it was promised to somebody.
        now_ms += TIMEOUT_MS;
        assert!(sends.resolved(id, now_ms, u64::MAX, if attempt % 2 == 0 { REFUSED } else { UNKNOWN }));
        assert!(all_ended(&mut sends).is_empty());
    }
    now_ms = sends.due_ms().unwrap().max(now_ms);
    hand_over(&mut sends, now_ms).unwrap();
    sends.resolved(id, now_ms, 0, STORED);
    let ended = all_ended(&mut sends);
    assert_eq!((ended[0].stamp.clone(), &ended[0].end), (Some(stamp(41)), &End::Acknowledged));
    assert!(sends.sequences().is_empty(), "its number is of another's sequence");
}

#[test]
fn lasting_messages_go_in_their_order_and_take_up_no_room() {
    let mut sends = sends(10);
    let orders = TopicPartition::new("orders", 0);
    for sequence in 1..=500 {
        sends.accept_lasting(0, &orders, stamp(sequence), sequence).unwrap();
    }
    assert_eq!(sends.bytes(), 0);
    for sequence in 1..=500 {
        let (id, item, _) = hand_over(&mut sends, 0).unwrap();
        assert_eq!(item, sequence);
        sends.resolved(id, 0, 0, STORED);
    }
    sends.close();
    assert_eq!(sends.accept_lasting(0, &orders, stamp(1), 1).unwrap_err().refusal, Refusal::Closed);
}

#[test]
fn what_is_taken_out_has_numbers_in_order_and_does_not_end_here() {
    let mut sends = sends(2);
    let orders = TopicPartition::new("orders", 0);
    let lasting = sends.accept_lasting(0, &TopicPartition::new("orders", 1), stamp(9), 9).unwrap();
    let ids: Vec<_> = (1..=5).map(|item| accept(&mut sends, 0, 0, item)).collect();
    hand_over(&mut sends, 0).unwrap();
    while hand_over(&mut sends, 0).is_some() {}
    sends.resolved(ids[0], 0, 0, UNKNOWN);
    let taken = sends.take_out(10, |item| *item != 5);
    let seen: Vec<_> =
        taken.iter().map(|taken| (taken.item, taken.stamp.sequence, taken.in_flight, taken.fate)).collect();
    assert_eq!(
        seen,
        [
            (1, 1, false, Fate::Unknown),
            (2, 2, true, Fate::Unknown),
            (3, 3, false, Fate::NotStored),
            (4, 4, false, Fate::NotStored)
        ]
    );
    assert!(all_ended(&mut sends).is_empty() && sends.len() == 2, "one was not wanted, one lasts");
    assert!(!sends.resolved(ids[1], 10, 0, STORED), "it is not here any more");
    assert_eq!(sends.sequences().in_flight(), 4);
    // What became of them is heard later, by number.
    for taken in &taken {
        assert!(sends.sequences().acknowledged_later(&orders, taken.stamp.epoch, taken.stamp.sequence, 20));
    }
    assert_eq!(sends.sequences().in_flight(), 0);
    assert_eq!(hand_over(&mut sends, 20).map(|(_, item, stamp)| (item, stamp.sequence)), Some((5, 5)));
    assert!(sends.resolved(lasting, 20, 0, STORED));
}
