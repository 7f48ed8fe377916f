//! The way of messages from `send` to their end: when each is handed to the engine, whether it is tried again, and how it ended.

mod lane;
mod timeline;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use thiserror::Error;

use crate::sequences::{Fate, NoSequence, Sequences, Ticket};
use crate::stamp::Stamp;
use crate::{DELAY_MAX, MessageId, Retry, TopicPartition};

use lane::{Lane, Turn};
use timeline::{Links, Timeline};

/// Bytes of messages that a producer holds: a second of a hundred thousand small messages, and little beside the engine's client's own.
pub const BUFFER_BYTES_DEFAULT: usize = 32 << 20;
/// What a message takes in the buffer beside its own bytes, so that empty ones are bounded too.
pub const MESSAGE_BYTES: usize = 256;
/// From `send` to the end of a message, in milliseconds, as in Kafka's own producer.
pub const DELIVERY_TIMEOUT_MS_DEFAULT: u64 = 120_000;
/// How many messages of a partition the engine may have at a time: enough to keep it busy over a slow network.
pub const IN_FLIGHT_MAX_DEFAULT: u32 = 1_000;
/// How long after its deadline a message that the engine has may still end by the engine's word, in milliseconds. The engine's client must
/// have given up by the deadline; past this it is taken as broken.
pub const IN_FLIGHT_GRACE_MS: u64 = 5_000;

/// How a producer sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendOptions {
    /// How much it holds; see [`BUFFER_BYTES_DEFAULT`].
    pub buffer_bytes_max: usize,
    /// From `send` to the end; see [`DELIVERY_TIMEOUT_MS_DEFAULT`].
    pub delivery_timeout_ms: u64,
    /// How many messages of a partition the engine may have at a time; see [`IN_FLIGHT_MAX_DEFAULT`]. With 1 the order of a partition is kept
    /// whatever fails. With more, what was handed over before an earlier message failed may be stored before that is tried again.
    pub in_flight_max: u32,
    /// When a message is tried again, within the delivery timeout.
    pub retry: Retry,
}

impl Default for SendOptions {
    fn default() -> Self {
        Self {
            buffer_bytes_max: BUFFER_BYTES_DEFAULT,
            delivery_timeout_ms: DELIVERY_TIMEOUT_MS_DEFAULT,
            in_flight_max: IN_FLIGHT_MAX_DEFAULT,
            retry: Retry::default(),
        }
    }
}

/// Names a message between its acceptance and its end; never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SendId {
    slot: usize,
    number: u64,
}

impl SendId {
    /// As one number, for who names messages by numbers.
    pub fn to_number(self) -> u128 {
        u128::from(self.number) << 64 | self.slot as u128
    }

    /// Back from [`SendId::to_number`].
    #[allow(clippy::cast_possible_truncation)] // the halves are what is wanted
    pub fn of_number(number: u128) -> Self {
        Self { slot: number as u64 as usize, number: (number >> 64) as u64 }
    }
}

/// The message was not accepted; holds what came with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused<T> {
    /// What came with it.
    pub item: T,
    /// Why.
    pub refusal: Refusal,
}

/// Why a message was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The buffer is full now: wait until a message ended.
    #[error("the producer's buffer is full: {bytes} of {max} bytes are waiting to be sent")]
    Full {
        /// What is waiting.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The message is larger than the whole buffer.
    #[error("the message takes {bytes} bytes of a buffer that has {max}: raise buffer_bytes_max, or send less at once")]
    TooLarge {
        /// What it takes.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Messages for too many partitions wait at once.
    #[error("messages for {0} partitions are waiting already")]
    TooManyPartitions(usize),
    /// The producer is closed.
    #[error("the producer is closed")]
    Closed,
}

/// A message to be handed to the engine now. Whoever gets it says what became of it: [`Sends::resolved`] or [`Sends::full`].
#[derive(Debug)]
pub struct HandOver<'a, T> {
    /// Its name.
    pub id: SendId,
    /// Its stamp: the same in every attempt.
    pub stamp: &'a Stamp,
    /// From 1.
    pub attempt: u32,
    /// Where it goes.
    pub partition: &'a TopicPartition,
    /// What came with it.
    pub item: &'a mut T,
}

/// The engine failed to store a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Whether it could be stored.
    pub fate: Fate,
    /// Whether trying again may help.
    pub retryable: bool,
}

