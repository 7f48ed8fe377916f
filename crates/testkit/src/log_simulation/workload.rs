//! What users ask of the log between two restarts.

use std::collections::VecDeque;
use std::rc::Rc;

use baton_log::{AppendError, AppendOutcome, PartitionId};
use bytes::Bytes;

use super::model::{Batch, Change, TABLES};
use super::world::{Checked, World, ensure};
use crate::random::Random;
use crate::sim_disk::Operation;

/// Batches that a client has under way at most.
const IN_FLIGHT_MAX: usize = 5;
/// Topics at one time.
const TOPICS_MAX: usize = 5;
/// Clients at one time.
const CLIENTS_MAX: usize = 6;

/// An idempotent producer that writes to one partition and repeats what it got no answer to.
pub(super) struct Client {
    pub id: u64,
    pub partition: PartitionId,
    producer_id: i64,
    epoch: i16,
    next_sequence: i32,
    /// Without an answer, oldest first.
    unanswered: VecDeque<Rc<Batch>>,
    /// How many of them were sent in this life of the log.
    sent: usize,
    /// What was answered last.
    last_answered: Option<Rc<Batch>>,
}

impl Client {
    /// A batch was acknowledged.
    pub fn answered(&mut self, batch: &Rc<Batch>) {
        if self.unanswered.front().is_some_and(|oldest| Rc::ptr_eq(oldest, batch)) {
            self.unanswered.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        self.last_answered = Some(batch.clone());
    }

    /// Whether it writes under this producer id.
    pub fn is(&self, producer_id: i64) -> bool {
        self.producer_id == producer_id
    }

    /// The log was restarted: everything without an answer is sent again.
    pub fn repeat(&mut self) {
        self.sent = 0;
    }
}

/// How large batches become in this life.
type Sizes = (u64, u64);

fn sizes(random: &mut Random) -> Sizes {
    match random.below(4) {
        0 => (1, 40),
        1 => (4, 200),
        2 => (3, 900),
        _ => (8, 2500),
    }
}

impl World {
    /// A stretch of work, perhaps with a crash or a fault of the device in it.
    pub fn live(&mut self) -> Checked {
        self.plant_faults();
        let sizes = sizes(&mut self.random);
        for _ in 0..self.random.between(10, 90) {
            self.figures.steps += 1;
            self.step(sizes)?;
            if self.disk.crashed() {
                return Ok(());
            }
            if self.poisoned() {
                return self.live_poisoned();
            }
        }
        Ok(())
    }

    fn plant_faults(&mut self) {
        match self.random.below(10) {
            0..=3 => self.disk.crash_at(self.random.between(1, 250)),
            4..=6 => {
                let kinds = [
                    Operation::SyncData,
                    Operation::SyncData,
                    Operation::Write,
                    Operation::Length,
                    Operation::Directory,
                    Operation::SyncDirectory,
                    Operation::Read,
                ];
                let kind = kinds[self.random.index(kinds.len())];
                let nth = self.random.between(1, if kind == Operation::Read { 60 } else { 12 });
                self.disk.fail(kind, nth);
            }
            _ => {}
        }
    }

    /// A poisoned log refuses appends, acknowledges nothing more and goes on reading.
    fn live_poisoned(&mut self) -> Checked {
        self.figures.poisoned += 1;
        self.found_poisoned()?;
        let log = self.log()?;
        for _ in 0..3 {
            if let Some(partition) = self.any_partition() {
                let batch = Batch::random(&mut self.random, 0, (-1, -1, -1), (1, 10))?;
                let refused = log.append(partition, &batch.header, &batch.bytes);
                let poisoned = matches!(refused, Err(AppendError::Poisoned(_)));
                ensure!(poisoned, "a poisoned log answered an append with {refused:?}");
                self.check_partition(partition)?;
            }
            ensure!(!log.commit_once(), "a poisoned log committed");
            log.maintain_once();
        }
        self.settle()?;
        self.check_visible()
    }

    fn step(&mut self, sizes: Sizes) -> Checked {
        match self.random.below(100) {
            0..=44 => self.produce(sizes),
            45..=64 => self.commit(),
            65..=72 => self.maintain(),
            73..=80 => match self.any_partition() {
                Some(partition) => self.check_partition(partition),
                None => Ok(()),
            },
            81..=84 => self.check_visible(),
            85..=89 => self.write_table(),
            90..=93 => self.change_catalog(),
            94..=95 => self.delete_records(),
            96 => self.check_times(),
            97 | 98 => self.change_space(),
            _ => {
                self.clock.advance(self.random.below(5000) as i64 - 500);
                Ok(())
            }
        }
    }

