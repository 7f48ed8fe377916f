//! The state machine: what it holds, and how messages come in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;

use super::adaptive::Adaptive;
use super::arena::Arena;
use super::dependency::Dependency;
use super::frontier::Fresh;
use super::lanes::{Entry, Fate, Lane, LaneId, LaneState, Lanes, NumberMap, SeededHash, TenureId};
use super::runs::Run;
use super::settings::{BadSettings, Concurrency, Order, Remedy, Settings, Settling};
use super::settling::Settler;
use super::tenure::{Later, Phase, Tenure};
use super::types::{Action, Counters, Held, Report, RunId, Ticket};
use super::witness::Witness;
use crate::{Delivery, Seen, TopicPartition};

/// Messages of a partition that are looked at ahead of the handlers, at least.
const READY_MIN: usize = 4;
/// A message behind one that is being handled for so long is not expected to have its turn soon.
const WAITS_LONG_MS: u64 = 100;

/// What a ticket was given for.
#[derive(Debug)]
pub(super) enum Pending {
    DeadLetter(LaneId),
    Park(LaneId),
    LoadParked { key: Bytes, stored_before: u64 },
    RemoveParked { key: Bytes },
    StoreDone,
}

/// Something that is to be looked at again when its time has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Lane(LaneId),
    Release(TenureId, Bytes),
    Closing(TenureId),
}

/// The decisions of a consumer; see the [module](super).
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    /// Seed of the random numbers that spread retries.
    random: u64,
    pub(super) hash: SeededHash,
    last_id: u64,
    pub(super) tenures: Arena<TenureId, Tenure>,
    pub(super) by_name: HashMap<TopicPartition, TenureId, SeededHash>,
    pub(super) lanes: Lanes,
    pub(super) runs: Arena<RunId, Run>,
    /// Partitions of which messages lie there that were not looked at yet.
    pub(super) later: Vec<TenureId>,
    /// Partitions that have lanes that are ready, in turn.
    pub(super) turn: VecDeque<TenureId>,
    /// When handlers have to have ended, in the order in which they began.
    pub(super) deadlines: VecDeque<(u64, RunId)>,
    pub(super) timers: BinaryHeap<Reverse<(u64, Timer)>>,
    pub(super) pending: NumberMap<Ticket, (TenureId, Pending)>,
    /// Failures of the stores outside in a row, for the backoff.
    pub(super) store_failures: u32,
    pub(super) dependency: Dependency,
    pub(super) adaptive: Option<Adaptive>,
    pub(super) settler: Settler,
    pub(super) watch_at_ms: u64,
    /// How often the group was left because of a partition that has not delivered since.
    pub(super) rejoined: HashMap<TopicPartition, u32, SeededHash>,
    /// After [`Core::drain`].
    pub(super) draining: bool,
    pub(super) actions: VecDeque<Action>,
    pub(super) counters: Counters,
    /// Keeps what is to be reported, if anything is.
    pub(super) witness: Option<Box<Witness>>,
}

impl Core {
    /// A consumer without partitions. The seed should differ from process to process: retries are spread by it, and strangers
    /// must not know how keys are hashed.
    pub fn new(settings: Settings, seed: u64) -> Result<Self, BadSettings> {
        settings.check()?;
        let adaptive = match &settings.concurrency {
            Concurrency::Fixed(_) => None,
            Concurrency::Adaptive(adaptive) => Some(Adaptive::new(adaptive.clone())),
        };
        Ok(Self {
            random: seed,
            hash: SeededHash(seed),
            last_id: 0,
            tenures: Arena::default(),
            by_name: HashMap::with_hasher(SeededHash(seed)),
            lanes: Arena::default(),
            runs: Arena::default(),
            later: Vec::new(),
            turn: VecDeque::new(),
            deadlines: VecDeque::new(),
            timers: BinaryHeap::new(),
            pending: NumberMap::default(),
            store_failures: 0,
            dependency: Dependency::new(settings.dependency),
            adaptive,
            settler: Settler::default(),
            watch_at_ms: 0,
            rejoined: HashMap::with_hasher(SeededHash(seed)),
            draining: false,
            actions: VecDeque::new(),
            counters: Counters::default(),
            witness: None,
            settings,
        })
    }

    /// Lets this one keep what is seen of each message, so that it can be reported.
    #[must_use]
    pub fn with_witness(mut self, witness: Witness) -> Self {
        self.witness = Some(Box::new(witness));
        self
    }