/// A message has ended; it does so once.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended<T> {
    /// Its name.
    pub id: SendId,
    /// What came with it.
    pub item: T,
    /// Where it was to go.
    pub partition: TopicPartition,
    /// Its stamp, if it was ever to be handed over.
    pub stamp: Option<Stamp>,
    /// How often it was handed over.
    pub attempts: u32,
    /// How it ended.
    pub end: End,
}

/// How a message ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The engine has it.
    Acknowledged,
    /// It was given up.
    GivenUp {
        /// Whether it could be stored: unknown as soon as one attempt left it unknown.
        fate: Fate,
        /// Why.
        why: Why,
    },
}

/// Why a message was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The engine refused it for good.
    Refused,
    /// Its delivery timeout is over.
    Deadline,
    /// All its attempts failed.
    Attempts,
    /// It got no sequence number.
    NoSequence(NoSequence),
    /// The producer was closed.
    Closed,
}

#[derive(Debug)]
struct Entry<T> {
    number: u64,
    item: T,
    id: MessageId,
    lane: usize,
    bytes: usize,
    deadline_ms: u64,
    links: Links,
    state: State,
    attempts: u32,
    /// One attempt at least left it unknown whether it is stored.
    unknown: bool,
    stamp: Option<Stamp>,
    /// The number in its sequence, to be used up when it ends. None of those that were stamped elsewhere.
    ticket: Option<Ticket>,
    /// Tried again until the engine has it.
    lasting: bool,
}

/// A message that was taken out of [`Sends`]; it does not end there.
#[derive(Debug)]
pub struct TakenOut<T> {
    /// Its name: what the engine still says of it comes under this.
    pub id: SendId,
    /// What came with it.
    pub item: T,
    /// Where it goes.
    pub partition: TopicPartition,
    /// Its stamp. If it had none, that is the next one of its sequence.
    pub stamp: Stamp,
    /// Its number, to be used up when it is known how it ended.
    pub ticket: Option<Ticket>,
    /// The engine has it, too.
    pub in_flight: bool,
    /// It may be stored.
    pub fate: Fate,
    /// How often it was handed over.
    pub attempts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    InFlight,
    Waiting,
}

/// All the messages of a producer that have not ended. `T` is what the caller wants to have with each: the record, and whom to tell.
///
/// ```text
/// accept ─▶ Queued ─ next ─▶ InFlight ─ resolved ─▶ Acknowledged | GivenUp
///                               │  ▲
///         full, or failed and   ▼  │ next, when it is due
///         may be tried again  Waiting ─────────────▶ GivenUp
/// ```
///
/// Messages of a partition are handed over in the order in which they were accepted, and none while an earlier one waits to be tried again.
/// After a failure they go one at a time; each acknowledgement doubles that, up to [`SendOptions::in_flight_max`].
///
/// Time is milliseconds of a clock of the caller's; if it goes back, it counts as standing still.
#[derive(Debug)]
pub struct Sends<T> {
    options: SendOptions,
    sequences: Sequences,
    entries: Vec<Option<Entry<T>>>,
    free: Vec<usize>,
    lanes: Vec<Lane>,
    lanes_free: Vec<usize>,
    lanes_max: usize,
    places: HashMap<TopicPartition, usize>,
    /// Lanes that can hand a message over now.
    ready: VecDeque<usize>,
    /// Lanes that can do so from then on.
    due: BTreeSet<(u64, usize)>,
    /// All messages, in the order of their deadlines; those that the engine has beyond them.
    timely: Timeline,
    overdue: Timeline,
    ended: VecDeque<Ended<T>>,
    bytes: usize,
    accepted: u64,
    now_ms: u64,
    closed: bool,
    /// Numbers are refused until reports get through.
    stalled: bool,
}

impl<T> Sends<T> {
    /// No message yet.
    pub fn new(options: SendOptions, sequences: Sequences) -> Self {
        Self {
            options,
            sequences,
            entries: Vec::new(),
            free: Vec::new(),
            lanes: Vec::new(),
            lanes_free: Vec::new(),
            lanes_max: crate::SEQUENCES_MAX,
            places: HashMap::new(),
            ready: VecDeque::new(),
            due: BTreeSet::new(),
            timely: Timeline::default(),
            overdue: Timeline::default(),
            ended: VecDeque::new(),
            bytes: 0,
            accepted: 0,
            now_ms: 0,
            closed: false,
            stalled: false,
        }
    }

    /// The sequences, for their reports.
    pub fn sequences(&mut self) -> &mut Sequences {
        self.stalled = false;
        &mut self.sequences
    }

