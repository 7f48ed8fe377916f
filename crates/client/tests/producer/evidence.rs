use std::collections::BTreeSet;
use std::time::Duration;

use baton::Message;
use baton_core::EVIDENCE_TOPIC;
use baton_testkit::proxy::Fault;

use crate::support::{LONG, World, numbered};

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_what_was_acknowledged() {
    let world = World::start(&[("orders", 3)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let messages = (0..25_000).map(|number| numbered("orders", number).key(number.to_string()));
    let mut acknowledged: [BTreeSet<u64>; 3] = Default::default();
    for receipt in producer.send_all(messages).await.into_iter().map(Result::unwrap) {
        acknowledged[receipt.partition.partition as usize].insert(receipt.sequence);
    }
    let closed = producer.close(LONG).await;
    assert!(closed.is_clean() && closed.evidence_stored, "{closed:?}");
    for (partition, acknowledged) in acknowledged.into_iter().enumerate() {
        let evidence = world.evidence(producer.instance(), "orders", partition as u32).await;
        assert_eq!(evidence.acknowledged.iter().flatten().collect::<BTreeSet<_>>(), acknowledged);
        assert_eq!((evidence.highest, evidence.closed), (acknowledged.len() as u64, true));
        assert_eq!(evidence.in_flight().first(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_comes_while_the_producer_lives() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    producer.send(Message::to("orders")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let evidence = world.evidence(producer.instance(), "orders", 0).await;
    assert_eq!((evidence.acknowledged.iter().collect::<Vec<_>>(), evidence.closed), (vec![1..=1], false));
}

/// A report falls into an outage that is longer than it may take; what it said is said again.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_that_cannot_be_sent_is_kept_and_sends_go_on() {
    let world = World::start(&[("orders", 1)]).await;
    // Long beside what a busy machine takes for a send.
    let producer = world.baton.producer("orders-svc").delivery_timeout(Duration::from_secs(6)).await.unwrap();
    producer.send(numbered("orders", 0)).await.unwrap();
    // The first report gets through, so that the topic is there and known.
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    producer.send(numbered("orders", 1)).await.unwrap();
    world.proxy.set(Fault::Cut);
    assert!(producer.send(numbered("orders", 2)).await.unwrap_err().could_be_stored());
    tokio::time::sleep(Duration::from_millis(3_000)).await;
    world.proxy.set(Fault::None);
    producer.send(numbered("orders", 3)).await.unwrap();
    assert!(producer.close(LONG).await.evidence_stored);
    let evidence = world.evidence(producer.instance(), "orders", 0).await;
    assert_eq!(evidence.acknowledged.iter().collect::<Vec<_>>(), [1..=2, 4..=4]);
    assert_eq!(evidence.unknown.iter().collect::<Vec<_>>(), [3..=3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_evidence_none_is_sent() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").evidence(false).await.unwrap();
    producer.send(Message::to("orders")).await.unwrap();
    assert!(producer.close(LONG).await.is_clean());
    assert!(world.baton.engine().partitions(EVIDENCE_TOPIC).await.is_err());
}
