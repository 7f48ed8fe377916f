use baton::{Ids, Message, MessageId, Reason, SendError};

use crate::support::{LONG, World, number, numbered, stamp};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_is_certainly_not_stored_and_not_worth_a_retry() {
    let world = World::start(&[]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let error = producer.send(Message::to("no-such-topic").id("a".try_into().unwrap())).await.unwrap_err();
    assert!(matches!(&error, SendError::NotStored(_)), "{error}");
    assert!(matches!(error.reason(), Reason::NoTopic(_)), "{error}");
    assert!(!error.may_retry() && !error.could_be_stored() && error.stamp().is_none());
    assert_eq!(error.id(), Some(&MessageId::new("a").unwrap()));
    world.create("no-such-topic", 1).await;
    producer.send(Message::to("no-such-topic")).await.expect("it is asked for again when it is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_not_there_is_refused() {
    let world = World::start(&[("orders", 2)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let error = producer.send(Message::to("orders").partition(2)).await.unwrap_err();
    assert_eq!(error.reason(), &Reason::NoPartition { partition: 2, there: 2 });
    assert!(matches!(error, SendError::NotStored(_)) && !error.may_retry());
    assert_eq!(producer.send(Message::to("orders").partition(1)).await.unwrap().partition.partition, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_topic_with_another_number_of_partitions_takes_no_keys() {
    let world = World::start(&[("orders", 2)]).await;
    let producer = world.baton.producer("orders-svc").ordered("orders", 3).await.unwrap();
    let error = producer.send(Message::to("orders").key("a")).await.unwrap_err();
    assert_eq!(error.reason(), &Reason::PartitionsChanged { expected: 3, there: 2 });
    assert!(matches!(error, SendError::NotStored(_)) && !error.may_retry());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_of_business_ids_refuses_what_has_none() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").ids(Ids::Business).await.unwrap();
    let error = producer.send(Message::to("orders")).await.unwrap_err();
    assert!(matches!(error.reason(), Reason::NoId(_)) && !error.may_retry() && !error.could_be_stored());
    producer.send(Message::to("orders").id("order-17".try_into().unwrap())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_refuses_is_abandoned_in_the_evidence_and_the_others_go_on() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let large = Message::to("orders").payload(vec![0; 2_000_000]);
    let sent = producer.send_all([numbered("orders", 0), large, numbered("orders", 2)]).await;
    let error = sent[1].as_ref().unwrap_err();
    assert!(matches!(error, SendError::NotStored(_)) && !error.may_retry(), "{error}");
    assert!(matches!(error.reason(), Reason::Refused(_)), "{error}");
    assert_eq!(error.stamp().map(|stamp| stamp.sequence), Some(2));
    assert!(sent[0].is_ok() && sent[2].is_ok());
    assert!(producer.close(LONG).await.is_clean(), "its sender was told");
    let stored = world.read("orders", 0).await;
    let numbers: Vec<_> = stored.iter().map(|delivery| (number(delivery), stamp(delivery).sequence)).collect();
    assert_eq!(numbers, [(0, 1), (2, 3)]);
    let evidence = world.evidence(producer.instance(), "orders", 0).await;
    assert_eq!(evidence.acknowledged.iter().collect::<Vec<_>>(), [1..=1, 3..=3]);
    assert_eq!(evidence.not_stored.iter().collect::<Vec<_>>(), [2..=2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_larger_than_the_buffer_is_refused() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").buffer_bytes_max(10_000).await.unwrap();
    let error = producer.send(Message::to("orders").payload(vec![0; 10_000])).await.unwrap_err();
    assert_eq!(error.reason(), &Reason::TooLarge { bytes: 10_256, max: 10_000 });
    assert!(!error.may_retry() && !error.could_be_stored());
}
