//! What stamps, numbers, evidence and retries cost: messages a second, in turns, of Baton's producer with and without them, and of rdkafka
//! used by hand as well as it can be, with the same settings to the same topic.
//!
//! `cargo run --release -p baton --features measuring --example send_throughput -- [address] [rounds] [messages] [bytes]`
//!
//! The address is `embedded` (the default), or `host:port` of Apache Kafka, such as what `scripts/kafka-up` prints. The topic `bench` is made
//! there; it keeps no more than a few hundred megabytes.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people, which ends at the first thing that goes wrong"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baton::{Baton, Engine, Message, Producer, TopicSpec};
use baton_engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use baton_engine::kafka::KafkaEngine;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, FutureProducer, FutureRecord, Producer as _, ProducerContext, ThreadedProducer,
};

const TOPIC: &str = "bench";
const PARTITIONS: u32 = 4;
/// Sends that are not awaited yet, where there are futures.
const OPEN_MAX: usize = 20_000;
/// How long who finds the buffer full looks away.
const FULL_WAIT: Duration = Duration::from_millis(1);
const LINGER_MS: u64 = 5;
/// As long as a stamp and a trace are.
const STAMP_BYTES: usize = 84;
const TRACE_BYTES: usize = 55;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A way to send, and its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// rdkafka with a callback for each delivery. With two headers as long as those of Baton, or without: the first is what somebody pays
    /// who adds by hand what a consumer needs to tell messages apart.
    RawCallbacks { headers: bool },
    /// rdkafka's `FutureProducer`.
    RawFutures { headers: bool },
    /// Baton with a callback for each message; with stamp, trace and evidence, or with none of them.
    BatonCallbacks { whole: bool },
    /// Baton with a future for each.
    BatonFutures { whole: bool },
}

const WAYS: [(&str, Way); 8] = [
    ("rdkafka callbacks", Way::RawCallbacks { headers: false }),
    ("rdkafka callbacks+headers", Way::RawCallbacks { headers: true }),
    ("rdkafka futures", Way::RawFutures { headers: false }),
    ("rdkafka futures+headers", Way::RawFutures { headers: true }),
    ("baton callbacks, plain", Way::BatonCallbacks { whole: false }),
    ("baton callbacks", Way::BatonCallbacks { whole: true }),
    ("baton futures, plain", Way::BatonFutures { whole: false }),
    ("baton futures", Way::BatonFutures { whole: true }),
];

/// Which of them are set against each other: by their places above.
const RATIOS: [(&str, usize, usize); 6] = [
    ("stamp and evidence, callbacks", 5, 4),
    ("stamp and evidence, futures", 7, 6),
    ("baton against rdkafka+headers, callbacks", 5, 1),
    ("baton against rdkafka+headers, futures", 7, 3),
    ("baton against rdkafka, callbacks", 5, 0),
    ("baton against rdkafka, futures", 7, 2),
];

struct Bench {
    address: String,
    baton: Baton,
    messages: usize,
    payload: Bytes,
    keys: Vec<String>,
}

#[derive(Default, Clone, Copy)]
struct Figures {
    rate: f64,
    processor_us: f64,
}

