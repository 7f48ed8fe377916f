//! What stamps, numbers, evidence and retries cost: messages a second through Baton and through rdkafka alone, on the same embedded broker
//! with the same settings, in turns.
//!
//! `cargo run --release -p baton --example send_throughput -- [rounds] [messages] [bytes]`
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people, which ends at the first thing that goes wrong"
)]

use std::time::{Duration, Instant};

use baton::{Baton, Message};
use baton_engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use baton_engine::{Engine, TopicSpec};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

const PARTITIONS: u32 = 4;
/// Sends that are not awaited yet, in both.
const OPEN_MAX: usize = 20_000;
const LINGER_MS: u64 = 5;
/// As long as a stamp and a trace are.
const STAMP_BYTES: usize = 84;
const TRACE_BYTES: usize = 55;

struct Bench {
    address: String,
    baton: Baton,
    messages: usize,
    payload: Bytes,
}

#[derive(Clone, Copy)]
enum Way {
    /// rdkafka's `FutureProducer`, nothing added.
    Raw,
    /// The same with two headers as long as those of Baton: what a stamp costs that somebody adds by hand.
    RawWithHeaders,
    Baton,
    /// Baton without traces and evidence.
    BatonBare,
}

#[tokio::main]
async fn main() {
    let argument =
        |at: usize, otherwise: usize| std::env::args().nth(at).map_or(otherwise, |text| text.parse().unwrap());
    let (rounds, messages, bytes) = (argument(1, 5), argument(2, 500_000), argument(3, 200));
    let data = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::start(EmbeddedOptions::local(data.path())).await.unwrap();
    let spec = TopicSpec { name: "bench".into(), partitions: PARTITIONS, copies: None, settings: Vec::new() };
    engine.create_topic(&spec).await.unwrap();
    let address = engine.address().to_owned();
    let baton = Baton::with_engine(std::sync::Arc::new(engine));
    let bench = Bench { address, baton, messages, payload: Bytes::from(vec![7; bytes]) };
    let ways = [
        ("raw", Way::Raw),
        ("raw+headers", Way::RawWithHeaders),
        ("baton", Way::Baton),
        ("baton bare", Way::BatonBare),
    ];
    // Once before it counts.
    for (_, way) in ways {
        bench.run(way).await;
    }
    let mut rates = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        for (at, (name, way)) in ways.iter().enumerate() {
            let before = processor_seconds();
            let rate = messages as f64 / bench.run(*way).await.as_secs_f64();
            let processor_us = (processor_seconds() - before) * 1e6 / messages as f64;
            println!("round {round}: {name:<12} {rate:>9.0} messages/s, {processor_us:>6.2} µs of processor for each");
            rates[at].push(rate);
        }
    }
    rates.iter_mut().for_each(|rates| rates.sort_by(f64::total_cmp));
    let median = |at: usize| rates[at][rounds / 2];
    for (at, (name, _)) in ways.iter().enumerate() {
        let ratios = [0, 1].map(|base| median(at) / median(base));
        println!(
            "median: {name:<12} {:>9.0} messages/s, {:.3} of raw, {:.3} of raw+headers",
            median(at),
            ratios[0],
            ratios[1]
        );
    }
}

/// What this process has used of all processors, the broker included.
fn processor_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_SECOND
}

impl Bench {
    async fn run(&self, way: Way) -> Duration {
        match way {
            Way::Raw => self.raw(false).await,
            Way::RawWithHeaders => self.raw(true).await,
            Way::Baton => self.baton(true).await,
            Way::BatonBare => self.baton(false).await,
        }
    }

    async fn raw(&self, with_headers: bool) -> Duration {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", LINGER_MS.to_string())
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "200000")
            .create()
            .unwrap();
        let (stamp, trace) = ([b's'; STAMP_BYTES], [b't'; TRACE_BYTES]);
        let mut open = FuturesOrdered::new();
        let began = Instant::now();
        for number in 0..self.messages {
            let key = (number % 1_000).to_string();
            let mut record = FutureRecord::to("bench").key(&key).payload(&self.payload[..]);
            if with_headers {
                let headers = OwnedHeaders::new_with_capacity(2)
                    .insert(Header { key: "baton", value: Some(&stamp) })
                    .insert(Header { key: "traceparent", value: Some(&trace) });
                record = record.headers(headers);
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

    async fn baton(&self, whole: bool) -> Duration {
        let builder = self.baton.producer("bench").linger_ms(LINGER_MS).in_flight_max(OPEN_MAX as u32);
        let producer = builder.evidence(whole).start_traces(whole).await.unwrap();
        let topic: std::sync::Arc<str> = "bench".into();
        let mut open = FuturesOrdered::new();
        let began = Instant::now();
        for number in 0..self.messages {
            let message = Message::to(topic.clone()).key((number % 1_000).to_string()).payload(self.payload.clone());
            open.push_back(producer.send(message));
            if open.len() >= OPEN_MAX {
                open.next().await.unwrap().unwrap();
            }
        }
        while let Some(sent) = open.next().await {
            sent.unwrap();
        }
        let took = began.elapsed();
        assert!(producer.close(Duration::from_secs(30)).await.is_clean());
        took
    }
}
