//! The topic as it is, read with the engines' own clients and nothing of Baton.

use std::time::Duration;

use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::child::failed;
use crate::history::{History, Line};
use crate::order::{PARTITIONS, TOPIC};
use crate::places::CrashError;

/// The header that holds the stamp, and on RabbitMQ the one that holds the key.
const STAMP: &str = "baton";
const KEY: &str = "baton-key";
/// How long the engine may be silent in the middle of a topic.
const SILENCE_WAIT: Duration = Duration::from_secs(60);

/// Where the messages of a partition are on RabbitMQ.
fn queue(partition: u32) -> String {
    format!("{TOPIC}.raw.{partition}")
}

async fn connect(engine: &str) -> Result<lapin::Channel, CrashError> {
    let connection = Connection::connect(engine, ConnectionProperties::default()).await.map_err(failed("RabbitMQ"))?;
    connection.create_channel().await.map_err(failed("RabbitMQ"))
}

/// Binds a queue to each partition of the topic, since RabbitMQ keeps only what somebody waits for.
pub(super) async fn bind_queues(engine: &str) -> Result<(), CrashError> {
    let channel = connect(engine).await?;
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(TOPIC.into(), ExchangeKind::Direct, durable, FieldTable::default());
    declared.await.map_err(failed("the topic's exchange"))?;
    for partition in 0..PARTITIONS {
        let name = queue(partition);
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.as_str().into(), durable, quorum.clone()).await.map_err(failed("a queue"))?;
        let key = partition.to_string();
        let options = QueueBindOptions::default();
        let bound =
            channel.queue_bind(name.as_str().into(), TOPIC.into(), key.as_str().into(), options, FieldTable::default());
        bound.await.map_err(failed("binding a queue"))?;
    }
    Ok(())
}

/// Writes down everything that is in the topic, partition by partition, in the order in which it is there.
pub(super) async fn read(engine: &str, history: &History) -> Result<(), CrashError> {
    match engine.strip_prefix("kafka://") {
        Some(address) => tokio::task::block_in_place(|| read_kafka(address, history)),
        None => read_rabbitmq(engine, history).await,
    }
}

fn arrival(partition: u32, place: u64, key: Option<&[u8]>, stamp: Option<&[u8]>, payload: &[u8]) -> Line<'static> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // What follows the first line only makes the message as long as it is.
    let head = payload.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Line::Arrival {
        partition,
        place,
        key: key.map(text),
        stamp: stamp.map(text),
        head: text(head),
        bytes: payload.len(),
    }
}

fn read_kafka(address: &str, history: &History) -> Result<(), CrashError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", "raw").set("enable.auto.commit", "false");
    // What is not there any more is not passed over in silence.
    config.set("auto.offset.reset", "error").set("check.crcs", "true").set("isolation.level", "read_uncommitted");
    let reader: BaseConsumer = config.create().map_err(failed("reading the topic"))?;
    for partition in 0..PARTITIONS {
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let ends = reader.fetch_watermarks(TOPIC, number, SILENCE_WAIT);
        let (first, end) = ends.map_err(failed("asking where the topic ends"))?;
        let mut assigned = TopicPartitionList::new();
        let at = assigned.add_partition_offset(TOPIC, number, Offset::Offset(first));
        at.and_then(|()| reader.assign(&assigned)).map_err(failed("reading the topic"))?;
        let mut next = first;
        while next < end {
            let message: BorrowedMessage<'_> = match reader.poll(SILENCE_WAIT) {
                Some(message) => message.map_err(failed("reading the topic"))?,
                None => return Err(CrashError::Process(format!("partition {partition} is silent at {next} of {end}"))),
            };
            let stamps = message.headers().into_iter().flat_map(|headers| headers.iter());
            let stamp = stamps.filter(|header| header.key == STAMP).filter_map(|header| header.value).last();
            let payload = message.payload().unwrap_or_default();
            let place = u64::try_from(message.offset()).unwrap_or(u64::MAX);
            history.add(&arrival(partition, place, message.key(), stamp, payload))?;
            next = message.offset() + 1;
        }
    }
    Ok(())
}

async fn read_rabbitmq(engine: &str, history: &History) -> Result<(), CrashError> {
    let channel = connect(engine).await?;
    for partition in 0..PARTITIONS {
        let (name, mut place) = (queue(partition), 0);
        // What is not acknowledged is not delivered again on this channel: so it goes on to the end, and nothing is taken away.
        let options = BasicGetOptions { no_ack: false };
        while let Some(message) = channel.basic_get(name.as_str().into(), options).await.map_err(failed("reading"))? {
            let table = message.properties.headers().clone().unwrap_or_default();
            let header = |name: &str| match table.inner().get(name) {
                Some(AMQPValue::LongString(text)) => Some(text.as_bytes().to_vec()),
                _ => None,
            };
            let (key, stamp) = (header(KEY), header(STAMP));
            history.add(&arrival(partition, place, key.as_deref(), stamp.as_deref(), &message.data))?;
            place += 1;
        }
    }
    Ok(())
}
