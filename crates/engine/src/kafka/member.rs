//! A member of a consumer group: its thread, which is the only one that talks to librdkafka.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use baton_core::{Delivery, TopicPartition};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::assignment::{self, Found};
use super::commits::Commits;
use super::consumer::{Command, Shared};
use super::context::{self, Context, Rebalance};
use super::delivery::Copies;
use super::failure;
use crate::{Assignment, ConsumerOptions, EngineError, Event};

/// Messages and bytes handed over at once, and waiting to be taken. Enough to make the hand-over cheap, little enough that a seek or a lost
/// partition throws little away.
const BATCH_MESSAGES_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Messages that a batch has room for from the start.
const BATCH_MESSAGES_FIRST: usize = 256;
const WAITING_MESSAGES_MAX: usize = 4 * BATCH_MESSAGES_MAX;
const WAITING_BYTES_MAX: usize = 16 << 20;
/// How long the thread sleeps when nothing wakes it. Only what has no wake-up of its own waits for this.
const SLEEP: Duration = Duration::from_millis(20);
/// Who has not called for this long is not served any more, not even with heartbeats of its interest: after `max.poll.interval.ms` of that
/// its partitions go to others.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long the engine may take to answer one question of ours.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// librdkafka's number for "the oldest that is kept".
const BEGINNING: i64 = -2;

type Client = BaseConsumer<Context>;

/// A partition that is ours.
struct Owned {
    partition: TopicPartition,
    number: i32,
    epoch: u64,
    /// The offset that should come next; unknown before the first delivery of a group without a position.
    position: Option<i64>,
    /// Where it was told to go on.
    seek: Option<(i64, usize)>,
    /// The group wants it back: nothing of it is delivered any more.
    revoked: bool,
}

/// Partitions that the group wants back.
struct Revocation {
    list: Vec<TopicPartition>,
    waiting: Vec<TopicPartition>,
    deadline: Instant,
    released: Vec<oneshot::Sender<()>>,
}

pub(super) struct Member {
    config: ClientConfig,
    options: ConsumerOptions,
    shared: Arc<Shared>,
    context: Context,
    client: Arc<Client>,
    owned: Vec<Owned>,
    /// Of every partition ever seen, so that no epoch comes twice.
    epochs: HashMap<TopicPartition, u64>,
    /// Wanted by the group, but its positions could not be fetched yet.
    assigning: Option<Vec<TopicPartition>>,
    revocation: Option<Revocation>,
    commits: Commits,
    /// A position was out of range, of a partition that is still to be found.
    gap: bool,
    last: usize,
    copies: Copies,
}

/// Runs until it is told to close.
pub(super) fn run(
    config: ClientConfig,
    options: ConsumerOptions,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    started: oneshot::Sender<Result<(), EngineError>>,
) {
    let context = Context::default();
    let no_thread = |error| EngineError::Unavailable(format!("no thread for a Kafka consumer's commits: {error}"));
    let joined =
        join(&config, &options, &context).and_then(|client| Ok((client, Commits::start().map_err(no_thread)?)));
    let (client, commits) = match joined {
        Ok(both) => both,
        Err(error) => {
            // Who started it has gone: so does this thread.
            let _ = started.send(Err(error));
            return;
        }
    };
    let _ = started.send(Ok(()));
    let mut member = Member {
        config,
        options,
        shared,
        context,
        client,
        owned: Vec::new(),
        epochs: HashMap::new(),
        assigning: None,
        revocation: None,
        commits,
        gap: false,
        last: 0,
        copies: Copies::default(),
    };
    member.serve(&commands);
    member.leave();
}

fn join(config: &ClientConfig, options: &ConsumerOptions, context: &Context) -> Result<Arc<Client>, EngineError> {
    let mut client: Client = BaseConsumer::from_config_and_context(config, context.clone())
        .map_err(|error| failure::engine_error("the consumer of Kafka", &error))?;
    let thread = std::thread::current();
    client.set_nonempty_callback(move || thread.unpark());
    let topics: Vec<&str> = options.topics.iter().map(|topic| &**topic).collect();
    client.subscribe(&topics).map_err(|error| failure::engine_error("subscribing", &error))?;
    Ok(Arc::new(client))
}