    pub fn any_partition(&mut self) -> Option<PartitionId> {
        let partitions: Vec<PartitionId> = self.state.partitions.keys().copied().collect();
        self.random.pick(&partitions).copied()
    }

    fn maintain(&mut self) -> Checked {
        let log = self.log()?;
        log.maintain_once();
        if self.poisoned() { self.found_poisoned() } else { Ok(()) }
    }

    /// One or several batches, of idempotent producers and others.
    fn produce(&mut self, sizes: Sizes) -> Checked {
        let Some(partition) = self.any_partition() else { return self.create_topic() };
        for _ in 0..self.random.between(1, 3) {
            if self.random.percent(30) {
                let now_ms = self.now_ms();
                let batch = Batch::random(&mut self.random, now_ms, (-1, -1, -1), sizes)?;
                self.append(partition, 0, &batch)?;
            } else {
                self.produce_idempotent(partition, sizes)?;
            }
            if self.poisoned() || self.disk.crashed() {
                break;
            }
        }
        Ok(())
    }

    fn now_ms(&self) -> i64 {
        baton_log::Clock::now_ms(self.clock.as_ref())
    }

    fn produce_idempotent(&mut self, partition: PartitionId, sizes: Sizes) -> Checked {
        self.clients.retain(|client| self.state.partitions.contains_key(&client.partition));
        if self.clients.is_empty() || (self.clients.len() < CLIENTS_MAX && self.random.percent(20)) {
            self.made += 1;
            self.clients.push(Client {
                id: self.made,
                partition,
                producer_id: self.made as i64,
                epoch: 0,
                next_sequence: self.random.below(3) as i32 * 100,
                unanswered: VecDeque::new(),
                sent: 0,
                last_answered: None,
            });
        }
        let at = self.random.index(self.clients.len());
        match self.random.below(20) {
            0 => self.break_the_rules(at),
            1 => self.repeat_answered(at),
            _ => self.produce_next(at, sizes),
        }
    }

    /// What a well-behaved client sends next.
    fn produce_next(&mut self, at: usize, sizes: Sizes) -> Checked {
        let now_ms = self.now_ms();
        let client = &mut self.clients[at];
        let (id, partition) = (client.id, client.partition);
        let before = (client.epoch, client.next_sequence);
        let repeated = client.unanswered.get(client.sent).cloned();
        let is_new = repeated.is_none();
        let batch = match repeated {
            Some(batch) => batch,
            None if client.unanswered.len() >= IN_FLIGHT_MAX => return self.commit(),
            None => {
                if client.unanswered.is_empty() && self.random.percent(3) {
                    client.epoch += 1;
                    client.next_sequence = 0;
                }
                let producer = (client.producer_id, client.epoch, client.next_sequence);
                Batch::random(&mut self.random, now_ms, producer, sizes)?
            }
        };
        if is_new {
            // Known before the answer: it may come at once.
            self.clients[at].unanswered.push_back(batch.clone());
        }
        let outcome = self.append(partition, id, &batch)?;
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return Ok(()) };
        match outcome {
            Some(AppendOutcome::Refused(fault)) => {
                Err(format!("a client that kept to the rules was refused: {fault:?}"))
            }
            Some(_) => {
                let answered = !client.unanswered.iter().any(|waiting| Rc::ptr_eq(waiting, &batch));
                client.sent += usize::from(!answered);
                if is_new {
                    client.next_sequence += batch.count() as i32;
                }
                Ok(())
            }
            None => {
                if is_new {
                    client.unanswered.pop_back();
                    (client.epoch, client.next_sequence) = before;
                }
                Ok(())
            }
        }
    }

    /// Sends again what was sent, as a client does that has not seen the answer or does not wait for it.
    fn repeat_answered(&mut self, at: usize) -> Checked {
        let client = &self.clients[at];
        let (id, partition) = (client.id, client.partition);
        let sent: Vec<Rc<Batch>> =
            client.unanswered.iter().take(client.sent).chain(&client.last_answered).cloned().collect();
        match self.random.pick(&sent) {
            Some(batch) => self.append(partition, id, batch).map(drop),
            None => Ok(()),
        }
    }