#[tokio::main]
async fn main() {
    let argument = |at: usize| std::env::args().nth(at);
    let number = |at: usize, otherwise: usize| argument(at).map_or(otherwise, |text| text.parse().unwrap());
    let (rounds, messages, bytes) = (number(2, 5), number(3, 500_000), number(4, 200));
    let only = argument(5);
    let data = tempfile::tempdir().unwrap();
    let (engine, address): (Arc<dyn Engine>, String) = match argument(1).as_deref() {
        None | Some("embedded") => {
            let engine = EmbeddedEngine::start(EmbeddedOptions::local(data.path())).await.unwrap();
            let address = engine.address().to_owned();
            (Arc::new(engine), address)
        }
        Some(address) => (Arc::new(KafkaEngine::connect(address, &[]).unwrap()), address.to_owned()),
    };
    // Apache Kafka removes what is beyond that; the embedded broker is on a folder that goes at the end.
    let kept = [("retention.bytes", "33554432"), ("segment.bytes", "16777216")];
    let settings = match engine.name() {
        "kafka" => kept.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        _ => Vec::new(),
    };
    let spec = TopicSpec { name: TOPIC.into(), partitions: PARTITIONS, copies: None, settings };
    engine.create_topic(&spec).await.unwrap();
    println!("{rounds} rounds of {messages} messages of {bytes} bytes to {} at {address}", engine.name());
    let baton = Baton::with_engine(engine);
    // Random, so that nothing on the way can make it smaller.
    let mut payload = vec![0; bytes];
    getrandom::fill(&mut payload).unwrap();
    let keys = (0..1_000).map(|key| key.to_string()).collect();
    let bench = Arc::new(Bench { address, baton, messages, payload: payload.into(), keys });
    let ways: Vec<_> = WAYS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)).collect();
    // Once before it counts.
    for (_, way) in &ways {
        bench.measure(*way).await;
    }
    let mut figures = vec![Vec::new(); WAYS.len()];
    for round in 0..rounds {
        // Each begins a round once, so that none is always behind the same other.
        for turn in 0..ways.len() {
            let (name, way) = ways[(turn + round) % ways.len()];
            let measured = bench.measure(*way).await;
            let Figures { rate, processor_us } = measured;
            println!("round {round}: {name:<26} {rate:>9.0} messages/s, {processor_us:>6.2} µs of processor for each");
            let at = WAYS.iter().position(|(_, other)| other == way).unwrap();
            figures[at].push(measured);
        }
    }
    report(&figures);
}

fn report(figures: &[Vec<Figures>]) {
    let median = |at: usize, of: fn(&Figures) -> f64| {
        let mut all: Vec<f64> = figures[at].iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    for (at, (name, _)) in WAYS.iter().enumerate() {
        let (rate, processor_us) = (median(at, |one| one.rate), median(at, |one| one.processor_us));
        println!("median: {name:<26} {rate:>9.0} messages/s, {processor_us:>6.2} µs of processor for each");
    }
    for (name, of, against) in RATIOS {
        let ratio = median(of, |one| one.rate) / median(against, |one| one.rate);
        // Round by round: what disturbs a round disturbs both.
        let mut paired: Vec<f64> =
            figures[of].iter().zip(&figures[against]).map(|(of, against)| of.rate / against.rate).collect();
        paired.sort_by(f64::total_cmp);
        let paired = paired.get(paired.len() / 2).copied().unwrap_or(f64::NAN);
        let processor = median(of, |one| one.processor_us) / median(against, |one| one.processor_us);
        println!(
            "ratio: {name:<42} {ratio:.3} of the rate (median of the rounds' own: {paired:.3}), {processor:.3} of the processor"
        );
    }
}

/// What this process has used of all processors, the broker included if it is embedded.
fn processor_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_SECOND
}

/// Counts deliveries.
struct Counting(Arc<AtomicUsize>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn headers() -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(2)
        .insert(Header { key: "traceparent", value: Some(&[b't'; TRACE_BYTES]) })
        .insert(Header { key: "baton", value: Some(&[b's'; STAMP_BYTES]) })
}

impl Bench {
    async fn measure(self: &Arc<Self>, way: Way) -> Figures {
        let before = processor_seconds();
        let took = match way {
            Way::RawFutures { headers } => self.raw_futures(headers).await,
            Way::BatonFutures { whole } => self.baton_futures(whole).await,
            Way::RawCallbacks { headers } => {
                let bench = Arc::clone(self);
                tokio::task::spawn_blocking(move || bench.raw_callbacks(headers)).await.unwrap()
            }
            Way::BatonCallbacks { whole } => {
                let (bench, producer) = (Arc::clone(self), self.producer(whole).await);
                let sender = producer.clone();
                let sending = tokio::task::spawn_blocking(move || bench.baton_callbacks(&sender));
                let took = sending.await.unwrap();
                assert!(producer.close(LONG).await.is_clean());
                took
            }
        };
        let messages = self.messages as f64;
        let processor_us = (processor_seconds() - before) * 1e6 / messages;
        Figures { rate: messages / took.as_secs_f64(), processor_us }
    }