    /// [`Sequences::report_due_ms`].
    pub fn report_due_ms(&self) -> Option<u64> {
        self.sequences.report_due_ms()
    }

    /// How many messages have not ended.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether all have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of those that have not ended, [`MESSAGE_BYTES`] for each included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What came with a message that has not ended.
    pub fn item_mut(&mut self, id: SendId) -> Option<&mut T> {
        self.entry(id).map(|entry| &mut entry.item)
    }

    /// Takes a message of so many bytes. Once taken, it ends exactly once: see [`Sends::take_ended`].
    pub fn accept(
        &mut self,
        now_ms: u64,
        partition: &TopicPartition,
        id: MessageId,
        bytes: usize,
        item: T,
    ) -> Result<SendId, Refused<T>> {
        let deadline_ms = self.now_ms.max(now_ms).saturating_add(self.options.delivery_timeout_ms);
        self.accept_until(now_ms, deadline_ms, partition, id, bytes, item)
    }

    /// The same for a message whose delivery timeout began before this.
    pub fn accept_until(
        &mut self,
        now_ms: u64,
        deadline_ms: u64,
        partition: &TopicPartition,
        id: MessageId,
        bytes: usize,
        item: T,
    ) -> Result<SendId, Refused<T>> {
        self.advance(now_ms);
        let bytes = bytes.saturating_add(MESSAGE_BYTES);
        let lane = match self.room(bytes).and_then(|()| self.lane(partition)) {
            Ok(lane) => lane,
            Err(refusal) => return Err(Refused { item, refusal }),
        };
        self.accepted += 1;
        let number = self.accepted;
        let links = Links::default();
        let (state, attempts, unknown, stamp, ticket) = (State::Queued, 0, false, None, None);
        let entry = Entry {
            number,
            item,
            id,
            lane,
            bytes,
            deadline_ms,
            links,
            state,
            attempts,
            unknown,
            stamp,
            ticket,
            lasting: false,
        };
        Ok(self.put(entry))
    }

    /// Takes a message that was stamped before and that is tried again until the engine has it: it comes from where it is kept. Takes up
    /// nothing of the buffer; whoever keeps it bounds how many of them there are.
    pub fn accept_lasting(
        &mut self,
        now_ms: u64,
        partition: &TopicPartition,
        stamp: Stamp,
        item: T,
    ) -> Result<SendId, Refused<T>> {
        self.accept_kept(now_ms, partition, stamp, item, true)
    }

    /// The same for who can do something with a message that the engine refuses for good: it ends then. There is no deadline.
    pub fn accept_stamped(
        &mut self,
        now_ms: u64,
        partition: &TopicPartition,
        stamp: Stamp,
        item: T,
    ) -> Result<SendId, Refused<T>> {
        self.accept_kept(now_ms, partition, stamp, item, false)
    }

    fn accept_kept(
        &mut self,
        now_ms: u64,
        partition: &TopicPartition,
        stamp: Stamp,
        item: T,
        lasting: bool,
    ) -> Result<SendId, Refused<T>> {
        self.advance(now_ms);
        let lane = match self.closed {
            true => Err(Refusal::Closed),
            false => self.lane(partition),
        };
        let lane = match lane {
            Ok(lane) => lane,
            Err(refusal) => return Err(Refused { item, refusal }),
        };
        self.accepted += 1;
        let (number, id, links) = (self.accepted, stamp.id.clone(), Links::default());
        Ok(self.put(Entry {
            number,
            item,
            id,
            lane,
            bytes: 0,
            deadline_ms: u64::MAX,
            links,
            state: State::Queued,
            attempts: 0,
            unknown: false,
            stamp: Some(stamp),
            ticket: None,
            lasting,
        }))
    }

    /// The messages that have not ended, but for those that last, in the order in which they were accepted: what came with each, and whether
    /// the engine has it.
    pub fn unended(&self) -> impl Iterator<Item = (&T, bool)> {
        let entries = self.unended_slots().into_iter().filter_map(|slot| self.entries[slot].as_ref());
        entries.map(|entry| (&entry.item, entry.state == State::InFlight))
    }

