//! `baton outbox` and `baton relay`, on a real Postgres: by hand, and killed.

#![allow(clippy::print_stdout, reason = "figures and seeds of a run")]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use baton::{Baton, Stamp, TopicPartition, TopicSpec};
use baton_testkit::Random;
use baton_testkit::servers::Server;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

use crate::binary::{Serving, baton as program, ran};

const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_millis(600);
const PARTITIONS: u32 = 3;

struct World {
    serving: Serving,
    server: Server,
    baton: Baton,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let server = tokio::task::spawn_blocking(|| Server::start("postgres")).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let serving = Serving::start(&folder.path().join("broker"), &[]);
        let baton = Baton::connect(format!("kafka://{}", serving.address())).await.unwrap();
        baton.create_topic(TopicSpec::new("orders", PARTITIONS)).await.unwrap();
        Self { serving, server, baton, _folder: folder }
    }

    fn database(&self) -> String {
        format!("postgres://postgres@{}/postgres?sslmode=disable", self.server.address())
    }

    async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.database(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    fn outbox(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let database = self.database();
        ran(&[&["outbox"], arguments, &["--database", &database]].concat())
    }

    fn relay(&self, more: &[&str]) -> Relay {
        Relay::start(&self.database(), &self.serving, more)
    }

    /// What came: id, key, content and stamp, partition by partition.
    async fn came(&self) -> Vec<(String, String, u64, Stamp)> {
        let mut all = Vec::new();
        for partition in 0..PARTITIONS {
            let from = TopicPartition::new("orders", partition);
            let mut reader = self.baton.engine().reader(&from, 0).await.unwrap();
            loop {
                let some = reader.next().await.unwrap();
                if some.is_empty() {
                    break;
                }
                for delivery in some {
                    let stamp = Stamp::of(&delivery.headers).unwrap().unwrap();
                    let text = |bytes: Option<bytes::Bytes>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
                    let number = text(delivery.payload).parse().unwrap();
                    all.push((stamp.id.to_string(), text(delivery.key), number, stamp));
                }
            }
        }
        all
    }
}

/// A relay's process; killed when dropped.
pub struct Relay(Child);

