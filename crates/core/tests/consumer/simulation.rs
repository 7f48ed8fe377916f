//! Drives a core with a model of an engine, of stores and of handlers, all of which fail at random: reassignments, crashes,
//! answers that are lost. Each rule is checked where it could break; and once failures stop, everything has to end.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use baton_core::consumer::*;
use baton_core::{
    Delivery, Headers, Ledger, Ranges, Report as Evidence, ReportedSequence, Retry, Seen, SequenceEvidence,
};
use bytes::Bytes;

use crate::driver::{failure, partition};
use crate::evidence::{GROUP, name, stamped, witness};

const SEEDS: u64 = 400;
const PARTITIONS: u32 = 3;
const MESSAGES: usize = 60;
const KEYS: u64 = 6;
const CHAOS_STEPS: u64 = 1_500;
const CALM_STEPS: u64 = 20_000;
const PARTITION_MESSAGES_MAX: usize = 12;
const CHUNK_MAX: u64 = 5;
const TOGETHER_MAX: u64 = 4;
const PARKING_BATCH_MAX: usize = 4;
const PRODUCER: &str = "p";

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Message {
    offset: i64,
    key: Option<Bytes>,
    /// Applied or dead-lettered, at least once.
    ended: bool,
}

/// One partition of the engine, with the group's state in it.
#[derive(Default)]
struct Partition {
    log: Vec<Message>,
    owned: bool,
    paused: bool,
    epoch: u64,
    /// Next message to be delivered ([`Settling::Frontier`]).
    position: usize,
    settled: Option<i64>,
    metadata: String,
    stored_done: Vec<u8>,
    /// [`Settling::Each`]: what waits, what is out, and what is settled.
    waiting: BTreeSet<usize>,
    out: BTreeMap<i64, usize>,
    last_tag: i64,
    /// Keys to their parked messages.
    parked: BTreeMap<Bytes, BTreeMap<u64, usize>>,
    last_position: u64,
    /// The last message of each key that ended for the first time.
    ends: BTreeMap<Bytes, usize>,
}

struct World {
    random: Random,
    settings: Settings,
    core: Core,
    now_ms: u64,
    partitions: Vec<Partition>,
    /// Handlers that run: messages as partition, epoch at the start, index, and whether it is a released one.
    running: BTreeMap<RunId, Vec<(usize, u64, usize)>>,
    unanswered: BTreeMap<Ticket, Action>,
    calm: bool,
    /// What happened, of which partition and message.
    facts: BTreeSet<(usize, usize, Seen)>,
    /// What was reported and not answered.
    reports: Vec<Evidence>,
    ledger: Ledger,
    /// Messages that had ended when the consumer crashed, and of which no end was reported.
    untold: BTreeSet<(usize, usize)>,
}

