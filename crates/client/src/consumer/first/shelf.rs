//! What is known of one partition in store-first mode, and what is to be done next about it. Decides, and does nothing itself.

use std::collections::VecDeque;

use baton_core::Delivery;
use baton_guard::intake::{Ownership, Progress, Taken};

/// What one transaction stores, at most, and one message if that is larger.
const BATCH_MESSAGES_MAX: usize = 2_000;
const BATCH_BYTES_MAX: usize = 4 << 20;
/// What may wait in memory to be stored, before the engine is asked to stop.
const INCOMING_MESSAGES_MAX: usize = 10_000;
const INCOMING_BYTES_MAX: usize = 8 << 20;
/// What may wait in memory to be handed up; what is stored beyond it is read again when its turn comes.
const READY_MESSAGES_MAX: usize = 4_000;
const READY_BYTES_MAX: usize = 4 << 20;
/// Messages that are read, or handed up, at once.
pub(super) const READ_MESSAGES_MAX: usize = 1_000;
/// How long to wait before what the store refused is tried again; doubles.
const RETRY_MIN_MS: u64 = 100;
const RETRY_MAX_MS: u64 = 10_000;

/// Whose the partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The engine says that it is ours, the store was not asked yet.
    Taking,
    /// Ours.
    Owned,
    /// The group wants it elsewhere: nothing more is stored or handed up.
    Leaving,
    /// The store says that it has a new owner. If the engine does not say so until then, the group is joined anew.
    Fenced { until_ms: u64 },
}

/// What the engine said of a partition when it became ours.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub frontier: Option<i64>,
    pub metadata: String,
    pub epoch: u64,
}

/// One assignment of a partition.
#[derive(Debug)]
pub(super) struct Shelf {
    /// Names this assignment: what was begun in an earlier one means nothing.
    pub tenure: u64,
    /// Names what is handed up since the assignment, or since the last seek.
    pub tag: u64,
    pub phase: Phase,
    pub known: Known,
    pub ownership: Option<Ownership>,
    /// Whether it was told upwards that it is ours.
    pub told: bool,
    /// Paused by who handles messages. The engine goes on: that is what this mode is for.
    pub paused: bool,
    /// Whether the engine was asked to stop.
    pub stopped: bool,
    /// A transaction that takes, adds or restarts is under way.
    pub storing: bool,
    /// The read that is under way.
    pub reading: Option<u64>,
    /// Came, and is not stored.
    incoming: VecDeque<Delivery>,
    incoming_bytes: usize,
    /// The engine went back: this is what comes from there on. It waits until all that is stored is done.
    anew: Option<VecDeque<Delivery>>,
    /// The offset behind the last one that came; what lies before is stored, or about to be.
    arrived: Option<i64>,
    /// The first offset that is not stored.
    next: Option<i64>,
    /// The first stored offset that is neither handed up nor in `ready`.
    unread: Option<i64>,
    ready: VecDeque<Delivery>,
    ready_bytes: usize,
    progress: Option<(i64, String)>,
    /// Up to where the engine is acknowledged, as far as we know.
    acknowledged: Option<i64>,
    failures: u32,
    retry_at_ms: u64,
}

impl Shelf {
    pub fn new(tenure: u64, known: Known) -> Self {
        Self {
            tenure,
            tag: tenure,
            phase: Phase::Taking,
            known,
            ownership: None,
            told: false,
            paused: false,
            stopped: false,
            storing: false,
            reading: None,
            incoming: VecDeque::new(),
            incoming_bytes: 0,
            anew: None,
            arrived: None,
            next: None,
            unread: None,
            ready: VecDeque::new(),
            ready_bytes: 0,
            progress: None,
            acknowledged: None,
            failures: 0,
            retry_at_ms: 0,
        }
    }

    fn frontier(&self) -> Option<i64> {
        self.progress.as_ref().map(|(frontier, _)| *frontier)
    }