    /// What is to be reported. What calls of handlers ended with, the shell tells it: only there it is known whether an effect is certain,
    /// and it is so also when its partition is gone meanwhile. All else this core tells it.
    pub fn witness(&mut self) -> Option<&mut Witness> {
        self.witness.as_deref_mut()
    }

    /// When there is something to report; see [`Witness::report_due_ms`].
    pub fn report_due_ms(&self) -> Option<u64> {
        self.witness.as_ref().and_then(|witness| witness.report_due_ms())
    }

    /// How much of it is not stored yet, and how much never will be: [`Witness::unreported`] and [`Witness::untold`].
    pub fn unreported(&self) -> (usize, u64) {
        self.witness.as_ref().map_or((0, 0), |witness| (witness.unreported(), witness.untold()))
    }

    /// What is to be done next; `None` until something happens again.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is held in memory now.
    pub fn held(&self) -> Held {
        Held {
            partitions: self.tenures.len(),
            messages: self.tenures.values().map(|tenure| tenure.held_messages).sum(),
            bytes: self.tenures.values().map(|tenure| tenure.held_bytes).sum(),
            lanes: self.lanes.len(),
            handlers: self.runs.len(),
            parked_keys: self.tenures.values().map(|tenure| tenure.parked.len()).sum(),
            parked_messages: self.tenures.values().map(|tenure| tenure.parked_messages).sum(),
            deadlines: self.deadlines.len(),
        }
    }

    /// Messages that lie there as they came: nobody has looked at them yet.
    pub fn not_looked_at(&self) -> usize {
        self.later.iter().filter_map(|tenure_id| self.tenures.get(tenure_id)).map(|tenure| tenure.later.len()).sum()
    }

    /// How many handlers may run at once now.
    pub fn concurrency(&self) -> usize {
        match (&self.adaptive, &self.settings.concurrency) {
            (Some(adaptive), _) => adaptive.limit(),
            (None, Concurrency::Fixed(handlers)) => *handlers as usize,
            (None, Concurrency::Adaptive(adaptive)) => adaptive.handlers_min as usize,
        }
    }

