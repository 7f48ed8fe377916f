//! The way of rows from being found to being forgotten.

mod evidence;
mod loads;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::window::{BadWindow, Claimed, Window};
use crate::stamp::{Instance, Stamp};
use crate::{Fate, MessageId, NoSequence, OthersEvidence, Sequences, Ticket, TopicPartition};

pub use loads::STUCK_MS;
use loads::{Loads, Room};
use waiting::Waiting;

/// How many rows a relay works on at a time: a second of what a slow engine takes, and a few MiB of small rows.
pub const ROWS_MAX_DEFAULT: usize = 8_192;
/// How many rows of a shard may be claimed at a time: its window is written anew with each claim, and stays within a page of the database.
pub const WINDOW_ROWS_MAX: usize = 512;
/// How many bytes of rows a relay holds, those that the engine has among them: what a fast engine takes in some tenths of a second.
pub const ROWS_BYTES_MAX_DEFAULT: usize = 16 << 20;
/// So much of the room may be taken by rows of topics that are not known, as a divisor; what is more stays in the table until they are.
const UNKNOWN_SHARE: usize = 4;

/// Bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// See [`ROWS_MAX_DEFAULT`].
    pub rows_max: usize,
    /// See [`ROWS_BYTES_MAX_DEFAULT`]. One row at least is always taken.
    pub bytes_max: usize,
    /// See [`WINDOW_ROWS_MAX`].
    pub window_rows_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows_max: ROWS_MAX_DEFAULT, bytes_max: ROWS_BYTES_MAX_DEFAULT, window_rows_max: WINDOW_ROWS_MAX }
    }
}

/// A row of the outbox. `T` is what the caller wants to have with it: the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T> {
    /// Its place in the table, never used again; within a key the order in which rows are to be sent.
    pub position: i64,
    /// Which shard its key belongs to.
    pub shard: u16,
    /// Where it goes.
    pub topic: Arc<str>,
    /// What keeps it in order with others.
    pub key: Option<Bytes>,
    /// Its message's id.
    pub id: MessageId,
    /// What comes with it.
    pub item: T,
}

/// Which partition a row goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// This one.
    To(u32),
    /// Not known yet: the engine has not said how many there are.
    Later,
    /// None, and why.
    Never(String),
}

/// A row that the engine cannot have. It stays in the table until somebody looks at it, and so do later ones of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Which row.
    pub position: i64,
    /// Of which shard.
    pub shard: u16,
    /// Why.
    pub reason: String,
}

/// What is to be written in one transaction: all of it, or nothing if one of the shards is not ours any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The windows of shards, each under the epoch that it must still have.
    pub windows: Vec<(u16, u32, Bytes)>,
    /// Rows that the engine has: to be deleted.
    pub done: Vec<i64>,
    /// Rows to be parked.
    pub parked: Vec<Parked>,
}

/// A row that is to be handed to the engine. What became of it is told to [`Claims::acknowledged`] or [`Claims::refused`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing<T> {
    /// Which row.
    pub position: i64,
    /// Of which shard.
    pub shard: u16,
    /// Where it goes.
    pub to: TopicPartition,
    /// The same in every attempt, of every relay.
    pub stamp: Stamp,
    /// What came with it.
    pub item: T,
}

/// A key of a topic.
pub type TopicKey = (Arc<str>, Bytes);

#[derive(Debug)]
struct Shard {
    epoch: u32,
    instance: Instance,
    /// As it is, or is to be, in the database.
    window: Window,
    /// It differs from the database and from what is being written there, or may.
    changed: bool,
    sequences: Sequences,
    /// Claims of others have not been read yet: nothing newer may go before them.
    resuming: bool,
    leaving: bool,
    /// When a row of it ended last, or it began to be left.
    moved_ms: u64,
}

/// A row that is claimed, or is about to be.
#[derive(Debug)]
struct Under {
    shard: u16,
    to: TopicPartition,
    key: Option<Bytes>,
    /// None for those that were claimed under an older epoch.
    ticket: Option<Ticket>,
    claimed: Claimed,
    bytes: usize,
}