    /// A gap in the sequence, or an old epoch: to be refused, or to be what the model says.
    fn break_the_rules(&mut self, at: usize) -> Checked {
        let now_ms = self.now_ms();
        let client = &self.clients[at];
        let Some(answered) = &client.last_answered else { return Ok(()) };
        if answered.header.producer_epoch != client.epoch {
            return Ok(());
        }
        let (partition, producer_id) = (client.partition, client.producer_id);
        let (epoch, sequence) = (client.epoch, client.next_sequence);
        let producer =
            if self.random.coin() { (producer_id, epoch, sequence + 7) } else { (producer_id, epoch - 1, sequence) };
        let batch = Batch::random(&mut self.random, now_ms, producer, (2, 20))?;
        let outcome = self.append(partition, 0, &batch)?;
        let refused = matches!(outcome, None | Some(AppendOutcome::Refused(_)));
        ensure!(refused, "a batch out of sequence was answered {outcome:?}");
        Ok(())
    }

    fn write_table(&mut self) -> Checked {
        let table = TABLES[self.random.index(TABLES.len())];
        let changes: Vec<(Bytes, Option<Bytes>)> = (0..self.random.between(1, 4))
            .map(|_| {
                let key = Bytes::from(format!("key-{}", self.random.below(12)));
                let mut value = vec![0; self.random.below(120) as usize];
                self.random.fill(&mut value);
                (key, self.random.percent(80).then_some(Bytes::from(value)))
            })
            .collect();
        let taken = self.log()?.write_table(table, changes.clone());
        self.took(Change::Table { table, changes }, taken)
    }

    fn delete_records(&mut self) -> Checked {
        let Some(partition) = self.any_partition() else { return Ok(()) };
        let (log, end) = (self.log()?, self.state.partitions[&partition].end());
        let beyond = log.delete_records(partition, end + 1);
        ensure!(
            matches!(beyond, Err(AppendError::OffsetOutOfRange)),
            "deleting records beyond the high watermark was answered {beyond:?}"
        );
        let offset = self.random.between(0, end as u64) as i64;
        let taken = log.delete_records(partition, offset);
        self.took(Change::LogStart { partition, offset }, taken)
    }

    /// Users of the catalog make one change at a time.
    fn change_catalog(&mut self) -> Checked {
        if self.pending.iter().any(|pending| pending.change.is_of_catalog()) {
            return self.commit();
        }
        let names: Vec<String> = self.state.topics.keys().cloned().collect();
        let Some(name) = self.random.pick(&names).cloned() else { return self.create_topic() };
        match self.random.below(8) {
            0..=2 if names.len() < TOPICS_MAX => self.create_topic(),
            0..=3 => {
                let taken = self.log()?.delete_topic(&name);
                self.took(Change::TopicDeleted { name }, taken)
            }
            4..=5 => {
                let total = self.state.topics[&name].partitions.len() as u32 + self.random.between(1, 2) as u32;
                let taken = self.log()?.add_partitions(&name, total);
                self.took(Change::PartitionsAdded { name, total }, taken)
            }
            _ => {
                let configs = [("retention.ms".to_owned(), self.random.below(1000).to_string())].into();
                let taken = self.log()?.set_topic_configs(&name, std::collections::BTreeMap::clone(&configs));
                self.took(Change::TopicConfigs { name, configs }, taken)
            }
        }
    }

    fn create_topic(&mut self) -> Checked {
        if self.pending.iter().any(|pending| pending.change.is_of_catalog()) {
            return self.commit();
        }
        let free = |number: &u64| !self.state.topics.contains_key(&format!("topic-{number}"));
        let Some(number) = (0..).find(free) else { return Ok(()) };
        let mut id = [0; 16];
        self.random.fill(&mut id);
        let partitions = self.random.between(1, 4) as u32;
        let name = format!("topic-{number}");
        let configs = std::collections::BTreeMap::from([("cleanup.policy".to_owned(), "delete".to_owned())]);
        let taken = self.log()?.create_topic(&name, id, partitions, configs.clone());
        self.took(Change::TopicCreated { name, id, partitions, configs }, taken)
    }

    /// Others fill the disk, or make room.
    fn change_space(&mut self) -> Checked {
        let used = self.disk.used_bytes();
        let capacity = if self.random.percent(35) { used + self.random.below(60 << 10) } else { u64::MAX };
        self.disk.note(|| format!("the disk is {capacity} bytes large from now on"));
        self.disk.set_capacity(capacity);
        Ok(())
    }
}
