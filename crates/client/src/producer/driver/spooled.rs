//! What the driver does with a spool.

use std::sync::Arc;
use std::task::Context;

use baton_core::stamp::Stamp;
use baton_core::{End, Ended, Fate, Report, SendId, TakenOut, Ticket, TopicPartition};
use baton_engine::{Copies, Durability, Medium};
use baton_log::ReadError;

use super::{Driver, Item};
use crate::producer::future::Reply;
use crate::producer::inbox::{Command, Hold, Submission};
use crate::producer::receipt::{Reason, Receipt, SendError, Unsent};
use crate::producer::spool::{Desk, Kept, Store, Written};

/// What a receipt says of a message that only the spool has.
const SPOOLED: Durability = Durability { medium: Medium::Spool, copies: Copies::One };

/// What a message takes in the spool beside its own bytes, roughly: its frame, its batch, its trace and its stamp.
const STAMPED_BYTES: usize = 384;

/// A message on its way into the spool.
struct ToSpool {
    item: Item,
    stamp: Stamp,
    ticket: Option<Ticket>,
    /// What is known of it if the spool refuses it.
    fate: Fate,
    attempts: u32,
    /// The engine's client has it under this name.
    limbo: Option<SendId>,
}

impl Driver {
    /// Puts a message into the spool if it belongs there; gives it back if it does not.
    pub(super) fn spool(&mut self, submission: Submission, to: &TopicPartition, now_ms: u64) -> Option<Submission> {
        let Some(desk) = &mut self.parts.spool else { return Some(submission) };
        if !desk.takes(to) {
            return Some(submission);
        }
        // Before it gets a number: numbers have no gaps.
        if let Err(full) = desk.room(submission.hold.message_bytes()) {
            self.refuse(submission, Reason::Spool(full.to_string()), true);
            return None;
        }
        let item = self.item(submission, to)?;
        let sequences = self.parts.sends.sequences();
        match sequences.allot(to, now_ms) {
            Ok(ticket) => {
                let (id, instance) = (item.id.clone(), sequences.instance().clone());
                let stamp = Stamp { id, instance, epoch: ticket.epoch(), sequence: ticket.sequence() };
                let (ticket, fate) = (Some(ticket), Fate::NotStored);
                self.write(ToSpool { item, stamp, ticket, fate, attempts: 0, limbo: None }, now_ms);
            }
            Err(reason) => {
                let Item { record, id, reply, hold, .. } = item;
                self.released.push(hold);
                let error = SendError::never_handed_over(record.to.topic, Some(id), Reason::NoSequence(reason), true);
                self.outcomes.push((Err(error), reply));
            }
        }
        None
    }

    fn write(&mut self, message: ToSpool, now_ms: u64) {
        let ToSpool { mut item, stamp, ticket, fate, attempts, limbo } = message;
        self.names.complete(&mut item, &stamp);
        let Some(desk) = &mut self.parts.spool else { return };
        let batch = Desk::encode(&item.record, now_ms);
        let batch = batch.and_then(|batch| desk.room(batch.len()).map(|()| batch).map_err(|full| full.to_string()));
        let Item { record, reply, hold, .. } = item;
        let receipt = Receipt {
            id: stamp.id.clone(),
            partition: record.to.clone(),
            sequence: stamp.sequence,
            epoch: stamp.epoch,
            offset: None,
            durability: SPOOLED,
            attempts,
        };
        let refused = match batch {
            Ok(batch) => match desk.write(&batch, now_ms, limbo.map(|id| (id, stamp.clone())), receipt, reply, hold) {
                // Whoever hears of it later says so by its number.
                Ok(()) => return,
                Err(refused) => refused,
            },
            Err(cause) => (cause, reply, hold),
        };
        let (cause, reply, hold) = refused;
        if let Some(ticket) = ticket {
            self.parts.sends.sequences().abandoned(ticket, fate, now_ms);
        }
        self.released.push(hold);
        let error = unsent(fate, &record.to, stamp, attempts, Reason::Spool(cause));
        self.outcomes.push((Err(error), reply));
    }

