use std::time::Duration;

use baton::{Message, Reason};
use baton_testkit::proxy::Fault;

use crate::support::{LONG, World, numbered, until};

#[tokio::test(flavor = "multi_thread")]
async fn close_says_what_was_not_sent() {
    let world = World::start(&[("orders", 1)]).await;
    let producer =
        world.baton.producer("orders-svc").linger_ms(0).in_flight_max(1).buffer_bytes_max(3_000).await.unwrap();
    producer.send(numbered("orders", 0)).await.unwrap();
    world.proxy.set(Fault::Stall);
    let sent: Vec<_> = (1..20).map(|number| producer.send(numbered("orders", number))).collect();
    until("one is handed over", || producer.counters().open == 19).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let closed = producer.close(Duration::from_millis(300)).await;
    assert_eq!((closed.unsent_count, closed.unsent.len(), closed.abandoned), (19, 19, 0));
    assert!(!closed.evidence_stored && !closed.is_clean());
    let unknown = closed.unsent.iter().filter(|error| error.could_be_stored()).count();
    assert_eq!(unknown, 1, "the engine had one of them");
    for sent in sent {
        assert_eq!(sent.await.unwrap_err().reason(), &Reason::Closed);
    }
    assert_eq!(producer.close(LONG).await.unsent_count, 0, "closed again, it has nothing left");
    let late = producer.send(Message::to("orders")).await.unwrap_err();
    assert_eq!((late.reason(), late.may_retry(), late.could_be_stored()), (&Reason::Closed, true, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_waits_for_what_was_sent_before_it_and_for_nothing_else() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    assert_eq!(producer.flush(Duration::ZERO).await, 0, "nothing was sent");
    producer.send(numbered("orders", 0)).await.unwrap();
    world.proxy.set(Fault::Stall);
    let sent: Vec<_> = (1..=3).map(|number| producer.send(numbered("orders", number))).collect();
    assert_eq!(producer.flush(Duration::from_millis(100)).await, 3);
    world.proxy.set(Fault::None);
    assert_eq!(producer.flush(LONG).await, 0);
    for sent in sent {
        sent.await.unwrap();
    }
    let busy = producer.clone();
    let sending = tokio::spawn(async move {
        loop {
            // One is always open.
            let next = busy.send(numbered("orders", 4));
            busy.send(numbered("orders", 5)).await.unwrap();
            next.await.unwrap();
        }
    });
    assert_eq!(tokio::time::timeout(LONG, producer.flush(LONG)).await, Ok(0), "later messages are not waited for");
    sending.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_goes_on_when_the_last_handle_is_dropped() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let instance = producer.instance().to_owned();
    let sent: Vec<_> = (0..100).map(|number| producer.send(numbered("orders", number))).collect();
    drop(producer);
    for sent in sent {
        sent.await.unwrap();
    }
    for _ in 0..600 {
        let there = baton::Baton::engine(&world.baton).partitions(baton_core::EVIDENCE_TOPIC).await.is_ok();
        if there && world.evidence(&instance, "orders", 0).await.closed {
            let evidence = world.evidence(&instance, "orders", 0).await;
            assert_eq!(evidence.acknowledged.iter().collect::<Vec<_>>(), [1..=100]);
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the last evidence never came");
}

#[test]
fn nobody_waits_for_a_runtime_that_is_gone() {
    let running = tokio::runtime::Runtime::new().unwrap();
    let (world, producer, sent) = running.block_on(async {
        let world = World::start(&[("orders", 1)]).await;
        let producer = world.baton.producer("orders-svc").linger_ms(0).in_flight_max(1).await.unwrap();
        producer.send(numbered("orders", 0)).await.unwrap();
        world.proxy.set(Fault::Stall);
        let sent = [1, 2].map(|number| producer.send(numbered("orders", number)));
        tokio::time::sleep(Duration::from_millis(200)).await;
        (world, producer, sent)
    });
    running.shutdown_timeout(Duration::from_secs(5));
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let [first, second] = sent.map(|sent| other.block_on(sent).unwrap_err());
    assert!(first.could_be_stored() && first.stamp().is_some_and(|stamp| stamp.sequence == 2), "{first}");
    assert!(!second.could_be_stored() && second.id().is_some(), "it was never handed over: {second}");
    let late = other.block_on(producer.send(numbered("orders", 2))).unwrap_err();
    assert_eq!(late.reason(), &Reason::Closed);
    drop(world);
}