    fn raw(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.address)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", LINGER_MS.to_string())
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "200000");
        config
    }

    fn raw_callbacks(&self, with_headers: bool) -> Duration {
        let delivered = Arc::new(AtomicUsize::new(0));
        let producer =
            ThreadedProducer::from_config_and_context(&self.raw(), Counting(Arc::clone(&delivered))).unwrap();
        let began = Instant::now();
        for number in 0..self.messages {
            let key = &self.keys[number % self.keys.len()];
            let mut record = BaseRecord::to(TOPIC).key(key).payload(&self.payload[..]);
            if with_headers {
                record = record.headers(headers());
            }
            while let Err((error, back)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
                std::thread::sleep(FULL_WAIT);
                record = back;
            }
        }
        producer.flush(LONG).unwrap();
        let took = began.elapsed();
        assert_eq!(delivered.load(Ordering::Acquire), self.messages);
        took
    }

    async fn raw_futures(&self, with_headers: bool) -> Duration {
        let producer: FutureProducer = self.raw().create().unwrap();
        let mut open = FuturesOrdered::new();
        let began = Instant::now();
        for number in 0..self.messages {
            let key = &self.keys[number % self.keys.len()];
            let mut record = FutureRecord::to(TOPIC).key(key).payload(&self.payload[..]);
            if with_headers {
                record = record.headers(headers());
            }
            open.push_back(producer.send_result(record).map_err(|(error, _)| error).unwrap());
            if open.len() >= OPEN_MAX {
                open.next().await.unwrap().unwrap().unwrap();
            }
        }
        while let Some(sent) = open.next().await {
            sent.unwrap().unwrap();
        }
        began.elapsed()
    }

    async fn producer(&self, whole: bool) -> Producer {
        let builder = self.baton.producer("bench").linger_ms(LINGER_MS).in_flight_max(OPEN_MAX as u32);
        let builder = if whole { builder } else { builder.evidence(false).without_stamps() };
        builder.await.unwrap()
    }

    fn message(&self, topic: &Arc<str>, number: usize) -> Message {
        // Copied, as a message's own key would be.
        let key = Bytes::copy_from_slice(self.keys[number % self.keys.len()].as_bytes());
        Message::to(Arc::clone(topic)).key(key).payload(self.payload.clone())
    }

    fn baton_callbacks(&self, producer: &Producer) -> Duration {
        let topic: Arc<str> = TOPIC.into();
        let delivered = Arc::new(AtomicUsize::new(0));
        let began = Instant::now();
        for number in 0..self.messages {
            let mut message = self.message(&topic, number);
            let delivered = Arc::clone(&delivered);
            let mut callback = move |outcome: Result<baton::Receipt, baton::SendError>| {
                if outcome.is_ok() {
                    delivered.fetch_add(1, Ordering::AcqRel);
                }
            };
            while let Err(back) = producer.send_with(message, callback) {
                std::thread::sleep(FULL_WAIT);
                (message, callback) = *back;
            }
        }
        while delivered.load(Ordering::Acquire) < self.messages {
            std::thread::sleep(FULL_WAIT);
            assert_eq!(producer.counters().failed, 0);
        }
        began.elapsed()
    }

    async fn baton_futures(&self, whole: bool) -> Duration {
        let producer = self.producer(whole).await;
        let topic: Arc<str> = TOPIC.into();
        let mut open = FuturesOrdered::new();
        let began = Instant::now();
        for number in 0..self.messages {
            open.push_back(producer.send(self.message(&topic, number)));
            if open.len() >= OPEN_MAX {
                open.next().await.unwrap().unwrap();
            }
        }
        while let Some(sent) = open.next().await {
            sent.unwrap();
        }
        let took = began.elapsed();
        assert!(producer.close(LONG).await.is_clean());
        took
    }
}