/// All the rows that a relay works on.
///
/// ```text
/// found ─▶ waiting ─ change ─▶ claimed ─ written ─▶ Outgoing ─ acknowledged ─▶ done ─ change, written ─▶ forgotten
///             │                                        └─────── refused ─────▶ parked
///             └─▶ left in the table: its key is parked, or its partition takes nothing now
/// ```
///
/// One [`Change`] is written at a time. Rows of a key are claimed in the order of their positions, and handed over in the order in which
/// they were claimed.
#[derive(Debug)]
pub struct Claims<T> {
    limits: Limits,
    now_ms: u64,
    shards: BTreeMap<u16, Shard>,
    waiting: Waiting<T>,
    under: HashMap<i64, Under>,
    /// Claimed, and to be handed over once that is written.
    claiming: Vec<Outgoing<T>>,
    done: Vec<(u16, i64)>,
    parked: Vec<Parked>,
    writing: Option<Writing>,
    /// Rows that have left the table, with the look after which no query can bring them any more.
    gone: VecDeque<(u64, i64)>,
    /// These, and those that are to leave it.
    gone_set: HashSet<i64>,
    looks: u64,
    /// Looks before this one say nothing any more.
    since: u64,
    /// Keys that wait, each behind its first row that is parked.
    parked_keys: HashMap<TopicKey, i64>,
    parked_rows: HashSet<i64>,
    /// How many rows were parked here.
    parks: u64,
    loads: Loads,
    stuck_topics: HashSet<Arc<str>>,
    restart: bool,
    /// Of claims under older epochs, and of shards that are not ours any more.
    others: OthersEvidence,
}

/// The change that is being written.
#[derive(Debug)]
struct Writing {
    shards: Vec<u16>,
    /// How many of those that are done it holds, from the first one on.
    done: usize,
    parked: usize,
}

impl<T> Claims<T> {
    /// No shard yet. `weigh` says how many bytes of memory a row's item takes.
    pub fn new(limits: Limits, weigh: fn(&T) -> usize) -> Self {
        Self {
            limits,
            now_ms: 0,
            shards: BTreeMap::new(),
            waiting: Waiting::new(weigh),
            under: HashMap::new(),
            claiming: Vec::new(),
            done: Vec::new(),
            parked: Vec::new(),
            writing: None,
            gone: VecDeque::new(),
            gone_set: HashSet::new(),
            looks: 0,
            since: 0,
            parked_keys: HashMap::new(),
            parked_rows: HashSet::new(),
            parks: 0,
            loads: Loads::new(limits),
            stuck_topics: HashSet::new(),
            restart: false,
            others: OthersEvidence::default(),
        }
    }

    /// A shard is ours under this epoch, above all that it had before. Gives back the positions of rows that others have claimed: they are
    /// to be read and handed to [`Claims::resumed`]. Before anything else is looked for, [`Claims::set_parked`] is to be told what is
    /// parked by now.
    ///
    /// # Errors
    /// When the window cannot be read: the shard must not be worked on.
    pub fn gained(&mut self, shard: u16, epoch: u32, instance: Instance, window: &[u8]) -> Result<Vec<i64>, BadWindow> {
        let window = Window::decode(window)?;
        let positions: Vec<i64> = window.iter().map(|(position, _)| position).collect();
        let sequences = Sequences::new(instance.clone(), epoch);
        let resuming = !positions.is_empty();
        let made = Shard {
            epoch,
            instance,
            window,
            changed: false,
            sequences,
            resuming,
            leaving: false,
            moved_ms: self.now_ms,
        };
        self.forget(shard);
        self.shards.insert(shard, made);
        self.start_again();
        Ok(positions)
    }