impl Member {
    fn serve(&mut self, commands: &mpsc::Receiver<Command>) {
        loop {
            loop {
                match commands.try_recv() {
                    Ok(Command::Close) | Err(mpsc::TryRecvError::Disconnected) => return,
                    Ok(command) => self.command(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            let busy = self.listens() && self.poll();
            while let Some(rebalance) = self.context.next_rebalance() {
                match rebalance {
                    Rebalance::Assign(list) => self.assigning = Some(list),
                    Rebalance::Revoke(list) => self.revoke(list),
                }
            }
            self.assign();
            self.take_what_is_overdue();
            self.commit();
            self.seek();
            self.find_gaps();
            if !busy {
                std::thread::park_timeout(SLEEP);
            }
        }
    }

    /// Whether somebody is there to be served, and has room.
    fn listens(&self) -> bool {
        let inbox = self.shared.inbox();
        let called = inbox.called_at.is_some_and(|at| at.elapsed() < SILENCE_MAX);
        called && inbox.messages() < WAITING_MESSAGES_MAX && inbox.bytes() < WAITING_BYTES_MAX
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Settle(positions, done) => self.commits.push(positions, done),
            Command::Pause(partitions) => self.with_list(&partitions, |client, list| client.pause(list)),
            Command::Resume(partitions) => self.with_list(&partitions, |client, list| client.resume(list)),
            Command::Seek(partition, offset) => match self.owned.iter_mut().find(|each| each.partition == partition) {
                Some(owned) => {
                    let tickets = owned.seek.map_or(0, |(_, tickets)| tickets) + 1;
                    owned.seek = Some((offset, tickets));
                }
                None => self.sought(&partition, 1),
            },
            Command::Release(partitions, done) => self.release(&partitions, done),
            // Handled by who reads the commands.
            Command::Close => {}
        }
    }

    fn with_list(
        &self,
        partitions: &[TopicPartition],
        act: impl Fn(&Client, &TopicPartitionList) -> rdkafka::error::KafkaResult<()>,
    ) {
        let list = self.list(partitions.iter());
        if let Err(error) = act(&self.client, &list) {
            tracing::warn!(%error, "Kafka consumer: pausing or resuming was refused");
        }
    }

    /// Only those that are ours.
    fn list<'a>(&self, partitions: impl Iterator<Item = &'a TopicPartition>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            if let Some(owned) = self.owned.iter().find(|each| each.partition == *partition) {
                list.add_partition(&owned.partition.topic, owned.number);
            }
        }
        list
    }

    // ---- messages --------------------------------------------------------------------------------------------------

