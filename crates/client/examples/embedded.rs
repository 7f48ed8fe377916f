//! A service with a broker in it: nothing to install, and any Kafka client can talk to it on port 9092 as well.
//!
//! `cargo run -p baton --example embedded`
#![allow(clippy::print_stdout, reason = "an example")]

use std::time::Duration;

use baton::{Baton, Message, TopicSpec};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address =
        std::env::args().nth(1).unwrap_or_else(|| "embedded:///tmp/baton-example?listen=127.0.0.1:9092".to_owned());
    let baton = Baton::connect(address).await?;
    baton.create_topic(TopicSpec::new("orders", 6)).await?;

    let producer = baton.producer("orders-svc").await?;
    for order in 1..=10 {
        let message = Message::to("orders").key(format!("order-{order}")).payload("100 beans");
        let receipt = producer.send(message).await?;
        println!("{} is on the disk: {} at {:?}", receipt.id, receipt.partition, receipt.offset);
    }
    let closed = producer.close(Duration::from_secs(10)).await;
    println!("everything was sent: {}", closed.is_clean());
    Ok(())
}
