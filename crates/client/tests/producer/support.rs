//! A broker, a link to it, and what is really in its topics.

use std::sync::Arc;
use std::time::Duration;

use baton::{Baton, Delivery, Message, TopicPartition};
use baton_broker::{Broker, BrokerOptions};
use baton_core::stamp::Stamp;
use baton_core::{EVIDENCE_TOPIC, Report, SequenceEvidence};
use baton_engine::kafka::KafkaEngine;
use baton_engine::{Engine, TopicSpec};
use baton_testkit::proxy::Proxy;
use baton_testkit::servers::free_ports;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;

/// Below what the system gives to outgoing connections, so that a client that dials while a broker is down cannot take its port.
const PORTS: std::ops::Range<u16> = 24_000..25_000;
/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A port that nobody listens on, and that this process gives out once.
fn free_port() -> u16 {
    free_ports(&PORTS, 1)
}

/// A broker, a link to it that can be disturbed, and one that cannot.
pub(crate) struct World {
    /// Through the link.
    pub(crate) baton: Baton,
    pub(crate) proxy: Proxy,
    pub(crate) engine: Arc<dyn Engine>,
    options: BrokerOptions,
    broker: Option<Broker>,
    _data: tempfile::TempDir,
}

impl World {
    pub(crate) async fn start(topics: &[(&str, u32)]) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let data = tempfile::tempdir().unwrap();
        let (listen, link) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let proxy = Proxy::start(&link, &listen).await.unwrap();
        let mut options = BrokerOptions::local(data.path());
        options.listen = listen;
        options.advertised = Some(link.clone());
        let broker = Some(Broker::start(options.clone()).await.unwrap());
        let engine: Arc<dyn Engine> = Arc::new(KafkaEngine::connect(&link, &quick()).unwrap());
        let baton = Baton::with_engine(Arc::clone(&engine));
        let world = Self { baton, proxy, engine, options, broker, _data: data };
        for (name, partitions) in topics {
            world.create(name, *partitions).await;
        }
        world
    }

    /// Of the link.
    pub(crate) fn address(&self) -> String {
        format!("kafka://{}", self.options.advertised.as_deref().unwrap())
    }

    pub(crate) async fn create(&self, name: &str, partitions: u32) {
        let spec = TopicSpec { name: name.into(), partitions, copies: None, settings: Vec::new() };
        self.engine.create_topic(&spec).await.unwrap();
    }

    /// Gives a topic more partitions, so many in all.
    pub(crate) async fn raise(&self, name: &str, partitions: usize) {
        let address = self.options.advertised.as_deref().unwrap();
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", address).create().unwrap();
        let raised = admin.create_partitions(&[NewPartitions::new(name, partitions)], &AdminOptions::new()).await;
        assert_eq!(raised.unwrap(), [Ok(name.to_owned())]);
    }

    /// Stops the broker without waiting for its connections.
    pub(crate) async fn kill(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.stop(Duration::ZERO).await;
        }
    }

    pub(crate) async fn start_again(&mut self) {
        self.broker = Some(Broker::start(self.options.clone()).await.unwrap());
    }

    /// Everything that is in a partition.
    pub(crate) async fn read(&self, topic: &str, partition: u32) -> Vec<Delivery> {
        let mut reader = self.engine.reader(&TopicPartition::new(topic, partition), 0).await.unwrap();
        let mut all = Vec::new();
        loop {
            let some = reader.next().await.unwrap();
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    /// What an instance has reported of a partition.
    pub(crate) async fn evidence(&self, instance: &str, topic: &str, partition: u32) -> SequenceEvidence {
        let mut all = SequenceEvidence::default();
        for delivery in self.read(EVIDENCE_TOPIC, 0).await {
            let report = Report::decode(delivery.payload.as_deref().unwrap()).unwrap();
            assert_eq!(delivery.key.as_deref(), Some(report.instance.as_str().as_bytes()));
            let of = TopicPartition::new(topic, partition);
            if report.instance.as_str() == instance {
                let ours = report.sequences.iter().filter(|sequence| sequence.partition == of);
                ours.for_each(|sequence| all.merge(&sequence.evidence));
            }
        }
        all
    }
}

/// A client that notices soon that a connection is gone, and dials again at once.
fn quick() -> Vec<(String, String)> {
    [("reconnect.backoff.ms", "20"), ("reconnect.backoff.max.ms", "100"), ("socket.timeout.ms", "2000")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

pub(crate) fn stamp(delivery: &Delivery) -> Stamp {
    Stamp::of(&delivery.headers).unwrap().expect("every message has a stamp")
}

pub(crate) fn numbered(topic: &str, number: usize) -> Message {
    Message::to(topic).payload(number.to_string())
}

pub(crate) fn number(delivery: &Delivery) -> usize {
    std::str::from_utf8(delivery.payload.as_deref().unwrap()).unwrap().parse().unwrap()
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to be: {what}");
}
