//! When messages go to a local log instead of to the engine, and when they come back out of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thiserror::Error;

use crate::TopicPartition;
use crate::evidence::agenda::{REPORT_INTERVAL_MS, REPORT_MESSAGES, UNREPORTED_INTERVALS_MAX};
use crate::evidence::{Report, ReportedSequence, SequenceEvidence};
use crate::stamp::{Instance, Stamp};

/// Bytes that a spool holds: some minutes of a busy service.
pub const SPOOL_BYTES_MAX_DEFAULT: u64 = 1 << 30;
/// The engine counts as away when it has answered nothing for so long although it was asked, in milliseconds: longer than leaders take to
/// change hands, short beside any deadline.
pub const SPOOL_AWAY_AFTER_MS_DEFAULT: u64 = 3_000;
/// How many messages of a partition may be out of the spool and not acknowledged: as many as a producer hands over by itself.
pub const SPOOL_WINDOW_MAX: usize = 1_000;
/// Bytes of those, for each partition.
pub const SPOOL_WINDOW_BYTES_MAX: u64 = 4 << 20;
/// Bytes of those over all partitions, as many as a producer's buffer holds by itself. Shared evenly by the partitions that have something in
/// the spool, so that those that stand still leave room for the others; each may have one message out whatever its size.
pub const SPOOL_LOADED_BYTES_MAX: u64 = 32 << 20;

/// How a spool is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolOptions {
    /// How much it holds; see [`SPOOL_BYTES_MAX_DEFAULT`].
    pub bytes_max: u64,
    /// After how long the engine is away; see [`SPOOL_AWAY_AFTER_MS_DEFAULT`].
    pub away_after_ms: u64,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self { bytes_max: SPOOL_BYTES_MAX_DEFAULT, away_after_ms: SPOOL_AWAY_AFTER_MS_DEFAULT }
    }
}

/// There is no room for the message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the spool is full: {bytes} of {max} bytes wait for the engine")]
pub struct SpoolFull {
    /// What waits.
    pub bytes: u64,
    /// The bound.
    pub max: u64,
}

/// How much waits in a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolLag {
    /// Messages that the engine has not acknowledged.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long the oldest of them has waited, in milliseconds, as far as that is known: those of an earlier process are known once they
    /// were read.
    pub oldest_ms: Option<u64>,
}

/// What is to be read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolRead {
    /// Of which partition.
    pub partition: TopicPartition,
    /// From which position on.
    pub from: u64,
    /// At most so many messages.
    pub messages_max: usize,
    /// At most so many bytes, but one message at least.
    pub bytes_max: u64,
}

/// Decides what goes to the spool, what comes out of it when, and what is done with. Without I/O: whoever owns the log says what
/// happened there.
///
/// ```text
/// append ─▶ durable ─▶ wanted ─ loaded ─▶ with the engine ─ done ─▶ behind the mark, and forgotten
/// ```
///
/// - A message goes to the spool if the engine is away, or if an earlier message of its partition is there: none overtakes.
/// - Messages of a partition come out in the order in which they went in, none before those are resolved that the engine's client had
///   when it fell silent.
/// - The mark of a partition is its first message that is not done. What is behind it is gone; all else comes out again after a restart.
#[derive(Debug)]
pub struct Spooling {
    options: SpoolOptions,
    lanes: BTreeMap<TopicPartition, Lane>,
    bytes: u64,
    messages: u64,
    /// Bytes that were loaded, or are being read.
    out_bytes: u64,
    /// Since when the engine owes an answer.
    owed_since_ms: Option<u64>,
    away: bool,
    /// A mark did.
    moved: bool,
}