    // ---- from the engine -------------------------------------------------------------------------------------------

    /// The engine delivered a message.
    pub fn came(&mut self, message: Delivery) {
        if !matches!(self.phase, Phase::Taking | Phase::Owned) {
            return;
        }
        let bytes = message.bytes();
        if let Some(anew) = &mut self.anew {
            if anew.back().is_none_or(|last| last.offset < message.offset) {
                self.incoming_bytes += bytes;
                anew.push_back(message);
            }
            return;
        }
        // Stored already: the engine was not acknowledged, or that was not heard of.
        if self.arrived.is_some_and(|arrived| message.offset < arrived) {
            return;
        }
        self.arrived = Some(message.offset.saturating_add(1));
        self.incoming_bytes += bytes;
        self.incoming.push_back(message);
    }

    /// The engine's partition was cut back: what comes from now on may be other messages under the same offsets.
    pub fn went_back(&mut self) {
        if self.phase == Phase::Taking {
            self.incoming.clear();
        }
        self.anew = Some(VecDeque::new());
        self.count_incoming();
    }

    /// Nothing more is stored or handed up.
    pub fn leave(&mut self, phase: Phase) {
        self.phase = phase;
        self.incoming.clear();
        self.incoming_bytes = 0;
        self.anew = None;
        self.unload();
    }

    // ---- the store -------------------------------------------------------------------------------------------------

    /// The place is ours. Says from where on the partition is to be handled, and what is done beyond.
    pub fn taken(&mut self, taken: Taken) -> (Option<i64>, String) {
        let Taken { ownership, frontier, metadata, next, acknowledged } = taken;
        let known = self.known.frontier;
        let progress = match known {
            // All that is stored is done, and the group has gone on without us.
            Some(known) if next.is_some_and(|next| frontier == Some(next) && next < known) => {
                (Some(known), std::mem::take(&mut self.known.metadata))
            }
            _ => (frontier, metadata),
        };
        self.next = next;
        self.unread = progress.0;
        self.progress = progress.0.map(|frontier| (frontier, progress.1.clone()));
        self.ownership = Some(ownership);
        self.phase = Phase::Owned;
        let all = std::mem::take(&mut self.incoming);
        // It had been acknowledged further than it knows: somebody set it back, or it is another topic by now.
        if acknowledged.is_some_and(|acknowledged| known.is_none_or(|known| known < acknowledged)) {
            self.anew.get_or_insert_default();
            self.acknowledged = next;
        } else {
            self.acknowledged = known;
        }
        self.arrived = next;
        self.incoming_bytes = self.anew.iter().flatten().map(Delivery::bytes).sum();
        all.into_iter().for_each(|message| self.came(message));
        progress
    }

    /// What is to be stored now. It is ours no more until [`Shelf::stored`] or [`Shelf::not_stored`].
    pub fn next_to_store(&mut self, messages_max: u64, now_ms: u64) -> Option<Vec<Delivery>> {
        if self.phase != Phase::Owned || self.storing || self.retry_at_ms > now_ms || messages_max == 0 {
            return None;
        }
        let first = self.incoming.front()?.offset;
        // With everything done, it does not matter how far away the last message was.
        let from = if self.is_done() { first } else { self.frontier().unwrap_or(first) };
        let end = from.saturating_add_unsigned(messages_max);
        let (mut count, mut bytes) = (0, 0);
        for message in &self.incoming {
            bytes += message.bytes();
            let fits = count < BATCH_MESSAGES_MAX && (bytes <= BATCH_BYTES_MAX || count == 0);
            if !fits || message.offset >= end {
                break;
            }
            count += 1;
        }
        let batch: Vec<Delivery> = self.incoming.drain(..count).collect();
        self.incoming_bytes -= batch.iter().map(Delivery::bytes).sum::<usize>();
        self.storing = !batch.is_empty();
        self.storing.then_some(batch)
    }

