//! Programs in other languages write into the outbox in their own transactions: examples/outbox, as a newcomer runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use baton::{Baton, Delivery, Stamp, TopicPartition, TopicSpec};
use baton_testkit::servers::Server;
use serde_json::Value;

use crate::binary::{Serving, ran};
use crate::relay::Relay;

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `scripts/setup-tests` has installed.
fn installed(what: &str) -> PathBuf {
    let cache = std::env::var_os("BATON_CACHE").map_or_else(|| root().join(".cache"), PathBuf::from);
    let path = cache.join(what);
    assert!(path.join(".complete").exists(), "{} is missing: run scripts/setup-tests", path.display());
    path
}

fn python() -> Command {
    let mut command = Command::new(installed("outbox-python").join("bin/python"));
    command.arg(root().join("examples/outbox/python/place_order.py"));
    command
}

fn java() -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(installed("outbox-java").join("*"));
    command.arg(root().join("examples/outbox/java/PlaceOrder.java"));
    command
}

/// Runs the example that `command` begins, for one order.
fn place(mut command: Command, address: &str, order: &str, more: &[&str]) -> Output {
    command.args([address, order, "100"]).args(more).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat()
}

/// Waits until nothing is left in the outbox, then reads all that is in the topic.
async fn brought(database: &str, baton: &Baton) -> Vec<Delivery> {
    let began = Instant::now();
    loop {
        let (_, status, error) = ran(&["outbox", "status", "--json", "--database", database]);
        let status: Value = serde_json::from_str(&status).unwrap_or_else(|_| panic!("{error}"));
        if status["rows"] == 0 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut all = Vec::new();
    for partition in 0..PARTITIONS {
        let from = TopicPartition::new("orders", partition);
        let mut reader = baton.engine().reader(&from, 0).await.unwrap();
        loop {
            let some = reader.next().await.unwrap();
            if some.is_empty() {
                break;
            }
            all.extend(some);
        }
    }
    all
}

fn check(delivery: &Delivery, order: &str, language: &str) {
    let stamp = Stamp::of(&delivery.headers).unwrap().unwrap();
    assert_eq!(stamp.id.to_string(), format!("order-{order}"));
    assert_eq!(delivery.key.as_deref(), Some(order.as_bytes()));
    let payload = format!("{{\"order\": {order}, \"amount\": 100}}");
    assert_eq!(delivery.payload.as_deref(), Some(payload.as_bytes()));
    let header = |name: &str| {
        let found = delivery.headers.iter().find(|header| &*header.name == name);
        found.and_then(|header| header.value.clone())
    };
    assert_eq!(
        (header("placed-by").as_deref(), header("tenant").as_deref()),
        (Some(language.as_bytes()), Some(&b"north"[..]))
    );
}

/// `database` is the address as Baton has it, `address` as the example has it.
async fn what_is_committed_arrives(language: &str, example: fn() -> Command, database: &str, address: &str) {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(&folder.path().join("broker"), &[]);
    let baton = Baton::connect(format!("kafka://{}", serving.address())).await.unwrap();
    baton.create_topic(TopicSpec::new("orders", PARTITIONS)).await.unwrap();
    assert_eq!(ran(&["outbox", "init", "--database", database]).0, Some(0));

    let placed = place(example(), address, "17", &[]);
    assert!(placed.status.success() && said(&placed).contains("order 17 is placed"), "{}", said(&placed));
    let failed = place(example(), address, "18", &["--fail"]);
    assert!(!failed.status.success(), "{}", said(&failed));
    assert!(said(&failed).contains("order 18 failed before it was committed"), "{}", said(&failed));

    let _relay = Relay::start(database, &serving, &["--no-evidence"]);
    let came = brought(database, &baton).await;
    assert_eq!(came.len(), 1, "of the order that failed nothing came");
    check(&came[0], "17", language);

    // The order and the message that were rolled back would both refuse this.
    let again = place(example(), address, "18", &[]);
    assert!(again.status.success(), "{}", said(&again));
    let mut came = brought(database, &baton).await;
    came.sort_by(|left, right| left.key.cmp(&right.key));
    assert_eq!(came.len(), 2);
    check(&came[1], "18", language);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_python_program_commits_on_postgres_arrives_and_what_it_rolls_back_does_not() {
    let server = tokio::task::spawn_blocking(|| Server::start("postgres")).await.unwrap();
    let address = format!("postgres://postgres@{}/postgres?sslmode=disable", server.address());
    what_is_committed_arrives("python", python, &address, &address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_python_program_commits_on_sqlite_arrives_and_what_it_rolls_back_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("sqlite://{}", folder.path().join("shop.db").display());
    what_is_committed_arrives("python", python, &address, &address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_java_program_commits_on_postgres_arrives_and_what_it_rolls_back_does_not() {
    let server = tokio::task::spawn_blocking(|| Server::start("postgres")).await.unwrap();
    let database = format!("postgres://postgres@{}/postgres?sslmode=disable", server.address());
    let address = format!("jdbc:postgresql://{}/postgres?user=postgres", server.address());
    what_is_committed_arrives("java", java, &database, &address).await;
}
