//! Members of one group that go on through every crash, and the one who asks what is committed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::history::{History, Line, Moments};
use super::producers::topics;
use super::{client_config, failed};
use crate::CompatError;

const GROUP: &str = "crash";
const COMMIT_EVERY: Duration = Duration::from_millis(100);
const ASK_WAIT: Duration = Duration::from_secs(30);
const ASK_PAUSE: Duration = Duration::from_millis(20);

fn consumer(address: &str) -> Result<BaseConsumer, CompatError> {
    client_config(address)
        .set("group.id", GROUP)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .set("socket.timeout.ms", "10000")
        .set("check.crcs", "true")
        .create()
        .map_err(failed("a consumer"))
}

/// A member in a thread.
pub struct Member {
    thread: JoinHandle<Result<(), CompatError>>,
}

impl Member {
    /// Starts one; it reads and commits until `stop` is set.
    pub fn start(
        name: &str,
        address: &str,
        folder: &Path,
        moments: Moments,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, CompatError> {
        let history = History::create(folder, name)?;
        let reader = consumer(address)?;
        let names: Vec<&str> = topics().into_iter().map(|(topic, _)| topic).collect();
        reader.subscribe(&names).map_err(failed("subscribing"))?;
        let thread = std::thread::spawn(move || {
            let mut member = Reading { reader, history, moments, dirty: BTreeMap::new(), committed: Instant::now() };
            while !stop.load(Ordering::Relaxed) {
                member.step();
            }
            member.commit();
            member.history.finish()
        });
        Ok(Self { thread })
    }

    /// Waits for its end; `stop` must have been set.
    pub fn join(self) -> Result<(), CompatError> {
        self.thread.join().map_err(|_| CompatError::Server("a member panicked".into()))?
    }
}

struct Reading {
    reader: BaseConsumer,
    history: History,
    moments: Moments,
    dirty: BTreeMap<(String, i32), i64>,
    committed: Instant,
}

impl Reading {
    fn step(&mut self) {
        if let Some(Ok(message)) = self.reader.poll(Duration::from_millis(50)) {
            let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
            let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
            self.history.add(&Line::Read { topic, partition, offset, value: &value });
            self.dirty.insert((topic.to_owned(), partition), offset + 1);
        }
        if self.committed.elapsed() > COMMIT_EVERY {
            self.commit();
            self.committed = Instant::now();
        }
    }

    /// Commits what was read of the partitions that are still held; what is refused while the group rebalances or the
    /// broker is down is read again by whoever holds the partition then.
    fn commit(&mut self) {
        let held = self.reader.assignment().unwrap_or_default();
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), offset) in std::mem::take(&mut self.dirty) {
            if held.find_partition(&topic, partition).is_some() {
                // The offset is one that the broker gave, so it is valid.
                let _ = offsets.add_partition_offset(&topic, partition, Offset::Offset(offset));
            }
        }
        if offsets.count() == 0 || self.reader.commit(&offsets, CommitMode::Sync).is_err() {
            return;
        }
        let at = self.moments.next();
        for one in offsets.elements() {
            if let Offset::Offset(offset) = one.offset() {
                self.history.add(&Line::Committed { topic: one.topic(), partition: one.partition(), offset, at });
            }
        }
    }
}

/// Asks the broker what it holds as committed, and how far each partition goes.
pub struct Observer {
    reader: BaseConsumer,
    history: History,
    moments: Moments,
}

impl Observer {
    /// Writes its answers to `observer.jsonl`.
    pub fn start(address: &str, folder: &Path, moments: Moments) -> Result<Self, CompatError> {
        Ok(Self { reader: consumer(address)?, history: History::create(folder, "observer")?, moments })
    }

    /// Notes what is committed now; tries again while the broker starts.
    pub fn look(&self) -> Result<TopicPartitionList, CompatError> {
        let deadline = Instant::now() + ASK_WAIT;
        loop {
            let mut asked = TopicPartitionList::new();
            for (topic, partitions) in topics() {
                asked.add_partition_range(topic, 0, partitions - 1);
            }
            let asked_at = self.moments.next();
            match self.reader.committed_offsets(asked, Duration::from_secs(5)) {
                Ok(found) => {
                    for one in found.elements() {
                        // A partition without a commit is below every offset.
                        let offset = if let Offset::Offset(offset) = one.offset() { offset } else { -1 };
                        self.history.add(&Line::Found {
                            topic: one.topic(),
                            partition: one.partition(),
                            offset,
                            asked_at,
                        });
                    }
                    return Ok(found);
                }
                Err(error) if Instant::now() > deadline => return Err(failed("asking what is committed")(error)),
                Err(_) => std::thread::sleep(ASK_PAUSE),
            }
        }
    }

    /// Waits until the group has committed everything that is stored.
    pub fn wait_for_the_group(&self, limit: Duration) -> Result<(), CompatError> {
        let deadline = Instant::now() + limit;
        loop {
            let found = self.look()?;
            let mut behind = 0;
            for one in found.elements() {
                let ends = self.reader.fetch_watermarks(one.topic(), one.partition(), Duration::from_secs(5));
                let (_, end) = ends.map_err(failed("asking for the end of a partition"))?;
                let committed = if let Offset::Offset(offset) = one.offset() { offset } else { 0 };
                behind += end - committed;
            }
            if behind == 0 {
                return self.history.finish();
            }
            if Instant::now() > deadline {
                let seconds = limit.as_secs();
                return Err(CompatError::Server(format!("the group is {behind} messages behind after {seconds} s")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