    /// They are durable.
    pub fn stored(&mut self, batch: Vec<Delivery>) {
        self.went_well();
        let (Some(first), Some(last)) = (batch.first().map(|each| each.offset), batch.last()) else { return };
        let next = last.offset.saturating_add(1);
        let is_read = self.unread == self.next;
        self.progress.get_or_insert_with(|| (first, String::new()));
        self.next = Some(next);
        let has_room = self.ready.len() < READY_MESSAGES_MAX && self.ready_bytes < READY_BYTES_MAX;
        if is_read && has_room && self.phase == Phase::Owned {
            self.unread = Some(next);
            self.load(batch);
        } else {
            self.unread.get_or_insert(first);
        }
    }

    /// They may be stored or not: the same are to be stored again.
    pub fn not_stored(&mut self, batch: Vec<Delivery>, now_ms: u64) {
        self.failed(now_ms);
        if self.phase == Phase::Owned {
            batch.into_iter().rev().for_each(|message| self.incoming.push_front(message));
            self.count_incoming();
        }
    }

    /// Where to begin anew, once all that was stored before the engine went back is done.
    pub fn to_restart(&self, now_ms: u64) -> Option<i64> {
        let first = self.anew.as_ref()?.front()?.offset;
        let over = self.incoming.is_empty() && !self.storing && self.retry_at_ms <= now_ms && self.is_done();
        (over && self.phase == Phase::Owned).then_some(first)
    }

    /// The place begins anew.
    pub fn restarted(&mut self, ownership: Ownership, at: i64) {
        self.went_well();
        self.ownership = Some(ownership);
        self.unload();
        (self.next, self.unread, self.arrived) = (Some(at), Some(at), Some(at));
        self.progress = Some((at, String::new()));
        self.acknowledged = None;
        let all = self.anew.take().unwrap_or_default();
        self.incoming_bytes = 0;
        all.into_iter().for_each(|message| self.came(message));
    }

    /// From where on to read, and up to where.
    pub fn next_to_read(&self, now_ms: u64) -> Option<(i64, i64)> {
        let (from, end) = (self.unread?, self.next?);
        let may = self.phase == Phase::Owned && self.told && !self.paused && self.retry_at_ms <= now_ms;
        let has_few = self.ready.len() < READY_MESSAGES_MAX / 2 && self.ready_bytes < READY_BYTES_MAX / 2;
        (may && has_few && self.reading.is_none() && from < end).then_some((from, end))
    }

    /// What was read of the offsets up to `end`.
    pub fn was_read(&mut self, messages: Vec<Delivery>, end: i64) {
        self.went_well();
        // Beyond it may lie what another transaction has just stored, and was not heard of.
        let messages: Vec<Delivery> = messages.into_iter().take_while(|message| message.offset < end).collect();
        self.unread = Some(messages.last().map_or(end, |last| last.offset.saturating_add(1)));
        self.load(messages);
    }

    /// The store could not do it.
    pub fn failed(&mut self, now_ms: u64) {
        let wait_ms = RETRY_MIN_MS.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        self.retry_at_ms = now_ms.saturating_add(wait_ms);
    }

    fn went_well(&mut self) {
        (self.failures, self.retry_at_ms) = (0, 0);
    }

    /// When what failed may be tried again.
    pub fn retry_at_ms(&self) -> Option<u64> {
        (self.failures > 0).then_some(self.retry_at_ms)
    }

    // ---- upwards ---------------------------------------------------------------------------------------------------

    pub fn has_ready(&self) -> bool {
        self.phase == Phase::Owned && self.told && !self.paused && !self.ready.is_empty()
    }

    /// The next messages.
    pub fn hand_up(&mut self) -> Vec<Delivery> {
        let count = self.ready.len().min(READ_MESSAGES_MAX);
        let messages: Vec<Delivery> = self.ready.drain(..count).collect();
        self.ready_bytes -= messages.iter().map(Delivery::bytes).sum::<usize>();
        messages
    }

