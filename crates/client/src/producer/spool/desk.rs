//! The spool as the driver has it: what is decided ([`Spooling`]), what is kept ([`Store`]), and what is between the two.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use baton_core::stamp::{Instance, Stamp};
use baton_core::{OthersEvidence, ReportedSequence, SendId, SpoolFull, SpoolOptions, Spooling, TopicPartition};
use baton_engine::Record;
use baton_log::{Durable, PartitionId, ReadError, Ticket};

use super::SpoolState;
use super::store::{Found, Store, encode};
use crate::producer::future::Reply;
use crate::producer::inbox::Hold;
use crate::producer::receipt::Receipt;

/// How often the marks go to the log, in milliseconds. What was done since comes again after a crash, under its own stamps.
const MARK_INTERVAL_MS: u64 = 500;
/// How soon the disk is read again after it could not be.
const READ_AGAIN_MS: u64 = 1_000;

/// A message that was put into the log, and is not durable there yet.
pub(in crate::producer) struct Writing {
    ticket: Ticket,
    at: u64,
    pub(in crate::producer) receipt: Receipt,
    pub(in crate::producer) reply: Reply,
    pub(in crate::producer) hold: Hold,
}

/// What became of those.
pub(in crate::producer) enum Written {
    /// Durable.
    Kept(Writing),
    /// The log failed, and nobody knows.
    Unknown(Writing, String),
}

/// See above.
pub(in crate::producer) struct Desk {
    pub(in crate::producer) spooling: Spooling,
    store: Arc<Store>,
    bytes_max: u64,
    places: HashMap<TopicPartition, PartitionId>,
    /// For how many partitions of a topic places were asked for in this process.
    prepared: HashMap<Arc<str>, u32>,
    writing: VecDeque<Writing>,
    durable: Option<Durable>,
    /// What the engine's client had when it fell silent, and where it is in the spool.
    limbo: HashMap<SendId, (TopicPartition, u64, Stamp)>,
    /// What is known of sequences of earlier processes.
    pub(in crate::producer) others: OthersEvidence,
    /// Messages of the spool that are with [`baton_core::Sends`].
    pub(in crate::producer) out: usize,
    pub(in crate::producer) blocked: Option<String>,
    pub(in crate::producer) damaged: u64,
    mark_ms: u64,
    /// Partitions that could not be read, and when that is tried again.
    unread: Vec<(u64, TopicPartition)>,
}

impl Desk {
    pub(in crate::producer) fn new(store: Store, found: Vec<Found>, options: SpoolOptions) -> Self {
        let bytes_max = options.bytes_max;
        let mut spooling = Spooling::new(options);
        let mut places = HashMap::new();
        for Found { partition, mark, end, bytes } in found {
            places.extend(store.place(&partition).map(|place| (partition.clone(), place)));
            spooling.found(partition, mark, end, bytes);
        }
        Self {
            spooling,
            store: Arc::new(store),
            bytes_max,
            places,
            prepared: HashMap::new(),
            writing: VecDeque::new(),
            durable: None,
            limbo: HashMap::new(),
            others: OthersEvidence::default(),
            out: 0,
            blocked: None,
            damaged: 0,
            mark_ms: 0,
            unread: Vec::new(),
        }
    }

    pub(in crate::producer) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The topics of which messages were here before, and how many partitions those had.
    pub(in crate::producer) fn topics(&self) -> Vec<(Arc<str>, u32)> {
        let catalog = self.store.log().catalog();
        let counted = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        catalog.topics().map(|topic| (Arc::clone(&topic.name), counted(topic.partitions.len()))).collect()
    }

    /// Makes places for so many partitions of a topic. They are there in a moment.
    pub(in crate::producer) fn prepare(&mut self, topic: &Arc<str>, partitions: u32, id: [u8; 16]) {
        // Not again before the first time is over: the log would make others, and forget those.
        let there = self.store.log().catalog().topic(topic).map_or(0, |topic| topic.partitions.len());
        let asked = self.prepared.get(topic).copied().unwrap_or(0);
        if asked as usize > there || partitions as usize <= there {
            return;
        }
        match self.store.prepare(topic, partitions, id) {
            Ok(()) => _ = self.prepared.insert(Arc::clone(topic), partitions),
            Err(error) => tracing::warn!(%error, topic = &**topic, "the spool has no place for this topic yet"),
        }
    }

    /// Where a partition's messages are kept, if there is a place for them.
    pub(in crate::producer) fn place(&mut self, partition: &TopicPartition) -> Option<PartitionId> {
        if let Some(place) = self.places.get(partition) {
            return Some(*place);
        }
        let place = self.store.place(partition)?;
        self.places.insert(partition.clone(), place);
        Some(place)
    }

    /// Whether a message goes here and not to the engine.
    pub(in crate::producer) fn takes(&mut self, partition: &TopicPartition) -> bool {
        self.spooling.takes(partition) && self.place(partition).is_some()
    }

    /// Whether there is room for so many bytes more.
    pub(in crate::producer) fn room(&self, batch_bytes: usize) -> Result<(), SpoolFull> {
        self.spooling.room(batch_bytes as u64)
    }

    /// Bytes that a record takes here.
    pub(in crate::producer) fn encode(record: &Record, now_ms: u64) -> Result<Vec<u8>, String> {
        encode(record, now_ms)
    }