    /// The rows that [`Claims::gained`] asked for. Gives back what is to be handed over, in this order, before anything else of the shard.
    /// A claim whose row is not there any more is given up: somebody deleted it by hand.
    pub fn resumed(&mut self, shard: u16, rows: Vec<Row<T>>, now_ms: u64) -> Vec<Outgoing<T>> {
        let Some(ours) = self.shards.get_mut(&shard).filter(|ours| ours.resuming) else { return Vec::new() };
        ours.resuming = false;
        let instance = ours.instance.clone();
        let mut rows: HashMap<i64, Row<T>> = rows.into_iter().map(|row| (row.position, row)).collect();
        let mut claims: Vec<(i64, Claimed)> = ours.window.iter().collect();
        // Of one sequence in the order of its numbers, which is the one in which they were claimed.
        claims.sort_by_key(|(position, claimed)| (claimed.epoch, claimed.sequence, *position));
        let (mut outgoing, mut gone) = (Vec::with_capacity(claims.len()), Vec::new());
        for (position, claimed) in claims {
            let Some(row) = rows.remove(&position) else {
                gone.push(position);
                continue;
            };
            let bytes = self.waiting.weigh(&row);
            let to = TopicPartition { topic: row.topic, partition: claimed.partition };
            let (epoch, sequence) = (claimed.epoch, claimed.sequence);
            let stamp = Stamp { id: row.id, instance: instance.clone(), epoch, sequence };
            self.loads.add(&to, shard, bytes, now_ms);
            let under = Under { shard, to: to.clone(), key: row.key, ticket: None, claimed, bytes };
            self.older(&instance, &under, None, now_ms);
            self.under.insert(position, under);
            outgoing.push(Outgoing { position, shard, to, stamp, item: row.item });
        }
        if let Some(ours) = self.shards.get_mut(&shard) {
            ours.changed |= !gone.is_empty();
            gone.into_iter().for_each(|position| ours.window.remove(position));
        }
        outgoing
    }

    /// The shard is somebody else's: nothing of it is ours to write. What the engine has of it goes on; nobody needs to hear of it.
    pub fn lost(&mut self, shard: u16) {
        self.forget(shard);
    }

    fn forget(&mut self, shard: u16) {
        let Some(mut gone) = self.shards.remove(&shard) else { return };
        for report in gone.sequences.take_last_reports(self.now_ms) {
            self.others.give_back(&report.instance, report.sequences, self.now_ms);
        }
        let (loads, mut takes_again) = (&mut self.loads, false);
        self.under.retain(|_, under| {
            let ours = under.shard != shard;
            takes_again |= !ours && loads.remove(&under.to, shard, under.bytes, None);
            ours
        });
        self.claiming.retain(|outgoing| outgoing.shard != shard);
        let gone = &mut self.gone_set;
        self.done.retain(|(of, position)| *of != shard || !gone.remove(position));
        self.parked.retain(|parked| parked.shard != shard || !gone.remove(&parked.position));
        self.waiting.remove(|row| row.shard == shard);
        self.write_again();
        if takes_again {
            self.start_again();
        }
    }

    /// What is being written will have to be written once more: with less in it, or because it was refused.
    fn write_again(&mut self) {
        for shard in self.writing.take().into_iter().flat_map(|writing| writing.shards) {
            if let Some(ours) = self.shards.get_mut(&shard) {
                ours.changed = true;
            }
        }
    }

    /// Takes no more rows of the shard; see [`Claims::left`].
    pub fn leave(&mut self, shard: u16, now_ms: u64) {
        if let Some(ours) = self.shards.get_mut(&shard) {
            ours.leaving = true;
            ours.moved_ms = now_ms;
            self.waiting.remove(|row| row.shard == shard);
        }
    }

    /// Shards that are being left and of which nothing is claimed, or nothing has ended for [`STUCK_MS`]: to be given up in the database, under
    /// these epochs. They are not ours from now on. What is claimed of the latter is sent again by who takes them, as of a relay that died.
    pub fn left(&mut self, now_ms: u64) -> Vec<(u16, u32)> {
        self.now_ms = self.now_ms.max(now_ms);
        let ends = |shard: &&Shard| shard.window.is_empty() || now_ms.saturating_sub(shard.moved_ms) >= STUCK_MS;
        let idle = |shard: &&Shard| shard.leaving && !shard.changed && !shard.resuming && ends(shard);
        let shards = self.shards.iter().filter(|(_, shard)| self.writing.is_none() && idle(shard));
        let left: Vec<(u16, u32)> = shards.map(|(number, shard)| (*number, shard.epoch)).collect();
        for (shard, _) in &left {
            self.forget(*shard);
        }
        left
    }

    /// The shards that are ours, and are not being left.
    pub fn shards(&self) -> BTreeSet<u16> {
        self.shards.iter().filter(|(_, shard)| !shard.leaving).map(|(number, _)| *number).collect()
    }