    /// Takes a batch from the client library; says whether there may be more.
    fn poll(&mut self) -> bool {
        // Mostly there is nothing, or a lot.
        let (mut batch, mut bytes, mut more) = (Vec::new(), 0, true);
        self.copies.begin();
        let mut failed = None;
        while batch.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES_MAX {
            let heard = self.context.count();
            match self.client.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let found = find(&self.owned, &mut self.last, message.topic(), message.partition());
                    let Some(owned) = found.and_then(|index| self.owned.get_mut(index)) else { continue };
                    if owned.revoked || owned.seek.is_some() {
                        continue;
                    }
                    owned.position = Some(message.offset() + 1);
                    let delivery = self.copies.delivery(&message, &owned.partition);
                    bytes += delivery.bytes();
                    if batch.is_empty() {
                        batch.reserve(BATCH_MESSAGES_FIRST);
                    }
                    batch.push(delivery);
                }
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
                }
                None if self.context.count() != heard => break,
                None => {
                    more = false;
                    break;
                }
            }
        }
        self.hand_over(batch, bytes);
        if let Some(error) = failed {
            self.failed(&error);
        }
        more
    }

    fn hand_over(&self, mut batch: Vec<Delivery>, mut bytes: usize) {
        if batch.is_empty() {
            return;
        }
        let mut inbox = self.shared.inbox();
        if !inbox.seeking.is_empty() {
            batch.retain(|delivery| !inbox.seeking.contains_key(&delivery.from));
            bytes = batch.iter().map(Delivery::bytes).sum();
        }
        if !batch.is_empty() {
            inbox.push_messages(batch, bytes);
        }
        drop(inbox);
        self.shared.ready.notify_waiters();
    }

    fn tell(&self, event: Result<Event, EngineError>) {
        self.shared.inbox().push(event);
        self.shared.ready.notify_waiters();
    }

    fn failed(&mut self, error: &KafkaError) {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            tracing::warn!(%code, "the Kafka consumer failed for good and is replaced");
            self.rejoin();
            return;
        }
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::LogTruncation | Code::OffsetOutOfRange) => self.gap = true,
            Some(code) if failure::of_the_caller(code) || code == Code::AllBrokersDown => {
                let error = failure::engine_error("consuming from Kafka", error);
                let text = error.to_string();
                let mut inbox = self.shared.inbox();
                // Said once until somebody has heard it.
                if !inbox.events().any(|event| matches!(event, Err(said) if said.to_string() == text)) {
                    inbox.push(Err(error));
                }
                drop(inbox);
                self.shared.ready.notify_waiters();
            }
            // The client library goes on by itself.
            _ => tracing::debug!(%error, "Kafka consumer"),
        }
    }

    // ---- what is ours ----------------------------------------------------------------------------------------------

    /// Takes over what the group gave us, as soon as its positions are known.
    fn assign(&mut self) {
        let Some(partitions) = self.assigning.take() else { return };
        if partitions.is_empty() {
            context::answer(&self.client, true, &TopicPartitionList::new());
            return;
        }
        let found = match assignment::positions(&self.client, &partitions, self.options.start, ANSWER_WAIT) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "Kafka consumer: positions are not known yet");
                self.assigning = Some(partitions);
                return;
            }
        };
        let mut list = TopicPartitionList::new();
        let mut assigned = Vec::with_capacity(found.len());
        for Found { partition, number, offset, metadata } in found {
            let epoch = self.epochs.entry(partition.clone()).and_modify(|epoch| *epoch += 1).or_insert(1);
            let start = offset.map_or(Offset::Beginning, Offset::Offset);
            if let Err(error) = list.add_partition_offset(&partition.topic, number, start) {
                self.tell(Err(EngineError::Bug(format!("offset {offset:?} of {partition}: {error}"))));
                continue;
            }
            let owned = Owned {
                partition: partition.clone(),
                number,
                epoch: *epoch,
                position: offset,
                seek: None,
                revoked: false,
            };
            self.owned.push(owned);
            assigned.push(Assignment { partition, frontier: offset, metadata, epoch: *epoch });
        }
        self.tell(Ok(Event::Assigned(assigned)));
        context::answer(&self.client, true, &list);
    }

    fn revoke(&mut self, list: Vec<TopicPartition>) {
        if self.client.assignment_lost() {
            self.give_up(&list);
            self.tell(Ok(Event::Lost(list.clone())));
            self.unassign(&list);
            return;
        }
        let waiting: Vec<_> =
            list.iter().filter(|each| self.owned.iter().any(|owned| owned.partition == **each)).cloned().collect();
        for owned in &mut self.owned {
            owned.revoked |= waiting.contains(&owned.partition);
        }
        self.shared.inbox().purge(|each| waiting.contains(each));
        let deadline = Instant::now() + self.options.release_wait;
        if !waiting.is_empty() {
            self.tell(Ok(Event::Revoking(waiting.clone())));
        }
        self.revocation = Some(Revocation { list, waiting, deadline, released: Vec::new() });
    }

    fn release(&mut self, partitions: &[TopicPartition], done: oneshot::Sender<()>) {
        if let Some(revocation) = &mut self.revocation {
            revocation.waiting.retain(|each| !partitions.contains(each));
            revocation.released.push(done);
        } else {
            // Nothing is asked for: there is nothing to give.
            let _ = done.send(());
        }
    }

    /// Ends a revocation that everybody agrees to, that lasts too long, or that time has overtaken.
    fn take_what_is_overdue(&mut self) {
        let lost = self.revocation.is_some() && self.client.assignment_lost();
        let over = |revocation: &Revocation| revocation.waiting.is_empty() || Instant::now() >= revocation.deadline;
        if !lost && !self.revocation.as_ref().is_some_and(over) {
            return;
        }
        // What was settled before the release is to be committed before somebody else asks.
        if !lost
            && self.revocation.as_ref().is_some_and(|revocation| {
                self.commits.concern(&revocation.list) && Instant::now() < revocation.deadline
            })
        {
            return;
        }
        let Some(revocation) = self.revocation.take() else { return };
        self.give_up(&revocation.list);
        if !revocation.waiting.is_empty() {
            self.tell(Ok(Event::Lost(revocation.waiting)));
        }
        self.unassign(&revocation.list);
        for done in revocation.released {
            // Who asked may have gone.
            let _ = done.send(());
        }
    }

    /// From here on nothing of these is settled or delivered.
    fn give_up(&mut self, list: &[TopicPartition]) {
        let (gone, kept) =
            std::mem::take(&mut self.owned).into_iter().partition(|owned| list.contains(&owned.partition));
        self.owned = kept;
        self.last = 0;
        let gone: Vec<Owned> = gone;
        let mut inbox = self.shared.inbox();
        inbox.purge(|each| list.contains(each));
        for owned in gone {
            inbox.seeking.remove(&owned.partition);
        }
    }

    fn unassign(&self, partitions: &[TopicPartition]) {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            if let Ok(number) = i32::try_from(partition.partition) {
                list.add_partition(&partition.topic, number);
            }
        }
        context::answer(&self.client, false, &list);
    }

    // ---- positions -------------------------------------------------------------------------------------------------

    fn commit(&mut self) {
        let owned = &self.owned;
        let ours = |partition: &TopicPartition, epoch: u64| {
            owned.iter().any(|each| each.partition == *partition && each.epoch == epoch)
        };
        self.commits.go_on(&self.client, ours);
    }

    fn seek(&mut self) {
        let mut done = Vec::new();
        for owned in &mut self.owned {
            let Some((offset, tickets)) = owned.seek else { continue };
            let (topic, number) = (&owned.partition.topic, owned.number);
            match self.client.seek(topic, number, Offset::Offset(offset), ANSWER_WAIT) {
                Ok(()) => {
                    owned.seek = None;
                    owned.position = Some(offset);
                    done.push((owned.partition.clone(), tickets));
                }
                // Its fetching has not begun yet.
                Err(error) => {
                    tracing::debug!(%error, partition = %owned.partition, "Kafka consumer: seek is tried again")
                }
            }
        }
        for (partition, tickets) in done {
            self.sought(&partition, tickets);
        }
    }

    fn sought(&self, partition: &TopicPartition, tickets: usize) {
        let mut inbox = self.shared.inbox();
        if let Some(left) = inbox.seeking.get_mut(partition) {
            *left = left.saturating_sub(tickets);
            if *left == 0 {
                inbox.seeking.remove(partition);
            }
        }
    }

    /// The client library does not say which partition's position was out of range: all are looked at.
    fn find_gaps(&mut self) {
        if !self.gap {
            return;
        }
        let mut unsure = false;
        for index in 0..self.owned.len() {
            let Some(owned) = self.owned.get(index).filter(|owned| !owned.revoked && owned.seek.is_none()) else {
                continue;
            };
            let Ok((low, high)) = self.client.fetch_watermarks(&owned.partition.topic, owned.number, ANSWER_WAIT)
            else {
                unsure = true;
                continue;
            };
            let expected = owned.position;
            if expected.is_some_and(|expected| (low..=high).contains(&expected)) {
                continue;
            }
            let (partition, number) = (owned.partition.clone(), owned.number);
            let mut list = TopicPartitionList::new();
            list.add_partition(&partition.topic, number);
            let removed = assignment::replace(&self.client, &list, &self.owned_positions(index, low));
            if let Err(error) = removed {
                tracing::debug!(%error, %partition, "Kafka consumer: going on after a gap is tried again");
                unsure = true;
                continue;
            }
            if let Some(owned) = self.owned.get_mut(index) {
                owned.position = Some(low);
            }
            // A group without a position was promised nothing yet.
            if let Some(expected) = expected {
                tracing::warn!(%partition, expected, next = low, "Kafka no longer has what should come next");
                self.tell(Ok(Event::Gap { partition, expected, next: low }));
            }
        }
        self.gap = unsure;
    }

    /// All that is ours, with where each goes on; the one at `index` at `offset`.
    fn owned_positions(&self, index: usize, offset: i64) -> Vec<(TopicPartition, i32, i64, bool)> {
        let at = |owned: &Owned| owned.position.unwrap_or(BEGINNING);
        let each = |(number, owned): (usize, &Owned)| {
            let changed = number == index;
            (owned.partition.clone(), owned.number, if changed { offset } else { at(owned) }, changed)
        };
        self.owned.iter().enumerate().map(each).collect()
    }

    // ---- the end ---------------------------------------------------------------------------------------------------

    /// Starts over with a new client, after one that failed for good.
    fn rejoin(&mut self) {
        let lost: Vec<TopicPartition> = self.owned.iter().map(|owned| owned.partition.clone()).collect();
        self.give_up(&lost);
        self.revocation = None;
        self.assigning = None;
        self.commits.refuse_all();
        if !lost.is_empty() {
            self.tell(Ok(Event::Lost(lost)));
        }
        let context = Context::default();
        match join(&self.config, &self.options, &context) {
            Ok(client) => {
                self.context.close();
                self.client = client;
                self.context = context;
            }
            Err(error) => self.tell(Err(error)),
        }
    }

    /// Leaves the group. What librdkafka still asks is answered on the spot.
    fn leave(mut self) {
        self.context.close();
        self.commits.refuse_all();
        if self.assigning.take().is_some() {
            context::answer(&self.client, true, &TopicPartitionList::new());
        }
        if let Some(revocation) = self.revocation.take() {
            self.unassign(&revocation.list);
        }
        self.shared.inbox().ended = true;
        self.shared.ready.notify_waiters();
        // Who holds the client last waits until the group has let us go: that must be this thread.
        self.commits.end();
    }
}

/// Which of ours a message is from. Mostly the same one as last time.
fn find(owned: &[Owned], last: &mut usize, topic: &str, number: i32) -> Option<usize> {
    let is = |each: &Owned| each.number == number && &*each.partition.topic == topic;
    if !owned.get(*last).is_some_and(is) {
        *last = owned.iter().position(is)?;
    }
    Some(*last)
}
