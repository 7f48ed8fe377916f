//! The same service on the embedded broker today and on Kafka tomorrow: only its address changes.
//!
//! `cargo run -p baton --example move_to_kafka -- embedded:///tmp/orders`
//! `cargo run -p baton --example move_to_kafka -- kafka://127.0.0.1:9092`
#![allow(clippy::print_stdout, reason = "an example")]

use std::time::Duration;

use baton::{Baton, Message, TopicSpec};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "embedded:///tmp/orders".to_owned());
    let baton = Baton::connect(address).await?;
    baton.create_topic(TopicSpec::new("orders", 6)).await?;
    let producer = baton.producer("orders-svc").await?;
    let orders = (1..=1_000).map(|order| Message::to("orders").key(format!("order-{order}")).payload("100 beans"));
    let sent = producer.send_all(orders).await.into_iter().filter(Result::is_ok).count();
    println!("{sent} orders are stored by {}", baton.engine().name());
    println!("left behind: {}", producer.close(Duration::from_secs(10)).await.unsent_count);
    Ok(())
}
