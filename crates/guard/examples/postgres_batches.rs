//! What guards cost on Postgres, on one connection: effect and mark, one message to a transaction and 500, beside a raw batched
//! insert with the same key.
//!
//!     address=$(scripts/postgres-up)
//!     cargo run --release -p baton-guard --features postgres --example postgres_batches -- $address
//!
//! The variants take turns, so that all of them see the same machine; the median of the rounds counts.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program that measures and stops at the first error")]

use std::time::{Duration, Instant};

use baton_core::TopicPartition;
use baton_guard::{Frontier, Group, Guard, Identity, Inbox, Open, Place, PostgresEffect, PostgresGuard, apply};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::NoTls;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(1);
const BATCH: usize = 500;
const PARTITIONS: u64 = 6;

#[derive(Clone, Copy)]
enum Variant {
    Single,
    Inbox,
    Frontier,
    Raw,
}

struct Bench {
    pool: Pool,
    inbox: PostgresGuard,
    frontier: PostgresGuard,
    group: Group,
    /// How many messages there have been.
    sent: u64,
}

impl Bench {
    /// The next messages, of one producer, as a consumer gets them from one poll: partition after partition.
    fn messages(&mut self, count: usize) -> Vec<Identity> {
        let message = |number: u64| {
            let id = format!("0192f0c1-7a5e-7000-8000-{number:012x}").as_str().try_into().unwrap();
            let mut identity = Identity::new(self.group.clone(), id);
            let partition = TopicPartition::new("orders", u32::try_from(number % PARTITIONS).unwrap());
            let sequence = number / PARTITIONS + 1;
            identity.place = Some(Place { instance: "orders-svc-1".into(), epoch: 1, partition, sequence });
            identity
        };
        let first = self.sent;
        self.sent += count as u64;
        (first..self.sent).map(message).collect()
    }

    async fn batch(&mut self, variant: Variant) -> usize {
        match variant {
            Variant::Single => {
                let message = self.messages(1).remove(0);
                let id = message.id.to_string();
                let effect = |effect: PostgresEffect| async move {
                    effect.execute("INSERT INTO beans (order_id, amount) VALUES ($1, 100)", &[&id]).await.map(drop)
                };
                apply(&self.inbox, &message, effect).await.unwrap();
                1
            }
            Variant::Inbox | Variant::Frontier => {
                let messages = self.messages(BATCH);
                let guard = if matches!(variant, Variant::Inbox) { &self.inbox } else { &self.frontier };
                let batch = guard.begin_batch(&messages).await.unwrap();
                let open = batch.open.unwrap();
                let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
                let insert = "INSERT INTO beans (order_id, amount) SELECT id, 100 FROM unnest($1::text[]) AS id";
                open.effect().execute(insert, &[&ids]).await.unwrap();
                open.commit().await.unwrap();
                BATCH
            }
            Variant::Raw => {
                let messages = self.messages(BATCH);
                let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
                let insert = "INSERT INTO raw (consumer_group, message_id) SELECT $1, id FROM unnest($2::text[]) AS id";
                let client = self.pool.get().await.unwrap();
                let statement = client.prepare_cached(insert).await.unwrap();
                client.execute(&statement, &[&self.group.as_str(), &ids]).await.unwrap();
                BATCH
            }
        }
    }

    /// Messages for each second.
    async fn round(&mut self, variant: Variant) -> f64 {
        let (began, mut done) = (Instant::now(), 0);
        while began.elapsed() < ROUND {
            done += self.batch(variant).await;
        }
        done as f64 / began.elapsed().as_secs_f64()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:22432".to_owned());
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
    let mut bench = Bench { pool, inbox, frontier, group: Group::new("beans-svc").unwrap(), sent: 0 };

    let variants = [Variant::Single, Variant::Inbox, Variant::Frontier, Variant::Raw];
    let mut figures = vec![Vec::new(); variants.len()];
    for round in 0..=ROUNDS {
        for (variant, figures) in variants.iter().zip(&mut figures) {
            let figure = bench.round(*variant).await;
            // The first round fills caches.
            if round > 0 {
                figures.push(figure);
            }
        }
    }
    let names = ["Inbox, 1 to a transaction", "Inbox, 500", "Frontier, 500", "raw insert with the key, 500"];
    println!("| effect and mark | messages/s, median | lowest | highest |\n|---|---|---|---|");
    let mut medians = Vec::new();
    for (name, figures) in names.iter().zip(&mut figures) {
        figures.sort_by(f64::total_cmp);
        medians.push(figures[figures.len() / 2]);
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} |",
            figures[figures.len() / 2],
            figures[0],
            figures[figures.len() - 1]
        );
    }
    println!("\nInbox 500 / Inbox 1: {:.1} (wanted: 30)", medians[1] / medians[0]);
    println!("Inbox 500 / raw: {:.2} (wanted: 0.5)", medians[1] / medians[3]);
    println!("Frontier / Inbox: {:.2} (wanted: 2)", medians[2] / medians[1]);
}