    fn unended_slots(&self) -> Vec<usize> {
        let mut slots: Vec<_> = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(slot, entry)| entry.as_ref().filter(|entry| !entry.lasting).map(|entry| (entry.number, slot)))
            .collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Takes messages out that have not ended; of [`Sends::unended`], and in that order, those that are `wanted`.
    pub fn take_out(&mut self, now_ms: u64, mut wanted: impl FnMut(&T) -> bool) -> Vec<TakenOut<T>> {
        self.advance(now_ms);
        let slots = self.unended_slots();
        let mut taken = Vec::with_capacity(slots.len());
        for slot in slots {
            let Some(entry) = self.entries[slot].as_ref() else { continue };
            let (lane, in_flight) = (entry.lane, entry.state == State::InFlight);
            if !wanted(&entry.item) || self.stamped(slot).is_err() {
                continue;
            }
            if let Some((id, entry)) = self.remove(slot)
                && let Some(stamp) = entry.stamp
            {
                let partition = self.lanes[lane].partition.clone();
                let fate = if entry.unknown || in_flight { Fate::Unknown } else { Fate::NotStored };
                let (item, ticket, attempts) = (entry.item, entry.ticket, entry.attempts);
                taken.push(TakenOut { id, item, partition, stamp, ticket, in_flight, fate, attempts });
            }
            self.turn(lane);
        }
        taken
    }

    fn put(&mut self, entry: Entry<T>) -> SendId {
        let (number, lane, bytes) = (entry.number, entry.lane, entry.bytes);
        let slot = self.free.pop().unwrap_or(self.entries.len());
        if slot == self.entries.len() {
            self.entries.push(Some(entry));
        } else {
            self.entries[slot] = Some(entry);
        }
        self.timely.insert(&mut self.entries, slot);
        self.bytes += bytes;
        self.lanes[lane].queued.push_back(slot);
        self.turn(lane);
        SendId { slot, number }
    }

    fn room(&self, bytes: usize) -> Result<(), Refusal> {
        let max = self.options.buffer_bytes_max;
        match () {
            () if self.closed => Err(Refusal::Closed),
            () if bytes > max => Err(Refusal::TooLarge { bytes, max }),
            () if bytes > max - self.bytes => Err(Refusal::Full { bytes: self.bytes, max }),
            () => Ok(()),
        }
    }