    /// All shards that are ours, those that are being left among them.
    pub fn held(&self) -> BTreeSet<u16> {
        self.shards.keys().copied().collect()
    }

    /// How many more rows may be found.
    pub fn room(&self) -> usize {
        self.limits.rows_max.saturating_sub(self.waiting.len() + self.under.len())
    }

    /// How many more bytes of rows may be found.
    pub fn room_bytes(&self) -> usize {
        self.limits.bytes_max.saturating_sub(self.waiting.bytes() + self.loads.bytes())
    }

    /// How many rows are being worked on.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.under.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rows wait for their claim.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many rows have ended, and wait for that to be written.
    pub fn unwritten(&self) -> usize {
        self.done.len() + self.parked.len()
    }

    /// Whether a change is being written. What [`Claims::change`] gave is not to be written any more if this says no.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether the next look begins at the beginning.
    pub fn is_restarting(&self) -> bool {
        self.restart
    }

    /// Keys whose later rows stay in the table, because one of theirs is parked.
    pub fn parked_keys(&self) -> usize {
        self.parked_keys.len()
    }

    /// To be asked before what is parked is read, and handed to [`Claims::set_parked`] with it: what was parked here meanwhile is missing there.
    pub fn parked_mark(&self) -> Option<u64> {
        self.parked.is_empty().then_some(self.parks)
    }

    /// The rows that are parked in the database, with their keys. What is not among them any more goes on, and so does its key unless another
    /// row of it is parked.
    pub fn set_parked(&mut self, mark: Option<u64>, rows: impl IntoIterator<Item = (i64, Option<TopicKey>)>) {
        let (mut parked_rows, mut parked_keys) = (HashSet::new(), HashMap::new());
        for (position, key) in rows {
            parked_rows.insert(position);
            if let Some(key) = key {
                hold(&mut parked_keys, key, position);
            }
        }
        if mark == Some(self.parks) && self.parked.is_empty() {
            if self.parked_rows.iter().any(|position| !parked_rows.contains(position)) {
                // The search has passed it already.
                self.start_again();
            }
            (self.parked_rows, self.parked_keys) = (parked_rows, parked_keys);
        } else {
            self.parked_rows.extend(parked_rows);
            parked_keys.into_iter().for_each(|(key, position)| hold(&mut self.parked_keys, key, position));
        }
        let parked = &self.parked_keys;
        self.waiting.remove(|row| is_behind(parked, row));
    }

    /// To be called before each query for rows. `true`: the search has to begin at the beginning of the table, because rows were left there
    /// that can go on now. The number belongs to what the query brings.
    pub fn look(&mut self) -> (u64, bool) {
        self.looks += 1;
        (self.looks, std::mem::take(&mut self.restart))
    }

    /// Rows were left in the table that can go on now, or were seen before others could have sent them. What waits may be behind one of
    /// these, and so may what a query brings that has begun already.
    fn start_again(&mut self) {
        self.restart = true;
        self.since = self.looks + 1;
        self.waiting.clear();
    }

    /// Rows that a query has brought, by position. What is known already is passed over.
    pub fn found(&mut self, look: u64, rows: Vec<Row<T>>) {
        while let Some((_, position)) = self.gone.pop_front_if(|(last, _)| *last < look) {
            self.gone_set.remove(&position);
        }
        if look < self.since {
            return;
        }
        for row in rows {
            let Some(shard) = self.shards.get(&row.shard).filter(|shard| !shard.leaving) else { continue };
            // In the window and not under way yet: others have claimed it, and it is being read.
            let known = self.under.contains_key(&row.position)
                || self.gone_set.contains(&row.position)
                || self.waiting.contains(row.position)
                || shard.resuming && shard.window.contains(row.position);
            if !known && !self.is_parked(&row) && !self.stuck_topics.contains(&row.topic) {
                self.waiting.push(row);
            }
        }
    }

    fn is_parked(&self, row: &Row<T>) -> bool {
        !self.parked_keys.is_empty() && is_behind(&self.parked_keys, row)
    }

