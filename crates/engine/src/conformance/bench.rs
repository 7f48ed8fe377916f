//! What cases are made of: topics, producers and consumers of one's own, and waiting with a deadline.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::{Delivery, Headers, TopicPartition};
use bytes::Bytes;

use super::Subject;
use crate::{
    Assignment, ConsumerOptions, Engine, EngineConsumer, EngineError, EngineProducer, Event, ProducerOptions, Record,
    SendError, Settlement, Settling, Start, TopicSpec,
};

/// How long anything may take that is not an outage. Members join, engines elect and slow, busy machines stumble in less.
pub(super) const WAIT: Duration = Duration::from_secs(180);
/// One call of `next`.
pub(super) const TURN: Duration = Duration::from_millis(200);
/// How long nothing must come for it to be believed that nothing comes.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// Why a case failed.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

pub(super) type CaseResult = Result<(), Failure>;

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self(format!("{error:?}"))
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        Self(format!("{error:?}"))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Fails the case unless it is so.
pub(super) fn ensure(so: bool, otherwise: impl fmt::Display) -> CaseResult {
    if so { Ok(()) } else { Err(Failure(otherwise.to_string())) }
}

/// Fails the case unless both are the same.
pub(super) fn ensure_same<T: PartialEq + fmt::Debug>(is: &T, should: &T, what: &str) -> CaseResult {
    ensure(is == should, format_args!("{what}: {is:?}, and not {should:?}"))
}

/// One case's surroundings.
pub(super) struct Bench<'a> {
    pub(super) subject: &'a dyn Subject,
    pub(super) engine: Arc<dyn Engine>,
    case: &'static str,
}

impl<'a> Bench<'a> {
    pub(super) fn new(subject: &'a dyn Subject, case: &'static str) -> Self {
        Self { subject, engine: subject.engine(), case }
    }

    /// A name that nobody else has.
    pub(super) fn name(&self, what: &str) -> String {
        let short: String = self.case.chars().take(24).collect();
        format!("{what}-{short}-{}", uuid::Uuid::new_v4().simple())
    }

    /// A topic of one's own. Where groups get only what is sent after they subscribed, `groups` subscribe.
    pub(super) async fn topic(&self, partitions: u32, groups: &[&str]) -> Result<Arc<str>, Failure> {
        let name: Arc<str> = self.name("topic").into();
        let spec = TopicSpec { name: name.clone(), partitions, copies: None, settings: Vec::new() };
        self.engine.create_topic(&spec).await?;
        // This is also when some engines learn what their acknowledgement means.
        let there = self.engine.partitions(&name).await?;
        ensure_same(&there, &partitions, "partitions of a new topic")?;
        if !self.engine.capabilities().history {
            for group in groups {
                self.engine.consumer(self.member(group, &name)).await?.close().await?;
            }
        }
        Ok(name)
    }

    pub(super) fn sender(&self) -> ProducerOptions {
        ProducerOptions {
            client_id: "conformance".to_owned(),
            linger_ms: 0,
            delivery_timeout: WAIT,
            settings: Vec::new(),
        }
    }

    pub(super) async fn producer(&self) -> Result<Arc<dyn EngineProducer>, Failure> {
        Ok(self.engine.producer(self.sender()).await?)
    }

    pub(super) fn member(&self, group: &str, topic: &Arc<str>) -> ConsumerOptions {
        ConsumerOptions {
            group: group.to_owned(),
            topics: vec![topic.clone()],
            start: Start::Earliest,
            prefetch: Some(1_000),
            release_wait: WAIT,
            settings: Vec::new(),
        }
    }

    pub(super) async fn consumer(&self, group: &str, topic: &Arc<str>) -> Result<Member, Failure> {
        self.consumer_with(self.member(group, topic)).await
    }

    pub(super) async fn consumer_with(&self, options: ConsumerOptions) -> Result<Member, Failure> {
        let each = self.engine.capabilities().settling == Settling::Each;
        Ok(Member { consumer: self.engine.consumer(options).await?, each, assigned: BTreeMap::new(), lost: Vec::new() })
    }

    /// Sends, and waits for each.
    pub(super) async fn send_all(&self, records: Vec<Record>) -> CaseResult {
        let producer = self.producer().await?;
        let mut waiting = Vec::with_capacity(records.len());
        for record in records {
            waiting.push(send(&*producer, record).await?);
        }
        for sent in waiting {
            sent.await?;
        }
        Ok(())
    }
}

type Sent = crate::EngineFuture<'static, Result<crate::Stored, SendError>>;

/// Hands a record over, and waits for room if there is none.
pub(super) async fn send(producer: &dyn EngineProducer, record: Record) -> Result<Sent, Failure> {
    let mut record = record;
    let deadline = Instant::now() + WAIT;
    loop {
        match producer.send(record) {
            Ok(sent) => return Ok(sent),
            Err(full) if Instant::now() < deadline => record = *full.0,
            Err(_) => return Err(Failure("the buffer stayed full".to_owned())),
        }
        let _ = tokio::time::timeout(WAIT, producer.room()).await;
    }
}

