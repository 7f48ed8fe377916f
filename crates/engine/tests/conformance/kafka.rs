//! Apache Kafka, one node and three.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::TopicPartition;
use baton_engine::conformance::Subject;
use baton_engine::kafka::KafkaEngine;
use baton_engine::{Backlog, ConsumerOptions, Engine, EngineFuture, Event, Question, Start, TopicSpec, Waiting};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::servers::{START_SECONDS_MAX, cache, free_ports, script};

pub(crate) const SMALL_BUFFER: &[(&str, &str)] = &[("queue.buffering.max.messages", "10")];
const PATIENCE: Duration = Duration::from_secs(120);
const HEAP: &str = "384m";
/// What Kafka cannot and need not do.
pub(crate) const SKIPPED: &[&str] = &[
    "a_send_without_any_group_is_refused_as_not_stored",
    "what_nobody_takes_is_told_from_what_is_sent_beside_it",
    "what_is_given_back_is_delivered_again",
    "no_more_than_the_prefetch_is_delivered_unsettled",
];

pub(crate) fn pairs(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn short_patience() -> Vec<(String, String)> {
    pairs(&[("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000")])
}

pub(crate) async fn delete_records(address: &str, partition: &TopicPartition, offset: i64) -> Result<(), String> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address).create().map_err(|error| error.to_string())?;
    let mut list = TopicPartitionList::new();
    let number = i32::try_from(partition.partition).unwrap();
    list.add_partition_offset(&partition.topic, number, Offset::Offset(offset)).unwrap();
    let result = admin.delete_records(&list, &AdminOptions::new()).await.map_err(|error| error.to_string())?;
    result.elements().iter().try_for_each(|each| each.error()).map_err(|error| error.to_string())
}

struct Kafka {
    engine: Arc<KafkaEngine>,
    address: String,
    nodes: u16,
    settings: Vec<(&'static str, String)>,
    _data: tempfile::TempDir,
}

impl Kafka {
    async fn start(nodes: u16) -> Self {
        let data = tempfile::tempdir().unwrap();
        let settings = vec![
            ("KAFKA_LIB", cache().join("kafka-4.3.1").display().to_string()),
            ("KAFKA_DATA", data.path().join("kafka").display().to_string()),
            ("KAFKA_NODES", nodes.to_string()),
            ("KAFKA_PORT", free_ports(nodes).to_string()),
            ("KAFKA_CONTROLLER_PORT", free_ports(nodes).to_string()),
            ("KAFKA_HEAP", HEAP.to_owned()),
            ("KAFKA_JVM_OPTS", "-XX:TieredStopAtLevel=1".to_owned()),
            ("KAFKA_WAIT", START_SECONDS_MAX.to_string()),
            // An interrupted test cannot stop it any more.
            ("KAFKA_OWNER", std::process::id().to_string()),
        ];
        let address = script("kafka-up", &settings, &[]).await.unwrap();
        let engine = Arc::new(KafkaEngine::connect(&address, &[]).unwrap());
        Self { engine, address, nodes, settings, _data: data }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let mut down = std::process::Command::new(crate::servers::root().join("scripts/kafka-down"));
        down.env("KAFKA_KILL", "1").stdout(std::process::Stdio::null());
        for (name, value) in &self.settings {
            down.env(name, value);
        }
        let _ = down.status();
    }
}

impl Subject for Kafka {
    fn name(&self) -> String {
        format!("Apache Kafka 4.3.1, {} node(s)", self.nodes)
    }

    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn small_buffer(&self) -> Vec<(String, String)> {
        pairs(SMALL_BUFFER)
    }

    fn interrupt(&self) -> Option<EngineFuture<'_, Result<(), String>>> {
        let mut settings = self.settings.clone();
        settings.push(("KAFKA_KILL", "1".to_owned()));
        Some(Box::pin(async move { script("kafka-down", &settings, &[]).await.map(drop) }))
    }

    fn restore(&self) -> EngineFuture<'_, Result<(), String>> {
        Box::pin(async { script("kafka-up", &self.settings, &[]).await.map(drop) })
    }

    fn remove<'a>(
        &'a self,
        partition: &'a TopicPartition,
        offset: i64,
    ) -> Option<EngineFuture<'a, Result<(), String>>> {
        Some(Box::pin(delete_records(&self.address, partition, offset)))
    }

    fn short_patience(&self) -> Option<Vec<(String, String)>> {
        Some(short_patience())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_kafka_passes_the_suite() {
    let subject = Kafka::start(1).await;
    marks_of_transactions_are_no_backlog(&subject).await;
    crate::passes(&subject, SKIPPED).await;
}

/// The mark behind a transaction has an offset, and is delivered to nobody.
async fn marks_of_transactions_are_no_backlog(subject: &Kafka) {
    let topic: Arc<str> = "transactions".into();
    subject.engine.create_topic(&TopicSpec::new(topic.clone(), 1)).await.unwrap();
    let address = subject.address.clone();
    let producing = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("transactional.id", "conformance")
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<(), str>::to("transactions").payload("one")).unwrap();
        producer.commit_transaction(PATIENCE).unwrap();
    });
    producing.await.unwrap();
    let options = ConsumerOptions {
        group: "group".to_owned(),
        topics: vec![topic.clone()],
        start: Start::Earliest,
        prefetch: Some(10),
        release_wait: PATIENCE,
        settings: Vec::new(),
    };
    let mut consumer = subject.engine.consumer(options).await.unwrap();
    let began = Instant::now();
    while !matches!(consumer.next(Duration::from_secs(1)).await, Ok(Event::Messages(_))) {
        assert!(began.elapsed() < PATIENCE, "nothing comes");
    }
    let ask = |exact| vec![Question { partition: TopicPartition::new(topic.clone(), 0), next: Some(1), exact }];
    let end = |answers: Vec<Backlog>| match answers[..] {
        [Backlog { waiting: Waiting::Offsets { end, .. }, exact, .. }] => (end, exact),
        _ => panic!("{answers:?}"),
    };
    assert_eq!(end(consumer.backlog(ask(false)).await.unwrap()), (2, false), "the mark counts until somebody looks");
    assert_eq!(end(consumer.backlog(ask(true)).await.unwrap()), (1, true));
    assert_eq!(end(consumer.backlog(ask(false)).await.unwrap()), (1, true), "what was looked at once is known");
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_of_apache_kafka_pass_the_suite() {
    let subject = Kafka::start(3).await;
    crate::passes(&subject, SKIPPED).await;
}