#[derive(Debug, Default)]
struct Lane {
    /// The first message that is not done.
    mark: u64,
    /// Behind the last one that is durable.
    durable: u64,
    /// Behind the last one.
    end: u64,
    /// Behind the last one that an earlier process left.
    found_end: u64,
    /// Bytes of those that were not loaded; near enough until they are.
    found_bytes: u64,
    /// Bytes of those that came since and were not loaded.
    appended_bytes: u64,
    /// Messages from the mark on that were loaded.
    loaded: VecDeque<Loaded>,
    loaded_bytes: u64,
    /// A read is under way, and may bring so many bytes.
    reading: Option<u64>,
    /// The mark moved since it was asked for.
    moved: bool,
    /// Messages that the engine's client had when they went to the spool, and has still.
    limbo: BTreeSet<u64>,
    /// Those of them that were acknowledged before they were loaded.
    early: BTreeSet<u64>,
    /// When the oldest came, or one after it.
    oldest_ms: Option<u64>,
}

#[derive(Debug)]
struct Loaded {
    bytes: u64,
    spooled_ms: u64,
    done: bool,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.mark == self.end
    }

    fn next(&self) -> u64 {
        self.mark + self.loaded.len() as u64
    }

    /// The message at this position was loaded and has so many bytes: by how much what was counted of it was too much, and too little.
    fn counted(&mut self, at: u64, bytes: u64) -> (u64, u64) {
        let is_found = at < self.found_end;
        let (behind, unloaded) = match is_found {
            true => (self.found_end, &mut self.found_bytes),
            false => (self.end, &mut self.appended_bytes),
        };
        let counted = bytes.min(*unloaded);
        *unloaded -= counted;
        // Behind the last one of them nothing is left to be counted: it was an estimate, or some of them were damaged.
        let excess = if at + 1 == behind { std::mem::take(unloaded) } else { 0 };
        (excess, bytes - counted)
    }

    /// How many bytes may be read now, if any. `share`: what this partition may have out; `rest`: what all may have yet.
    fn wanted(&self, share: u64, rest: u64) -> Option<u64> {
        let bytes = rest.min(share.saturating_sub(self.loaded_bytes));
        let wanted = self.reading.is_none()
            && self.limbo.is_empty()
            && self.next() < self.durable
            && self.loaded.len() < SPOOL_WINDOW_MAX
            && (bytes > 0 || self.loaded.is_empty());
        wanted.then_some(bytes)
    }
}

impl Spooling {
    /// An empty spool, and an engine of which nothing bad is known.
    pub fn new(options: SpoolOptions) -> Self {
        Self {
            options,
            lanes: BTreeMap::new(),
            bytes: 0,
            messages: 0,
            out_bytes: 0,
            owed_since_ms: None,
            away: false,
            moved: false,
        }
    }

    /// What an earlier process left behind: durable messages at the positions from `mark` up to `end`, of about so many bytes. How many they
    /// are is known once they were loaded.
    pub fn found(&mut self, partition: TopicPartition, mark: u64, end: u64, bytes: u64) {
        let bytes = if mark == end { 0 } else { bytes };
        let lane = Lane { mark, durable: end, end, found_end: end, found_bytes: bytes, ..Lane::default() };
        self.messages += end - mark;
        self.bytes += bytes;
        self.lanes.insert(partition, lane);
    }

    /// The engine owes an answer for a message from now on.
    pub fn asked(&mut self, now_ms: u64) {
        self.owed_since_ms.get_or_insert(now_ms);
    }

    /// The engine has acknowledged something; `owes_more` for other messages.
    pub fn heard(&mut self, now_ms: u64, owes_more: bool) {
        self.owed_since_ms = owes_more.then_some(now_ms);
        self.away = false;
    }

    /// Nothing is with the engine any more, and nothing was acknowledged: silence means nothing for a while.
    pub fn settled(&mut self) {
        self.owed_since_ms = None;
    }

    /// Lets time pass. `true`: the engine is away from now on, and what it was handed is to go to the spool.
    pub fn tick(&mut self, now_ms: u64) -> bool {
        let silent = self.away_ms().is_some_and(|away_ms| away_ms <= now_ms);
        silent && !std::mem::replace(&mut self.away, true)
    }

