//! Group members: threads of this process, and a process that is there to be killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::server::{Server, text, value};
use crate::{Outcome, check, wait_until};

type Partition = (String, i32);

/// A change of the assignment, and how many partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Assign(usize),
    Revoke(usize),
}

#[derive(Default)]
struct State {
    seen: Vec<String>,
    assigned: BTreeSet<Partition>,
    events: Vec<Event>,
    dirty: BTreeMap<Partition, i64>,
    error: Option<String>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits what was seen; what cannot be committed while the group rebalances stays for later.
    fn commit(&self, reader: &BaseConsumer<Self>) -> Result<(), KafkaError> {
        let dirty = self.lock().dirty.clone();
        if dirty.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), offset) in &dirty {
            offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        match reader.commit(&offsets, CommitMode::Sync) {
            Ok(()) => {
                self.lock().dirty.retain(|partition, offset| dirty.get(partition) != Some(offset));
                Ok(())
            }
            Err(error) if error.rdkafka_error_code().is_some_and(comes_later) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// While a group rebalances or its broker starts, a commit is answered with one of these and made again after it.
fn comes_later(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::WaitingForCoordinator
    )
}

impl ClientContext for Shared {}

impl ConsumerContext for Shared {
    fn pre_rebalance(&self, reader: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            if !reader.assignment_lost()
                && let Err(error) = self.commit(reader)
            {
                self.lock().error = Some(text(error));
            }
            let mut state = self.lock();
            state.events.push(Event::Revoke(partitions.count()));
            for one in partitions.elements() {
                let partition = (one.topic().to_owned(), one.partition());
                state.assigned.remove(&partition);
                state.dirty.remove(&partition);
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            let mut state = self.lock();
            state.events.push(Event::Assign(partitions.count()));
            let assigned = partitions.elements().into_iter().map(|one| (one.topic().to_owned(), one.partition()));
            state.assigned.extend(assigned.collect::<Vec<_>>());
        }
    }
}

/// A member in a thread: commits each message before it asks for the next.
pub struct Member {
    shared: Shared,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    pub fn join(server: &Server, group: &str, topics: &[String], configs: &[(&str, &str)]) -> Result<Self, String> {
        let shared = Shared::default();
        let config = server.consumer_config(group, configs);
        let reader: BaseConsumer<Shared> = config.create_with_context(shared.clone()).map_err(text)?;
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        reader.subscribe(&topics).map_err(text)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (shared, stop) = (shared.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Err(error) = step(&reader, &shared) {
                        shared.lock().error = Some(error);
                        break;
                    }
                }
                // The consumer closes when it is dropped, here at the end of its thread.
                drop(reader);
            }
        });
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    pub fn seen(&self) -> Vec<String> {
        self.shared.lock().seen.clone()
    }

    pub fn assigned(&self) -> BTreeSet<Partition> {
        self.shared.lock().assigned.clone()
    }

    pub fn events(&self) -> Vec<Event> {
        self.shared.lock().events.clone()
    }

    pub fn error(&self) -> Option<String> {
        self.shared.lock().error.clone()
    }

    /// Leaves the group cleanly.
    pub fn leave(&mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| "a member panicked")?;
        }
        self.error().map_or(Ok(()), |error| Err(format!("a member failed: {error}")))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.leave();
    }
}

fn step(reader: &BaseConsumer<Shared>, shared: &Shared) -> Outcome {
    match reader.poll(Duration::from_millis(100)) {
        Some(Ok(message)) => {
            let mut state = shared.lock();
            state.seen.push(value(message.payload()));
            state.dirty.insert((message.topic().to_owned(), message.partition()), message.offset() + 1);
        }
        Some(Err(KafkaError::MessageConsumptionFatal(code))) => return Err(format!("fatal: {code}")),
        _ => {}
    }
    shared.commit(reader).map_err(text)
}

/// Waits until the members hold all partitions between them, evenly, and none of them twice.
pub fn wait_for_share(members: &[&Member], partitions: usize) -> Outcome {
    wait_until(&format!("{partitions} partitions are shared"), || {
        let (mut every, mut sizes) = (BTreeSet::new(), Vec::new());
        for member in members {
            if let Some(error) = member.error() {
                return Err(format!("a member failed: {error}"));
            }
            let held = member.assigned();
            sizes.push(held.len());
            every.extend(held);
        }
        let spread = sizes.iter().max().zip(sizes.iter().min()).map_or(0, |(most, least)| most - least);
        Ok((every.len() == partitions && sizes.iter().sum::<usize>() == partitions && spread <= 1).then_some(()))
    })
}

/// Waits until all values have been seen; returns how often each one was.
pub fn wait_for_seen(members: &[&Member], expected: &[String]) -> Result<BTreeMap<String, usize>, String> {
    let counted = || {
        let mut counts = BTreeMap::new();
        for seen in members.iter().flat_map(|member| member.seen()) {
            *counts.entry(seen).or_insert(0) += 1;
        }
        counts
    };
    let waited = wait_until("all messages are seen", || {
        let counts = counted();
        Ok(expected.iter().all(|value| counts.contains_key(value)).then_some(counts))
    });
    waited.map_err(|late| {
        let counts = counted();
        let missing = expected.iter().filter(|value| !counts.contains_key(*value)).count();
        format!("{late}; {missing} of {} missing", expected.len())
    })
}

/// A member that prints each value before it commits, until it is killed.
pub fn run_to_be_killed(server: &Server, group: &str, topic: &str, session_ms: &str, strategy: &str) -> Outcome {
    let configs = [("session.timeout.ms", session_ms), ("partition.assignment.strategy", strategy)];
    let shared = Shared::default();
    let reader: BaseConsumer<Shared> =
        server.consumer_config(group, &configs).create_with_context(shared.clone()).map_err(text)?;
    reader.subscribe(&[topic]).map_err(text)?;
    loop {
        if let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) {
            println!("{}", value(message.payload()));
            let partition = (message.topic().to_owned(), message.partition());
            shared.lock().dirty.insert(partition, message.offset() + 1);
        }
        shared.commit(&reader).map_err(text)?;
        check(shared.lock().error.is_none(), || "the member failed".into())?;
    }
}