/// A plain record.
pub(super) fn record(topic: &Arc<str>, partition: u32, payload: impl Into<Bytes>) -> Record {
    Record {
        to: TopicPartition::new(topic.clone(), partition),
        key: None,
        payload: Some(payload.into()),
        headers: Headers::default(),
        timestamp_ms: None,
        id: None,
    }
}

/// Records that can be told apart: `0`, `1`, ...
pub(super) fn numbered(topic: &Arc<str>, partition: u32, numbers: std::ops::Range<u32>) -> Vec<Record> {
    numbers.map(|number| record(topic, partition, number.to_string())).collect()
}

/// The text of a delivery's content.
pub(super) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.payload.as_deref().unwrap_or_default()).into_owned()
}

/// The numbers of [`numbered`].
pub(super) fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// A consumer that keeps the books of its assignments.
pub(super) struct Member {
    pub(super) consumer: Box<dyn EngineConsumer>,
    each: bool,
    pub(super) assigned: BTreeMap<TopicPartition, Assignment>,
    pub(super) lost: Vec<TopicPartition>,
}

impl Member {
    /// One call of `next`. An engine that is away for a moment is no failure.
    pub(super) async fn turn(&mut self, wait: Duration) -> Result<Event, Failure> {
        let event = match self.consumer.next(wait).await {
            Ok(event) => event,
            Err(EngineError::Unavailable(_)) => {
                tokio::time::sleep(TURN).await;
                Event::Idle
            }
            Err(error) => return Err(error.into()),
        };
        match &event {
            Event::Assigned(assignments) => {
                self.assigned.extend(assignments.iter().map(|each| (each.partition.clone(), each.clone())));
            }
            Event::Lost(partitions) => {
                self.lost.extend(partitions.iter().cloned());
                partitions.iter().for_each(|each| _ = self.assigned.remove(each));
            }
            _ => {}
        }
        Ok(event)
    }

    /// Messages, or none after a while; revocations are agreed to at once.
    pub(super) async fn messages(&mut self) -> Result<Vec<Delivery>, Failure> {
        match self.turn(TURN).await? {
            Event::Messages(messages) => Ok(messages),
            Event::Revoking(partitions) => {
                self.release(&partitions).await?;
                Ok(Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }

    pub(super) async fn release(&mut self, partitions: &[TopicPartition]) -> CaseResult {
        self.consumer.release(partitions).await?;
        partitions.iter().for_each(|each| _ = self.assigned.remove(each));
        Ok(())
    }

    /// Takes messages until there are so many. More than that is a failure, unless it is the same again.
    pub(super) async fn take(&mut self, count: usize) -> Result<Vec<Delivery>, Failure> {
        let (mut taken, deadline) = (Vec::new(), Instant::now() + WAIT);
        while taken.len() < count {
            taken.extend(self.messages().await?);
            ensure(Instant::now() < deadline, format_args!("{} of {count} messages came", taken.len()))?;
        }
        ensure(taken.len() == count, format_args!("{} messages came instead of {count}", taken.len()))?;
        Ok(taken)
    }

    /// What comes while nothing should.
    pub(super) async fn silence(&mut self) -> Result<Vec<Delivery>, Failure> {
        let (mut taken, end) = (Vec::new(), Instant::now() + SILENCE);
        while Instant::now() < end {
            taken.extend(self.messages().await?);
        }
        Ok(taken)
    }

    /// Turns until so many partitions are ours.
    pub(super) async fn until_assigned(&mut self, count: usize) -> CaseResult {
        let deadline = Instant::now() + WAIT;
        while self.assigned.len() != count {
            if let Event::Revoking(partitions) = self.turn(TURN).await? {
                self.release(&partitions).await?;
            }
            ensure(Instant::now() < deadline, format_args!("{} of {count} partitions are ours", self.assigned.len()))?;
        }
        Ok(())
    }

    /// That these are done, and with a frontier all before them.
    pub(super) fn done(&self, deliveries: &[Delivery], metadata: &str) -> Vec<Settlement> {
        let each = |delivery: &Delivery| {
            let partition = delivery.from.clone();
            match self.each {
                true => Settlement::Done { partition, offset: delivery.offset },
                false => Settlement::Frontier { partition, next: delivery.offset + 1, metadata: metadata.to_owned() },
            }
        };
        if self.each {
            return deliveries.iter().map(each).collect();
        }
        let last: BTreeMap<&TopicPartition, &Delivery> = deliveries.iter().map(|each| (&each.from, each)).collect();
        last.into_values().map(each).collect()
    }

    pub(super) async fn settle(&mut self, deliveries: &[Delivery]) -> CaseResult {
        let settlements = self.done(deliveries, "");
        Ok(self.consumer.settle(&settlements).await?)
    }

    pub(super) async fn close(self) -> CaseResult {
        Ok(self.consumer.close().await?)
    }
}

/// Whether it is refused as the caller's fault.
pub(super) fn is_refused<T>(result: &Result<T, EngineError>) -> bool {
    matches!(result, Err(EngineError::Caller(_)))
}