    /// Puts a message into the log. `limbo`: the engine's client has it under this name, too. Gives the reply back if that fails.
    pub(in crate::producer) fn write(
        &mut self,
        batch: &[u8],
        now_ms: u64,
        limbo: Option<(SendId, Stamp)>,
        receipt: Receipt,
        reply: Reply,
        hold: Hold,
    ) -> Result<(), (String, Reply, Hold)> {
        let partition = receipt.partition.clone();
        let Some(place) = self.place(&partition) else {
            return Err(("the spool has no place for this partition yet".to_owned(), reply, hold));
        };
        let (at, ticket) = match self.store.append(place, batch) {
            Ok(stored) => stored,
            Err(cause) => return Err((cause, reply, hold)),
        };
        self.spooling.appended(&partition, at, batch.len() as u64, now_ms, limbo.is_some());
        if let Some((id, stamp)) = limbo {
            self.limbo.insert(id, (partition, at, stamp));
        }
        self.writing.push_back(Writing { ticket, at, receipt, reply, hold });
        Ok(())
    }

    /// The next message that is durable, or will never be.
    pub(in crate::producer) fn written(&mut self, context: &mut Context<'_>) -> Option<Written> {
        let first = self.writing.front()?.ticket;
        let durable = self.durable.get_or_insert_with(|| self.store.log().durable(first));
        let outcome = match Pin::new(durable).poll(context) {
            Poll::Pending => return None,
            Poll::Ready(outcome) => outcome,
        };
        self.durable = None;
        let writing = self.writing.pop_front()?;
        match outcome {
            Ok(()) => {
                self.spooling.durable(&writing.receipt.partition, writing.at + 1);
                Some(Written::Kept(writing))
            }
            Err(poisoned) => Some(Written::Unknown(writing, poisoned.to_string())),
        }
    }

    /// All that is not durable; nobody waits for it any more.
    pub(in crate::producer) fn give_up_writing(&mut self) -> Vec<Writing> {
        self.durable = None;
        self.writing.drain(..).collect()
    }

    pub(in crate::producer) fn owes(&self) -> bool {
        !self.limbo.is_empty()
    }

    /// What the engine says of a message that it had when it fell silent. Gives back where the message is.
    pub(in crate::producer) fn out_of_limbo(
        &mut self,
        id: SendId,
        acknowledged: bool,
    ) -> Option<(TopicPartition, u64, Stamp)> {
        let (partition, at, stamp) = self.limbo.remove(&id)?;
        if !acknowledged {
            self.spooling.released(&partition, at);
        }
        Some((partition, at, stamp))
    }

    /// Sets the marks down when that is due.
    pub(in crate::producer) fn mark(&mut self, now_ms: u64, now: bool) {
        if !now && now_ms < self.mark_ms {
            return;
        }
        for (partition, mark) in self.spooling.marks() {
            self.mark_ms = now_ms.saturating_add(MARK_INTERVAL_MS);
            let Some(place) = self.places.get(&partition) else { continue };
            if let Err(error) = self.store.mark(*place, mark) {
                // Without it, messages are sent again after a restart, behind newer ones.
                tracing::warn!(%error, %partition, "what was sent is not marked as done in the spool yet");
                self.spooling.unmarked(&partition);
            }
        }
    }

    /// The disk could not be read: it is tried again in a while, and messages of the partition wait in their order until then.
    pub(in crate::producer) fn unread(&mut self, partition: &TopicPartition, error: &ReadError, now_ms: u64) {
        self.blocked = Some(error.to_string());
        self.unread.push((now_ms.saturating_add(READ_AGAIN_MS), partition.clone()));
    }

    /// Lets those be read again whose time has come.
    pub(in crate::producer) fn read_again(&mut self, now_ms: u64) {
        let spooling = &mut self.spooling;
        self.unread.retain(|(at_ms, partition)| {
            let waits = *at_ms > now_ms;
            if !waits {
                spooling.read(partition);
            }
            waits
        });
    }

    /// When something is to be done here, if nothing comes before. `reporting`: a report is under way, and no other can be sent.
    pub(in crate::producer) fn due_ms(&self, reporting: bool) -> Option<u64> {
        let marks = self.spooling.has_marks().then_some(self.mark_ms);
        let unread = self.unread.iter().map(|(at_ms, _)| *at_ms).min();
        [self.spooling.away_ms(), marks, unread, self.others.due_ms().filter(|_| !reporting)]
            .into_iter()
            .flatten()
            .min()
    }

    pub(in crate::producer) fn state(&self, now_ms: u64) -> SpoolState {
        let lag = self.spooling.lag(now_ms);
        SpoolState {
            messages: lag.messages,
            bytes: lag.bytes,
            bytes_max: self.bytes_max,
            oldest: lag.oldest_ms.map(Duration::from_millis),
            engine_away: self.spooling.is_away(),
            blocked: self.blocked.clone(),
            damaged: self.damaged,
        }
    }

    /// Evidence of a message of an earlier process.
    pub(in crate::producer) fn acknowledged_for(&mut self, stamp: &Stamp, partition: &TopicPartition, now_ms: u64) {
        let before = self.others.dropped();
        self.others.acknowledged(stamp, partition, now_ms);
        self.say_dropped(before);
    }

    /// These sequences of earlier processes could not be reported: they are reported again.
    pub(in crate::producer) fn unreported(
        &mut self,
        instance: &Instance,
        sequences: Vec<ReportedSequence>,
        now_ms: u64,
    ) {
        let before = self.others.dropped();
        self.others.give_back(instance, sequences, now_ms);
        self.say_dropped(before);
    }

    /// Once: it would be said of each message from now on.
    fn say_dropped(&self, before: u64) {
        if before == 0 && self.others.dropped() > 0 {
            tracing::error!(
                "evidence cannot be sent, and there is no room for more of it: messages of the spool will look as if they were lost"
            );
        }
    }
}
