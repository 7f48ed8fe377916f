//! What the consumer costs and what it brings, in three measurements; each side runs in a process of its own, the broker in another,
//! in turns:
//!
//! - `acknowledge`: records consumed and acknowledged, against rdkafka's two consumers with commits by hand. From the first record to
//!   the end of the group's membership, so that the last position is committed on every side. Besides the default order by key: by
//!   partition, and in batches of 500. `acknowledge-small` is the same with smaller records.
//! - `handlers`: one partition and a handler that takes 5 ms, 100 at once, against one after the other. The slow side gets fewer records:
//!   what is compared is the rate. From the first record's handler to the end of the last one's. With `--beside CLASSPATH` Confluent's
//!   parallel consumer takes part: `scripts/bench-consumers` builds it.
//! - `blocked`: as many keys as records, with one key's handler that never ends, against the same without: rate of the others, and memory.
//!
//! `cargo run --release -p baton --example consume_throughput -- [acknowledge|acknowledge-small|handlers|blocked] [--rounds 5]
//! [--part 1.0] [--json] [--listen 127.0.0.1:0 | --address 127.0.0.1:9092] [--beside CLASSPATH]`
//!
//! Each record has a key, a stamp and a `traceparent`, as a producer of Baton sends them. With `--address` a server that runs already is used
//! instead of a broker of Baton's own; the topics must not be there.
//!
//! `--part 0.01` measures a hundredth of the records: to see that it works, not to be believed.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people, which ends at the first thing that goes wrong"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use baton::consumer::{AtLeastOnce, Batches, ConsumerBuilder};
use baton::{Baton, Instance, MessageId, Order, Received, Stamp, TopicSpec};
use baton_broker::{Broker, BrokerOptions};
use baton_core::stamp::STAMP_HEADER;
use baton_core::trace::TRACEPARENT_HEADER;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

/// How often the raw sides commit: as often as the library does.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// Records between two looks at the clock, on the raw sides.
const CLOCK_EVERY: u64 = 256;
const HANDLER_TIME: Duration = Duration::from_millis(5);
const HANDLERS: u32 = 100;
/// The key that is blocked, and how many records it has among the others: one in so many.
const BLOCKED_KEY: &[u8] = b"blocked";
const BLOCKED_EVERY: u64 = 10_000;
/// The blocked handler is not to be cancelled, nor its partition to be told stuck, while it is measured.
const NEVER: Duration = Duration::from_secs(24 * 3600);
const STOP_WAIT: Duration = Duration::from_secs(30);

/// The side that is no process of ours; it takes part only with `--beside`.
const CONFLUENT: &str = "confluent";

/// What is measured.
struct Measurement {
    name: &'static str,
    topic: &'static str,
    partitions: u32,
    records: u64,
    bytes: usize,
    keys: u64,
    /// Whether one key in between is that which will be blocked.
    with_blocked: bool,
    sides: &'static [Side],
}

const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        name: "acknowledge",
        topic: "bench-acknowledge",
        partitions: 6,
        records: 300_000,
        bytes: 1_024,
        keys: 10_000,
        with_blocked: false,
        sides: ACKNOWLEDGE,
    },
    Measurement {
        name: "acknowledge-small",
        topic: "bench-acknowledge-small",
        partitions: 6,
        records: 1_000_000,
        bytes: 100,
        keys: 10_000,
        with_blocked: false,
        sides: ACKNOWLEDGE,
    },
    Measurement {
        name: "handlers",
        topic: "bench-handlers",
        partitions: 1,
        records: 10_000,
        bytes: 100,
        keys: 1_000,
        with_blocked: false,
        sides: &[
            Side { name: "one-by-one", part: 0.05, wanted: &[] },
            Side { name: CONFLUENT, part: 1.0, wanted: &[] },
            Side { name: "parallel", part: 1.0, wanted: &[("one-by-one", 80.0), (CONFLUENT, 1.5)] },
        ],
    },
    Measurement {
        name: "blocked",
        topic: "bench-blocked",
        partitions: 6,
        records: 1_000_000,
        bytes: 100,
        keys: 1_000_000,
        with_blocked: true,
        sides: &[
            Side { name: "flowing", part: 1.0, wanted: &[] },
            Side { name: "key-blocked", part: 1.0, wanted: &[("flowing", 0.95)] },
        ],
    },
];

