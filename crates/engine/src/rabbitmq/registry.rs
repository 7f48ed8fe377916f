//! What AMQP has no place for: how many partitions a topic has. A stream keeps its messages, and everybody reads the same first one.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ExchangeKind};

use super::link::{engine_error, name};
use crate::{EngineError, TopicSpec};

/// How long an empty stream is waited at before it is taken for empty.
const EMPTY_WAIT: Duration = Duration::from_millis(500);
/// How long a stream that has a message may take to deliver it.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const PERSISTENT: u8 = 2;

fn stream(topic: &str) -> Result<ShortString, EngineError> {
    name(&format!("{topic}.partitions"))
}

pub(super) async fn create(connection: &Connection, topic: &TopicSpec) -> Result<(), EngineError> {
    if topic.partitions == 0 {
        return Err(EngineError::Caller(format!("topic {}: 0 is no number of partitions", topic.name)));
    }
    let wrong = |error: lapin::Error| engine_error(&format!("creating topic {}", topic.name), &error);
    let channel = connection.create_channel().await.map_err(wrong)?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let exchange = name(&topic.name)?;
    channel.exchange_declare(exchange, ExchangeKind::Direct, durable, FieldTable::default()).await.map_err(wrong)?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(stream(&topic.name)?, durable, arguments).await.map_err(wrong)?;
    let mut first = first(connection, &topic.name, EMPTY_WAIT).await?;
    if first.is_none() {
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(wrong)?;
        publish(&channel, topic).await?;
        // Another one may have been faster: the first one counts.
        first = self::first(connection, &topic.name, FIRST_WAIT).await?;
    }
    match first {
        Some(there) if there == topic.partitions => Ok(()),
        Some(there) => Err(EngineError::Caller(format!(
            "topic {} is there already, with {there} partitions instead of {}",
            topic.name, topic.partitions
        ))),
        None => Err(EngineError::Unavailable(format!("creating topic {}: it cannot be read back", topic.name))),
    }
}

async fn publish(channel: &Channel, topic: &TopicSpec) -> Result<(), EngineError> {
    let wrong = |error: lapin::Error| engine_error(&format!("creating topic {}", topic.name), &error);
    let text = topic.partitions.to_string();
    let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let published = channel
        .basic_publish("".into(), stream(&topic.name)?, mandatory, text.as_bytes(), properties)
        .await
        .map_err(wrong)?;
    match published.await.map_err(wrong)? {
        Confirmation::Ack(None) => Ok(()),
        other => Err(EngineError::Unavailable(format!("creating topic {}: {other:?}", topic.name))),
    }
}

pub(super) async fn partitions(connection: &Connection, topic: &str) -> Result<u32, EngineError> {
    let absent = || EngineError::Caller(format!("there is no topic {topic}; create it, or check its name"));
    let channel = connection.create_channel().await.map_err(|error| engine_error("asking for a topic", &error))?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(stream(topic)?, passive, FieldTable::default()).await {
        Ok(_) => {}
        Err(error) => {
            return Err(match engine_error("asking for a topic", &error) {
                EngineError::Caller(_) => absent(),
                other => other,
            });
        }
    }
    // It is there. A node that has just started may need longer than this to read it; or its creation was cut off.
    first(connection, topic, FIRST_WAIT).await?.ok_or_else(|| {
        let waited = FIRST_WAIT.as_secs();
        EngineError::Unavailable(format!(
            "the stream {topic}.partitions has delivered nothing for {waited} s; if the topic's creation was cut off, create it again"
        ))
    })
}

/// The number in the first message.
async fn first(connection: &Connection, topic: &str, wait: Duration) -> Result<Option<u32>, EngineError> {
    let wrong = |error: lapin::Error| engine_error(&format!("reading how many partitions {topic} has"), &error);
    let channel = connection.create_channel().await.map_err(wrong)?;
    channel.basic_qos(1, BasicQosOptions::default()).await.map_err(wrong)?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
    let mut consumer = channel
        .basic_consume(stream(topic)?, "".into(), BasicConsumeOptions::default(), arguments)
        .await
        .map_err(wrong)?;
    let Ok(Some(delivery)) = tokio::time::timeout(wait, consumer.next()).await else { return Ok(None) };
    let data = delivery.map_err(wrong)?.data;
    let number = std::str::from_utf8(&data).ok().and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| EngineError::Caller(format!("the stream {topic}.partitions does not begin with a number")))
}