    /// Looks whether the engine is away, and if so moves what it was handed into the spool, so that nobody waits for it.
    pub(super) fn watch(&mut self, now_ms: u64) {
        let Some(desk) = &mut self.parts.spool else { return };
        if !desk.spooling.tick(now_ms) {
            return;
        }
        tracing::warn!("the engine does not answer: messages go to the spool until it does");
        let sends = &mut self.parts.sends;
        let bytes = |item: &Item| (item.hold.message_bytes() + STAMPED_BYTES) as u64;
        let mut movable =
            desk.spooling.movable(sends.unended().map(|(item, in_flight)| (&item.record.to, bytes(item), in_flight)));
        let taken =
            sends.take_out(now_ms, |item| movable.takes(&item.record.to) && desk.place(&item.record.to).is_some());
        for TakenOut { id, item, stamp, ticket, in_flight, fate, attempts, .. } in taken {
            let limbo = in_flight.then_some(id);
            self.write(ToSpool { item, stamp, ticket, fate, attempts, limbo }, now_ms);
        }
        // Nobody is there to say how many partitions topics have.
        let placeable = self.parts.topics.trust_recalled();
        placeable.into_iter().for_each(|submission| self.place(submission, now_ms));
    }

    /// The engine has said how many partitions a topic has.
    pub(super) fn engine_is_there(&mut self, topic: &Arc<str>, partitions: u32, now_ms: u64) {
        let Some(desk) = &mut self.parts.spool else { return };
        if self.parts.sends.is_empty() && !desk.owes() {
            // It was asked nothing else, so nothing else speaks against it.
            desk.spooling.heard(now_ms, false);
        }
        // Else a restart would find the new number beside messages that were placed by the old one.
        if !self.parts.topics.is_draining(topic) {
            self.prepare_spool(topic, partitions);
        }
    }

    /// Places what waited until the spool held nothing of its topic any more.
    pub(super) fn place_drained(&mut self, now_ms: u64) {
        let Some(desk) = &self.parts.spool else { return };
        let drained = self.parts.topics.drained(|topic| desk.spooling.holds(topic));
        if let Some((topic, partitions, waiting)) = drained {
            self.prepare_spool(&topic, partitions);
            waiting.into_iter().for_each(|submission| self.place(submission, now_ms));
        }
    }

    /// What became durable in the spool, and what comes out of it.
    pub(super) fn serve_spool(&mut self, context: &mut Context<'_>, now_ms: u64) -> bool {
        let Some(desk) = &mut self.parts.spool else { return false };
        let mut worked = false;
        while let Some(written) = desk.written(context) {
            worked = true;
            let (writing, outcome) = match written {
                Written::Kept(writing) => {
                    let receipt = writing.receipt.clone();
                    (writing, Ok(receipt))
                }
                Written::Unknown(writing, cause) => {
                    let error = lost_track(&writing.receipt, cause);
                    (writing, Err(error))
                }
            };
            self.released.push(writing.hold);
            self.outcomes.push((outcome, writing.reply));
        }
        desk.read_again(now_ms);
        while let Some(read) = desk.spooling.wanted() {
            let Some(place) = desk.place(&read.partition) else { continue };
            let (log, shared) = (desk.store().log().clone(), Arc::clone(&self.parts.shared));
            tokio::task::spawn_blocking(move || {
                let partition = read.partition;
                let kept = Store::read(&log, place, &partition, read.from, read.messages_max, read.bytes_max);
                shared.inbox.command(Command::SpoolRead { partition, kept });
            });
        }
        desk.mark(now_ms, false);
        worked
    }

    /// What was read goes to the engine.
    pub(super) fn unspool(&mut self, partition: &TopicPartition, kept: Result<Vec<Kept>, ReadError>, now_ms: u64) {
        let Some(desk) = &mut self.parts.spool else { return };
        match kept {
            Ok(kept) => {
                for Kept { at, bytes, spooled_ms, record, stamp } in kept {
                    // One that the engine's client delivered after all is done already.
                    if !desk.spooling.loaded(partition, at, bytes, spooled_ms) {
                        continue;
                    }
                    let id = stamp.id.clone();
                    let (reply, hold) = (Reply::Spool(at), Hold::none());
                    let item = Item { record, complete: true, id, trace: None, reply, hold, answer: None };
                    // Refused only when the producer ends; it is in the spool.
                    desk.out += usize::from(self.parts.sends.accept_lasting(now_ms, partition, stamp, item).is_ok());
                }
            }
            Err(ReadError::Damaged { first, last }) => {
                tracing::error!(%partition, first, last, "messages in the spool are damaged on the disk, and lost");
                for at in first.max(0).unsigned_abs()..=last.max(0).unsigned_abs() {
                    desk.spooling.loaded(partition, at, 0, now_ms);
                    desk.damaged += u64::from(desk.spooling.done(partition, at));
                }
            }
            Err(error) => {
                tracing::error!(%partition, %error, "the spool cannot be read");
                return desk.unread(partition, &error, now_ms);
            }
        }
        desk.spooling.read(partition);
    }