const ACKNOWLEDGE: &[Side] = &[
    Side { name: "raw-stream", part: 1.0, wanted: &[] },
    Side { name: "raw-base", part: 1.0, wanted: &[] },
    Side { name: "baton", part: 1.0, wanted: &[("raw-stream", 0.90)] },
    Side { name: "by-partition", part: 1.0, wanted: &[("raw-stream", 0.90)] },
    Side { name: "batches", part: 1.0, wanted: &[("raw-stream", 0.90)] },
];

struct Side {
    name: &'static str,
    /// How much of the records it gets.
    part: f64,
    /// Against which sides, and how many times their rate.
    wanted: &'static [(&'static str, f64)],
}

/// What a side is told.
struct Job {
    address: String,
    topic: String,
    group: String,
    records: u64,
}

/// What came of it.
#[derive(Clone, Copy)]
struct Ran {
    records: u64,
    seconds: f64,
    processor_seconds: f64,
    /// Memory of the process: the most, when half was done, and when all was.
    peak_kib: u64,
    half_kib: u64,
    end_kib: u64,
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--serve", directory, listen] => serve(directory, listen).await,
        ["--side", side, address, topic, group, records] => {
            let (address, topic, group) = (address.to_owned(), topic.to_owned(), group.to_owned());
            let job = Job { address, topic, group, records: records.parse().unwrap() };
            println!("{}", run_side(side, job).await.to_line());
        }
        _ => measure(&Options::parse(&arguments)).await,
    }
}

// ---- who asks --------------------------------------------------------------------------------------------------------

struct Options {
    only: Vec<String>,
    rounds: usize,
    part: f64,
    json: bool,
    listen: String,
    /// Of a server that runs already.
    address: Option<String>,
    beside: Option<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Self {
        let mut options = Self {
            only: Vec::new(),
            rounds: 5,
            part: 1.0,
            json: false,
            listen: "127.0.0.1:0".to_owned(),
            address: None,
            beside: None,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--rounds" => options.rounds = arguments.next().unwrap().parse().unwrap(),
                "--part" => options.part = arguments.next().unwrap().parse().unwrap(),
                "--listen" => options.listen = arguments.next().unwrap().clone(),
                "--address" => options.address = arguments.next().cloned(),
                "--beside" => options.beside = arguments.next().cloned(),
                "--json" => options.json = true,
                name if MEASUREMENTS.iter().any(|each| each.name == name) => options.only.push(name.to_owned()),
                other => panic!("what is {other}? See the top of this program"),
            }
        }
        assert!(options.rounds > 0, "at least one round");
        options
    }
}

async fn measure(options: &Options) {
    let data = tempfile::tempdir().unwrap();
    let (broker, address) = match &options.address {
        Some(address) => (None, address.clone()),
        None => {
            let (broker, address) = start_broker(data.path().to_str().unwrap(), &options.listen);
            (Some(broker), address)
        }
    };
    let wanted = |each: &&Measurement| options.only.is_empty() || options.only.iter().any(|name| name == each.name);
    for measurement in MEASUREMENTS.iter().filter(wanted) {
        let records = part_of(measurement.records, options.part);
        let baton = Baton::connect(format!("kafka://{address}")).await.unwrap();
        // A server that was there before may know this topic, and these groups, from another run.
        let run = std::process::id();
        let topic = format!("{}-{run}", measurement.topic);
        baton.create_topic(TopicSpec::new(topic.as_str(), measurement.partitions)).await.unwrap();
        fill(&address, &topic, measurement, records);
        let mut all: Vec<Vec<Ran>> = vec![Vec::new(); measurement.sides.len()];
        for round in 0..options.rounds {
            // The other way round each time: who comes second finds the page cache as the first one left it.
            let order = 0..measurement.sides.len();
            let order: Vec<usize> = if round % 2 == 0 { order.collect() } else { order.rev().collect() };
            for at in order {
                let side = &measurement.sides[at];
                if side.name == CONFLUENT && options.beside.is_none() {
                    continue;
                }
                let group = format!("{}-{}-{run}-{round}", measurement.name, side.name);
                let ran = run_child(side, options, [&address, &topic, &group], part_of(records, side.part));
                match options.json {
                    true => println!("{}", ran.to_json(measurement.name, side.name, round)),
                    false => println!("{}", ran.to_row(measurement.name, side.name, round)),
                }
                all[at].push(ran);
            }
        }
        tell_medians(measurement, &all, options.json);
    }
    if let Some(mut broker) = broker {
        drop(broker.stdin.take());
        broker.wait().unwrap();
    }
}

