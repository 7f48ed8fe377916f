//! 100 beans for each order, once, with SQLite and a broker inside of the service.
//!
//! `cargo run -p baton --example orders_to_beans_sqlite`
//!
//! Kill it at any moment and start it again: the same orders are sent again, under the same ids, and each counts once.
#![allow(clippy::print_stdout, reason = "an example")]

use std::time::Duration;

use baton::consumer::Classify;
use baton::guard::{Inbox, Sqlite, SqliteEffect};
use baton::{Baton, DeadLetter, HandlerError, Message, MessageId, Received, TopicSpec};

/// The business: whose order it is, he gets 100 beans. `effect` is the open transaction.
async fn give_beans(order: Received, effect: SqliteEffect) -> Result<(), HandlerError> {
    let customer = String::from_utf8(order.body.to_vec()).permanent()?;
    let sql = "INSERT INTO beans VALUES (?1, 100) ON CONFLICT (customer) DO UPDATE SET amount = amount + 100";
    effect.execute(sql, (customer,)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "embedded:///tmp/baton-orders".to_owned());
    let database = arguments.next().unwrap_or_else(|| "/tmp/baton-beans.db".to_owned());

    let sqlite = Sqlite::open(database)?;
    let table = "CREATE TABLE IF NOT EXISTS beans (customer TEXT PRIMARY KEY, amount INTEGER NOT NULL)";
    sqlite.run(move |database| database.execute_batch(table)).await??;
    let inbox = Inbox::sqlite(&sqlite);
    inbox.prepare().await?; // its marks lie beside the beans

    let baton = Baton::connect(address).await?;
    baton.create_topic(TopicSpec::new("orders", 6)).await?;
    let consumer = baton.consumer("beans-svc").topics(["orders"]).effectively_once(inbox);
    let consumer = consumer.dead_letter(DeadLetter::topic("orders.dead")).start(give_beans).await?;

    let producer = baton.producer("orders-svc").await?;
    for order in 1..=1_000 {
        let (id, customer) = (MessageId::new(format!("order-{order}"))?, format!("customer-{}", order % 10));
        producer.send(Message::to("orders").id(id).key(customer.clone()).payload(customer)).await?;
    }
    let left_behind = producer.close(Duration::from_secs(10)).await.unsent_count;
    println!("all orders are taken, {left_behind} left behind; ctrl-c ends the service");
    let interrupted = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let metrics = consumer.until(interrupted, Duration::from_secs(10)).await?;
    println!("{} handled, {} of them had been before", metrics.counters.done, metrics.already_done);
    Ok(())
}