fn settings(random: &mut Random) -> Settings {
    let mut settings = Settings {
        retry: Retry::exponential(Duration::from_millis(10), 2, Duration::from_millis(200)).max_attempts(3),
        concurrency: Concurrency::Fixed(1 + random.below(8) as u32),
        limits: Limits { partition_messages_max: PARTITION_MESSAGES_MAX, ..Limits::default() },
        settling: if random.percent(30) { Settling::Each } else { Settling::Frontier },
        side_store: random.percent(50),
        metadata_bytes_max: if random.percent(50) { 44 } else { 4_096 },
        settle_interval_ms: 20,
        handler_deadline_ms: 300,
        revoke_drain_ms: 100,
        final_settle_ms: 100,
        stuck_after_ms: 1_000,
        ..Settings::default()
    };
    settings.dependency.alike_keys_min = 5;
    settings.dependency.probe = Retry::exponential(Duration::from_millis(20), 2, Duration::from_millis(100));
    settings.parking = ParkingSettings {
        keys_max: 1 + random.below(6) as usize,
        messages_max: 1 + random.below(40) as usize,
        lane_messages_max: 5,
        batch_max: PARKING_BATCH_MAX,
        release_per_second: 1_000,
    };
    let batches = Batches { messages_max: 4, bytes_max: 200, wait_ms: 10, across_partitions: random.percent(50) };
    match random.below(8) {
        0 => settings.order = Order::PerPartition,
        1 => settings.order = Order::None,
        2 => settings.order = Order::Batches(batches),
        3..=5 => (settings.exhausted, settings.permanent) = (Remedy::Park, Remedy::Park),
        _ => {}
    }
    settings
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let settings = settings(&mut random);
        let mut partitions: Vec<Partition> = (0..PARTITIONS).map(|_| Partition::default()).collect();
        for partition in &mut partitions {
            let mut offset = random.below(50) as i64;
            for index in 0..MESSAGES {
                let key = (!random.percent(10)).then(|| Bytes::from(random.below(KEYS).to_string()));
                partition.log.push(Message { offset, key, ended: false });
                partition.waiting.insert(index);
                // Compaction and markers of transactions leave holes.
                offset += if random.percent(20) { 1 + random.below(5) as i64 } else { 1 };
            }
        }
        let core = Core::new(settings.clone(), random.next()).unwrap().with_witness(witness());
        let (running, unanswered) = Default::default();
        let (facts, reports, untold) = Default::default();
        let ledger = acknowledged();
        let (now_ms, calm) = (1, false);
        Self { random, settings, core, now_ms, partitions, running, unanswered, calm, facts, reports, ledger, untold }
    }

    fn delivery(&self, number: usize, index: usize, offset: i64) -> Delivery {
        let delivery = Delivery {
            from: partition(number as u32),
            offset,
            key: self.partitions[number].log[index].key.clone(),
            payload: Some(Bytes::from(index.to_string())),
            headers: Headers::default(),
            timestamp_ms: None,
            delivered_before: None,
        };
        stamped(delivery, PRODUCER, index as u64 + 1)
    }

    /// What is said, as far as the ledger knows.
    fn is_told(&self, number: usize, index: usize, seen: Seen) -> bool {
        let consumed = self.ledger.consumed(GROUP, &name(PRODUCER, number as u32));
        consumed.is_some_and(|evidence| evidence.of(seen).contains(index as u64 + 1))
    }

    fn has_told_end(&self, number: usize, index: usize) -> bool {
        let consumed = self.ledger.consumed(GROUP, &name(PRODUCER, number as u32));
        consumed.is_some_and(|evidence| evidence.ended().contains(index as u64 + 1))
    }

    /// Takes reports that are due, or answers some: also those that were stored may be said to have failed.
    fn report(&mut self) {
        let witness = self.core.witness().unwrap();
        if self.calm || witness.report_due_ms().is_some_and(|due_ms| due_ms <= self.now_ms) {
            self.reports.extend(witness.take_reports(0));
        }
        for report in std::mem::take(&mut self.reports) {
            if !self.calm && self.random.percent(50) {
                self.reports.push(report);
                continue;
            }
            let stored = self.calm || self.random.percent(70);
            if stored || self.random.percent(30) {
                self.ledger.add(&Evidence::decode(&report.encode()).unwrap());
            }
            self.core.witness().unwrap().reported(report, stored, self.now_ms);
        }
    }

    /// Nothing is said that did not happen; and no number is missing, unless its consumer crashed before it had said all.
    fn check_evidence(&self) {
        for number in 0..PARTITIONS as usize {
            for index in 0..MESSAGES {
                for seen in [Seen::Applied, Seen::DeadLettered, Seen::Parked] {
                    let (told, happened) =
                        (self.is_told(number, index, seen), self.facts.contains(&(number, index, seen)));
                    assert!(happened || !told, "{index} of {number} is said to be {seen:?}");
                }
            }
        }
        for (name, account) in self.ledger.accounts(GROUP, "orders") {
            let excused = self.untold.iter().filter(|(number, _)| *number == name.partition.partition as usize);
            let mut open: Ranges = account.not_delivered.clone();
            open.union(&account.not_ended);
            excused.for_each(|(_, index)| _ = open.remove_range(*index as u64 + 1..=*index as u64 + 1));
            assert!(open.is_empty(), "{name}: {open:?} of {account:?}");
            assert!(account.not_acknowledged.is_empty() && account.not_stored.is_empty());
        }
    }

    fn assign(&mut self, number: usize) {
        let with_parked = |parked: &Partition| {
            let all = parked.parked.iter().filter(|(_, all)| !all.is_empty());
            all.map(|(key, all)| KeyInStore { key: key.clone(), messages: all.len() }).collect()
        };
        let state = &mut self.partitions[number];
        state.epoch += 1;
        (state.owned, state.paused) = (true, false);
        let settled = state.settled;
        state.position =
            state.log.iter().position(|message| settled.is_none_or(|next| message.offset >= next)).unwrap_or(MESSAGES);
        let assignment = Assignment {
            partition: partition(number as u32),
            frontier: settled,
            metadata: state.metadata.clone(),
            stored_done: state.stored_done.clone(),
            epoch: state.epoch,
            parked: with_parked(state),
        };
        self.core.assigned(vec![assignment], self.now_ms);
    }

    /// The partition is nobody's: what was out waits again, and what was on its way to a store arrives or does not.
    fn unassign(&mut self, number: usize) {
        let state = &mut self.partitions[number];
        state.owned = false;
        let out = std::mem::take(&mut state.out);
        state.waiting.extend(out.into_values());
        let name = partition(number as u32);
        let tickets: Vec<Ticket> = self.unanswered.keys().copied().collect();
        for ticket in tickets {
            // An engine refuses settlements that reach it when the partition is gone already. Those that are made after that are
            // what must never happen, and is looked for in `settle`.
            if let Some(Action::Settle { settlements, .. }) = self.unanswered.get_mut(&ticket) {
                settlements.retain(|settlement| *settlement.partition() != name);
                continue;
            }
            let of = match &self.unanswered[&ticket] {
                Action::DeadLetter { letter, .. } => letter.delivery.from.clone(),
                Action::Park { partition, .. }
                | Action::StoreDone { partition, .. }
                | Action::RemoveParked { partition, .. } => partition.clone(),
                _ => continue,
            };
            if of == name && self.random.percent(50) {
                let action = self.unanswered.remove(&ticket).unwrap();
                self.carry_out(&action);
            } else if of == name {
                self.unanswered.remove(&ticket);
            }
        }
    }

    fn index(delivery: &Delivery) -> usize {
        std::str::from_utf8(delivery.payload.as_ref().unwrap()).unwrap().parse().unwrap()
    }

    /// A message is applied or dead-lettered: of each key for the first time in order.
    fn end(&mut self, number: usize, index: usize) {
        let per_partition = self.settings.order == Order::PerPartition;
        let state = &mut self.partitions[number];
        let message = &mut state.log[index];
        if std::mem::replace(&mut message.ended, true) {
            return;
        }
        let key = match self.settings.order {
            Order::PerKey => message.key.clone(),
            _ => per_partition.then(Bytes::new),
        };
        if let Some(key) = key {
            let before = state.ends.insert(key.clone(), index);
            assert!(before.is_none_or(|before| before < index), "{key:?} of {number}: {index} ended after {before:?}");
        }
    }

    fn is_safe(&self, number: usize, index: usize) -> bool {
        let state = &self.partitions[number];
        state.log[index].ended || state.parked.values().any(|parked| parked.values().any(|other| *other == index))
    }

    fn settle(&mut self, settlement: &Settlement) {
        let number = settlement.partition().partition as usize;
        assert!(self.partitions[number].owned, "{settlement:?} of a partition that is not ours");
        let state = &mut self.partitions[number];
        match settlement {
            Settlement::Frontier { next, metadata, .. } => {
                (state.settled, state.metadata) = (Some(*next), metadata.clone());
                let beyond = if metadata.is_empty() { Vec::new() } else { decode_text(metadata).unwrap().intervals };
                for index in 0..MESSAGES {
                    let offset = self.partitions[number].log[index].offset;
                    let said = offset < *next || beyond.iter().any(|(start, end)| (*start..*end).contains(&offset));
                    assert!(!said || self.is_safe(number, index), "{offset} of {number} is settled and unfinished");
                }
            }
            Settlement::Done { offset, .. } => {
                if let Some(index) = state.out.remove(offset) {
                    assert!(self.is_safe(number, index), "{index} of {number} is settled and unfinished");
                }
            }
            Settlement::GiveBack { offset, .. } => {
                if let Some(index) = state.out.remove(offset) {
                    state.waiting.insert(index);
                }
            }
        }
    }

    /// What an action does in the world, when it works.
    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Settle { settlements, .. } => settlements.iter().for_each(|settlement| self.settle(settlement)),
            Action::DeadLetter { letter, .. } => {
                let (number, index) = (letter.delivery.from.partition as usize, Self::index(&letter.delivery));
                self.facts.insert((number, index, Seen::DeadLettered));
                self.end(number, index);
            }
            Action::Park { partition, key, messages, .. } => {
                let number = partition.partition as usize;
                self.facts.extend(messages.iter().map(|each| (number, Self::index(&each.delivery), Seen::Parked)));
                let state = &mut self.partitions[partition.partition as usize];
                for parked in messages {
                    state.last_position += 1;
                    let position = state.last_position;
                    state.parked.entry(key.clone()).or_default().insert(position, Self::index(&parked.delivery));
                }
            }
            Action::RemoveParked { partition, key, up_to, .. } => {
                let state = &mut self.partitions[partition.partition as usize];
                let parked = state.parked.entry(key.clone()).or_default();
                let mut removed = parked.range(..=up_to).map(|(_, index)| *index);
                assert!(removed.all(|index| state.log[index].ended), "removed and unhandled");
                parked.retain(|position, _| position > up_to);
            }
            Action::StoreDone { partition, bytes, .. } => {
                self.partitions[partition.partition as usize].stored_done = bytes.clone();
            }
            _ => {}
        }
    }

    fn answer(&mut self, ticket: Ticket) {
        let Some(action) = self.unanswered.remove(&ticket) else { return };
        let works = self.calm || self.random.percent(85);
        // The answer may be lost although it was done.
        if works || self.random.percent(30) {
            self.carry_out(&action);
        }
        match &action {
            Action::LoadParked { partition, key, messages_max, .. } if works => {
                let number = partition.partition as usize;
                let parked = self.partitions[number].parked.get(key).cloned().unwrap_or_default();
                let loaded = parked.iter().take(*messages_max).map(|(position, index)| {
                    let offset = self.partitions[number].log[*index].offset;
                    Loaded { position: *position, delivery: self.delivery(number, *index, offset) }
                });
                let loaded = loaded.collect();
                self.core.parked_loaded(ticket, loaded, self.now_ms);
            }
            _ if works => self.core.confirmed(ticket, Ok(()), self.now_ms),
            _ => self.core.confirmed(ticket, Err("it failed".into()), self.now_ms),
        }
    }

    fn start(&mut self, run: RunId, messages: &[Handed]) {
        let place = |handed: &Handed| (handed.delivery.from.partition as usize, Self::index(&handed.delivery));
        for (number, index) in messages.iter().map(place) {
            let state = &self.partitions[number];
            assert!(state.owned, "{index} of {number} is started, and not ours");
            let key = &state.log[index].key;
            let others = self.running.values().flatten();
            let same = others.filter(|(other, epoch, at)| {
                let same_lane = match self.settings.order {
                    Order::PerKey => key.is_some() && state.log[*at].key == *key,
                    Order::PerPartition | Order::Batches(_) => true,
                    Order::None => false,
                };
                *other == number && *epoch == state.epoch && same_lane
            });
            assert_eq!(same.count(), 0, "two handlers of {key:?} of {number} at once");
        }
        let started = messages.iter().map(place).map(|(number, index)| (number, self.partitions[number].epoch, index));
        let started = started.collect();
        self.running.insert(run, started);
        let zombies = self.running.len();
        assert!(zombies <= self.core.concurrency(), "{zombies} handlers");
    }

    fn take(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Start { calls } => calls.iter().for_each(|call| self.start(call.run, &call.messages)),
                Action::Pause { partition } => self.partitions[partition.partition as usize].paused = true,
                Action::Resume { partition } => self.partitions[partition.partition as usize].paused = false,
                Action::Release { partition } => self.unassign(partition.partition as usize),
                Action::Settle { ticket, .. }
                | Action::StoreDone { ticket, .. }
                | Action::DeadLetter { ticket, .. }
                | Action::Park { ticket, .. }
                | Action::LoadParked { ticket, .. }
                | Action::RemoveParked { ticket, .. } => drop(self.unanswered.insert(ticket, action)),
                // Handlers that are cancelled end some time later, as handlers do.
                Action::Cancel { .. } | Action::Report(_) => {}
                Action::Seek { .. } | Action::Rejoin { .. } | Action::Drained => panic!("{action:?}"),
            }
        }
        let held = self.core.held();
        let bound =
            PARTITIONS as usize * (PARTITION_MESSAGES_MAX + CHUNK_MAX as usize + PARKING_BATCH_MAX * KEYS as usize);
        assert!(held.messages <= bound, "{held:?}");
    }

    fn deliver(&mut self, number: usize) {
        let chunk = 1 + self.random.below(CHUNK_MAX);
        let mut deliveries = Vec::new();
        for _ in 0..chunk {
            let state = &mut self.partitions[number];
            if !state.owned || state.paused {
                break;
            }
            let (index, offset) = match self.settings.settling {
                Settling::Frontier if state.position < MESSAGES => {
                    state.position += 1;
                    (state.position - 1, state.log[state.position - 1].offset)
                }
                Settling::Each => match state.waiting.pop_first() {
                    Some(index) => {
                        state.last_tag += 1;
                        state.out.insert(state.last_tag, index);
                        (index, state.last_tag)
                    }
                    None => break,
                },
                Settling::Frontier => break,
            };
            deliveries.push(self.delivery(number, index, offset));
        }
        self.core.messages(deliveries, self.now_ms);
    }

    fn outcome(&mut self) -> Outcome {
        if self.calm {
            return Outcome::Done;
        }
        match self.random.below(100) {
            0..60 => Outcome::Done,
            60..80 => Outcome::Transient(failure(["database", "network"][self.random.below(2) as usize])),
            80..85 => Outcome::Permanent(failure("rule")),
            85..87 => Outcome::Undecodable(failure("json")),
            87..91 => Outcome::DependencyDown(failure("database")),
            91..95 => Outcome::Park(failure("rule")),
            _ => Outcome::Stopped,
        }
    }

    fn end_of(&mut self, run: RunId) -> Option<(RunId, Outcomes)> {
        let messages = self.running.remove(&run)?;
        let alike = self.random.percent(50);
        let outcomes: Vec<Outcome> = match alike {
            true => vec![self.outcome(); messages.len()],
            false => messages.iter().map(|_| self.outcome()).collect(),
        };
        for ((number, _, index), outcome) in messages.iter().zip(&outcomes) {
            if *outcome == Outcome::Done {
                self.end(*number, *index);
                self.facts.insert((*number, *index, Seen::Applied));
                let delivery = self.delivery(*number, *index, 0);
                self.core.witness().unwrap().saw(&delivery, Seen::Applied, self.now_ms);
            }
        }
        Some((run, if alike { Outcomes::All(outcomes[0].clone()) } else { Outcomes::Each(outcomes) }))
    }

    fn crash(&mut self) {
        for (_, messages) in std::mem::take(&mut self.running) {
            // The effect may be there, and nobody left to say so.
            if self.random.percent(30) {
                messages.into_iter().for_each(|(number, _, index)| self.end(number, index));
            }
        }
        (0..PARTITIONS as usize).for_each(|number| self.unassign(number));
        self.unanswered.clear();
        let seed = self.random.next();
        self.core = Core::new(self.settings.clone(), seed).unwrap().with_witness(witness());
        self.reports.clear();
        // What has not ended comes again. What has may be settled.
        let ended = self.facts.iter().map(|(number, index, _)| (*number, *index));
        let untold: Vec<(usize, usize)> = ended.filter(|(number, index)| !self.has_told_end(*number, *index)).collect();
        self.untold.extend(untold);
    }

    fn some<T: Copy>(&mut self, all: Vec<T>) -> Option<T> {
        let count = all.len() as u64;
        (count > 0).then(|| all[self.random.below(count) as usize])
    }

    fn step(&mut self) {
        let number = self.random.below(u64::from(PARTITIONS)) as usize;
        match self.random.below(1_000) {
            0..250 => self.deliver(number),
            250..550 => {
                // One, or some that ended since the shell last looked.
                let together = 1 + self.random.below(TOGETHER_MAX);
                let mut ended = Vec::new();
                for _ in 0..together {
                    let run = self.some(self.running.keys().copied().collect());
                    ended.extend(run.and_then(|run| self.end_of(run)));
                }
                self.core.finished(ended, self.now_ms);
            }
            550..750 => {
                if let Some(ticket) = self.some(self.unanswered.keys().copied().collect()) {
                    self.answer(ticket);
                }
            }
            750..800 => {
                let key = Bytes::from(self.random.below(KEYS).to_string());
                self.core.release_key(&partition(number as u32), &key, self.now_ms);
            }
            800..840 if !self.partitions[number].owned => self.assign(number),
            840..850 => self.core.revoking(&[partition(number as u32)], self.now_ms),
            850..860 => {
                self.core.lost(&[partition(number as u32)], self.now_ms);
                self.unassign(number);
            }
            860..863 => self.crash(),
            _ => {
                self.now_ms += self.random.below(30);
                self.core.tick(self.now_ms);
            }
        }
        self.take();
        self.report();
    }

    /// Nothing fails any more: everything has to end.
    fn calm_down(&mut self) {
        self.calm = true;
        for _ in 0..CALM_STEPS {
            for number in 0..PARTITIONS as usize {
                if !self.partitions[number].owned {
                    self.assign(number);
                    self.take();
                }
                self.deliver(number);
                self.take();
                for key in 0..KEYS {
                    let key = Bytes::from(key.to_string());
                    self.core.release_key(&partition(number as u32), &key, self.now_ms);
                    self.take();
                }
            }
            for run in self.running.keys().copied().collect::<Vec<_>>() {
                let ended = self.end_of(run);
                self.core.finished(ended, self.now_ms);
                self.take();
            }
            for ticket in self.unanswered.keys().copied().collect::<Vec<_>>() {
                self.answer(ticket);
                self.take();
            }
            self.report();
            if self.is_over() {
                return;
            }
            // Nothing but what the core asked to be woken for.
            self.now_ms = self.core.wake_at_ms().unwrap_or(self.now_ms).clamp(self.now_ms, self.now_ms + 10_000);
            self.core.tick(self.now_ms);
            self.take();
        }
        let open = |partition: &Partition| {
            (partition.settled, partition.paused, partition.parked.clone(), partition.ends.clone())
        };
        panic!("it stalls: {:?} {:?}", self.partitions.iter().map(open).collect::<Vec<_>>(), self.core.held());
    }

    fn is_over(&self) -> bool {
        let settling = self.settings.settling;
        self.partitions.iter().all(|partition| {
            let settled = match settling {
                Settling::Frontier => partition.settled > partition.log.last().map(|last| last.offset),
                Settling::Each => partition.waiting.is_empty() && partition.out.is_empty(),
            };
            settled
                && partition.parked.values().all(BTreeMap::is_empty)
                && partition.log.iter().all(|message| message.ended)
        })
    }
}

/// What the producer of all messages said.
fn acknowledged() -> Ledger {
    let acknowledged: Ranges = [1..=MESSAGES as u64].into_iter().collect();
    let evidence = SequenceEvidence { highest: MESSAGES as u64, acknowledged, ..SequenceEvidence::default() };
    let of = |number| ReportedSequence { epoch: 7, partition: partition(number), evidence: evidence.clone() };
    let mut ledger = Ledger::default();
    let instance = name(PRODUCER, 0).instance;
    Evidence::split(&instance, 0, (0..PARTITIONS).map(of)).iter().for_each(|report| ledger.add(report));
    ledger
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..CHAOS_STEPS {
        world.step();
    }
    world.calm_down();
    world.check_evidence();
}

#[test]
fn every_message_ends_in_order_and_nothing_is_settled_before_whatever_fails() {
    let seeds = match std::env::var("BATON_SEED") {
        Ok(seed) => vec![seed.parse().expect("BATON_SEED is a number")],
        Err(_) => (0..SEEDS).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("seed {seed}; again with: BATON_SEED={seed} cargo test -p baton-core --test consumer simulation");
            resume_unwind(panic);
        }
    }
}