fn part_of(records: u64, part: f64) -> u64 {
    ((records as f64 * part) as u64).max(1)
}

fn tell_medians(measurement: &Measurement, all: &[Vec<Ran>], json: bool) {
    let ran: Vec<(&Side, &Vec<Ran>)> = measurement.sides.iter().zip(all).filter(|(_, runs)| !runs.is_empty()).collect();
    let rate = |runs: &Vec<Ran>| median(runs.iter().map(Ran::rate).collect());
    let peak_mib = |runs: &Vec<Ran>| runs.iter().map(|ran| ran.peak_kib).max().unwrap() / 1_024;
    let name = measurement.name;
    for (side, runs) in &ran {
        let (rate_of_side, peak) = (rate(runs), peak_mib(runs));
        match json {
            true => println!(
                r#"{{"measurement":"{name}","side":"{}","median_per_second":{rate_of_side:.1},"peak_mib":{peak}}}"#,
                side.name
            ),
            false => println!("median  {name:<12} {:<12} {rate_of_side:>10.0}/s, at most {peak} MiB", side.name),
        }
        for (base, wanted) in side.wanted {
            let Some((_, base_runs)) = ran.iter().find(|(other, _)| other.name == *base) else { continue };
            let ratio = rate_of_side / rate(base_runs);
            let memory = peak as f64 / peak_mib(base_runs) as f64;
            match json {
                true => println!(
                    r#"{{"measurement":"{name}","side":"{}","against":"{base}","ratio":{ratio:.4},"wanted":{wanted},"met":{},"memory_ratio":{memory:.4}}}"#,
                    side.name,
                    ratio >= *wanted
                ),
                false => println!(
                    "ratio   {name:<12} {:<12} {ratio:>10.3} of {base} (wanted {wanted}: {}), {memory:.2} of its memory",
                    side.name,
                    if ratio >= *wanted { "met" } else { "MISSED" }
                ),
            }
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The broker, in a process of its own that ends with this one.
fn start_broker(data: &str, listen: &str) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--serve", data, listen])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    assert!(!address.trim().is_empty(), "the broker did not start");
    (child, address.trim().to_owned())
}

/// The side is told an address, a topic and a group.
fn run_child(side: &Side, options: &Options, told: [&str; 3], records: u64) -> Ran {
    let mut command = match &options.beside {
        Some(classes) if side.name == CONFLUENT => {
            let mut java = Command::new("java");
            java.args(std::env::var("BENCH_JVM_OPTS").unwrap_or_default().split_whitespace());
            java.args(["-cp", classes, "Parallel"]);
            java
        }
        _ => Command::new(std::env::current_exe().unwrap()),
    };
    let records = records.to_string();
    match side.name {
        CONFLUENT => {
            let (time, handlers) = (HANDLER_TIME.as_millis().to_string(), HANDLERS.to_string());
            command.args(told).args([records, time, handlers])
        }
        name => command.args(["--side", name]).args(told).arg(records),
    };
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{} failed", side.name);
    Ran::from_line(String::from_utf8(output.stdout).unwrap().trim())
}

fn fill(address: &str, topic: &str, measurement: &Measurement, records: u64) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "200000")
        .create()
        .unwrap();
    let payload = vec![7; measurement.bytes];
    let instance = Instance::new("orders-svc-1").unwrap();
    for number in 0..records {
        let key = match measurement.with_blocked && number.is_multiple_of(BLOCKED_EVERY) {
            true => BLOCKED_KEY.to_vec(),
            false => (number % measurement.keys).to_string().into_bytes(),
        };
        let id = MessageId::new(format!("0198c2d4-7a10-7c3e-8000-{number:012x}")).unwrap();
        let stamp = Stamp { id, instance: instance.clone(), epoch: 1, sequence: number + 1 }.encode();
        let traceparent = format!("00-{:032x}-{:016x}-01", u128::from(number) + 1, number + 1);
        let headers = OwnedHeaders::new()
            .insert(Header { key: STAMP_HEADER, value: Some(&*stamp) })
            .insert(Header { key: TRACEPARENT_HEADER, value: Some(&traceparent) });
        let mut record = BaseRecord::to(topic).key(&key).payload(&payload).headers(headers);
        while let Err((error, given_back)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
            producer.poll(Duration::from_millis(10));
            record = given_back;
        }
    }
    producer.flush(Duration::from_secs(120)).unwrap();
}

