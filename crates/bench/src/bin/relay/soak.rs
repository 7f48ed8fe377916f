//! Many rows through a relay while the tables are watched: nothing may grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rdkafka::consumer::BaseConsumer;
use tokio_postgres::Client;

use crate::machine::resident_mib;
use crate::sides::{self, Engine, Process, Side};
use crate::table::{self, Table};
use crate::topic::Topic;
use crate::{Fallible, PlacesArguments};

#[derive(Args)]
pub struct SoakArguments {
    #[command(flatten)]
    places: PlacesArguments,
    /// Rows in all.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Bytes of a row's content.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Connections that write as fast as they can.
    #[arg(long, default_value_t = 4)]
    writers: u64,
    /// Rows of a transaction.
    #[arg(long, default_value_t = 20)]
    transaction_rows: u64,
    /// Writers wait while so many rows have not come to the engine yet, as any service does that must not run ahead for ever.
    #[arg(long, default_value_t = 100_000)]
    ahead_rows: u64,
    /// Seconds between samples.
    #[arg(long, default_value_t = 5)]
    every: u64,
    /// How many percent larger than the largest sample of the first fifth a later one may be.
    #[arg(long, default_value_t = 50)]
    growth_percent: u64,
}

/// One look at everything.
struct Sample {
    seconds: f64,
    arrived: u64,
    waiting: u64,
    table_mib: f64,
    index_mib: f64,
    dead: i64,
    relay_mib: f64,
    broker_mib: f64,
}

/// Numbers that writers and the watcher share.
#[derive(Default)]
struct Shared {
    next: AtomicU64,
    written: AtomicU64,
    arrived: AtomicU64,
}

pub async fn run(arguments: SoakArguments) -> Fallible<()> {
    let places = arguments.places.places();
    let client = crate::prepare_database(&places).await?;
    table::empty(&client).await?;
    sides::prepare(Side::Embedded, &client).await?;
    let engine = Engine::start(Side::Embedded, &places)?;
    let topic = Topic::create(&engine.address, "soak").await?;
    let mut relay = sides::start(Side::Embedded, &places, &engine)?;
    let shared = Arc::new(Shared::default());
    let mut writers = Vec::new();
    for _ in 0..arguments.writers {
        let client = table::connect(&places.database()).await?;
        let (shared, limits) = (Arc::clone(&shared), Limits::of(&arguments));
        writers.push(tokio::spawn(async move { write(&client, &shared, &limits).await }));
    }
    let samples = watch(&arguments, &client, &engine, &topic, &mut relay, &shared).await?;
    for writer in writers {
        writer.await??;
    }
    let left: i64 = client.query_one("SELECT count(*) FROM baton_outbox", &[]).await?.try_get(0)?;
    println!(
        "{} rows written, {} arrived, {left} left in the table",
        arguments.rows,
        samples.last().map_or(0, |one| one.arrived)
    );
    judge(&samples, &arguments)
}

struct Limits {
    rows: u64,
    bytes: usize,
    transaction_rows: u64,
    ahead_rows: u64,
}

impl Limits {
    fn of(arguments: &SoakArguments) -> Self {
        let SoakArguments { rows, bytes, transaction_rows, ahead_rows, .. } = *arguments;
        Self { rows, bytes, transaction_rows, ahead_rows }
    }
}