impl Relay {
    /// From a database to a broker; it works when this returns.
    pub fn start(database: &str, serving: &Serving, more: &[&str]) -> Self {
        let engine = format!("kafka://{}", serving.address());
        let arguments = [&["relay", "--database", database, "--engine", &engine], more].concat();
        let mut child = program(&arguments).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("goes to kafka"), "{said}");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_is_made_looked_at_and_emptied_from_the_command_line() {
    let world = World::start().await;
    let (code, _, error) = world.outbox(&["status"]);
    assert!(code == Some(1) && error.contains("baton outbox init"), "{error}");
    let (code, sql, _) = world.outbox(&["init", "--print"]);
    assert!(code == Some(0) && sql.contains("CREATE TABLE IF NOT EXISTS baton_outbox ("), "{sql}");
    assert_eq!(world.outbox(&["init", "--name", "shop"]).0, Some(0));
    assert_eq!(world.outbox(&["init", "--name", "shop"]).0, Some(0), "once more does no harm");
    let client = world.client().await;
    client
        .batch_execute(
            "INSERT INTO baton_outbox (topic, key, payload) VALUES ('orders', 'a', '1'), ('nowhere', 'b', '2')",
        )
        .await
        .unwrap();
    let (_, status, _) = world.outbox(&["status", "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["name"], &status["rows"], &status["parked"]), (&"shop".into(), &2.into(), &0.into()));

    let mut relay = world.relay(&["--member", "one", "--keep-done", "1h"]);
    let began = Instant::now();
    let parked = loop {
        let (_, parked, _) = world.outbox(&["parked", "--json"]);
        if !parked.is_empty() {
            break serde_json::from_str::<Value>(&parked).unwrap();
        }
        assert!(began.elapsed() < PATIENCE);
    };
    assert_eq!((&parked["topic"], &parked["key"]), (&"nowhere".into(), &"b".into()));
    world.baton.create_topic(TopicSpec::new("nowhere", 1)).await.unwrap();
    let (code, said, _) = world.outbox(&["retry", &parked["position"].to_string()]);
    assert_eq!((code, said.as_str()), (Some(0), "1 rows can be sent again.\n"));
    let status = loop {
        let status: Value = serde_json::from_str(&world.outbox(&["status", "--json"]).1).unwrap();
        if status["rows"] == 0 {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "{status}");
    };
    assert_eq!((&status["done"], &status["relays"]), (&2.into(), &vec!["one"].into()), "done rows are kept");
    assert!(world.outbox(&["status"]).1.contains("one: 16 of 16 shards"));
    relay.signal(Signal::TERM);
    assert_eq!(relay.0.wait().unwrap().code(), Some(0));
    let (code, said, _) = world.outbox(&["prune", "--older-than", "0s"]);
    assert_eq!((code, said.as_str()), (Some(0), "2 rows deleted.\n"));
    assert!(world.outbox(&["status"]).1.contains("16 of 16 shards have no relay now"));
    assert_eq!(world.outbox(&["retry", "999"]).0, Some(1));
}

/// Writes rows, one account after the other in a transaction with the account's own row; one in five is rolled back. What was committed is
/// in the table of accounts.
async fn write(client: &mut Client, random: &mut Random, until: Instant) -> u64 {
    let mut transactions = 0;
    while Instant::now() < until {
        let transaction = client.transaction().await.unwrap();
        let account = random.below(23);
        let changed = "UPDATE account SET version = version + 1 WHERE id = $1 RETURNING version";
        let account_id = i64::try_from(account).unwrap();
        let version: i64 = transaction.query_one(changed, &[&account_id]).await.unwrap().get(0);
        let insert = "INSERT INTO baton_outbox (topic, key, payload) VALUES ('orders', $1, $2)";
        let (key, text) = (account.to_string().into_bytes(), version.to_string().into_bytes());
        transaction.execute(insert, &[&key, &text]).await.unwrap();
        if random.percent(10) {
            tokio::time::sleep(Duration::from_millis(random.below(30))).await;
        }
        if random.percent(20) {
            transaction.rollback().await.unwrap()
        } else {
            transaction.commit().await.unwrap()
        }
        transactions += 1;
        tokio::time::sleep(Duration::from_millis(random.below(4))).await;
    }
    transactions
}

/// `relays` relays share the outbox; one after the other is killed, or stands still for longer than its lease.
async fn torment(relays: usize, lasts: Duration, seed: u64) {
    println!("seed {seed}");
    let world = World::start().await;
    assert_eq!(world.outbox(&["init"]).0, Some(0));
    let client = world.client().await;
    let accounts = "CREATE TABLE account (id bigint PRIMARY KEY, version bigint NOT NULL DEFAULT 0);
        INSERT INTO account SELECT generate_series(0, 22)";
    client.batch_execute(accounts).await.unwrap();
    let until = Instant::now() + lasts;
    let mut random = Random::new(seed);
    let mut writers = Vec::new();
    for _ in 0..4 {
        let (mut client, mut random) = (world.client().await, random.fork());
        writers.push(tokio::spawn(async move { write(&mut client, &mut random, until).await }));
    }
    let lease = format!("{}ms", LEASE.as_millis());
    let more = ["--lease", &lease, "--no-evidence"];
    let mut running: Vec<Relay> = (0..relays).map(|_| world.relay(&more)).collect();
    let (mut killed, mut paused) = (0, 0);
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(random.between(150, 700))).await;
        let at = random.index(running.len());
        if random.percent(50) {
            running[at] = world.relay(&more);
            killed += 1;
        } else {
            running[at].signal(Signal::STOP);
            tokio::time::sleep(LEASE * 2).await;
            running[at].signal(Signal::CONT);
            paused += 1;
        }
    }
    let mut transactions = 0;
    for writer in writers {
        transactions += writer.await.unwrap();
    }
    let began = Instant::now();
    loop {
        let waiting: i64 = client.query_one("SELECT count(*) FROM baton_outbox", &[]).await.unwrap().get(0);
        if waiting == 0 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{waiting} rows are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let committed = client.query("SELECT id, version FROM account", &[]).await.unwrap();
    let committed: BTreeMap<String, i64> =
        committed.iter().map(|row| (row.get::<_, i64>(0).to_string(), row.get(1))).collect();
    let again = judge(&world.came().await, &committed, seed);
    println!("{transactions} transactions, {killed} relays killed, {paused} stood still, {again} messages came again");
    assert!(killed > 0 && paused > 0);
}

/// Of each account all versions that were committed came, none else, and for the first time in their order; what came again came under the
/// same id and stamp.
fn judge(came: &[(String, String, u64, Stamp)], committed: &BTreeMap<String, i64>, seed: u64) -> usize {
    let mut stamps: HashMap<&str, &Stamp> = HashMap::new();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, key, version, stamp) in came {
        if let Some(before) = stamps.insert(id, stamp) {
            assert_eq!(before, stamp, "seed {seed}: {id} came under two stamps");
            continue;
        }
        let before = last.insert(key, *version).unwrap_or(0);
        assert_eq!(before + 1, *version, "seed {seed}: account {key}");
    }
    for (account, version) in committed {
        let came = last.get(account.as_str()).copied().unwrap_or(0);
        assert_eq!(came.cast_signed(), *version, "seed {seed}: account {account}");
    }
    came.len() - stamps.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_that_are_killed_or_stand_still_lose_nothing_and_keep_the_order() {
    torment(2, Duration::from_secs(12), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_relays_that_are_killed_or_stand_still_lose_nothing_and_keep_the_order() {
    torment(4, Duration::from_secs(12), 2).await;
}
