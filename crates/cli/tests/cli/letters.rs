//! An engine, and a service that makes dead letters there until it is repaired.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton::guard::{Inbox, Sqlite, SqliteEffect};
use baton::{Baton, Consumer, DeadLetter, HandlerError, Message, MessageId, Received, TopicSpec};
use serde_json::Value;

use crate::binary::ran;

const PATIENCE: Duration = Duration::from_secs(120);
pub const WAIT: Duration = Duration::from_secs(10);
pub const DEAD: &str = "orders.dead";

/// A service whose handler refuses everything until it is repaired, and the server of its engine.
pub struct World<S> {
    pub server: S,
    pub baton: Baton,
    /// Of the engine.
    pub address: String,
    beans: PathBuf,
    is_repaired: AtomicBool,
    dead_partitions: u32,
    _folder: tempfile::TempDir,
}

impl<S> World<S> {
    /// The service keeps its database in the folder.
    pub async fn new(server: S, address: String, folder: tempfile::TempDir, dead_partitions: u32) -> Self {
        let baton = Baton::connect(&*address).await.unwrap();
        baton.create_topic(TopicSpec::new("orders", 2)).await.unwrap();
        let (beans, is_repaired) = (folder.path().join("beans.db"), AtomicBool::new(false));
        Self { server, baton, address, beans, is_repaired, dead_partitions, _folder: folder }
    }

    /// What is consumed from now on can be handled.
    pub fn repair(&self) {
        self.is_repaired.store(true, Ordering::Relaxed);
    }

    pub async fn send(&self, ids: &[&str]) {
        let producer = self.baton.producer("orders-svc").await.unwrap();
        for id in ids {
            let message = Message::to("orders").key(format!("key-{id}")).payload(format!("beans of {id}"));
            producer.send(message.partition(1).id(MessageId::new(*id).unwrap())).await.unwrap();
        }
        assert!(producer.close(WAIT).await.is_clean());
    }

    pub async fn consumer(&self) -> Consumer {
        let sqlite = Sqlite::open(&self.beans).unwrap();
        Inbox::sqlite(&sqlite).prepare().await.unwrap();
        let table = "CREATE TABLE IF NOT EXISTS beans (payload TEXT)";
        sqlite.run(move |database| database.execute_batch(table)).await.unwrap().unwrap();
        let is_repaired = self.is_repaired.load(Ordering::Relaxed);
        let dead_letter = DeadLetter::topic(DEAD).partitions(self.dead_partitions);
        let consumer = self.baton.consumer("beans-svc").topics(["orders"]).dead_letter(dead_letter);
        let consumer = consumer.effectively_once(Inbox::sqlite(&sqlite));
        let handler = move |order: Received, effect: SqliteEffect| async move {
            let payload = String::from_utf8(order.body.to_vec()).unwrap();
            effect.execute("INSERT INTO beans VALUES (?1)", (payload,)).await?;
            if is_repaired { Ok(()) } else { Err(HandlerError::permanent("test", "no such order")) }
        };
        consumer.start(handler).await.unwrap()
    }

    pub fn beans(&self) -> Vec<String> {
        let database = rusqlite::Connection::open(&self.beans).unwrap();
        database.busy_timeout(WAIT).unwrap();
        let mut all = database.prepare("SELECT payload FROM beans ORDER BY payload").unwrap();
        all.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Runs `baton dead` on the letters: exit code, stdout, stderr.
    pub async fn ran(&self, command: &str, more: &[&str]) -> (Option<i32>, String, String) {
        let all: Vec<String> = [&["dead", command, "--engine", &self.address, "--topic", DEAD], more]
            .concat()
            .iter()
            .map(|word| word.to_string())
            .collect();
        let run = move || ran(&all.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    /// Runs it where it has nothing to complain about: stdout.
    pub async fn dead(&self, command: &str, more: &[&str]) -> String {
        let (code, stdout, stderr) = self.ran(command, more).await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
        stdout
    }

    pub async fn list(&self, more: &[&str]) -> Vec<Value> {
        let text = self.dead("list", &[&["--json"], more].concat()).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub async fn replay(&self, more: &[&str]) -> (u64, u64) {
        let text = self.dead("replay", &[&["--json"], more].concat()).await;
        let figures: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(figures["refused"], 0);
        (figures["sent"].as_u64().unwrap(), figures["skipped"].as_u64().unwrap())
    }

    /// Makes the letters `a`, `b` and `c`; nobody consumes after that.
    pub async fn make_letters(&self) {
        self.send(&["a", "b", "c"]).await;
        let consumer = self.consumer().await;
        eventually("three dead letters", || consumer.metrics().counters.dead_lettered == 3).await;
        consumer.stop(WAIT).await.unwrap();
        assert!(self.beans().is_empty());
    }
}

pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn ids(letters: &[Value]) -> Vec<&str> {
    let mut ids: Vec<_> = letters.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}
