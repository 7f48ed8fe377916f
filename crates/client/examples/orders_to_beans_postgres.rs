//! 100 beans for each order, once, with Postgres; 500 orders to a transaction.
//!
//! ```text
//! address=$(scripts/postgres-up)
//! cargo run -p baton --example orders_to_beans_postgres -- kafka://127.0.0.1:9092 postgres://postgres@$address/postgres
//! ```
//!
//! Kill it at any moment and start it again: the same orders are sent again, under the same ids, and each counts once.
#![allow(clippy::print_stdout, reason = "an example")]

use std::time::Duration;

use baton::consumer::{Batches, Classify};
use baton::guard::{Inbox, PostgresEffect};
use baton::{Baton, DeadLetter, HandlerError, Message, MessageId, Received, TopicSpec};
use deadpool_postgres::{Manager, Pool};
use tokio_postgres::NoTls;

/// The business: whose order it is, he gets 100 beans. `effect` is the open transaction.
async fn give_beans(order: Received, effect: PostgresEffect) -> Result<(), HandlerError> {
    let customer = std::str::from_utf8(&order.body).permanent()?;
    let sql = "INSERT INTO beans VALUES ($1, 100) ON CONFLICT (customer) DO UPDATE SET amount = beans.amount + 100";
    effect.execute(sql, &[&customer]).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "embedded:///tmp/baton-orders".to_owned());
    let database = arguments.next().unwrap_or_else(|| "postgres://postgres@127.0.0.1:22432/postgres".to_owned());

    let pool = Pool::builder(Manager::new(database.parse()?, NoTls)).max_size(16).build()?;
    let table = "CREATE TABLE IF NOT EXISTS beans (customer text PRIMARY KEY, amount bigint NOT NULL)";
    pool.get().await?.batch_execute(table).await?;
    let inbox = Inbox::postgres(pool);
    inbox.prepare().await?; // its marks lie beside the beans

    let baton = Baton::connect(address).await?;
    baton.create_topic(TopicSpec::new("orders", 6)).await?;
    let consumer = baton.consumer("beans-svc").topics(["orders"]).effectively_once(inbox);
    let consumer = consumer.batches(Batches::default()).dead_letter(DeadLetter::topic("orders.dead"));
    let consumer = consumer.start(give_beans).await?;

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