impl Ran {
    fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }

    fn to_line(self) -> String {
        let Self { records, seconds, processor_seconds, peak_kib, half_kib, end_kib } = self;
        format!("{records} {seconds} {processor_seconds} {peak_kib} {half_kib} {end_kib}")
    }

    fn from_line(line: &str) -> Self {
        let fields: Vec<&str> = line.split(' ').collect();
        let whole = |at: usize| fields[at].parse::<u64>().unwrap();
        let real = |at: usize| fields[at].parse::<f64>().unwrap();
        Self {
            records: whole(0),
            seconds: real(1),
            processor_seconds: real(2),
            peak_kib: whole(3),
            half_kib: whole(4),
            end_kib: whole(5),
        }
    }

    fn to_row(self, measurement: &str, side: &str, round: usize) -> String {
        format!(
            "round {round} {measurement:<17} {side:<12} {:>10.0}/s  {:>9} records in {:>7.3} s  {:>6.2} µs of processor each  memory KiB: {:>7} at half, {:>7} at the end, {:>7} at most",
            self.rate(),
            self.records,
            self.seconds,
            self.processor_seconds * 1e6 / self.records as f64,
            self.half_kib,
            self.end_kib,
            self.peak_kib
        )
    }

    fn to_json(self, measurement: &str, side: &str, round: usize) -> String {
        format!(
            r#"{{"measurement":"{measurement}","side":"{side}","round":{round},"per_second":{:.1},"records":{},"seconds":{:.4},"processor_seconds":{:.2},"half_kib":{},"end_kib":{},"peak_kib":{}}}"#,
            self.rate(),
            self.records,
            self.seconds,
            self.processor_seconds,
            self.half_kib,
            self.end_kib,
            self.peak_kib
        )
    }
}

/// A broker until nobody holds the other end of the standard input any more.
async fn serve(directory: &str, listen: &str) {
    let mut options = BrokerOptions::local(directory);
    listen.clone_into(&mut options.listen);
    options.settings.set("group.initial.rebalance.delay.ms", "0").unwrap();
    let broker = Broker::start(options).await.unwrap();
    println!("{}", broker.address());
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    ended.await.unwrap().unwrap();
    broker.stop(STOP_WAIT).await;
}

// ---- the sides -------------------------------------------------------------------------------------------------------

async fn run_side(side: &str, job: Job) -> Ran {
    let progress = Arc::new(Progress::new(job.records));
    match side {
        "raw-stream" => raw_stream(&job, &progress, None).await,
        "one-by-one" => raw_stream(&job, &progress, Some(HANDLER_TIME)).await,
        "raw-base" => raw_base(&job, &progress),
        "baton" => acknowledge(&job, &progress, Order::PerKey).await,
        "by-partition" => acknowledge(&job, &progress, Order::PerPartition).await,
        "batches" => batches(&job, &progress).await,
        "parallel" => parallel(&job, &progress).await,
        "flowing" | "key-blocked" => return with_one_key(job, side == "key-blocked").await,
        other => panic!("no side is called {other}"),
    }
    progress.ran()
}

