use std::collections::{BTreeMap, HashMap};

use baton::{Message, MessageId};
use baton_core::trace::{TRACEPARENT_HEADER, TraceParent};
use baton_engine::{Copies, Durability, Medium};

use crate::support::{LONG, World, stamp};

#[tokio::test(flavor = "multi_thread")]
async fn receipts_say_what_is_in_the_log() {
    let world = World::start(&[("orders", 3)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let messages =
        (0..300).map(|number| Message::to("orders").key(format!("k{}", number % 17)).payload(number.to_string()));
    let receipts: Vec<_> = producer.send_all(messages).await.into_iter().map(Result::unwrap).collect();
    let mut by_place: HashMap<_, _> = receipts
        .iter()
        .enumerate()
        .map(|(number, receipt)| ((receipt.partition.partition, receipt.offset), (number, receipt)))
        .collect();
    let mut of_key: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for partition in 0..3 {
        let stored = world.read("orders", partition).await;
        assert!(!stored.is_empty(), "partition {partition} got nothing");
        for (index, delivery) in stored.iter().enumerate() {
            let (number, receipt) = by_place.remove(&(partition, Some(delivery.offset))).expect("a receipt for each");
            let stamp = stamp(delivery);
            assert_eq!(delivery.payload.as_deref(), Some(number.to_string().as_bytes()));
            assert_eq!((&stamp.id, stamp.epoch, stamp.sequence), (&receipt.id, receipt.epoch, receipt.sequence));
            assert_eq!(
                (stamp.instance.as_str(), stamp.sequence),
                (producer.instance(), index as u64 + 1),
                "numbers have no gaps"
            );
            // As for any Kafka of which nothing more is known than its topic's settings.
            assert_eq!(receipt.durability, Durability { medium: Medium::PageCache, copies: Copies::One });
            assert_eq!(receipt.attempts, 1);
            of_key.entry(delivery.key.as_deref().unwrap().to_vec()).or_default().push(number);
        }
    }
    assert!(by_place.is_empty(), "not in the log: {by_place:?}");
    assert_eq!(of_key.len(), 17);
    assert!(of_key.values().all(|numbers| numbers.is_sorted()), "a key overtook itself");
    assert!(producer.close(LONG).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_message_brings_along_is_kept() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let trace = TraceParent::root(7, 9, true).encode();
    let message = Message::to("orders")
        .key("order-17")
        .payload("100 beans")
        .header("tenant", "north")
        .header(TRACEPARENT_HEADER, trace.clone())
        .timestamp_ms(1_700_000_000_123)
        .id(MessageId::new("order-17:created").unwrap());
    let receipt = producer.send(message).await.unwrap();
    assert_eq!(receipt.id.as_str(), "order-17:created");
    let stored = world.read("orders", 0).await;
    assert_eq!(stored[0].headers.last("tenant").map(|value| &value[..]), Some(&b"north"[..]));
    let traces: Vec<_> = stored[0].headers.iter().filter(|header| &*header.name == TRACEPARENT_HEADER).collect();
    assert_eq!((traces.len(), traces[0].value.as_ref()), (1, Some(&trace)));
    assert_eq!((stored[0].timestamp_ms, stamp(&stored[0]).id), (Some(1_700_000_000_123), receipt.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_a_trace_continues_the_current_one_or_begins_one() {
    let world = World::start(&[("orders", 1)]).await;
    let current = TraceParent::root(7, 9, true);
    let continuing = world.baton.producer("a").trace_source(move || Some(current)).await.unwrap();
    let beginning = world.baton.producer("b").await.unwrap();
    let none = world.baton.producer("c").start_traces(false).await.unwrap();
    for producer in [&continuing, &beginning, &beginning, &none] {
        producer.send(Message::to("orders")).await.unwrap();
    }
    let stored = world.read("orders", 0).await;
    let trace =
        |at: usize| stored[at].headers.last(TRACEPARENT_HEADER).map(|header| TraceParent::parse(header).unwrap());
    assert_eq!(trace(0), Some(current));
    assert_ne!(trace(1).unwrap().trace(), trace(2).unwrap().trace());
    assert_eq!(trace(3), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_starts_again_starts_a_new_sequence() {
    let world = World::start(&[("orders", 1)]).await;
    for _ in 0..2 {
        let producer = world.baton.producer("a-service-with-a-long-name").await.unwrap();
        assert!(producer.instance().starts_with("a-service-with--") && producer.instance().len() <= 24);
        producer.send(Message::to("orders")).await.unwrap();
        producer.send(Message::to("orders")).await.unwrap();
        assert!(producer.close(LONG).await.is_clean());
    }
    let stamps: Vec<_> = world.read("orders", 0).await.iter().map(stamp).collect();
    assert_eq!(stamps.iter().map(|stamp| stamp.sequence).collect::<Vec<_>>(), [1, 2, 1, 2]);
    assert_ne!(stamps[0].instance, stamps[2].instance);
    assert!(stamps[0].epoch > 1_700_000_000 && stamps[2].epoch >= stamps[0].epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_a_key_are_spread_over_all_partitions() {
    let world = World::start(&[("orders", 4)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let sent = producer.send_all((0..400).map(|_| Message::to("orders").payload(vec![0; 1_000]))).await;
    let mut counts = [0; 4];
    for receipt in sent.into_iter().map(Result::unwrap) {
        counts[receipt.partition.partition as usize] += 1;
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
