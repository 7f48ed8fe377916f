//! What guards cost on Postgres, on one connection: effect and mark, one message to a transaction and 500, beside a raw batched
//! insert with the same key.
//!
//!     address=$(scripts/postgres-up)
//!     cargo run --release -p baton-guard --features postgres --example postgres_batches -- $address
//!
//! The variants take turns within each round, so that all of them see the same machine; the median of the rounds counts. Messages
//! are made beforehand, outside of the time that is measured. `--rounds 11` and `--seconds 2` make it longer.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that measures and stops at the first error")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::TopicPartition;
use baton_guard::{Frontier, Group, Guard, Identity, Inbox, Open, Place, PostgresEffect, PostgresGuard, apply};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::NoTls;

const BATCH: usize = 500;
const PARTITIONS: u64 = 6;
const VARIANTS: [(Variant, &str); 4] = [
    (Variant::Single, "Inbox, 1 to a transaction"),
    (Variant::Inbox, "Inbox, 500"),
    (Variant::Frontier, "Frontier, 500"),
    (Variant::Raw, "raw insert with the key, 500"),
];

#[derive(Clone, Copy)]
enum Variant {
    Single,
    Inbox,
    Frontier,
    Raw,
}

/// Time spent in the parts of a transaction: until the handler may begin, the handler, the end. Where nothing is told apart,
/// everything is the handler.
#[derive(Clone, Copy, Default)]
struct Spent {
    begin: Duration,
    effect: Duration,
    end: Duration,
}

impl Spent {
    fn all(&self) -> Duration {
        self.begin + self.effect + self.end
    }

    fn add(&mut self, more: Self) {
        self.begin += more.begin;
        self.effect += more.effect;
        self.end += more.end;
    }
}

struct Bench {
    pool: Pool,
    inbox: PostgresGuard,
    frontier: PostgresGuard,
    group: Group,
    topic: Arc<str>,
    instance: Arc<str>,
    /// How many messages there have been.
    sent: u64,
}

impl Bench {
    /// The next messages of one producer, in turn to its partitions.
    fn messages(&mut self, count: usize) -> Vec<Identity> {
        let message = |number: u64| {
            let id = format!("0192f0c1-7a5e-7000-8000-{number:012x}").as_str().try_into().unwrap();
            let mut identity = Identity::new(self.group.clone(), id);
            let partition = TopicPartition::new(self.topic.clone(), u32::try_from(number % PARTITIONS).unwrap());
            let sequence = number / PARTITIONS + 1;
            identity.place = Some(Place { instance: self.instance.clone(), epoch: 1, partition, sequence });
            identity
        };
        let first = self.sent;
        self.sent += count as u64;
        (first..self.sent).map(message).collect()
    }

    async fn batch(&self, variant: Variant, messages: &[Identity]) -> Spent {
        let began = Instant::now();
        match variant {
            Variant::Single => {
                let effect = |effect: PostgresEffect| async move {
                    let insert = "INSERT INTO beans (order_id, amount) VALUES ($1, 100)";
                    effect.execute(insert, &[&messages[0].id.as_str()]).await.map(drop)
                };
                apply(&self.inbox, &messages[0], effect).await.unwrap();
            }
            Variant::Inbox => return transaction(&self.inbox, messages).await,
            Variant::Frontier => return transaction(&self.frontier, messages).await,
            Variant::Raw => {
                let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
                let insert = "INSERT INTO raw (consumer_group, message_id) SELECT $1, id FROM unnest($2::text[]) AS id";
                let client = self.pool.get().await.unwrap();
                let statement = client.prepare_cached(insert).await.unwrap();
                client.execute(&statement, &[&self.group.as_str(), &ids]).await.unwrap();
            }
        }
        Spent { effect: began.elapsed(), ..Spent::default() }
    }

    /// How many messages, and the time they took.
    async fn round(&mut self, variant: Variant, lasts: Duration) -> (u64, Spent) {
        let size = if matches!(variant, Variant::Single) { 1 } else { BATCH };
        let (mut done, mut spent) = (0, Spent::default());
        while spent.all() < lasts {
            let messages = self.messages(size);
            spent.add(self.batch(variant, &messages).await);
            done += size as u64;
        }
        (done, spent)
    }
}

