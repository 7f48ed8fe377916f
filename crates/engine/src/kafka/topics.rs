//! Topics: creating them, and asking about them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::durability::{self, Durabilities};
use super::failure;
use crate::{EngineError, TopicSpec};

/// How long a request about topics may take.
const REQUEST_WAIT: Duration = Duration::from_secs(30);
/// How long one look at the metadata may take, and how long until the next one.
const LOOK_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long several brokers must go on saying that there is no such topic: one that was just created reaches each at its own time, and
/// any of them may be the one that is asked.
const ABSENT_WAIT: Duration = Duration::from_secs(5);

/// What one broker says.
enum Look {
    There(Shape),
    /// Unknown to this one, of so many brokers.
    Absent(usize),
}

impl Look {
    fn there(self) -> Option<Shape> {
        match self {
            Self::There(shape) => Some(shape),
            Self::Absent(_) => None,
        }
    }
}

/// How many partitions and copies a topic has, and whether each partition has a leader.
struct Shape {
    partitions: u32,
    replicas_min: usize,
    led: bool,
}

/// Requests about topics, all through one connection.
pub(super) struct Topics {
    admin: Arc<AdminClient<DefaultClientContext>>,
    durabilities: Arc<Durabilities>,
}

impl Topics {
    pub(super) fn new(config: &ClientConfig, durabilities: Arc<Durabilities>) -> Result<Self, EngineError> {
        let admin = config.create().map_err(|error| failure::engine_error("connecting to Kafka", &error))?;
        Ok(Self { admin: Arc::new(admin), durabilities })
    }

    /// [`crate::Engine::create_topic`].
    pub(super) async fn create(&self, topic: &TopicSpec) -> Result<(), EngineError> {
        let partitions = i32::try_from(topic.partitions).ok().filter(|count| *count > 0).ok_or_else(|| {
            EngineError::Caller(format!("topic {}: {} is no number of partitions", topic.name, topic.partitions))
        })?;
        let copies = topic.copies.map_or(-1, i32::from);
        let mut wanted = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(copies));
        for (name, value) in &topic.settings {
            wanted = wanted.set(name, value);
        }
        let deadline = Instant::now() + REQUEST_WAIT;
        loop {
            let options = AdminOptions::new().request_timeout(Some(LOOK_WAIT)).operation_timeout(Some(LOOK_WAIT));
            let doing = || format!("creating topic {}", topic.name);
            let error = match self.admin.create_topics([&wanted], &options).await {
                Ok(results) => match results.into_iter().next() {
                    Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => break,
                    Some(Err((_, code))) if failure::of_the_caller(code) => {
                        return Err(EngineError::Caller(format!("{}: {code}", doing())));
                    }
                    Some(Err((_, code))) => EngineError::Unavailable(format!("{}: {code}", doing())),
                    None => EngineError::Unavailable(format!("{}: no answer", doing())),
                },
                Err(error) => failure::engine_error(&doing(), &error),
            };
            if matches!(error, EngineError::Caller(_)) || Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.wait_until_led(topic, deadline).await
    }

    /// A topic that was just created is not known to every broker at once.
    async fn wait_until_led(&self, topic: &TopicSpec, deadline: Instant) -> Result<(), EngineError> {
        loop {
            let shape = self.look(&topic.name).await.map(Look::there);
            let late = Instant::now() >= deadline;
            match shape {
                Ok(Some(shape))
                    if shape.partitions > topic.partitions || (late && shape.partitions != topic.partitions) =>
                {
                    let (name, there, wanted) = (&topic.name, shape.partitions, topic.partitions);
                    return Err(EngineError::Caller(format!(
                        "topic {name} is there already, with {there} partitions instead of {wanted}"
                    )));
                }
                Ok(Some(shape)) if shape.led && shape.partitions == topic.partitions => return Ok(()),
                Ok(_) if late => {
                    return Err(EngineError::Unavailable(format!(
                        "topic {} was created, but not all of its partitions have a leader yet",
                        topic.name
                    )));
                }
                Err(error) if late => return Err(error),
                // Fewer than wanted may be what one broker has heard of so far: a look at all is needed before that is said.
                Ok(Some(shape)) if shape.led && self.settled_smaller(topic, shape.partitions).await => {
                    let (name, there, wanted) = (&topic.name, shape.partitions, topic.partitions);
                    return Err(EngineError::Caller(format!(
                        "topic {name} is there already, with {there} partitions instead of {wanted}"
                    )));
                }
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Topics appear with all their partitions at once; asked twice, a smaller number is the number.
    async fn settled_smaller(&self, topic: &TopicSpec, seen: u32) -> bool {
        tokio::time::sleep(LOOK_AGAIN).await;
        matches!(self.look(&topic.name).await, Ok(Look::There(shape)) if shape.partitions == seen)
    }

    /// [`crate::Engine::partitions`]. Learns what an acknowledgement of the topic means, too.
    pub(super) async fn partitions(&self, topic: &str) -> Result<u32, EngineError> {
        let deadline = Instant::now() + ABSENT_WAIT;
        let shape = loop {
            match self.look(topic).await? {
                Look::There(shape) => break shape,
                Look::Absent(brokers) if brokers > 1 && Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_AGAIN).await
                }
                Look::Absent(_) => {
                    return Err(EngineError::Caller(format!(
                        "there is no topic {topic}; create it, or check its name"
                    )));
                }
            }
        };
        if !self.durabilities.knows(topic) {
            self.learn(topic, shape.replicas_min).await;
        }
        Ok(shape.partitions)
    }

    async fn learn(&self, topic: &str, replicas: usize) {
        let options = AdminOptions::new().request_timeout(Some(LOOK_WAIT));
        let asked = [ResourceSpecifier::Topic(topic)];
        // Who may not read settings gets receipts that claim nothing.
        let Ok(answers) = self.admin.describe_configs(&asked, &options).await else { return };
        let Some(Ok(settings)) = answers.into_iter().next() else { return };
        let value = |name: &str| settings.get(name).and_then(|entry| entry.value.as_deref());
        let durability = durability::from_settings(replicas, value("min.insync.replicas"), value("flush.messages"));
        self.durabilities.learn(topic, durability);
    }

    async fn look(&self, topic: &str) -> Result<Look, EngineError> {
        let (admin, name) = (self.admin.clone(), topic.to_owned());
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = admin.inner().fetch_metadata(Some(&name), LOOK_WAIT)?;
            let absent = Look::Absent(metadata.brokers().len());
            Ok(metadata
                .topics()
                .first()
                .map_or(Ok(None), |topic| match topic.error().map(Code::from) {
                    Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic) => Ok(None),
                    Some(code) => Err(code),
                    None if topic.partitions().is_empty() => Ok(None),
                    None => Ok(Some(Look::There(Shape {
                        partitions: u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX),
                        replicas_min: topic.partitions().iter().map(|each| each.replicas().len()).min().unwrap_or(0),
                        led: topic.partitions().iter().all(|each| each.leader() >= 0),
                    }))),
                })
                .map(|found| found.unwrap_or(absent)))
        });
        let answer = asked.await.map_err(|error| EngineError::Bug(format!("asking for a topic: {error}")))?;
        match answer {
            Ok(Ok(look)) => Ok(look),
            Ok(Err(code)) => Err(EngineError::Unavailable(format!("asking Kafka for topic {topic}: {code}"))),
            Err(error) => Err(failure::engine_error(&format!("asking Kafka for topic {topic}"), &error)),
        }
    }
}