    /// Goes on at this offset.
    pub fn seek(&mut self, offset: i64, tag: u64) {
        self.tag = tag;
        self.unload();
        if self.next.is_some() {
            self.unread = self.next.map(|next| next.min(offset));
        }
    }

    /// Where the engine is to go on then: at what it has not delivered, wherever who handles messages is.
    pub fn refetch(&self, offset: i64) -> Option<i64> {
        let waits = self.anew.is_none() && self.phase == Phase::Owned;
        waits.then(|| self.arrived.unwrap_or(offset))
    }

    /// It is done up to there.
    pub fn advanced(&mut self, frontier: i64, metadata: String) {
        if self.frontier().is_none_or(|before| before <= frontier) {
            self.progress = Some((frontier, metadata));
        }
    }

    /// All that is to be noted of it.
    pub fn progress(&self) -> Option<Progress> {
        let (frontier, metadata) = self.progress.clone()?;
        Some(Progress { frontier, metadata, acknowledged: self.acknowledged })
    }

    // ---- the engine's part -----------------------------------------------------------------------------------------

    pub fn acknowledged(&self) -> Option<i64> {
        self.acknowledged
    }

    /// Up to where the engine is to be acknowledged, if it does not know.
    pub fn owed(&self) -> Option<i64> {
        let ours = matches!(self.phase, Phase::Owned | Phase::Leaving);
        self.next.filter(|next| ours && self.acknowledged.is_none_or(|acknowledged| acknowledged < *next))
    }

    pub fn was_acknowledged(&mut self, next: i64) {
        self.acknowledged = Some(next);
    }

    /// Whether the engine should stop for now: nothing more can be stored, or too much waits for it.
    pub fn is_full(&self, messages_max: u64) -> bool {
        let stored = self.next.zip(self.frontier()).map_or(0, |(next, frontier)| next.saturating_sub(frontier));
        let waiting = self.incoming.len() + self.anew.iter().map(VecDeque::len).sum::<usize>();
        let is_waiting_anew = self.anew.as_ref().is_some_and(|anew| !anew.is_empty());
        messages_max == 0
            || u64::try_from(stored).unwrap_or(0) >= messages_max
            || waiting >= INCOMING_MESSAGES_MAX
            || self.incoming_bytes >= INCOMING_BYTES_MAX
            || is_waiting_anew
    }

    /// Where what is stored begins and ends, and whether nothing keeps messages of the engine from being handed up.
    pub fn extent(&self, messages_max: u64) -> (Option<i64>, Option<i64>, bool) {
        // What came and is not stored waits for the store.
        let is_stored = self.incoming.is_empty() && !self.storing;
        let flows = self.failures == 0 && is_stored && self.unread == self.next && !self.is_full(messages_max);
        (self.frontier(), self.next, flows && self.phase == Phase::Owned)
    }

    fn is_done(&self) -> bool {
        self.next.is_none_or(|next| self.frontier().is_some_and(|frontier| frontier >= next))
    }

    fn load(&mut self, messages: Vec<Delivery>) {
        self.ready_bytes += messages.iter().map(Delivery::bytes).sum::<usize>();
        self.ready.extend(messages);
    }

    fn unload(&mut self) {
        self.ready.clear();
        self.ready_bytes = 0;
        self.reading = None;
    }

