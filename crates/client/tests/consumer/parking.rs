//! Keys that are set aside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use baton::consumer::{Consumer, Remedy};
use baton::{HandlerError, Received, TopicPartition};

use crate::world::{GROUP, PATIENCE, TOPIC, World, eventually, text, write};

const WAIT: Duration = Duration::from_secs(10);

async fn start(world: &World, mended: Arc<AtomicBool>, by: &'static str) -> Consumer {
    let consumer = world.consumer().exhausted(Remedy::Park).guard(world.inbox());
    let consumer = consumer.start(move |message: Received, effect| {
        let mended = mended.load(SeqCst);
        async move {
            let id = text(&message.body);
            write(&effect, &id, &text(message.key().unwrap()), by).await?;
            match id == "a1" && !mended {
                true => Err(HandlerError::park("test", "the account is closed")),
                false => Ok(()),
            }
        }
    });
    consumer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_key_waits_in_order_over_restarts_while_others_flow() {
    let world = World::new(1).await;
    let mended = Arc::new(AtomicBool::new(false));
    let (orders, key) = (TopicPartition::new(TOPIC, 0), "a");
    let consumer = start(&world, mended.clone(), "first").await;
    world
        .send(0, &[("m0", "a", "a1"), ("m1", "a", "a2"), ("m2", "b", "b1"), ("m3", "a", "a3"), ("m4", "b", "b2")])
        .await;
    eventually("the key to be parked", || consumer.metrics().counters.parked == 3).await;
    eventually("all to be settled", || world.log.settled(0) == 5).await;
    assert_eq!(world.ids(), ["b1", "b2"]);
    consumer.stop(WAIT).await.unwrap();
    // Whoever comes next knows that the key is parked.
    let consumer = start(&world, mended.clone(), "second").await;
    world.send(0, &[("m5", "a", "a4"), ("m6", "b", "b3")]).await;
    eventually("the key's next message to be parked", || consumer.metrics().counters.parked == 1).await;
    world.until_effects(3).await;
    assert!(!consumer.release(&orders, "b").await, "b is not parked");
    mended.store(true, SeqCst);
    assert!(consumer.release(&orders, key).await);
    world.until_effects(7).await;
    assert_eq!(world.ids(), ["b1", "b2", "b3", "a1", "a2", "a3", "a4"]);
    eventually("the key to be free", || consumer.metrics().held.parked_keys == 0).await;
    world.send(0, &[("m7", "a", "a5")]).await;
    world.until_effects(8).await;
    consumer.stop(WAIT).await.unwrap();
    // And what was removed stays removed.
    let consumer = start(&world, mended, "third").await;
    world.send(0, &[("m8", "a", "a6")]).await;
    world.until_effects(9).await;
    assert_eq!(consumer.stop(WAIT).await.unwrap().counters.parked, 0);
    assert!(!world.read(&format!("{GROUP}.parked")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_leaves_the_key_parked_at_the_message_that_failed() {
    let world = World::new(1).await;
    let mended = Arc::new(AtomicBool::new(false));
    let consumer = start(&world, mended.clone(), "").await;
    world.send(0, &[("m0", "a", "a1"), ("m1", "a", "a2")]).await;
    eventually("the key to be parked", || consumer.metrics().counters.parked == 2).await;
    let orders = TopicPartition::new(TOPIC, 0);
    let mut notices = consumer.notices();
    assert!(consumer.release(&orders, "a").await);
    let stopped = async { while !format!("{:?}", notices.next().await.unwrap()).contains("ReleaseStopped") {} };
    tokio::time::timeout(PATIENCE, stopped).await.unwrap();
    assert!(world.effects().is_empty());
    mended.store(true, SeqCst);
    assert!(consumer.release(&orders, "a").await);
    world.until_effects(2).await;
    assert_eq!(world.ids(), ["a1", "a2"]);
    consumer.stop(WAIT).await.unwrap();
}