    /// What is to be written now, if there is anything and nothing is being written. `place` says where a row goes.
    pub fn change(&mut self, now_ms: u64, mut place: impl FnMut(&Row<T>) -> Placed) -> Option<Change> {
        if self.writing.is_some() {
            return None;
        }
        self.claim(now_ms, &mut place);
        for (shard, position) in &self.done {
            if let Some(ours) = self.shards.get_mut(shard) {
                ours.window.remove(*position);
                ours.changed = true;
            }
        }
        let changed = self.shards.iter_mut().filter_map(|(number, shard)| {
            std::mem::take(&mut shard.changed).then(|| (*number, shard.epoch, Bytes::from(shard.window.encode())))
        });
        let windows: Vec<_> = changed.collect();
        if windows.is_empty() {
            return None;
        }
        let shards = windows.iter().map(|(shard, ..)| *shard).collect();
        self.writing = Some(Writing { shards, done: self.done.len(), parked: self.parked.len() });
        let done = self.done.iter().map(|(_, position)| *position).collect();
        Some(Change { windows, done, parked: self.parked.clone() })
    }

    fn claim(&mut self, now_ms: u64, place: &mut impl FnMut(&Row<T>) -> Placed) {
        let mut later = HashSet::new();
        let mut kept = VecDeque::new();
        while let Some(row) = self.waiting.pop() {
            let Some(shard) = self.shards.get(&row.shard).filter(|shard| !shard.leaving) else {
                self.waiting.leave(&row);
                continue;
            };
            if shard.resuming || later.contains(&row.topic) {
                kept.push_back(row);
                continue;
            }
            // Parked a moment ago by one before it.
            if self.is_parked(&row) {
                self.waiting.leave(&row);
                continue;
            }
            match place(&row) {
                Placed::To(partition) => kept.extend(self.claim_row(row, partition, now_ms)),
                Placed::Later => {
                    later.insert(Arc::clone(&row.topic));
                    kept.push_back(row);
                }
                Placed::Never(reason) => {
                    self.waiting.leave(&row);
                    self.park(row.shard, row.position, row.topic, row.key, reason);
                }
            }
        }
        self.waiting.keep(kept);
        let is_much = self.waiting.len() > self.limits.rows_max / UNKNOWN_SHARE
            || self.waiting.bytes() > self.limits.bytes_max / UNKNOWN_SHARE;
        if !later.is_empty() && is_much {
            self.waiting.remove(|row| later.contains(&row.topic));
            self.stuck_topics.extend(later);
        }
    }

    /// Gives the row back if it has to wait.
    fn claim_row(&mut self, row: Row<T>, partition: u32, now_ms: u64) -> Option<Row<T>> {
        let to = TopicPartition { topic: Arc::clone(&row.topic), partition };
        let shard = self.shards.get_mut(&row.shard)?;
        match self.loads.room(&to, row.shard, shard.window.len(), now_ms) {
            Room::Free => {}
            Room::Full => return Some(row),
            Room::Stuck => {
                self.waiting.leave(&row);
                return None;
            }
        }
        let ticket = match shard.sequences.allot(&to, now_ms) {
            Ok(ticket) => ticket,
            // Its evidence cannot be told now: it waits until it can.
            Err(NoSequence::Unreported) => return Some(row),
            Err(NoSequence::TooMany(_) | NoSequence::UsedUp | NoSequence::Closed) => {
                // With the epoch under which it is taken next, its sequences begin anew.
                (shard.leaving, shard.moved_ms) = (true, now_ms);
                self.waiting.leave(&row);
                return None;
            }
            Err(error @ NoSequence::TopicName(_)) => {
                self.waiting.leave(&row);
                self.park(row.shard, row.position, row.topic, row.key, error.to_string());
                return None;
            }
        };
        let (epoch, sequence) = (ticket.epoch(), ticket.sequence());
        let claimed = Claimed { partition, epoch, sequence };
        shard.window.insert(row.position, claimed);
        shard.changed = true;
        self.waiting.leave(&row);
        let bytes = self.waiting.weigh(&row);
        self.loads.add(&to, row.shard, bytes, now_ms);
        let stamp = Stamp { id: row.id, instance: shard.instance.clone(), epoch, sequence };
        let (position, of) = (row.position, row.shard);
        let under = Under { shard: of, to: to.clone(), key: row.key, ticket: Some(ticket), claimed, bytes };
        self.under.insert(position, under);
        self.claiming.push(Outgoing { position, shard: of, to, stamp, item: row.item });
        None
    }

