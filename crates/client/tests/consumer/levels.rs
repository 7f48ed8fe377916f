//! How often an effect may happen, and what has to be said for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use baton::consumer::{Batches, ConsumerError, DEAD_CLASS, DeadLetter, Order};
use baton::{HandlerError, Received};
use baton_guard::Conditional;

use crate::watched::Seen;
use crate::world::{TOPIC, World, eventually, header};

const WAIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn at_most_once_settles_before_it_handles_and_never_handles_again() {
    let world = World::new(1).await;
    world.send_many(0, 0, 10, 10).await;
    let (log, calls) = (world.log.clone(), Arc::new(AtomicUsize::new(0)));
    let called = calls.clone();
    let consumer = world.consumer().dead_letter(DeadLetter::topic("orders.dead")).at_most_once();
    let consumer = consumer.start(move |message: Received, ()| {
        called.fetch_add(1, SeqCst);
        log.say(format!("{}", message.offset()));
        async move {
            match message.offset() {
                3 => Err(HandlerError::transient("test", "no")),
                5 => panic!("on purpose"),
                7 => Err(HandlerError::dependency_down("test", "no")),
                _ => Ok(()),
            }
        }
    });
    let consumer = consumer.await.unwrap();
    eventually("all messages", || consumer.metrics().held.messages == 0 && calls.load(SeqCst) == 10).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.counters.done, metrics.counters.dead_lettered, calls.load(SeqCst)), (7, 3, 10));
    let mut settled = 0;
    for seen in world.log.seen() {
        match seen {
            Seen::Settling(_, next) => {
                assert!(next >= settled, "a settlement was taken back: {:?}", world.log.seen());
                settled = next;
            }
            Seen::Said(offset) => assert!(settled > offset.parse().unwrap(), "{:?}", world.log.seen()),
            Seen::Stored(_) => {}
        }
    }
    let letters = world.read("orders.dead").await;
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|letter| header(letter, DEAD_CLASS).as_deref() == Some("permanent")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_promised_is_refused_at_the_start() {
    let world = World::new(1).await;
    let ok = |_: Received, ()| async { Ok(()) };
    let refused = world.consumer().at_most_once().order(Order::PerKey).start(ok).await;
    assert!(matches!(refused.err().unwrap(), ConsumerError::OrderOfAtMostOnce));
    let refused = world.consumer().at_most_once().batches(Batches::default()).start(ok).await;
    assert!(matches!(refused.err().unwrap(), ConsumerError::OrderOfAtMostOnce));
    let weak = Conditional::sqlite(&world.sqlite);
    let refused = world.consumer().effectively_once(weak).start(|_: Received, _| async { Ok(()) }).await;
    assert!(matches!(refused.err().unwrap(), ConsumerError::WeakGuard { .. }));
    let refused = world.consumer().dead_letter(DeadLetter::topic(TOPIC)).at_least_once().start(ok).await;
    assert!(matches!(refused.err().unwrap(), ConsumerError::DeadLetterLoop(_)));
    let nothing: [&str; 0] = [];
    let refused = world.consumer().topics(nothing).at_least_once().start(ok).await;
    assert!(matches!(refused.err().unwrap(), ConsumerError::NoTopics));
    let refused = world.consumer().topics(["nowhere"]).at_least_once().start(ok).await;
    assert!(matches!(refused.err().unwrap(), ConsumerError::Engine(_)));
    let refused = world.consumer().concurrency(0).at_least_once().start(ok).await;
    assert!(matches!(refused.err().unwrap(), ConsumerError::Settings(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_a_position_begins_at_the_oldest_message_unless_told_otherwise() {
    let world = World::new(1).await;
    world.send_many(0, 0, 5, 5).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let called = calls.clone();
    let consumer = world.consumer().at_least_once().start(move |_: Received, ()| {
        called.fetch_add(1, SeqCst);
        async { Ok(()) }
    });
    let consumer = consumer.await.unwrap();
    eventually("what was there before", || calls.load(SeqCst) == 5).await;
    consumer.stop(WAIT).await.unwrap();
}
