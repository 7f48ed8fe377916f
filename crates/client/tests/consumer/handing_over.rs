//! Partitions go from one consumer to another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baton::consumer::{Consumer, Notice};
use baton::{Received, TopicPartition};
use baton_guard::{Group, Guard};

use crate::world::{GROUP, PATIENCE, TOPIC, World, assert_each_once, assert_order_per_key, eventually, text, write};

const WAIT: Duration = Duration::from_secs(20);

async fn start(world: &World, by: &'static str, takes: Duration) -> Consumer {
    let consumer = world.consumer().revoke_drain(Duration::from_secs(1)).guard(world.inbox());
    let consumer = consumer.start(move |message: Received, effect| async move {
        tokio::time::sleep(takes).await;
        write(&effect, &text(&message.body), &text(message.key().unwrap()), by).await?;
        Ok(())
    });
    consumer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_hands_over_without_a_double_effect_and_in_order() {
    let world = Arc::new(World::new(4).await);
    let is_enough = Arc::new(AtomicBool::new(false));
    // However long the hand-overs take, there is something left for whoever takes over.
    let sender = tokio::spawn({
        let (world, is_enough) = (world.clone(), is_enough.clone());
        async move {
            let mut round = 0;
            while !is_enough.load(Ordering::Relaxed) {
                for partition in 0..4_u32 {
                    world.send_many(partition, partition as usize * 1_000_000 + round * 5, 5, 3).await;
                }
                round += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            round * 20
        }
    });
    let first = start(&world, "first", Duration::from_millis(1)).await;
    eventually("the first one", || world.effects().len() > 50).await;
    let second = start(&world, "second", Duration::from_millis(1)).await;
    eventually("the second one", || world.effects().iter().any(|effect| effect.by == "second")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    first.stop(WAIT).await.unwrap();
    let third = start(&world, "third", Duration::from_millis(1)).await;
    eventually("the third one", || world.effects().iter().any(|effect| effect.by == "third")).await;
    is_enough.store(true, Ordering::Relaxed);
    let sent = sender.await.unwrap();
    let effects = world.until_effects(sent).await;
    assert_each_once(&world.ids(), sent);
    assert_order_per_key(&effects);
    second.stop(WAIT).await.unwrap();
    third.stop(WAIT).await.unwrap();
}

/// Retention was shorter than the lag: what is gone is said, and not passed over while positions move on.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_gone_are_named_and_what_is_left_is_handled() {
    let world = World::new(1).await;
    world.send_many(0, 0, 2, 2).await;
    let first = start(&world, "first", Duration::ZERO).await;
    world.until_effects(2).await;
    first.stop(WAIT).await.unwrap();
    world.send_many(0, 2, 8, 2).await;
    world.remove(0, 6).await;
    let second = start(&world, "second", Duration::ZERO).await;
    let mut notices = second.notices();
    let gap = async {
        loop {
            if let Notice::Gap { partition, expected, next } = notices.next().await.unwrap() {
                return (partition, expected, next);
            }
        }
    };
    let gap = tokio::time::timeout(PATIENCE, gap).await.unwrap();
    assert_eq!(gap, (TopicPartition::new(TOPIC, 0), 2, 6));
    world.until_effects(6).await;
    second.stop(WAIT).await.unwrap();
    assert_eq!(world.log.settled(0), 10);
}

/// Without a guard: SQLite has one writer at a time, and handlers that never end would keep everybody else from it.
async fn start_unguarded(world: &World, takes: Duration) -> (Consumer, Arc<Mutex<Vec<String>>>) {
    let handled = Arc::new(Mutex::new(Vec::new()));
    let list = handled.clone();
    let consumer = world.consumer().revoke_drain(Duration::from_secs(1)).at_least_once();
    let consumer = consumer.start(move |message: Received, ()| {
        let list = list.clone();
        async move {
            tokio::time::sleep(takes).await;
            list.lock().unwrap().push(text(&message.body));
            Ok(())
        }
    });
    (consumer.await.unwrap(), handled)
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_with_handlers_that_do_not_end_are_handed_over_within_the_bound() {
    let world = World::new(2).await;
    for partition in 0..2 {
        world.send_many(partition, partition as usize * 10, 3, 3).await;
    }
    let (first, by_first) = start_unguarded(&world, Duration::from_secs(3600)).await;
    eventually("handlers to run", || first.metrics().held.handlers == 6).await;
    let began = Instant::now();
    let (second, by_second) = start_unguarded(&world, Duration::ZERO).await;
    // One of the two partitions becomes the second's: the handlers that it had are cancelled.
    eventually("a partition to be handed over", || by_second.lock().unwrap().len() == 3).await;
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    first.cancel().await.unwrap();
    eventually("the other one", || by_second.lock().unwrap().len() == 6).await;
    second.stop(WAIT).await.unwrap();
    assert!(by_first.lock().unwrap().is_empty());
    assert_each_once(&by_second.lock().unwrap(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_fenced_drops_what_it_did_settles_nothing_and_joins_anew() {
    let world = World::new(1).await;
    let orders = TopicPartition::new(TOPIC, 0);
    let consumer = start(&world, "zombie", Duration::from_millis(1_500)).await;
    let mut notices = consumer.notices();
    world.send(0, &[("m0", "a", "m0"), ("m1", "a", "m1")]).await;
    eventually("the handler to run", || consumer.metrics().held.handlers == 1).await;
    // As another member does that believes the partition to be its own. This waits for the effect that is under way.
    let fence = world.inbox().take_over(&Group::new(GROUP).unwrap(), &orders).await.unwrap();
    let fenced = async { while !matches!(notices.next().await.unwrap(), Notice::Fenced { .. }) {} };
    tokio::time::timeout(PATIENCE, fenced).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.ids(), ["m0"], "what comes later under fence {} is dropped", fence.epoch - 1);
    assert!(world.log.settled(0) <= 1, "nothing of it is settled");
    // The engine never took the partition away, so nobody else has it: it is taken over once more.
    let effects = world.until_effects(2).await;
    assert_eq!(effects.iter().map(|effect| effect.id.as_str()).collect::<Vec<_>>(), ["m0", "m1"]);
    assert!(consumer.stop(WAIT).await.unwrap().fenced >= 1);
}