    /// What [`Claims::change`] gave is written. Gives back what is to be handed over, in this order.
    pub fn written(&mut self) -> Vec<Outgoing<T>> {
        let Some(Writing { done, parked, .. }) = self.writing.take() else { return Vec::new() };
        let done = self.done.drain(..done).map(|(_, position)| position);
        for position in done.chain(self.parked.drain(..parked).map(|parked| parked.position)) {
            self.gone.push_back((self.looks, position));
        }
        std::mem::take(&mut self.claiming)
    }

    /// It is not written, because these shards are not ours any more under these epochs. The rest goes into the next change. Gives back those
    /// that are lost: one that was taken again meanwhile is not.
    pub fn fenced(&mut self, shards: &[(u16, u32)]) -> Vec<u16> {
        self.write_again();
        let ours = |(shard, epoch): &&(u16, u32)| self.shards.get(shard).is_some_and(|ours| ours.epoch == *epoch);
        let lost: Vec<u16> = shards.iter().filter(ours).map(|(shard, _)| *shard).collect();
        lost.iter().for_each(|shard| self.forget(*shard));
        lost
    }

    /// The engine has the row.
    pub fn acknowledged(&mut self, position: i64, now_ms: u64) {
        if let Some(under) = self.ended(position, None, now_ms) {
            self.done.push((under.shard, position));
            self.gone_set.insert(position);
        }
    }

    /// The engine does not take the row, whatever is tried.
    pub fn refused(&mut self, position: i64, fate: Fate, reason: String, now_ms: u64) {
        let Some(Under { shard, to, key, .. }) = self.ended(position, Some(fate), now_ms) else { return };
        if let Some(ours) = self.shards.get_mut(&shard) {
            ours.window.remove(position);
        }
        self.park(shard, position, to.topic, key, reason);
    }

    fn park(&mut self, shard: u16, position: i64, topic: Arc<str>, key: Option<Bytes>, reason: String) {
        self.parks += 1;
        self.parked_rows.insert(position);
        if let Some(key) = key {
            hold(&mut self.parked_keys, (topic, key), position);
            let parked = &self.parked_keys;
            self.waiting.remove(|row| is_behind(parked, row));
        }
        // With the window, so that it is looked at whose the shard is.
        if let Some(ours) = self.shards.get_mut(&shard) {
            ours.changed = true;
        }
        self.parked.push(Parked { position, shard, reason });
        self.gone_set.insert(position);
    }

    fn ended(&mut self, position: i64, refused: Option<Fate>, now_ms: u64) -> Option<Under> {
        self.now_ms = self.now_ms.max(now_ms);
        let mut under = self.under.remove(&position)?;
        if let Some(ours) = self.shards.get_mut(&under.shard) {
            ours.moved_ms = ours.moved_ms.max(now_ms);
            match (under.ticket.take(), refused) {
                (Some(ticket), None) => _ = ours.sequences.acknowledged(ticket, now_ms),
                (Some(ticket), Some(fate)) => _ = ours.sequences.abandoned(ticket, fate, now_ms),
                (None, refused) => {
                    let instance = ours.instance.clone();
                    self.older(&instance, &under, Some(refused.map_or(Ok(()), Err)), now_ms);
                }
            }
        }
        if self.loads.remove(&under.to, under.shard, under.bytes, Some(now_ms)) {
            self.start_again();
        }
        Some(under)
    }

    /// A topic's partitions are known.
    pub fn topic_known(&mut self, topic: &str) {
        if self.stuck_topics.remove(topic) {
            self.start_again();
        }
    }
}

/// Whether an earlier row of its key is parked.
fn is_behind<T>(parked: &HashMap<TopicKey, i64>, row: &Row<T>) -> bool {
    let Some(key) = &row.key else { return false };
    parked.get(&(Arc::clone(&row.topic), key.clone())).is_some_and(|first| row.position > *first)
}

fn hold(keys: &mut HashMap<TopicKey, i64>, key: TopicKey, position: i64) {
    keys.entry(key).and_modify(|first| *first = position.min(*first)).or_insert(position);
}