    fn count_incoming(&mut self) {
        self.incoming_bytes = self.incoming.iter().chain(self.anew.iter().flatten()).map(Delivery::bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use baton_core::{Headers, TopicPartition};
    use baton_guard::intake::Place;

    use super::*;

    const MANY: u64 = 1_000_000;

    fn message(offset: i64) -> Delivery {
        Delivery {
            from: TopicPartition::new("orders", 0),
            offset,
            key: None,
            payload: None,
            headers: Headers::default(),
            timestamp_ms: None,
            delivered_before: None,
        }
    }

    fn place(frontier: Option<i64>, next: Option<i64>, acknowledged: Option<i64>) -> Taken {
        let place = Place { group: "g".into(), partition: TopicPartition::new("orders", 0) };
        let ownership = Ownership { place, epoch: 1 };
        Taken { ownership, frontier, metadata: "kept".to_owned(), next, acknowledged }
    }

    /// One that is ours, of which the engine said that it is at `known`.
    fn shelf(known: Option<i64>, taken: Taken) -> Shelf {
        let mut shelf = Shelf::new(1, Known { frontier: known, metadata: "engine's".to_owned(), epoch: 1 });
        shelf.taken(taken);
        shelf.told = true;
        shelf
    }

    fn come(shelf: &mut Shelf, offsets: impl IntoIterator<Item = i64>) {
        offsets.into_iter().for_each(|offset| shelf.came(message(offset)));
    }

    fn offsets(messages: &[Delivery]) -> Vec<i64> {
        messages.iter().map(|message| message.offset).collect()
    }

    /// Stores what there is to store.
    fn store(shelf: &mut Shelf, messages_max: u64) -> Vec<i64> {
        let batch = shelf.next_to_store(messages_max, 0).unwrap_or_default();
        let all = offsets(&batch);
        if !batch.is_empty() {
            shelf.storing = false;
            shelf.stored(batch);
        }
        all
    }

    #[test]
    fn what_is_stored_is_acknowledged_and_handed_up_and_nothing_else() {
        let mut shelf = shelf(None, place(None, None, None));
        come(&mut shelf, [5, 6]);
        assert_eq!((shelf.owed(), shelf.has_ready()), (None, false));
        assert_eq!(store(&mut shelf, MANY), [5, 6]);
        assert_eq!(shelf.owed(), Some(7));
        assert_eq!(offsets(&shelf.hand_up()), [5, 6]);
        shelf.was_acknowledged(7);
        assert_eq!(shelf.owed(), None);
    }

    #[test]
    fn what_comes_again_is_stored_already() {
        let mut shelf = shelf(Some(3), place(Some(2), Some(6), Some(3)));
        assert_eq!(shelf.owed(), Some(6), "the engine was not acknowledged before the crash");
        come(&mut shelf, 3..8);
        assert_eq!(store(&mut shelf, MANY), [6, 7]);
        assert_eq!(shelf.next_to_read(0), Some((2, 8)), "what lies before it is read first");
        assert!(!shelf.has_ready());
        shelf.was_read((2..6).map(message).collect(), 6);
        assert_eq!(offsets(&shelf.hand_up()), [2, 3, 4, 5]);
        assert_eq!(shelf.next_to_read(0), Some((6, 8)));
    }

    #[test]
    fn what_could_not_be_stored_comes_first_when_it_is_tried_again() {
        let mut shelf = shelf(None, place(None, None, None));
        come(&mut shelf, 0..3);
        let batch = shelf.next_to_store(MANY, 0).unwrap();
        come(&mut shelf, 3..5);
        assert_eq!(shelf.next_to_store(MANY, 0), None, "one at a time");
        shelf.storing = false;
        shelf.not_stored(batch, 0);
        assert_eq!((shelf.owed(), shelf.next_to_store(MANY, RETRY_MIN_MS - 1)), (None, None));
        assert_eq!(offsets(&shelf.next_to_store(MANY, RETRY_MIN_MS).unwrap()), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_bound_counts_from_the_oldest_message_that_is_not_done() {
        let mut shelf = shelf(Some(0), place(Some(0), Some(0), Some(0)));
        come(&mut shelf, 0..20);
        assert_eq!(store(&mut shelf, 10), (0..10).collect::<Vec<_>>());
        assert!(shelf.is_full(10));
        assert_eq!(store(&mut shelf, 10), Vec::<i64>::new());
        shelf.advanced(4, String::new());
        assert!(!shelf.is_full(10));
        assert_eq!(store(&mut shelf, 10), (10..14).collect::<Vec<_>>());
    }

    /// A slow store is no reason to join the group anew.
    #[test]
    fn what_waits_for_the_store_is_not_blamed_on_the_engine() {
        let mut shelf = shelf(None, place(None, None, None));
        let flows = |shelf: &Shelf| shelf.extent(MANY).2;
        assert!(flows(&shelf), "there is nothing that the engine gave");
        come(&mut shelf, 0..3);
        assert!(!flows(&shelf));
        let batch = shelf.next_to_store(MANY, 0).unwrap();
        assert!(!flows(&shelf), "nor is it stored");
        shelf.storing = false;
        shelf.stored(batch);
        assert!(flows(&shelf));
    }

    /// Compaction, or a group that went on without this mode, leaves holes wider than the bound.
    #[test]
    fn a_hole_that_is_wider_than_the_bound_holds_nothing_up() {
        let mut shelf = shelf(Some(0), place(Some(0), Some(0), Some(0)));
        come(&mut shelf, [1, 1_000, 1_001]);
        assert_eq!(store(&mut shelf, 10), [1]);
        assert_eq!(store(&mut shelf, 10), Vec::<i64>::new(), "it is not done");
        shelf.advanced(2, String::new());
        assert_eq!(store(&mut shelf, 10), [1_000, 1_001]);
        assert!(shelf.is_full(10));
        shelf.advanced(1_002, String::new());
        assert!(!shelf.is_full(10));
    }

    #[test]
    fn what_comes_after_the_engine_went_back_waits_until_all_that_is_stored_is_done() {
        let mut shelf = shelf(Some(5), place(Some(5), Some(5), Some(5)));
        come(&mut shelf, [5, 6]);
        shelf.went_back();
        come(&mut shelf, [2, 3]);
        assert!(shelf.is_full(MANY), "no more of it for now");
        assert_eq!(shelf.to_restart(0), None, "5 and 6 are not stored");
        assert_eq!(store(&mut shelf, MANY), [5, 6]);
        assert_eq!(shelf.to_restart(0), None, "nor done");
        shelf.advanced(7, String::new());
        assert_eq!((shelf.to_restart(0), store(&mut shelf, MANY)), (Some(2), vec![]));
        shelf.restarted(Ownership { epoch: 2, ..shelf.ownership.clone().unwrap() }, 2);
        assert_eq!(store(&mut shelf, MANY), [2, 3]);
        assert_eq!(shelf.owed(), Some(4));
    }

    #[test]
    fn an_engine_that_forgot_what_it_was_told_was_set_back() {
        for known in [None, Some(3)] {
            let mut shelf = shelf(known, place(Some(9), Some(9), Some(9)));
            assert_eq!(shelf.owed(), None, "nor is it told again");
            come(&mut shelf, [3, 4]);
            assert_eq!(shelf.to_restart(0), Some(3));
        }
        let mut crashed = shelf(None, place(Some(3), Some(9), None));
        come(&mut crashed, [3, 4, 9]);
        assert_eq!((crashed.to_restart(0), store(&mut crashed, MANY)), (None, vec![9]), "it had never been told");
    }

    #[test]
    fn a_group_that_went_on_elsewhere_is_believed_if_nothing_is_left_of_it_here() {
        let mut left = Shelf::new(1, Known { frontier: Some(40), metadata: "engine's".to_owned(), epoch: 1 });
        assert_eq!(left.taken(place(Some(9), Some(9), Some(9))), (Some(40), "engine's".to_owned()));
        let mut waiting = Shelf::new(1, Known { frontier: Some(40), metadata: "engine's".to_owned(), epoch: 1 });
        assert_eq!(waiting.taken(place(Some(7), Some(9), Some(9))), (Some(7), "kept".to_owned()));
    }
}
