//! `baton demo`: orders are sent, the service that counts their beans is killed on the way, and so is the broker; every order's beans
//! are counted once.
//!
//! ```text
//! this process ──orders──▶ baton serve ──▶ baton demo-consumer ──▶ beans.db
//!      │                     kill -9            kill -9                │
//!      └──────────────▶ receipts.db ───────── compared in SQL ────────┘
//! ```

mod consumer;
mod count;
mod processes;
mod verdict;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use baton::{Baton, Message, Producer, Receipt, SendError, TopicSpec};
use clap::Args;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{EXIT_INTERRUPTED, Failure, ServeArguments, say, serve};

pub(crate) use consumer::{DemoConsumerArguments, run as run_consumer};

use count::{Beans, Receipts, count};
use processes::{BrokerProcess, ConsumerProcess};
use verdict::{Verdict, grouped};

/// Where the orders go.
const TOPIC: &str = "orders";
/// More than one, as in earnest.
const PARTITIONS: u32 = 6;
/// What each order brings.
const BEANS_PER_ORDER: u64 = 100;
/// How often it is looked whether it is time for the next kill.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Without any progress for so long, something is wrong.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// How long the producer may take to end.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct DemoArguments {
    /// How many orders are sent.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    orders: u64,
    /// How often the consumer is killed with -9. The broker is killed once, in the middle.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=20))]
    kills: u64,
    /// Keep databases, log and data in this directory, to look at them. Without it they are removed.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// The figures as JSON, without the story.
    #[arg(long)]
    json: bool,
}

/// Runs it to its verdict.
pub(crate) fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    let folder = Folder::make(arguments.keep.as_deref())?;
    let runtime = Runtime::new().map_err(|error| Failure::failed("no threads could be started", &error))?;
    let verdict = runtime.block_on(async {
        tokio::select! {
            verdict = demonstrate(arguments, folder.path()) => verdict,
            _ = tokio::signal::ctrl_c() => Err(Failure::Failed("stopped before anything was counted".to_owned())),
        }
    });
    runtime.shutdown_background();
    let verdict = verdict?;
    say(&if arguments.json { verdict.json() } else { verdict.text() });
    if let (Folder::Kept(path), false) = (&folder, arguments.json) {
        say(&format!("\nbeans.db, receipts.db and the logs are in {}.\n", path.display()));
    }
    if verdict.holds() { Ok(()) } else { Err(Failure::Failed("the promise did not hold: see the figures".to_owned())) }
}

/// `baton serve`, which ends with whoever started it, also when that one is killed.
pub(crate) fn run_broker(arguments: ServeArguments) -> Result<(), Failure> {
    std::thread::spawn(|| {
        wait_for_parent();
        std::process::exit(EXIT_INTERRUPTED)
    });
    serve::serve(arguments)
}

/// Until nobody holds the other end of stdin any more.
fn wait_for_parent() {
    // A pipe that cannot be read has no other end either.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Where everything is.
enum Folder {
    Kept(PathBuf),
    Removed(TempDir),
}

impl Folder {
    fn make(keep: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = keep else {
            let folder = tempfile::Builder::new().prefix("baton-demo-").tempdir();
            return folder.map(Self::Removed).map_err(|error| Failure::failed("a temporary directory", &error));
        };
        let failed = |error: std::io::Error| Failure::failed(&format!("--keep {}", path.display()), &error);
        std::fs::create_dir_all(path).map_err(failed)?;
        if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(Failure::Usage(format!("--keep {}: the directory is not empty", path.display())));
        }
        path.canonicalize().map(Self::Kept).map_err(failed)
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Removed(folder) => folder.path(),
        }
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Consumer,
    Broker,
}

/// The consumer so many times, and the broker once in the middle of them.
fn victims(kills: u64) -> Vec<Victim> {
    let before = kills.div_ceil(2);
    let consumers = |count| (0..count).map(|_| Victim::Consumer);
    consumers(before).chain([Victim::Broker]).chain(consumers(kills - before)).collect()
}

async fn demonstrate(arguments: &DemoArguments, folder: &Path) -> Result<Verdict, Failure> {
    let began = Instant::now();
    let mut stage = Stage::set(folder, !arguments.json).await?;
    let victims = victims(arguments.kills);
    let portions = victims.len() as u64 + 1;
    let mut sent_before = 0;
    for portion in 0..portions {
        let sent = arguments.orders * (portion + 1) / portions;
        let orders = stage.send(sent_before..sent);
        let half = sent_before + (sent - sent_before) / 2;
        let victim = usize::try_from(portion).ok().and_then(|portion| victims.get(portion));
        match victim {
            Some(Victim::Consumer) => stage.kill_consumer(half).await?,
            Some(Victim::Broker) => stage.kill_broker(half).await?,
            None => {}
        }
        let outcomes = orders.await.map_err(|error| Failure::failed("sending", &error))?;
        stage.write_down(sent_before..sent, outcomes)?;
        stage.tell(victim.copied())?;
        sent_before = sent;
    }
    stage.until_applied(arguments.orders).await?;
    let absorbed = stage.end().await;
    Ok(Verdict {
        count: count(&folder.join(BEANS_FILE), &folder.join(RECEIPTS_FILE))?,
        orders: arguments.orders,
        consumer_kills: arguments.kills,
        broker_kills: 1,
        absorbed,
        took: began.elapsed(),
    })
}

