//! The examples that only send.

use baton::{Baton, TopicPartition};
use baton_testkit::servers::Server;

use crate::program::Program;

/// How many messages lie in the six partitions of the topic.
async fn stored(address: &str) -> usize {
    let baton = Baton::connect(address).await.unwrap();
    let mut count = 0;
    for partition in 0..6 {
        let mut reader = baton.engine().reader(&TopicPartition::new("orders", partition), 0).await.unwrap();
        loop {
            match reader.next().await.unwrap().len() {
                0 => break,
                more => count += more,
            }
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_embeds_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("embedded://{}", folder.path().display());
    let mut program = Program::start("embedded", &[&address]);
    program.said("everything was sent: true");
    program.ends_well();
    assert_eq!(stored(&address).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_moves_to_kafka_by_its_address() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::start("kafka"));
    let embedded = format!("embedded://{}", folder.path().display());
    let kafka = format!("kafka://{}", server.address());
    for (address, engine) in [(embedded, "embedded"), (kafka, "kafka")] {
        let mut program = Program::start("move_to_kafka", &[&address]);
        assert_eq!(program.said("orders are stored"), format!("1000 orders are stored by {engine}"));
        assert_eq!(program.said("left behind"), "left behind: 0");
        program.ends_well();
        assert_eq!(stored(&address).await, 1_000);
    }
}