    /// The next message that is to be handed to the engine, which is to happen before this is called again: engines store messages in
    /// the order in which they get them.
    pub fn next(&mut self, now_ms: u64) -> Option<HandOver<'_, T>> {
        self.tick(now_ms);
        for _ in 0..self.ready.len() {
            let lane = self.ready.pop_front()?;
            self.lanes[lane].turn = Turn::None;
            let Some(slot) = self.lanes[lane].take(self.now_ms) else {
                self.turn(lane);
                continue;
            };
            match self.stamped(slot) {
                Ok(()) => {
                    self.lanes[lane].in_flight += 1;
                    self.turn(lane);
                    return self.hand_over(slot);
                }
                // Nothing is lost by waiting until reports get through again; the deadline bounds it.
                Err(NoSequence::Unreported) => {
                    self.stalled = true;
                    self.lanes[lane].queued.push_front(slot);
                    self.turn(lane);
                }
                Err(reason) => {
                    self.give_up(slot, Why::NoSequence(reason));
                    self.turn(lane);
                }
            }
        }
        None
    }

    /// Gives the message its stamp, unless it has one: what was stamped once keeps its stamp.
    fn stamped(&mut self, slot: usize) -> Result<(), NoSequence> {
        let Some(entry) = self.entries[slot].as_mut().filter(|entry| entry.stamp.is_none()) else { return Ok(()) };
        let lane = &mut self.lanes[entry.lane];
        let ticket = self.sequences.allot_at(&mut lane.sequence, &lane.partition, self.now_ms)?;
        let (instance, epoch, sequence) = (self.sequences.instance().clone(), ticket.epoch(), ticket.sequence());
        entry.stamp = Some(Stamp { id: entry.id.clone(), instance, epoch, sequence });
        entry.ticket = Some(ticket);
        Ok(())
    }

    fn hand_over(&mut self, slot: usize) -> Option<HandOver<'_, T>> {
        let entry = self.entries[slot].as_mut()?;
        entry.state = State::InFlight;
        entry.attempts += 1;
        let id = SendId { slot, number: entry.number };
        let stamp = entry.stamp.as_ref()?;
        let partition = &self.lanes[entry.lane].partition;
        Some(HandOver { id, stamp, attempt: entry.attempts, partition, item: &mut entry.item })
    }

    /// The engine took nothing of the message, because its client's buffer is full: it is the first to be handed over when
    /// [`Sends::next`] is called again, which should be when there is room. Not a failed attempt.
    pub fn full(&mut self, id: SendId) {
        let now_ms = self.now_ms;
        let Some(entry) = self.entry(id).filter(|entry| entry.state == State::InFlight) else { return };
        entry.state = State::Waiting;
        entry.attempts -= 1;
        let (lane, number, overdue) = (entry.lane, entry.number, entry.links.overdue);
        self.lanes[lane].in_flight -= 1;
        self.lanes[lane].waiting.insert((number, id.slot), now_ms);
        if overdue {
            self.give_up(id.slot, Why::Deadline);
        }
        self.turn(lane);
    }

    /// What the engine says of a message that was handed over. `false`: the message had ended by itself, and nothing was done. `random` is any
    /// number, all of them equally likely; it spreads retries.
    pub fn resolved(&mut self, id: SendId, now_ms: u64, random: u64, result: Result<(), Failure>) -> bool {
        self.advance(now_ms);
        let (now_ms, retry) = (self.now_ms, self.options.retry);
        let Some(entry) = self.entry(id).filter(|entry| entry.state == State::InFlight) else { return false };
        let lane = entry.lane;
        match result {
            Ok(()) => {
                self.finish(id.slot, End::Acknowledged);
                self.lanes[lane].widen(self.options.in_flight_max);
            }
            Err(failure) => {
                entry.unknown |= failure.fate == Fate::Unknown;
                if entry.lasting {
                    // It was promised to somebody: nothing that the engine says ends it.
                    let delay = retry.max_attempts(u32::MAX).delay(entry.attempts, random, None);
                    self.wait(id.slot, delay.unwrap_or(DELAY_MAX));
                    self.turn(lane);
                    return true;
                }
                let remaining = Duration::from_millis(entry.deadline_ms.saturating_sub(now_ms));
                match retry.delay(entry.attempts, random, Some(remaining)) {
                    Some(delay) if failure.retryable => self.wait(id.slot, delay),
                    _ if !failure.retryable => self.give_up(id.slot, Why::Refused),
                    _ if remaining.is_zero() => self.give_up(id.slot, Why::Deadline),
                    _ => self.give_up(id.slot, Why::Attempts),
                }
            }
        }
        self.turn(lane);
        true
    }

    fn wait(&mut self, slot: usize, delay: Duration) {
        let Some(entry) = self.entries[slot].as_mut() else { return };
        entry.state = State::Waiting;
        // A delay is a day at most; a part of a millisecond does not count, so that it ends before the deadline.
        let due_ms = self.now_ms.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let lane = &mut self.lanes[entry.lane];
        lane.in_flight -= 1;
        lane.window = 1;
        lane.waiting.insert((entry.number, slot), due_ms);
    }

    /// Lets time pass: ends what is past its deadline. [`Sends::next`] does so too.
    pub fn tick(&mut self, now_ms: u64) {
        self.advance(now_ms);
        while let Some(slot) = self.timely.first_until(&self.entries, self.now_ms) {
            match self.entries[slot].as_ref().map(|entry| (entry.state, entry.lane)) {
                Some((State::InFlight, _)) => {
                    self.timely.remove(&mut self.entries, slot);
                    self.overdue.push(&mut self.entries, slot);
                    self.overdue_mark(slot);
                }
                Some((_, lane)) => {
                    self.give_up(slot, Why::Deadline);
                    self.turn(lane);
                }
                None => break,
            }
        }
        let broken_ms = self.now_ms.checked_sub(IN_FLIGHT_GRACE_MS);
        while let Some(slot) = broken_ms.and_then(|broken_ms| self.overdue.first_until(&self.entries, broken_ms)) {
            let Some(entry) = self.entries[slot].as_mut() else { break };
            entry.unknown = true;
            let lane = entry.lane;
            self.give_up(slot, Why::Deadline);
            self.turn(lane);
        }
        while let Some((_, lane)) = self.due.first().copied().filter(|(due_ms, _)| *due_ms <= self.now_ms) {
            self.turn(lane);
        }
    }

    fn overdue_mark(&mut self, slot: usize) {
        if let Some(entry) = self.entries[slot].as_mut() {
            entry.links.overdue = true;
        }
    }

    /// When [`Sends::next`] or [`Sends::tick`] has something to do, if nothing else happens before; now, if a message can be handed over or
    /// could be a moment ago. `None` only if all have ended.
    pub fn due_ms(&self) -> Option<u64> {
        let ready = (!self.ready.is_empty() && !self.stalled).then_some(self.now_ms);
        let due = self.due.first().map(|(due_ms, _)| *due_ms);
        let deadline = self.timely.first_ms(&self.entries);
        let broken = self.overdue.first_ms(&self.entries).map(|ms| ms.saturating_add(IN_FLIGHT_GRACE_MS));
        [ready, due, deadline, broken].into_iter().flatten().min()
    }

    /// The next message that has ended.
    pub fn take_ended(&mut self) -> Option<Ended<T>> {
        self.ended.pop_front()
    }

    /// Accepts no more messages. Those that were accepted go on.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Closes, and ends everything at once: what the engine has is of unknown fate.
    pub fn abandon(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.closed = true;
        for line in [self.timely.slots(&self.entries), self.overdue.slots(&self.entries)] {
            for slot in line {
                if let Some(entry) = self.entries[slot].as_mut() {
                    entry.unknown |= entry.state == State::InFlight;
                }
                self.give_up(slot, Why::Closed);
            }
        }
        // No lane has anything left.
        self.ready.clear();
        self.due.clear();
        self.lanes.iter_mut().for_each(|lane| lane.turn = Turn::None);
    }

    fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    fn entry(&mut self, id: SendId) -> Option<&mut Entry<T>> {
        self.entries.get_mut(id.slot)?.as_mut().filter(|entry| entry.number == id.number)
    }

    fn give_up(&mut self, slot: usize, why: Why) {
        let unknown = self.entries[slot].as_ref().is_some_and(|entry| entry.unknown);
        let fate = if unknown { Fate::Unknown } else { Fate::NotStored };
        self.finish(slot, End::GivenUp { fate, why });
    }

    fn finish(&mut self, slot: usize, end: End) {
        let Some((id, entry)) = self.remove(slot) else { return };
        if let Some(ticket) = entry.ticket {
            match &end {
                End::Acknowledged => self.sequences.acknowledged(ticket, self.now_ms),
                End::GivenUp { fate, .. } => self.sequences.abandoned(ticket, *fate, self.now_ms),
            };
        }
        let partition = self.lanes[entry.lane].partition.clone();
        let (stamp, attempts) = (entry.stamp, entry.attempts);
        self.ended.push_back(Ended { id, item: entry.item, partition, stamp, attempts, end });
    }

    fn remove(&mut self, slot: usize) -> Option<(SendId, Entry<T>)> {
        let line = match &self.entries[slot] {
            Some(entry) if entry.links.overdue => &mut self.overdue,
            _ => &mut self.timely,
        };
        line.remove(&mut self.entries, slot);
        let entry = self.entries[slot].take()?;
        self.free.push(slot);
        self.bytes -= entry.bytes;
        self.lanes[entry.lane].forget(entry.state, slot, entry.number);
        Some((SendId { slot, number: entry.number }, entry))
    }

    /// Puts a lane where it belongs: among those that can hand over now, or later, or not before something of theirs ends.
    fn turn(&mut self, lane: usize) {
        let wanted = self.lanes[lane].wanted(self.now_ms);
        let turn = self.lanes[lane].turn;
        if turn == wanted {
            return;
        }
        match turn {
            Turn::At(due_ms) => {
                self.due.remove(&(due_ms, lane));
            }
            // It stays in line, and is passed over when its turn comes.
            Turn::Ready => return,
            Turn::None => {}
        }
        match wanted {
            Turn::At(due_ms) => {
                self.due.insert((due_ms, lane));
            }
            Turn::Ready => self.ready.push_back(lane),
            Turn::None => {}
        }
        self.lanes[lane].turn = wanted;
    }

    fn lane(&mut self, partition: &TopicPartition) -> Result<usize, Refusal> {
        if let Some(lane) = self.places.get(partition) {
            return Ok(*lane);
        }
        if self.places.len() >= self.lanes_max {
            let (lanes, free) = (&self.lanes, &mut self.lanes_free);
            self.places.retain(|_, lane| {
                let idle = lanes[*lane].is_idle();
                if idle {
                    free.push(*lane);
                }
                !idle
            });
        }
        if self.places.len() >= self.lanes_max {
            return Err(Refusal::TooManyPartitions(self.places.len()));
        }
        let made = Lane::new(partition.clone(), self.options.in_flight_max);
        let lane = self.lanes_free.pop().unwrap_or(self.lanes.len());
        if lane == self.lanes.len() {
            self.lanes.push(made);
        } else {
            self.lanes[lane] = made;
        }
        self.places.insert(partition.clone(), lane);
        Ok(lane)
    }
}