/// When it began, how far it is, and when it ended.
struct Progress {
    first: OnceLock<(Instant, f64)>,
    done: AtomicU64,
    records: u64,
    half_kib: AtomicU64,
    ended: OnceLock<Instant>,
    all: tokio::sync::Notify,
}

impl Progress {
    fn new(records: u64) -> Self {
        Self {
            first: OnceLock::new(),
            done: AtomicU64::new(0),
            records,
            half_kib: AtomicU64::new(0),
            ended: OnceLock::new(),
            all: tokio::sync::Notify::new(),
        }
    }

    fn begin(&self) {
        self.first.get_or_init(|| (Instant::now(), processor_seconds()));
    }

    /// One more; says whether it was the last.
    fn one_done(&self) -> bool {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done == self.records.div_ceil(2) {
            self.half_kib.store(memory_kib("VmRSS:"), Ordering::Relaxed);
        }
        if done == self.records {
            self.all.notify_one();
        }
        done >= self.records
    }

    /// The time that counts ends here.
    fn end(&self) {
        self.ended.get_or_init(Instant::now);
    }

    fn ran(&self) -> Ran {
        let (began, processor_before) = *self.first.get().unwrap();
        let seconds = (*self.ended.get().unwrap() - began).as_secs_f64();
        Ran {
            records: self.done.load(Ordering::Relaxed),
            seconds,
            processor_seconds: processor_seconds() - processor_before,
            peak_kib: memory_kib("VmHWM:"),
            half_kib: self.half_kib.load(Ordering::Relaxed),
            end_kib: memory_kib("VmRSS:"),
        }
    }
}

fn memory_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What this process has used of all processors.
fn processor_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS_PER_SECOND
}

fn raw_config(job: &Job) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &job.address)
        .set("group.id", &job.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", "cooperative-sticky");
    config
}

/// What a careful service does by hand: positions of what is done, committed now and then.
struct Positions<'a> {
    topic: &'a str,
    next: HashMap<i32, i64>,
    committed_at: Instant,
    count: u64,
}

impl<'a> Positions<'a> {
    fn new(topic: &'a str) -> Self {
        Self { topic, next: HashMap::new(), committed_at: Instant::now(), count: 0 }
    }

    fn done(&mut self, message: &BorrowedMessage<'_>, consumer: &impl Consumer, always_look: bool) {
        self.next.insert(message.partition(), message.offset() + 1);
        self.count += 1;
        if (always_look || self.count.is_multiple_of(CLOCK_EVERY)) && self.committed_at.elapsed() >= COMMIT_INTERVAL {
            self.commit(consumer, CommitMode::Async).unwrap();
        }
    }

    fn commit(&mut self, consumer: &impl Consumer, mode: CommitMode) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in &self.next {
            list.add_partition_offset(self.topic, *partition, Offset::Offset(*next))?;
        }
        self.committed_at = Instant::now();
        consumer.commit(&list, mode)
    }
}

async fn raw_stream(job: &Job, progress: &Progress, handler_time: Option<Duration>) {
    let consumer: StreamConsumer = raw_config(job).create().unwrap();
    consumer.subscribe(&[&job.topic]).unwrap();
    let mut positions = Positions::new(&job.topic);
    loop {
        let message = consumer.recv().await.unwrap();
        progress.begin();
        std::hint::black_box((message.key(), message.payload()));
        if let Some(time) = handler_time {
            tokio::time::sleep(time).await;
        }
        positions.done(&message, &consumer, handler_time.is_some());
        if progress.one_done() {
            break;
        }
    }
    if handler_time.is_some() {
        progress.end();
    }
    positions.commit(&consumer, CommitMode::Sync).unwrap();
    drop(consumer);
    progress.end();
}