    /// When [`Spooling::tick`] will say that the engine is away, if it says nothing until then.
    pub fn away_ms(&self) -> Option<u64> {
        let since_ms = self.owed_since_ms.filter(|_| !self.away)?;
        Some(since_ms.saturating_add(self.options.away_after_ms))
    }

    /// Whether the engine is away.
    pub fn is_away(&self) -> bool {
        self.away
    }

    /// Whether a message of this partition goes to the spool.
    pub fn takes(&self, partition: &TopicPartition) -> bool {
        self.away || self.holds_of(partition)
    }

    fn holds_of(&self, partition: &TopicPartition) -> bool {
        self.lanes.get(partition).is_some_and(|lane| !lane.is_empty())
    }

    /// Whether something of a topic is in the spool.
    pub fn holds(&self, topic: &str) -> bool {
        self.lanes.iter().any(|(partition, lane)| *partition.topic == *topic && !lane.is_empty())
    }

    /// Whether there is room for so many bytes.
    pub fn room(&self, bytes: u64) -> Result<(), SpoolFull> {
        let max = self.options.bytes_max;
        match self.bytes.checked_add(bytes) {
            Some(all) if all <= max => Ok(()),
            _ => Err(SpoolFull { bytes: self.bytes, max }),
        }
    }

    /// What of the messages that the engine's client has not ended goes to the spool; given in the order in which they were sent, as partition,
    /// bytes, and whether the engine may have it. That one may yet be acknowledged, so it does not end for want of room here: the partition
    /// keeps all of them up to the last such one where it has them. Never does a message go here of which an earlier one of its partition
    /// stays behind with the engine, or a later one is here already: it would be overtaken.
    pub fn movable<'a>(&self, unended: impl Iterator<Item = (&'a TopicPartition, u64, bool)>) -> Movable {
        let (mut needed, mut seen): (u64, BTreeMap<&TopicPartition, usize>) = (0, BTreeMap::new());
        let mut staying = BTreeMap::new();
        for (partition, bytes, in_flight) in unended {
            let before = seen.entry(partition).or_default();
            *before += 1;
            needed = needed.saturating_add(bytes);
            if self.holds_of(partition) {
                staying.insert(partition.clone(), usize::MAX);
            } else if in_flight && (staying.contains_key(partition) || self.room(needed).is_err()) {
                staying.insert(partition.clone(), *before);
            }
        }
        Movable { staying }
    }

    /// A message was put behind the others of its partition, where it has this position. `in_limbo`: the engine's client has it, too.
    pub fn appended(&mut self, partition: &TopicPartition, at: u64, bytes: u64, now_ms: u64, in_limbo: bool) {
        let lane = self.lanes.entry(partition.clone()).or_insert_with(|| Lane {
            mark: at,
            durable: at,
            end: at,
            ..Lane::default()
        });
        lane.end = at + 1;
        lane.oldest_ms.get_or_insert(now_ms);
        if in_limbo {
            lane.limbo.insert(at);
        }
        lane.appended_bytes += bytes;
        self.bytes += bytes;
        self.messages += 1;
    }

    /// The messages of a partition before this position are durable.
    pub fn durable(&mut self, partition: &TopicPartition, end: u64) {
        if let Some(lane) = self.lanes.get_mut(partition) {
            lane.durable = lane.durable.max(end.min(lane.end));
        }
    }

    /// What is to be read now. Answered by [`Spooling::loaded`] for each message and [`Spooling::read`] at the end.
    pub fn wanted(&mut self) -> Option<SpoolRead> {
        if self.messages == 0 {
            return None;
        }
        let kept = self.lanes.values().filter(|lane| !lane.is_empty()).count().max(1) as u64;
        let share = (SPOOL_LOADED_BYTES_MAX / kept).min(SPOOL_WINDOW_BYTES_MAX);
        let rest = SPOOL_LOADED_BYTES_MAX.saturating_sub(self.out_bytes);
        let mut lanes = self.lanes.iter_mut();
        let (partition, bytes_max, lane) =
            lanes.find_map(|(partition, lane)| Some((partition, lane.wanted(share, rest)?, lane)))?;
        lane.reading = Some(bytes_max);
        self.out_bytes += bytes_max;
        Some(SpoolRead {
            partition: partition.clone(),
            from: lane.next(),
            messages_max: SPOOL_WINDOW_MAX - lane.loaded.len(),
            bytes_max,
        })
    }

    /// The next message of a partition was read: it goes to the engine now if this says so, and else was acknowledged before. One that is
    /// damaged has no bytes.
    pub fn loaded(&mut self, partition: &TopicPartition, at: u64, bytes: u64, spooled_ms: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(partition).filter(|lane| lane.next() == at && at < lane.end) else {
            return false;
        };
        let (excess, lacking) = lane.counted(at, bytes);
        self.bytes = self.bytes - excess + lacking;
        lane.loaded_bytes += bytes;
        self.out_bytes += bytes;
        if lane.loaded.is_empty() {
            lane.oldest_ms = Some(spooled_ms);
        }
        let done = lane.early.remove(&at);
        lane.loaded.push_back(Loaded { bytes, spooled_ms, done });
        if done {
            self.advance(partition);
        }
        !done
    }

    /// A read is over.
    pub fn read(&mut self, partition: &TopicPartition) {
        if let Some(lane) = self.lanes.get_mut(partition) {
            self.out_bytes -= lane.reading.take().unwrap_or(0);
        }
    }

    /// The engine has acknowledged a message of the spool. `false`: it was done before.
    pub fn done(&mut self, partition: &TopicPartition, at: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(partition).filter(|lane| (lane.mark..lane.end).contains(&at)) else {
            return false;
        };
        lane.limbo.remove(&at);
        let place = usize::try_from(at - lane.mark).unwrap_or(usize::MAX);
        let news = match lane.loaded.get_mut(place) {
            Some(loaded) => !std::mem::replace(&mut loaded.done, true),
            None => lane.early.insert(at),
        };
        self.advance(partition);
        news
    }

    /// Whether [`Spooling::marks`] has something to say.
    pub fn has_marks(&self) -> bool {
        self.moved
    }

    /// The marks that moved since this was called last. To be kept, some time; what is behind them may go.
    pub fn marks(&mut self) -> Vec<(TopicPartition, u64)> {
        self.moved = false;
        let moved = self
            .lanes
            .iter_mut()
            .filter_map(|(partition, lane)| std::mem::take(&mut lane.moved).then(|| (partition.clone(), lane.mark)));
        moved.collect()
    }

    /// A mark could not be set down: it is given once more.
    pub fn unmarked(&mut self, partition: &TopicPartition) {
        if let Some(lane) = self.lanes.get_mut(partition) {
            (lane.moved, self.moved) = (true, true);
        }
    }

    /// The engine's client has given a message up that it had when it went to the spool.
    pub fn released(&mut self, partition: &TopicPartition, at: u64) {
        if let Some(lane) = self.lanes.get_mut(partition) {
            lane.limbo.remove(&at);
        }
    }

    fn advance(&mut self, partition: &TopicPartition) {
        let Some(lane) = self.lanes.get_mut(partition) else { return };
        while let Some(first) = lane.loaded.pop_front_if(|first| first.done) {
            lane.mark += 1;
            (lane.moved, self.moved) = (true, true);
            lane.loaded_bytes -= first.bytes;
            self.out_bytes -= first.bytes;
            self.bytes -= first.bytes;
            self.messages -= 1;
        }
        match lane.loaded.front() {
            Some(first) => lane.oldest_ms = Some(first.spooled_ms),
            None if lane.is_empty() => lane.oldest_ms = None,
            // What was not read yet is no older than what was known before.
            None => {}
        }
    }

    /// How much waits.
    pub fn lag(&self, now_ms: u64) -> SpoolLag {
        let oldest_ms = self.lanes.values().filter_map(|lane| lane.oldest_ms).min();
        let oldest_ms = oldest_ms.map(|oldest_ms| now_ms.saturating_sub(oldest_ms));
        SpoolLag { messages: self.messages, bytes: self.bytes, oldest_ms }
    }
}

