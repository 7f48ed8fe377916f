//! The service that gives 100 beans for each order: what its database holds in the end is all that counts.

use std::path::Path;
use std::time::Duration;

use baton_testkit::servers::Server;
use tokio_postgres::NoTls;

use crate::program::{PATIENCE, Program, eventually};

/// The orders that the examples send, of ten customers in turn, 100 beans each.
const BEANS: i64 = 100_000;
const TAKEN: &str = "all orders are taken";

/// The broker in the service, whose group notices soon that a member was killed.
fn embedded(folder: &Path) -> String {
    let quickly = "broker.group.initial.rebalance.delay.ms=0&librdkafka.session.timeout.ms=6000";
    format!("embedded://{}?{quickly}", folder.join("broker").display())
}

/// Ten customers with the same number of beans.
fn all_given() -> Vec<(String, i64)> {
    (0..10).map(|customer| (format!("customer-{customer}"), BEANS / 10)).collect()
}

/// How many of those that it handled had been handled before.
fn had_been(said: &str) -> u64 {
    let number = said.split(", ").nth(1).and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_on_sqlite_gives_beans_once_for_each_order() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("beans.db");
    let beans = || {
        let database = rusqlite::Connection::open(&database).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        let Ok(mut all) = database.prepare("SELECT customer, amount FROM beans ORDER BY customer") else {
            return Vec::new(); // the service has not created it yet
        };
        let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<Vec<(String, i64)>, _>>().unwrap()
    };
    let sum = || beans().iter().map(|(_, amount)| amount).sum::<i64>();
    let arguments = [embedded(folder.path()), database.display().to_string()];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();

    let first = Program::start("orders_to_beans_sqlite", &arguments);
    eventually("some beans", async || sum() >= BEANS / 20).await;
    first.kill();
    let second = Program::start("orders_to_beans_sqlite", &arguments);
    second.said(TAKEN);
    eventually("all beans", async || sum() >= BEANS).await;
    let said = second.interrupt("had been before");
    assert_eq!(beans(), all_given(), "{said}");
    // The orders of the first run came again.
    assert!(had_been(&said) > 0, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_on_postgres_moves_to_kafka_by_its_address_and_gives_beans_once_for_each_order() {
    let (postgres, kafka) = (Server::start("postgres"), Server::start("kafka"));
    let folder = tempfile::tempdir().unwrap();
    let database = format!("postgres://postgres@{}/postgres", postgres.address());
    let (client, connection) = tokio_postgres::connect(&database, NoTls).await.unwrap();
    tokio::spawn(connection);
    let beans = async || {
        let rows = client.query("SELECT customer, amount FROM beans ORDER BY customer", &[]).await.unwrap_or_default();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, i64)>>()
    };
    let sum = async || beans().await.iter().map(|(_, amount)| amount).sum::<i64>();

    let at_home = embedded(folder.path());
    let first = Program::start("orders_to_beans_postgres", &[&at_home, &database]);
    eventually("some beans", async || sum().await >= BEANS / 20).await;
    first.kill();
    // The rest of the orders, and those of before once more, on Apache Kafka.
    let moved = format!("kafka://{}", kafka.address());
    let second = Program::start("orders_to_beans_postgres", &[&moved, &database]);
    second.said(TAKEN);
    eventually("all beans", async || sum().await >= BEANS).await;
    let said = second.interrupt("had been before");
    assert_eq!(beans().await, all_given(), "{said}");
    assert!(had_been(&said) > 0, "what was given at home was given again: {said}, within {PATIENCE:?}");
}