async fn write(client: &Client, shared: &Shared, limits: &Limits) -> Fallible<()> {
    let insert = table::insert_many(Table::Baton, "soak", limits.bytes);
    let insert = client.prepare(&insert).await?;
    loop {
        let first = shared.next.fetch_add(limits.transaction_rows, Ordering::Relaxed);
        if first >= limits.rows {
            return Ok(());
        }
        while shared.written.load(Ordering::Relaxed) > shared.arrived.load(Ordering::Relaxed) + limits.ahead_rows {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let behind = limits.rows.min(first + limits.transaction_rows);
        client.execute(&insert, &[&i64::try_from(first)?, &i64::try_from(behind)?]).await?;
        shared.written.fetch_add(behind - first, Ordering::Relaxed);
    }
}

async fn watch(
    arguments: &SoakArguments,
    client: &Client,
    engine: &Engine,
    topic: &Topic,
    relay: &mut Process,
    shared: &Shared,
) -> Fallible<Vec<Sample>> {
    let watching: BaseConsumer = crate::topic::client(&engine.address).set("group.id", "bench").create()?;
    let (began, mut samples) = (Instant::now(), Vec::new());
    println!("seconds   arrived  waiting  table MiB  indexes MiB  dead rows  relay MiB  broker MiB");
    let mut next = Duration::ZERO;
    loop {
        relay.lives()?;
        let arrived = tokio::task::block_in_place(|| topic.count(&watching))?;
        shared.arrived.store(arrived, Ordering::Relaxed);
        let over = arrived >= arguments.rows;
        if began.elapsed() >= next || over {
            next = began.elapsed() + Duration::from_secs(arguments.every);
            let waiting = shared.written.load(Ordering::Relaxed).saturating_sub(arrived);
            let broker = engine.broker.as_ref().map(Process::id);
            let sample = look(client, relay.id(), broker, began.elapsed().as_secs_f64(), arrived, waiting).await?;
            sample.print();
            samples.push(sample);
        }
        if over {
            return Ok(samples);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn look(
    client: &Client,
    relay: u32,
    broker: Option<u32>,
    seconds: f64,
    arrived: u64,
    waiting: u64,
) -> Fallible<Sample> {
    let sizes = "SELECT pg_table_size('baton_outbox'), pg_indexes_size('baton_outbox'),
        (SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'baton_outbox'::regclass)";
    let row = client.query_one(sizes, &[]).await?;
    let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
    Ok(Sample {
        seconds,
        arrived,
        waiting,
        table_mib: mib(row.try_get(0)?),
        index_mib: mib(row.try_get(1)?),
        dead: row.try_get(2)?,
        relay_mib: resident_mib(&[relay]).0,
        broker_mib: resident_mib(&broker.into_iter().collect::<Vec<_>>()).0,
    })
}

impl Sample {
    fn print(&self) {
        let Self { seconds, arrived, waiting, table_mib, index_mib, dead, relay_mib, broker_mib } = self;
        println!(
            "{seconds:7.1}  {arrived:8}  {waiting:7}  {table_mib:9.1}  {index_mib:11.1}  {dead:9}  {relay_mib:9.1}  {broker_mib:10.1}"
        );
    }
}

/// What of a sample may not grow.
type Figure = (&'static str, fn(&Sample) -> f64);

const FIGURES: [Figure; 3] =
    [("table", |one| one.table_mib), ("indexes", |one| one.index_mib), ("relay", |one| one.relay_mib)];

/// Nothing may be larger later than it was when everything had come to its pace.
fn judge(samples: &[Sample], arguments: &SoakArguments) -> Fallible<()> {
    let early = samples.iter().take_while(|one| one.arrived <= arguments.rows / 5).count().max(1);
    let (first, later) = samples.split_at(early.min(samples.len()));
    let mut grown = Vec::new();
    for (name, figure) in FIGURES {
        let most = |some: &[Sample]| some.iter().map(figure).fold(0.0, f64::max);
        let (before, after) = (most(first), most(later));
        println!("{name}: at most {before:.1} MiB in the first fifth, {after:.1} MiB after it");
        if after > before * (1.0 + arguments.growth_percent as f64 / 100.0) {
            grown.push(name);
        }
    }
    let rate = samples.last().map_or(0.0, |last| last.arrived as f64 / last.seconds);
    println!("{rate:.0} rows/s");
    if grown.is_empty() { Ok(()) } else { Err(format!("grown: {}", grown.join(", ")).into()) }
}