    /// The engine has a message of the spool.
    pub(super) fn unspooled(&mut self, partition: &TopicPartition, at: u64, stamp: &Stamp, now_ms: u64) {
        let Some(desk) = &mut self.parts.spool else { return };
        if !desk.spooling.done(partition, at) {
            return;
        }
        desk.blocked = None;
        let sequences = self.parts.sends.sequences();
        let ours = sequences.instance() == &stamp.instance
            && sequences.acknowledged_later(partition, stamp.epoch, stamp.sequence, now_ms);
        if !ours {
            desk.acknowledged_for(stamp, partition, now_ms);
        }
    }

    /// The engine has answered: what that says of it, and of a message that it had when it fell silent.
    pub(super) fn heard(&mut self, acknowledged: bool, now_ms: u64) {
        let Some(desk) = &mut self.parts.spool else { return };
        let owes = !self.parts.sends.is_empty() || desk.owes();
        match acknowledged {
            true => desk.spooling.heard(now_ms, owes),
            false if !owes => desk.spooling.settled(),
            false => {}
        }
    }

    /// The same, for a message that went to the spool meanwhile.
    pub(super) fn out_of_limbo(&mut self, id: SendId, acknowledged: bool, now_ms: u64) {
        let Some(desk) = &mut self.parts.spool else { return };
        if let Some((partition, at, stamp)) = desk.out_of_limbo(id, acknowledged)
            && acknowledged
        {
            self.unspooled(&partition, at, &stamp, now_ms);
        }
    }

    /// A message that came out of the spool has ended: acknowledged, or because the producer ends.
    pub(super) fn ended_spooled(&mut self, ended: &Ended<Item>, at: u64, now_ms: u64) {
        if let Some(desk) = &mut self.parts.spool {
            desk.out -= 1;
        }
        if let (End::Acknowledged, Some(stamp)) = (&ended.end, &ended.stamp) {
            self.unspooled(&ended.partition, at, stamp, now_ms);
        }
    }

    /// Tells those who look how much is in the spool.
    pub(super) fn show_spool(&self, now_ms: u64) {
        if let Some(desk) = &self.parts.spool {
            self.parts.shared.spool.show(desk.state(now_ms), now_ms);
        }
    }

    /// Reports of what earlier processes left in the spool.
    pub(super) fn others_reports(&mut self, now_ms: u64, all: bool) -> Vec<Report> {
        let Some(desk) = &mut self.parts.spool else { return Vec::new() };
        let due = all || desk.others.due_ms().is_some_and(|due_ms| due_ms <= now_ms);
        if due { desk.others.take_reports(now_ms) } else { Vec::new() }
    }

    /// A topic's partitions are known: makes places for them in the spool.
    fn prepare_spool(&mut self, topic: &Arc<str>, partitions: u32) {
        let Some(desk) = &mut self.parts.spool else { return };
        let [high, low] = [self.random.u64(), self.random.u64()].map(u64::to_be_bytes);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&high);
        id[8..].copy_from_slice(&low);
        desk.prepare(topic, partitions, id);
    }

    /// Leaves everything in the spool; says how many messages that are.
    pub(super) fn leave_spool(&mut self, now_ms: u64) -> u64 {
        let Some(desk) = &mut self.parts.spool else { return 0 };
        let writing = desk.give_up_writing();
        desk.mark(now_ms, true);
        let left = desk.state(now_ms).messages;
        for writing in writing {
            let error = lost_track(&writing.receipt, "the producer was closed before it was durable".to_owned());
            self.released.push(writing.hold);
            self.outcomes.push((Err(error), writing.reply));
        }
        left
    }
}

/// The spool may have it or not.
fn lost_track(receipt: &Receipt, cause: String) -> SendError {
    let unsent = Unsent {
        topic: Arc::clone(&receipt.partition.topic),
        id: Some(receipt.id.clone()),
        partition: Some(receipt.partition.partition),
        stamp: None,
        attempts: receipt.attempts,
        may_retry: true,
        reason: Reason::Spool(cause),
    };
    SendError::new(Fate::Unknown, unsent)
}

fn unsent(fate: Fate, to: &TopicPartition, stamp: Stamp, attempts: u32, reason: Reason) -> SendError {
    let (topic, id, partition) = (Arc::clone(&to.topic), Some(stamp.id.clone()), Some(to.partition));
    SendError::new(fate, Unsent { topic, id, partition, stamp: Some(stamp), attempts, may_retry: true, reason })
}