const BEANS_FILE: &str = "beans.db";
const RECEIPTS_FILE: &str = "receipts.db";

/// All that plays a part.
struct Stage {
    folder: PathBuf,
    tells: bool,
    broker: BrokerProcess,
    consumer: Option<ConsumerProcess>,
    producer: Producer,
    beans: Beans,
    receipts: Receipts,
    /// Redeliveries kept out by consumers that are gone.
    absorbed: u64,
    unsent: Vec<String>,
}

impl Stage {
    async fn set(folder: &Path, tells: bool) -> Result<Self, Failure> {
        let broker = BrokerProcess::start(folder)?;
        let failed = |error: &dyn std::error::Error| Failure::failed("sending cannot start", error);
        let baton = Baton::connect(format!("kafka://{}", broker.address())).await.map_err(|error| failed(&error))?;
        baton.create_topic(TopicSpec::new(TOPIC, PARTITIONS)).await.map_err(|error| failed(&error))?;
        let mut stage = Self {
            folder: folder.to_owned(),
            tells,
            broker,
            consumer: None,
            producer: baton.producer("orders-svc").await.map_err(|error| failed(&error))?,
            beans: Beans::create(&folder.join(BEANS_FILE))?,
            receipts: Receipts::create(&folder.join(RECEIPTS_FILE))?,
            absorbed: 0,
            unsent: Vec::new(),
        };
        stage.start_consumer()?;
        Ok(stage)
    }

    fn start_consumer(&mut self) -> Result<(), Failure> {
        let engine = format!("kafka://{}", self.broker.address());
        self.consumer = Some(ConsumerProcess::start(&self.folder, &engine, &self.folder.join(BEANS_FILE))?);
        Ok(())
    }

    /// Sends orders in the background.
    fn send(&self, orders: std::ops::Range<u64>) -> tokio::task::JoinHandle<Vec<Result<Receipt, SendError>>> {
        let producer = self.producer.clone();
        let message = |order| Message::to(TOPIC).key(order_id(order)).payload(BEANS_PER_ORDER.to_string());
        tokio::spawn(async move { producer.send_all(orders.map(message)).await })
    }

    async fn kill_consumer(&mut self, applied: u64) -> Result<(), Failure> {
        self.until_applied(applied).await?;
        if let Some(consumer) = self.consumer.take() {
            self.absorbed += consumer.kill();
        }
        self.start_consumer()
    }

    async fn kill_broker(&mut self, acknowledged: u64) -> Result<(), Failure> {
        let mut waited = Duration::ZERO;
        while self.producer.counters().acknowledged < acknowledged {
            if waited > STUCK_AFTER {
                return Err(Failure::Failed("the broker acknowledges nothing".to_owned()));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            waited += LOOK_INTERVAL;
        }
        self.broker.kill_and_start(&self.folder)
    }

    /// Waits until the beans of so many orders are there. When nothing moves any more, the count will show what is missing.
    async fn until_applied(&mut self, orders: u64) -> Result<(), Failure> {
        let (mut applied, mut moved) = (self.beans.orders()?, Instant::now());
        while applied < orders && moved.elapsed() < STUCK_AFTER {
            if self.consumer.as_mut().is_some_and(ConsumerProcess::has_ended) {
                let log = self.folder.join("demo-consumer.log");
                let why = std::fs::read_to_string(log).unwrap_or_default();
                return Err(Failure::Failed(format!("the consumer ended by itself:\n{why}")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = self.beans.orders()?;
            if now > applied {
                (applied, moved) = (now, Instant::now());
            }
        }
        Ok(())
    }

    fn write_down(
        &mut self,
        orders: std::ops::Range<u64>,
        outcomes: Vec<Result<Receipt, SendError>>,
    ) -> Result<(), Failure> {
        let mut receipts = Vec::with_capacity(outcomes.len());
        for (order, outcome) in orders.zip(outcomes) {
            match outcome {
                Ok(receipt) => receipts.push((order_id(order), receipt.id.to_string())),
                Err(error) => self.unsent.push(error.to_string()),
            }
        }
        self.receipts.add(&receipts)
    }

    /// One line for each portion.
    fn tell(&self, victim: Option<Victim>) -> Result<(), Failure> {
        if !self.tells {
            return Ok(());
        }
        let (sent, applied) = (self.producer.counters().acknowledged, self.beans.orders()?);
        let what = match victim {
            Some(Victim::Consumer) => "consumer killed with -9, and started again",
            Some(Victim::Broker) => "broker killed with -9, and started again",
            None => "all are sent",
        };
        say(&format!("{:>9} sent {:>9} applied   {what}\n", grouped(sent), grouped(applied)));
        if let Some(error) = self.unsent.last() {
            say(&format!("  {} were not sent, the last one: {error}\n", self.unsent.len()));
        }
        Ok(())
    }

    /// Ends everything in order; says how many redeliveries were kept out.
    async fn end(mut self) -> u64 {
        // What was not sent has no receipt, and is counted by that.
        let _ = self.producer.close(CLOSE_WAIT).await;
        self.absorbed + self.consumer.take().map_or(0, ConsumerProcess::stop)
    }
}

fn order_id(order: u64) -> String {
    format!("order-{}", order + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_killed_once_in_the_middle() {
        use Victim::{Broker, Consumer};
        assert_eq!(victims(0), [Broker]);
        assert_eq!(victims(3), [Consumer, Consumer, Broker, Consumer]);
    }
}
