//! Dead letters, from a service that gives them up to one that was repaired.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton::guard::{Inbox, Sqlite, SqliteEffect};
use baton::{Baton, Consumer, DeadLetter, HandlerError, Message, MessageId, Received, TopicSpec};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::binary::{Serving, ran};

const PATIENCE: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_secs(10);
const DEAD: &str = "orders.dead";

/// A broker, and a service whose handler refuses everything until it is repaired.
struct World {
    serving: Serving,
    baton: Baton,
    beans: PathBuf,
    is_repaired: Arc<AtomicBool>,
    dead_partitions: u32,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(dead_partitions: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let serving = Serving::start(&folder.path().join("broker"), &["--set", "group.initial.rebalance.delay.ms=0"]);
        let baton = Baton::connect(format!("kafka://{}", serving.address())).await.unwrap();
        baton.create_topic(TopicSpec::new("orders", 2)).await.unwrap();
        let beans = folder.path().join("beans.db");
        Self { serving, baton, beans, is_repaired: Arc::default(), dead_partitions, _folder: folder }
    }

    async fn send(&self, ids: &[&str]) {
        let producer = self.baton.producer("orders-svc").await.unwrap();
        for id in ids {
            let message = Message::to("orders").key(format!("key-{id}")).payload(format!("beans of {id}"));
            producer.send(message.partition(1).id(MessageId::new(*id).unwrap())).await.unwrap();
        }
        assert!(producer.close(WAIT).await.is_clean());
    }

    async fn consumer(&self) -> Consumer {
        let sqlite = Sqlite::open(&self.beans).unwrap();
        Inbox::sqlite(&sqlite).prepare().await.unwrap();
        let table = "CREATE TABLE IF NOT EXISTS beans (payload TEXT)";
        sqlite.run(move |database| database.execute_batch(table)).await.unwrap().unwrap();
        let is_repaired = Arc::clone(&self.is_repaired);
        let dead_letter = DeadLetter::topic(DEAD).partitions(self.dead_partitions);
        let consumer = self.baton.consumer("beans-svc").topics(["orders"]).dead_letter(dead_letter);
        let consumer = consumer.effectively_once(Inbox::sqlite(&sqlite));
        let handler = move |order: Received, effect: SqliteEffect| {
            let is_repaired = is_repaired.load(Ordering::Relaxed);
            async move {
                let payload = String::from_utf8(order.body.to_vec()).unwrap();
                effect.execute("INSERT INTO beans VALUES (?1)", (payload,)).await?;
                if is_repaired { Ok(()) } else { Err(HandlerError::permanent("test", "no such order")) }
            }
        };
        consumer.start(handler).await.unwrap()
    }

