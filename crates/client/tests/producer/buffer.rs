use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton::{Message, NotSent, Producer, Reason};
use baton_testkit::proxy::Fault;

use crate::support::{LONG, World, number, numbered, until};

/// Room for ten empty messages.
const BUFFER_BYTES: usize = 10 * 300;

fn small(number: usize) -> Message {
    numbered("orders", number)
}

/// A producer whose buffer is full, as nothing gets through.
async fn full(world: &World) -> (Producer, Vec<baton::SendFuture>) {
    let producer = world.baton.producer("orders-svc").linger_ms(0).buffer_bytes_max(BUFFER_BYTES).await.unwrap();
    producer.send(Message::to("orders").payload("0")).await.unwrap();
    world.proxy.set(Fault::Stall);
    let mut sent = Vec::new();
    loop {
        match producer.try_send(small(1 + sent.len())) {
            Ok(one) => sent.push(one),
            Err(not_sent) => {
                let number = 1 + sent.len();
                assert!(matches!(*not_sent, NotSent::Full(message) if message == small(number)), "it is given back");
                return (producer, sent);
            }
        }
        assert!(sent.len() < 20, "the buffer has no bound");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_lets_senders_wait_in_their_order() {
    let world = World::start(&[("orders", 1)]).await;
    let (producer, mut sent) = full(&world).await;
    assert_eq!(sent.len(), BUFFER_BYTES / 257);
    let level = producer.counters();
    assert!(level.buffer_bytes <= BUFFER_BYTES && level.open == sent.len() as u64, "{level:?}");
    sent.extend((sent.len() + 1..60).map(|number| producer.send(small(number))));
    assert!(sent.last().is_some_and(baton::SendFuture::waits_for_room));
    assert!(producer.counters().buffer_bytes <= BUFFER_BYTES, "what waits is not let in");
    world.proxy.set(Fault::None);
    // Awaited from the last to the first: who waits needs nobody to look.
    for sent in sent.into_iter().rev() {
        sent.await.unwrap();
    }
    let numbers: Vec<_> = world.read("orders", 0).await.iter().map(number).collect();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_message_does_not_overtake_a_large_one_that_waits_for_room() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").linger_ms(0).buffer_bytes_max(BUFFER_BYTES).await.unwrap();
    producer.send(small(0)).await.unwrap();
    world.proxy.set(Fault::Stall);
    let first = producer.send(small(1));
    let large = producer.send(Message::to("orders").payload(format!("{:02700}", 2)));
    let last = producer.send(small(3));
    assert!(!first.waits_for_room() && large.waits_for_room() && last.waits_for_room());
    assert!(matches!(producer.try_send(small(4)), Err(full) if matches!(*full, NotSent::Full(_))));
    world.proxy.set(Fault::None);
    for sent in [first, large, last] {
        sent.await.unwrap();
    }
    assert_eq!(world.read("orders", 0).await.iter().map(number).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_while_it_waits_for_room_is_not_sent_and_is_reported() {
    let world = World::start(&[("orders", 1)]).await;
    let reported = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reported);
    let producer = world
        .baton
        .producer("orders-svc")
        .buffer_bytes_max(BUFFER_BYTES)
        .on_abandoned(move |error| {
            assert_eq!(error.reason(), &Reason::Dropped);
            count.fetch_add(1, Ordering::SeqCst);
        })
        .await
        .unwrap();
    producer.send(small(0)).await.unwrap();
    world.proxy.set(Fault::Stall);
    let mut sent: Vec<_> = (1..20).map(|number| producer.send(small(number))).collect();
    let waiting = sent.iter().filter(|sent| sent.waits_for_room()).count();
    drop(sent.split_off(20 - 1 - waiting));
    assert_eq!(reported.load(Ordering::SeqCst), waiting);
    world.proxy.set(Fault::None);
    for sent in sent {
        sent.await.unwrap();
    }
    let closed = producer.close(LONG).await;
    assert_eq!((closed.abandoned, closed.unsent_count), (waiting as u64, 0));
    assert_eq!(world.read("orders", 0).await.len(), 20 - waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_room_ends_at_the_deadline() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world
        .baton
        .producer("orders-svc")
        .buffer_bytes_max(BUFFER_BYTES)
        .delivery_timeout(Duration::from_millis(800))
        .await
        .unwrap();
    producer.send(small(0)).await.unwrap();
    world.proxy.set(Fault::Stall);
    let sent: Vec<_> = (1..20).map(|number| producer.send(small(number))).collect();
    let waiting: Vec<_> = sent.into_iter().filter(baton::SendFuture::waits_for_room).collect();
    assert!(!waiting.is_empty());
    for waiting in waiting {
        let error = waiting.await.unwrap_err();
        assert!(!error.could_be_stored() && error.may_retry(), "{error}");
        assert!(matches!(error.reason(), Reason::Deadline(_)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_future_does_not_take_the_message_back() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    for number in 0..100 {
        drop(producer.send(small(number)));
    }
    assert_eq!(producer.flush(LONG).await, 0);
    assert_eq!(world.read("orders", 0).await.iter().map(number).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    assert!(producer.close(LONG).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_nobody_awaits_is_reported() {
    let world = World::start(&[]).await;
    let reported = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reported);
    let on_abandoned = move |_: &baton::SendError| {
        count.fetch_add(1, Ordering::SeqCst);
    };
    let producer = world.baton.producer("orders-svc").on_abandoned(on_abandoned).await.unwrap();
    drop(producer.send(Message::to("no-such-topic")));
    until("the failure is reported", || reported.load(Ordering::SeqCst) == 1).await;
    // Also when it had failed before the future was dropped.
    let failed = producer.send(Message::to("no-such-topic"));
    until("it has failed", || producer.counters().failed == 2).await;
    assert_eq!(reported.load(Ordering::SeqCst), 1);
    drop(failed);
    assert_eq!(reported.load(Ordering::SeqCst), 2);
    let closed = producer.close(LONG).await;
    assert_eq!((closed.abandoned, closed.is_clean()), (2, false));
}