/// See [`Spooling::movable`].
#[derive(Debug)]
pub struct Movable {
    /// How many of a partition's first messages stay where they are.
    staying: BTreeMap<TopicPartition, usize>,
}

impl Movable {
    /// Whether the next message goes to the spool: to be asked for each of them, in the same order.
    pub fn takes(&mut self, partition: &TopicPartition) -> bool {
        let Some(staying) = self.staying.get_mut(partition) else { return true };
        let stays = *staying > 0;
        *staying = staying.saturating_sub(1);
        !stays
    }
}

/// What is known of sequences that are not this producer's own: those of earlier processes, whose messages come out of the spool now.
#[derive(Debug)]
pub struct OthersEvidence {
    known: BTreeMap<Instance, BTreeMap<(TopicPartition, u32), SequenceEvidence>>,
    messages: u64,
    due_ms: Option<u64>,
    intervals: usize,
    intervals_max: usize,
    dropped: u64,
}

impl Default for OthersEvidence {
    fn default() -> Self {
        Self::bounded(UNREPORTED_INTERVALS_MAX)
    }
}

impl OthersEvidence {
    /// Keeps so many intervals while no report can be sent; [`UNREPORTED_INTERVALS_MAX`] by default.
    pub fn bounded(intervals_max: usize) -> Self {
        Self { known: BTreeMap::new(), messages: 0, due_ms: None, intervals: 0, intervals_max, dropped: 0 }
    }

