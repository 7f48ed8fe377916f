use std::collections::HashMap;
use std::time::Duration;

use baton::{Message, Reason, Retry, SendError};
use baton_testkit::proxy::Fault;

use crate::support::{LONG, World, number, numbered, stamp};

/// Messages sent while something happens to the engine.
const MESSAGES: usize = 3_000;

/// Everything is stored, each message under one stamp however often, and numbers have no gaps.
async fn check_stored(world: &World, partitions: u32, receipts: &[baton::Receipt]) -> usize {
    let mut copies = 0;
    let mut found = HashMap::new();
    for partition in 0..partitions {
        let mut numbers = Vec::new();
        for delivery in world.read("orders", partition).await {
            let stamp = stamp(&delivery);
            let receipt = &receipts[number(&delivery)];
            assert_eq!(receipt.partition.partition, partition);
            assert_eq!((&receipt.id, receipt.sequence, receipt.epoch), (&stamp.id, stamp.sequence, stamp.epoch));
            numbers.push(stamp.sequence);
            copies += usize::from(found.insert(number(&delivery), ()).is_some());
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "numbers have no gaps");
    }
    assert_eq!(found.len(), receipts.len(), "acknowledged and not stored");
    copies
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_survive_an_engine_that_is_killed_and_comes_back() {
    let mut world = World::start(&[("orders", 3)]).await;
    let producer =
        world.baton.producer("orders-svc").linger_ms(0).attempt_timeout(Duration::from_millis(1_500)).await.unwrap();
    let sender = producer.clone();
    let sending = tokio::spawn(async move {
        let mut sent = Vec::new();
        for number in 0..MESSAGES {
            sent.push(sender.send(numbered("orders", number).key(format!("k{}", number % 31))));
            if number % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut receipts = Vec::new();
        for sent in sent {
            receipts.push(sent.await.unwrap());
        }
        receipts
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        world.kill().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.start_again().await;
    }
    let receipts = sending.await.unwrap();
    check_stored(&world, 3, &receipts).await;
    assert!(producer.close(LONG).await.is_clean());
}

/// The engine's client gives up with an unknown fate while the message is stored already: the retry is a copy, under the same stamp.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_keeps_the_stamp() {
    let world = World::start(&[("orders", 1)]).await;
    let retry = Retry::exponential(Duration::from_millis(50), 2, Duration::from_millis(200)).max_attempts(100);
    let builder = world.baton.producer("orders-svc").linger_ms(0).retry(retry);
    let producer = builder.attempt_timeout(Duration::from_millis(500)).await.unwrap();
    let first = producer.send(numbered("orders", 0)).await.unwrap();
    world.proxy.set(Fault::LoseAnswers);
    let sent = producer.send(numbered("orders", 1));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    world.proxy.set(Fault::None);
    let second = sent.await.unwrap();
    assert!(world.proxy.lost_bytes() > 0 && second.attempts > 1, "nothing went wrong: {second:?}");
    let copies = check_stored(&world, 1, &[first, second]).await;
    assert!(copies > 0, "no copy was stored, so this shows nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_its_deadline_a_message_is_of_unknown_fate_and_so_says_the_evidence() {
    let world = World::start(&[("orders", 1)]).await;
    let producer =
        world.baton.producer("orders-svc").linger_ms(0).delivery_timeout(Duration::from_millis(1_000)).await.unwrap();
    producer.send(numbered("orders", 0)).await.unwrap();
    world.proxy.set(Fault::LoseAnswers);
    let error = producer.send(numbered("orders", 1)).await.unwrap_err();
    assert!(matches!(&error, SendError::Unknown(_)), "{error}");
    assert!(error.could_be_stored() && error.may_retry(), "{error}");
    assert!(matches!(error.reason(), Reason::Deadline(_)), "{error}");
    world.proxy.set(Fault::None);
    let closed = producer.close(LONG).await;
    assert!(closed.is_clean() && closed.evidence_stored, "{closed:?}");
    let stamps: Vec<_> = world.read("orders", 0).await.iter().map(stamp).collect();
    assert!(stamps.iter().any(|stamp| Some(stamp) == error.stamp()), "it is stored, as it was said it could be");
    let evidence = world.evidence(producer.instance(), "orders", 0).await;
    assert_eq!(evidence.acknowledged.iter().collect::<Vec<_>>(), [1..=1]);
    assert_eq!(evidence.unknown.iter().collect::<Vec<_>>(), [2..=2]);
    assert!(evidence.closed && evidence.highest == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_handed_over_is_certainly_not_stored() {
    let world = World::start(&[("orders", 1)]).await;
    world.proxy.set(Fault::Cut);
    let producer = world.baton.producer("orders-svc").delivery_timeout(Duration::from_millis(600)).await.unwrap();
    let began = std::time::Instant::now();
    let error = producer.send(numbered("orders", 0)).await.unwrap_err();
    assert!(matches!(&error, SendError::NotStored(_)) && error.may_retry(), "{error}");
    assert!(matches!(error.reason(), Reason::Deadline(_)), "{error}");
    assert!(began.elapsed() >= Duration::from_millis(600) && began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_loses_nothing() {
    let world = World::start(&[("orders", 2)]).await;
    let producer = world.baton.producer("orders-svc").linger_ms(0).await.unwrap();
    let mut receipts = vec![producer.send(numbered("orders", 0).key("a")).await.unwrap()];
    world.proxy.set(Fault::HalfOpen);
    let sent: Vec<_> =
        (1..50).map(|number| producer.send(numbered("orders", number).key(number.to_string()))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(world.proxy.lost_bytes() > 0);
    world.proxy.set(Fault::None);
    for sent in sent {
        receipts.push(sent.await.unwrap());
    }
    check_stored(&world, 2, &receipts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_wait_for_an_engine_that_is_not_there_yet() {
    let mut world = World::start(&[("orders", 1)]).await;
    world.kill().await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let sent: Vec<_> = (0..10).map(|number| producer.send(numbered("orders", number))).collect();
    let pinned = producer.send(Message::to("orders").partition(0).payload("10"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.start_again().await;
    for (number, sent) in sent.into_iter().enumerate() {
        assert_eq!(sent.await.unwrap().sequence, number as u64 + 1);
    }
    assert_eq!(pinned.await.unwrap().sequence, 11);
}