async fn transaction(guard: &PostgresGuard, messages: &[Identity]) -> Spent {
    let began = Instant::now();
    let open = guard.begin_batch(messages).await.unwrap().open.unwrap();
    let begun = Instant::now();
    let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
    let insert = "INSERT INTO beans (order_id, amount) SELECT id, 100 FROM unnest($1::text[]) AS id";
    open.effect().execute(insert, &[&ids]).await.unwrap();
    let handled = Instant::now();
    open.commit().await.unwrap();
    Spent { begin: begun - began, effect: handled - begun, end: handled.elapsed() }
}

/// What follows an option of this name on the command line.
fn option(name: &str, otherwise: u64) -> u64 {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map_or(otherwise, |value| value.parse().unwrap())
}

async fn prepared(address: &str) -> Bench {
    let config = format!("postgres://postgres@{address}/postgres").parse().unwrap();
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    let pool = Pool::builder(manager).max_size(1).build().unwrap();
    let tables = "DROP TABLE IF EXISTS beans, raw, baton_inbox, baton_frontier, baton_fence; \
                  CREATE TABLE beans (order_id text, amount integer); \
                  CREATE TABLE raw (consumer_group text COLLATE \"C\", message_id text COLLATE \"C\", \
                  done_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (consumer_group, message_id))";
    pool.get().await.unwrap().batch_execute(tables).await.unwrap();
    let (inbox, frontier) = (Inbox::postgres(pool.clone()), Frontier::postgres(pool.clone()));
    inbox.prepare().await.unwrap();
    let (topic, instance) = ("orders".into(), "orders-svc-1".into());
    Bench { pool, inbox, frontier, group: Group::new("beans-svc").unwrap(), topic, instance, sent: 0 }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:22432".to_owned());
    let (rounds, lasts) = (option("--rounds", 7), Duration::from_secs(option("--seconds", 1)));
    let mut bench = prepared(&address).await;
    let mut figures = vec![Vec::new(); VARIANTS.len()];
    let mut parts = vec![Spent::default(); VARIANTS.len()];
    let mut batches = vec![0; VARIANTS.len()];
    println!("messages/s of each round, in the order in which they were run\n");
    for round in 0..=rounds {
        for (at, (variant, name)) in VARIANTS.iter().enumerate() {
            let (done, spent) = bench.round(*variant, lasts).await;
            let figure = done as f64 / spent.all().as_secs_f64();
            // The first round fills caches.
            if round > 0 {
                println!("round {round}, {name}: {figure:.0}");
                figures[at].push(figure);
                parts[at].add(spent);
                batches[at] += done.div_ceil(if matches!(variant, Variant::Single) { 1 } else { BATCH as u64 });
            }
        }
    }
    report(&mut figures, &parts, &batches);
}

fn report(figures: &mut [Vec<f64>], parts: &[Spent], batches: &[u64]) {
    println!(
        "\n| effect and mark | messages/s, median | lowest | highest | µs a transaction: until the handler | handler | end |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut medians = Vec::new();
    for (at, figures) in figures.iter_mut().enumerate() {
        figures.sort_by(f64::total_cmp);
        let (median, lowest, highest) = (figures[figures.len() / 2], figures[0], figures[figures.len() - 1]);
        let micros = |spent: Duration| spent.as_micros() as f64 / batches[at] as f64;
        let [begin, effect, end] = [parts[at].begin, parts[at].effect, parts[at].end].map(micros);
        println!(
            "| {} | {median:.0} | {lowest:.0} | {highest:.0} | {begin:.0} | {effect:.0} | {end:.0} |",
            VARIANTS[at].1
        );
        medians.push(median);
    }
    println!("\nInbox 500 / Inbox 1: {:.1} (wanted: 30)", medians[1] / medians[0]);
    println!("Inbox 500 / raw: {:.2} (wanted: 0.5)", medians[1] / medians[3]);
    println!("Frontier / Inbox: {:.2} (wanted: 2)", medians[2] / medians[1]);
}