    /// The engine has a message with this stamp.
    pub fn acknowledged(&mut self, stamp: &Stamp, partition: &TopicPartition, now_ms: u64) {
        self.messages += 1;
        let mut evidence = SequenceEvidence { highest: stamp.sequence, ..SequenceEvidence::default() };
        evidence.acknowledged.insert(stamp.sequence);
        self.add(
            &stamp.instance,
            ReportedSequence { epoch: stamp.epoch, partition: partition.clone(), evidence },
            now_ms,
        );
    }

    fn add(&mut self, instance: &Instance, told: ReportedSequence, now_ms: u64) {
        let ReportedSequence { epoch, partition, evidence } = told;
        if self.intervals >= self.intervals_max {
            self.dropped += evidence.acknowledged.count();
            return;
        }
        let sequences = match self.known.get_mut(instance) {
            Some(sequences) => sequences,
            None => self.known.entry(instance.clone()).or_default(),
        };
        let known = sequences.entry((partition, epoch)).or_default();
        let before = known.intervals();
        known.merge(&evidence);
        self.intervals = self.intervals + known.intervals() - before;
        self.due_ms.get_or_insert(now_ms.saturating_add(REPORT_INTERVAL_MS));
    }

    /// When a report is due, if there is anything to say; 0: now.
    pub fn due_ms(&self) -> Option<u64> {
        if self.messages >= REPORT_MESSAGES { Some(0) } else { self.due_ms }
    }

    /// What is new. Each report is to be sent, or given back.
    pub fn take_reports(&mut self, now_ms: u64) -> Vec<Report> {
        (self.messages, self.due_ms, self.intervals) = (0, None, 0);
        let split = |(instance, sequences): (Instance, BTreeMap<(TopicPartition, u32), SequenceEvidence>)| {
            let reported = |((partition, epoch), evidence)| ReportedSequence { epoch, partition, evidence };
            Report::split(&instance, now_ms, sequences.into_iter().map(reported))
        };
        std::mem::take(&mut self.known).into_iter().flat_map(split).collect()
    }

    /// A report could not be sent; what it says of these sequences goes into the next one.
    pub fn give_back(&mut self, instance: &Instance, unsent: Vec<ReportedSequence>, now_ms: u64) {
        unsent.into_iter().for_each(|told| self.add(instance, told, now_ms));
    }

    /// Acknowledged messages that no report will name, as there was no room to keep what was known of them.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}