    fn beans(&self) -> Vec<String> {
        let database = rusqlite::Connection::open(&self.beans).unwrap();
        database.busy_timeout(WAIT).unwrap();
        let mut all = database.prepare("SELECT payload FROM beans ORDER BY payload").unwrap();
        all.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Runs `baton dead` on the letters; its stdout.
    async fn dead(&self, command: &str, more: &[&str]) -> String {
        let engine = format!("kafka://{}", self.serving.address());
        let all: Vec<String> = [&["dead", command, "--engine", &engine, "--topic", DEAD], more]
            .concat()
            .iter()
            .map(|word| word.to_string())
            .collect();
        let (code, stdout, stderr) =
            tokio::task::spawn_blocking(move || ran(&all.iter().map(String::as_str).collect::<Vec<_>>()))
                .await
                .unwrap();
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
        stdout
    }

    async fn list(&self, more: &[&str]) -> Vec<Value> {
        let text = self.dead("list", &[&["--json"], more].concat()).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn replay(&self, more: &[&str]) -> (u64, u64) {
        let text = self.dead("replay", &[&["--json"], more].concat()).await;
        let figures: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(figures["refused"], 0);
        (figures["sent"].as_u64().unwrap(), figures["skipped"].as_u64().unwrap())
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Letters `a`, `b` and `c`, and nobody who consumes.
async fn with_letters(dead_partitions: u32) -> World {
    let world = World::new(dead_partitions).await;
    world.send(&["a", "b", "c"]).await;
    let consumer = world.consumer().await;
    eventually("three dead letters", || consumer.metrics().counters.dead_lettered == 3).await;
    consumer.stop(WAIT).await.unwrap();
    assert!(world.beans().is_empty());
    world
}

fn ids(letters: &[Value]) -> Vec<&str> {
    let mut ids: Vec<_> = letters.iter().map(|letter| letter["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_filtered_and_shown_without_taking_anything_away() {
    let world = with_letters(1).await;
    let letters = world.list(&[]).await;
    assert_eq!(ids(&letters), ["a", "b", "c"]);
    for (name, value) in [("group", "beans-svc"), ("class", "permanent"), ("reason", "no such order")] {
        assert_eq!(letters[0][name], value, "{name}");
    }
    assert_eq!(ids(&world.list(&["--key", "key-b"]).await), ["b"]);
    let all = [
        "--origin-topic",
        "orders",
        "--group",
        "beans-svc",
        "--class",
        "permanent",
        "--reason",
        "such",
        "--since",
        "1h",
    ];
    assert_eq!(world.list(&all).await.len(), 3);
    assert_eq!(world.list(&["--limit", "2"]).await.len(), 2);
    for none in [["--origin-topic", "payments"], ["--class", "exhausted"], ["--reason", "disk"], ["--since", "0s"]] {
        assert!(world.list(&none).await.is_empty(), "{none:?}");
    }
    let table = world.dead("list", &[]).await;
    assert!(table.contains("orders-1-1") && table.contains("3 dead letters."), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours in a file");
    let by_id = world.dead("show", &["b"]).await;
    assert!(by_id.contains("beans of b") && by_id.contains("baton-dead-class = permanent"), "{by_id}");
    assert_eq!(world.dead("show", &["orders-1-1"]).await, by_id);
    assert_eq!(world.dead("show", &["b", "--raw"]).await, "beans of b");
    let shown: Value = serde_json::from_str(&world.dead("show", &["b", "--json"]).await).unwrap();
    assert_eq!((&shown["payload"], &shown["replayed"]), (&"beans of b".into(), &false.into()));
    let engine = format!("kafka://{}", world.serving.address());
    let (code, _, stderr) = ran(&["dead", "show", "--engine", &engine, "--topic", DEAD, "d"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("holds no letter d"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_sent_twice_has_its_effect_once() {
    let world = with_letters(1).await;
    let dry = world.dead("replay", &["--dry-run"]).await;
    assert!(dry.contains("would send orders-1-0 (a) to orders") && dry.contains("3 would be sent."), "{dry}");
    assert_eq!(world.replay(&["--key", "key-b"]).await, (1, 0), "the dry run has sent and marked nothing");
    assert_eq!(world.replay(&["--rate", "1000"]).await, (2, 1), "what was sent is skipped");
    assert_eq!(world.replay(&[]).await, (0, 3));
    assert!(world.list(&[]).await.iter().all(|letter| letter["replayed"] == true));
    world.is_repaired.store(true, Ordering::Relaxed);
    let consumer = world.consumer().await;
    eventually("three effects", || world.beans().len() >= 3).await;
    assert_eq!(world.replay(&["--again"]).await, (3, 0));
    eventually("the guard to keep three out", || consumer.metrics().already_done >= 3).await;
    consumer.stop(WAIT).await.unwrap();
    assert_eq!(world.beans(), ["beans of a", "beans of b", "beans of c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_again_is_another_letter_and_not_part_of_the_same_run() {
    // In two partitions: what dies again comes before what was not sent yet.
    let world = with_letters(2).await;
    let letters = world.list(&[]).await;
    assert!(letters.iter().any(|letter| letter["lies"]["partition"] != letters[0]["lies"]["partition"]));
    let consumer = world.consumer().await;
    // While each letter that is sent dies at once: the run ends all the same.
    assert_eq!(world.replay(&["--rate", "5"]).await, (3, 0));
    eventually("three more dead letters", || consumer.metrics().counters.dead_lettered == 3).await;
    consumer.stop(WAIT).await.unwrap();
    let letters = world.list(&[]).await;
    assert_eq!(ids(&letters), ["a", "a", "b", "b", "c", "c"]);
    let replayed: Vec<_> = letters.iter().filter(|letter| letter["replayed"] == true).cloned().collect();
    assert_eq!(ids(&replayed), ["a", "b", "c"]);
    assert!(letters.iter().all(|letter| letter["origin"]["topic"] == "orders"));
    assert_eq!(world.replay(&["--dry-run"]).await, (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_found_also_when_the_oldest_are_gone() {
    let world = with_letters(1).await;
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", world.serving.address()).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(DEAD, 0, Offset::Offset(2)).unwrap();
    client.delete_records(&before, &AdminOptions::new()).await.unwrap();
    assert_eq!(world.list(&[]).await.len(), 1);
}

#[test]
fn an_engine_whose_letters_cannot_be_read_is_a_usage_error() {
    let (code, _, stderr) = ran(&["dead", "list", "--engine", "amqp://localhost", "--topic", DEAD]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("RabbitMQ"), "{stderr}");
    let (code, _, stderr) = ran(&["dead", "list", "--engine", "localhost:9092", "--topic", DEAD]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("kafka://host:port"), "{stderr}");
}