fn raw_base(job: &Job, progress: &Progress) {
    let consumer: BaseConsumer = raw_config(job).create().unwrap();
    consumer.subscribe(&[&job.topic]).unwrap();
    let mut positions = Positions::new(&job.topic);
    loop {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        progress.begin();
        std::hint::black_box((message.key(), message.payload()));
        positions.done(&message, &consumer, false);
        if progress.one_done() {
            break;
        }
    }
    positions.commit(&consumer, CommitMode::Sync).unwrap();
    drop(consumer);
    progress.end();
}

/// Held by each side until it has ended, as services do.
async fn connect(job: &Job) -> Baton {
    Baton::connect(format!("kafka://{}", job.address)).await.unwrap()
}

/// A consumer of the job's records, without a guard.
fn consumer(baton: &Baton, job: &Job) -> ConsumerBuilder<AtLeastOnce> {
    baton.consumer(job.group.as_str()).topics([job.topic.as_str()]).at_least_once()
}

/// Waits until all records are done and the group knows it: the time that counts ends there.
async fn acknowledged(consumer: baton::consumer::Consumer, progress: &Progress) {
    progress.all.notified().await;
    consumer.stop(STOP_WAIT).await.unwrap();
    progress.end();
}

async fn acknowledge(job: &Job, progress: &Arc<Progress>, order: Order) {
    let seen = progress.clone();
    let handler = move |message: Received, ()| {
        let seen = seen.clone();
        async move {
            seen.begin();
            std::hint::black_box((message.key(), message.payload()));
            seen.one_done();
            Ok(())
        }
    };
    let baton = connect(job).await;
    acknowledged(consumer(&baton, job).order(order).start(handler).await.unwrap(), progress).await;
}

async fn batches(job: &Job, progress: &Arc<Progress>) {
    let seen = progress.clone();
    let handler = move |messages: Vec<Received>, ()| {
        let seen = seen.clone();
        async move {
            seen.begin();
            for message in &messages {
                std::hint::black_box((message.key(), message.payload()));
                seen.one_done();
            }
            Ok(())
        }
    };
    let baton = connect(job).await;
    let batches = consumer(&baton, job).order(Order::Batches(Batches::default()));
    acknowledged(batches.start_batches(handler).await.unwrap(), progress).await;
}

async fn parallel(job: &Job, progress: &Arc<Progress>) {
    let seen = progress.clone();
    let handler = move |_, ()| {
        let seen = seen.clone();
        async move {
            seen.begin();
            tokio::time::sleep(HANDLER_TIME).await;
            seen.one_done();
            Ok(())
        }
    };
    let baton = connect(job).await;
    let consumer = consumer(&baton, job).concurrency(HANDLERS).start(handler).await.unwrap();
    progress.all.notified().await;
    // How handlers follow each other is what counts here, not how the group is left.
    progress.end();
    consumer.stop(STOP_WAIT).await.unwrap();
}

/// All keys but one, while that one goes along or is blocked from its first record to the end.
async fn with_one_key(job: Job, blocked: bool) -> Ran {
    let others = job.records - job.records.div_ceil(BLOCKED_EVERY);
    let progress = Arc::new(Progress::new(others));
    let seen = progress.clone();
    let entered = Arc::new(AtomicU64::new(0));
    let blocked_entered = entered.clone();
    let handler = move |message: Received, ()| {
        let (seen, entered) = (seen.clone(), entered.clone());
        async move {
            seen.begin();
            if message.key().is_none_or(|key| *key != BLOCKED_KEY) {
                seen.one_done();
                return Ok(());
            }
            entered.fetch_add(1, Ordering::Relaxed);
            if blocked {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    };
    let baton = connect(&job).await;
    let patient = consumer(&baton, &job).handler_deadline(NEVER).stuck_after(NEVER);
    let consumer = patient.start(handler).await.unwrap();
    progress.all.notified().await;
    progress.end();
    let ran = progress.ran();
    let entered = blocked_entered.load(Ordering::Relaxed);
    assert!(!blocked || entered == 1, "the blocked key's handler was called {entered} times");
    consumer.cancel().await.unwrap();
    ran
}