    /// A number that nothing else has.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The next of the random numbers that the seed stands for (SplitMix64).
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }

    pub(super) fn seed(&self) -> u64 {
        self.hash.0
    }

    /// Tells messages that fail for themselves from many that fail alike: by key, and without one by message.
    pub(super) fn key_hash(&self, delivery: &Delivery) -> u64 {
        match &delivery.key {
            Some(key) => self.hash.hash_one(key),
            None => self.hash.hash_one((&delivery.from, delivery.offset)),
        }
    }

    /// Messages came, those of a partition in their order.
    pub fn messages(&mut self, deliveries: Vec<Delivery>, now_ms: u64) {
        self.counters.delivered += deliveries.len() as u64;
        let mut current: Option<(TopicPartition, TenureId)> = None;
        for delivery in deliveries {
            let known =
                current.as_ref().filter(|(partition, _)| *partition == delivery.from).map(|(_, tenure)| *tenure);
            let tenure_id = match known {
                Some(tenure_id) => tenure_id,
                None => {
                    let Some(tenure_id) = self.by_name.get(&delivery.from).copied() else {
                        self.counters.not_ours += 1;
                        continue;
                    };
                    current = Some((delivery.from.clone(), tenure_id));
                    tenure_id
                }
            };
            self.message(tenure_id, delivery, now_ms);
        }
        self.go_on(now_ms);
    }

    /// Only lays it down: what lies as it came costs little to hold. It is looked at when its turn is near.
    fn message(&mut self, tenure_id: TenureId, delivery: Delivery, now_ms: u64) {
        let gives_back = self.gives_back();
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        if tenure.phase != Phase::Owned {
            self.counters.not_ours += 1;
            if gives_back {
                tenure.settle.give_back.push(delivery.offset);
                self.has_to_settle(tenure_id);
            }
            return;
        }
        if tenure.delivered(now_ms) {
            let partition = tenure.partition.clone();
            self.rejoined.remove(&partition);
            self.actions.push_back(Action::Report(Report::DeliveriesResumed { partition }));
        }
        if tenure.held_messages == 0 {
            tenure.watch.progress_ms = now_ms;
        }
        if let Some(witness) = &mut self.witness {
            witness.saw(&delivery, Seen::Delivered, now_ms);
        }
        let bytes = delivery.bytes();
        tenure.held_messages += 1;
        tenure.held_bytes += bytes;
        tenure.later.push_back(Later { delivery: Arc::new(delivery), bytes, arrived_ms: now_ms });
        if !std::mem::replace(&mut tenure.has_later, true) {
            self.later.push(tenure_id);
        }
    }

    /// Looks at as many of the messages that lie there as are needed for all handlers to find something.
    fn take_up(&mut self, now_ms: u64) {
        let mut at = 0;
        while let Some(tenure_id) = self.later.get(at).copied() {
            while self.is_hungry(tenure_id)
                && let Some(later) = self.tenures.get_mut(&tenure_id).and_then(|tenure| tenure.later.pop_front())
            {
                self.look_at(tenure_id, later, now_ms);
            }
            self.check_room(tenure_id);
            match self.tenures.get_mut(&tenure_id).filter(|tenure| !tenure.later.is_empty()) {
                Some(_) => at += 1,
                None => {
                    self.later.swap_remove(at);
                    if let Some(tenure) = self.tenures.get_mut(&tenure_id) {
                        tenure.has_later = false;
                    }
                }
            }
        }
    }

    /// Whether a partition has too little that could be handled next.
    fn is_hungry(&self, tenure_id: TenureId) -> bool {
        let Some(tenure) = self.tenures.get(&tenure_id) else {
            return false;
        };
        match self.settings.order {
            Order::PerKey | Order::None => tenure.ready.len() < self.concurrency().max(READY_MIN),
            Order::PerPartition => tenure.frontier.unfinished() < READY_MIN,
            // One batch with a handler, and one that could be next.
            Order::Batches(batches) => tenure.frontier.unfinished() < batches.messages_max.saturating_mul(2),
        }
    }

    fn look_at(&mut self, tenure_id: TenureId, later: Later, now_ms: u64) {
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        let (offset, bytes) = (later.delivery.offset, later.bytes);
        let fresh = tenure.frontier.deliver(offset);
        if fresh == Fresh::Rewound {
            let partition = tenure.partition.clone();
            self.actions.push_back(Action::Report(Report::OffsetsWentBack { partition, offset }));
        }
        let seen = if fresh == Fresh::DoneBefore { Seen::DoneBefore } else { Seen::Filtered };
        let passes = self.settings.filters.iter().all(|filter| filter.passes(&later.delivery.headers));
        match fresh {
            Fresh::New | Fresh::Rewound if passes => return self.enter(tenure_id, later, now_ms),
            Fresh::New | Fresh::Rewound => {
                self.counters.filtered += 1;
                if self.settings.settling == Settling::Each {
                    tenure.settle.done.push(offset);
                }
            }
            Fresh::InFlight => self.counters.duplicates_in_flight += 1,
            Fresh::DoneBefore => self.counters.skipped_done += 1,
        }
        tenure.held_messages -= 1;
        tenure.held_bytes -= bytes;
        if fresh != Fresh::InFlight {
            if let Some(witness) = &mut self.witness {
                witness.saw(&later.delivery, seen, now_ms);
            }
            self.has_to_settle(tenure_id);
        }
    }

    /// Puts a message into its lane.
    fn enter(&mut self, tenure_id: TenureId, later: Later, now_ms: u64) {
        let Later { delivery, bytes, arrived_ms } = later;
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        let key = delivery.key.as_ref().filter(|_| self.settings.order == Order::PerKey);
        let hash = key.map_or(0, |key| self.hash.hash_one(key));
        let known = match (self.settings.order, key) {
            (Order::PerKey, Some(key)) => tenure.keys.get(hash, key, &self.lanes),
            (Order::PerKey | Order::None, _) => None,
            (Order::PerPartition | Order::Batches(_), _) => tenure.sole,
        };
        let lane_id = match known {
            Some(lane_id) => lane_id,
            None => {
                // Its own memory: a key that is parked stays for long, and would keep all that came with it.
                let own = key.map(|key| Bytes::copy_from_slice(key));
                let lane_id = self.lanes.insert(Lane::new(tenure_id, own, hash, false));
                match (self.settings.order, key) {
                    (Order::PerKey, Some(_)) => tenure.keys.insert(hash, lane_id),
                    (Order::PerKey | Order::None, _) => {}
                    (Order::PerPartition | Order::Batches(_), _) => tenure.sole = Some(lane_id),
                }
                lane_id
            }
        };
        let Some(lane) = self.lanes.get_mut(&lane_id) else {
            return;
        };
        tenure.frontier.begin(delivery.offset, lane_id);
        let waits_long = match lane.state {
            LaneState::Idle | LaneState::Ready => false,
            LaneState::Running { since_ms, .. } => now_ms.saturating_sub(since_ms) >= WAITS_LONG_MS,
            _ => true,
        };
        let delivery = if waits_long { Arc::new(delivery.detached()) } else { delivery };
        lane.push_back(Entry { detached: waits_long, ..Entry::new(delivery, bytes, arrived_ms) });
        match lane.state {
            LaneState::Idle => self.advance(lane_id, now_ms),
            LaneState::Backoff { .. }
                if self.settings.exhausted == Remedy::Park
                    && lane.key.is_some()
                    && lane.len() > self.settings.parking.lane_messages_max =>
            {
                if let Some(front) = lane.front_mut() {
                    front.fate = Fate::Park;
                    front.not_before_ms = 0;
                }
                self.advance(lane_id, now_ms);
            }
            _ => {}
        }
    }

    /// Changes what a lane does.
    pub(super) fn set_state(&mut self, lane_id: LaneId, state: LaneState) {
        let Some(lane) = self.lanes.get_mut(&lane_id) else {
            return;
        };
        let was_active = std::mem::replace(&mut lane.state, state).is_active();
        if was_active != state.is_active()
            && let Some(tenure) = self.tenures.get_mut(&lane.tenure)
        {
            match was_active {
                true => tenure.active -= 1,
                false => tenure.active += 1,
            }
        }
    }

    /// Decides what a lane, of which nothing is with anybody else, does next.
    pub(super) fn advance(&mut self, lane_id: LaneId, now_ms: u64) {
        self.set_state(lane_id, LaneState::Idle);
        let Some(lane) = self.lanes.get(&lane_id) else {
            return;
        };
        let Some(tenure) = self.tenures.get_mut(&lane.tenure) else {
            return;
        };
        let Some(front) = lane.front() else {
            return self.end_lane(lane_id, now_ms);
        };
        let key_is_parked = !lane.released && lane.key.as_ref().is_some_and(|key| tenure.parked.contains_key(key));
        if tenure.phase != Phase::Owned && front.fate == Fate::Handle {
            return self.drop_lane(lane_id, 0);
        }
        if front.not_before_ms > now_ms {
            let until_ms = front.not_before_ms;
            self.detach(lane_id);
            self.timers.push(Reverse((until_ms, Timer::Lane(lane_id))));
            return self.set_state(lane_id, LaneState::Backoff { until_ms });
        }
        match &front.fate {
            Fate::Park => self.park(lane_id, now_ms),
            Fate::Handle if key_is_parked => self.park(lane_id, now_ms),
            Fate::DeadLetter(_) => self.dead_letter(lane_id, now_ms),
            Fate::Handle => {
                tenure.ready.push_back(lane_id);
                if !std::mem::replace(&mut tenure.in_turn, true) {
                    self.turn.push_back(lane.tenure);
                }
                self.set_state(lane_id, LaneState::Ready);
            }
        }
    }

    /// What waits for long does not keep its neighbours' memory.
    pub(super) fn detach(&mut self, lane_id: LaneId) {
        let entries = self.lanes.get_mut(&lane_id).into_iter().flat_map(Lane::iter_mut);
        for entry in entries.filter(|entry| !entry.detached) {
            entry.detached = true;
            entry.delivery = Arc::new(entry.delivery.detached());
        }
    }

    /// A lane is empty.
    fn end_lane(&mut self, lane_id: LaneId, now_ms: u64) {
        let Some(lane) = self.lanes.remove(&lane_id) else {
            return;
        };
        let Some(tenure) = self.tenures.get_mut(&lane.tenure) else {
            return;
        };
        if let Some(key) = lane.key {
            if lane.released {
                return self.release_ended(lane.tenure, key, None, now_ms);
            }
            tenure.keys.remove(lane.key_hash, lane_id);
        }
        if tenure.sole == Some(lane_id) {
            tenure.sole = None;
        }
    }

    /// Lets go of a lane's messages, all but the first so many, without doing anything about them: they stay unfinished.
    pub(super) fn drop_lane(&mut self, lane_id: LaneId, keep: usize) {
        let gives_back = self.gives_back();
        let Some(lane) = self.lanes.get_mut(&lane_id) else {
            return;
        };
        let Some(tenure) = self.tenures.get_mut(&lane.tenure) else {
            return;
        };
        while lane.len() > keep {
            let Some(entry) = lane.pop_back() else {
                break;
            };
            tenure.held_messages -= 1;
            tenure.held_bytes -= entry.bytes;
            if gives_back && !lane.released {
                tenure.settle.give_back.push(entry.delivery.offset);
            }
        }
        let tenure_id = lane.tenure;
        if keep == 0 {
            self.set_state(lane_id, LaneState::Idle);
            if let Some(lane) = self.lanes.remove(&lane_id)
                && let Some(tenure) = self.tenures.get_mut(&tenure_id)
            {
                if lane.key.is_some() && !lane.released {
                    tenure.keys.remove(lane.key_hash, lane_id);
                }
                tenure.sole = tenure.sole.filter(|sole| *sole != lane_id);
            }
        }
        if self.settings.settling == Settling::Each {
            self.has_to_settle(tenure_id);
        }
    }

    /// Whether what is not handled is given back one by one. Whoever stops does not: what he has not settled comes again when he has left,
    /// all of it and in its order. Given back before, it would come to him again, behind what he still holds.
    pub(super) fn gives_back(&self) -> bool {
        self.settings.settling == Settling::Each && !self.draining
    }

    /// The first message of a lane is finished: handled, or durably put somewhere else.
    pub(super) fn finish_first(&mut self, lane_id: LaneId, now_ms: u64) {
        let Some(lane) = self.lanes.get_mut(&lane_id) else {
            return;
        };
        let Some(entry) = lane.pop_front() else {
            return;
        };
        let (tenure_id, released, key) = (lane.tenure, lane.released, lane.key.as_ref());
        let Some(tenure) = self.tenures.get_mut(&tenure_id) else {
            return;
        };
        tenure.held_messages -= 1;
        tenure.held_bytes -= entry.bytes;
        tenure.watch.progress_ms = now_ms;
        if released {
            if let Some(parked) = key.and_then(|key| tenure.parked.get_mut(key)) {
                parked.handled_up_to = Some(entry.position);
                parked.handled += 1;
            }
            return;
        }
        tenure.frontier.done(entry.delivery.offset);
        if self.settings.settling == Settling::Each {
            tenure.settle.done.push(entry.delivery.offset);
        }
        self.has_to_settle(tenure_id);
    }

    /// Pauses a partition at its bound, and resumes it at half of that.
    pub(super) fn check_room(&mut self, tenure_id: TenureId) {
        let limits = self.settings.limits;
        let partitions = self.tenures.len().max(1);
        let Some(tenure) = self.tenures.get_mut(&tenure_id).filter(|tenure| tenure.phase == Phase::Owned) else {
            return;
        };
        let messages_max = limits.partition_messages_max.min(limits.messages_max / partitions).max(1);
        let bytes_max = limits.partition_bytes_max.min(limits.bytes_max / partitions).max(1);
        if !tenure.paused && (tenure.held_messages >= messages_max || tenure.held_bytes >= bytes_max) {
            tenure.paused = true;
            self.counters.pauses += 1;
            let partition = tenure.partition.clone();
            self.act(Action::Pause { partition });
        } else if tenure.paused && tenure.held_messages <= messages_max / 2 && tenure.held_bytes <= bytes_max / 2 {
            tenure.paused = false;
            // Nothing could be delivered meanwhile: the engine's clock starts now.
            tenure.watch.delivered_ms = tenure.watch.delivered_ms.max(tenure.watch.progress_ms);
            let partition = tenure.partition.clone();
            self.act(Action::Resume { partition });
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.go_on(now_ms);
    }

    /// Does all that can be done now.
    pub(super) fn go_on(&mut self, now_ms: u64) {
        while let Some(Reverse((at_ms, _))) = self.timers.peek()
            && *at_ms <= now_ms
            && let Some(Reverse((_, timer))) = self.timers.pop()
        {
            match timer {
                Timer::Lane(lane_id) => {
                    let state = self.lanes.get(&lane_id).map(|lane| lane.state);
                    if matches!(state, Some(LaneState::Backoff { until_ms }) if until_ms <= now_ms) {
                        self.advance(lane_id, now_ms);
                    }
                }
                Timer::Release(tenure_id, key) => self.release_on(tenure_id, &key, now_ms),
                Timer::Closing(tenure_id) => self.close_on(tenure_id, now_ms),
            }
        }
        self.check_deadlines(now_ms);
        self.take_up(now_ms);
        self.start_runs(now_ms);
        self.settle_due(now_ms);
        self.watch(now_ms);
    }

    /// When [`Core::tick`] is to be called, if nothing else happens before.
    pub fn wake_at_ms(&self) -> Option<u64> {
        let timer = self.timers.peek().map(|Reverse((at_ms, _))| *at_ms);
        let deadline = self.deadlines.front().map(|(at_ms, _)| *at_ms);
        let start = if self.turn.is_empty() { None } else { self.start_at_ms() };
        let watch = (!self.tenures.is_empty()).then_some(self.watch_at_ms);
        [timer, deadline, start, self.settle_at_ms(), watch].into_iter().flatten().min()
    }
}
