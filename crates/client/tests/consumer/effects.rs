//! Effects happen once, in the order of their key.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use baton::consumer::{Accept, Classify, Filter, HandlerError, Order};
use bytes::Bytes;

use crate::watched::Seen;
use crate::world::{World, assert_each_once, assert_order_per_key, eventually, text, write};

const WAIT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_twice_has_one_effect() {
    let world = World::new(2).await;
    for partition in 0..2 {
        world.send_many(partition, partition as usize * 50, 50, 5).await;
        world.send_many(partition, partition as usize * 50, 50, 5).await;
    }
    let consumer =
        world.consumer().effectively_once(world.inbox()).start(|message: baton::Received, effect| async move {
            write(&effect, &text(&message.body), &text(message.key().unwrap()), "").await?;
            Ok(())
        });
    let consumer = consumer.await.unwrap();
    let effects = world.until_effects(100).await;
    assert_order_per_key(&effects);
    eventually("the second half", || consumer.metrics().counters.done == 200).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.already_done, metrics.held.messages), (100, 0));
    assert_eq!((world.log.settled(0), world.log.settled(1)), (100, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_handled_side_by_side_and_each_in_its_order() {
    let world = World::new(1).await;
    world.send_many(0, 0, 400, 20).await;
    let handled = Arc::new(Mutex::new(Vec::new()));
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (list, now, peak) = (handled.clone(), running.clone(), most.clone());
    let consumer = world.consumer().concurrency(16).at_least_once().start(move |message: baton::Received, ()| {
        let (list, now, peak) = (list.clone(), now.clone(), peak.clone());
        async move {
            peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            // Not the same for all, so that who does not wait for his turn overtakes.
            tokio::time::sleep(Duration::from_millis(message.offset().unsigned_abs() * 7 % 5)).await;
            list.lock().unwrap().push((text(message.key().unwrap()), message.offset()));
            now.fetch_sub(1, SeqCst);
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    eventually("all messages", || handled.lock().unwrap().len() >= 400).await;
    consumer.stop(WAIT).await.unwrap();
    assert!((2..=16).contains(&most.load(SeqCst)), "{most:?} at once");
    let mut last = std::collections::HashMap::new();
    for (key, offset) in handled.lock().unwrap().iter() {
        let before = last.insert(key.clone(), *offset);
        assert!(before.is_none_or(|before| before < *offset), "{offset} of {key} came after {before:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_settled_before_its_effect_is_committed() {
    let world = World::new(1).await;
    world.send(0, &[("m0", "a", "m0")]).await;
    let log = world.log.clone();
    let consumer = world.consumer().guard(world.inbox()).start(move |message: baton::Received, effect| {
        let log = log.clone();
        async move {
            log.say("begun");
            write(&effect, &text(&message.body), "a", "").await?;
            // Long enough for many settlements.
            tokio::time::sleep(Duration::from_millis(500)).await;
            log.say("ends");
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(1).await;
    consumer.stop(WAIT).await.unwrap();
    let seen = world.log.seen();
    let at = |wanted: &dyn Fn(&Seen) -> bool| seen.iter().position(wanted).unwrap_or_else(|| panic!("{seen:?}"));
    let ends = at(&|seen| *seen == Seen::Said("ends".to_owned()));
    let settled = at(&|seen| matches!(seen, Seen::Settling(_, next) if *next >= 1));
    assert!(ends < settled, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_in_order_is_handled_one_after_the_other() {
    let world = World::new(1).await;
    world.send_many(0, 0, 60, 60).await;
    let consumer = world.consumer().order(Order::PerPartition).guard(world.inbox());
    let consumer = consumer.start(|message, effect| async move {
        tokio::time::sleep(Duration::from_millis(message.offset().unsigned_abs() * 7 % 5)).await;
        write(&effect, &text(&message.body), "one", "").await?;
        Ok(())
    });
    let consumer = consumer.await.unwrap();
    assert_order_per_key(&world.until_effects(60).await);
    consumer.stop(WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_skips_is_counted_settled_and_never_decoded() {
    let world = World::new(1).await;
    world.send(0, &[("m0", "a", "1"), ("skip", "a", "not a number"), ("m2", "a", "3")]).await;
    let filter = Filter { header: crate::world::ID.into(), accept: Accept::NoneOf(vec![Bytes::from_static(b"skip")]) };
    let consumer = world.consumer().filter(filter).guard(world.inbox()).decode(|delivery| {
        let payload = delivery.payload.clone().unwrap_or_default();
        text(&payload).parse::<u32>()
    });
    let consumer = consumer.start(|message: baton::Received<u32>, effect| async move {
        write(&effect, &message.body.to_string(), "a", "").await?;
        Ok(())
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(2).await;
    eventually("all to be settled", || world.log.settled(0) == 3).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.counters.filtered, metrics.counters.done, metrics.counters.dead_lettered), (1, 2, 0));
    assert_eq!(world.ids(), ["1", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_be_a_type_and_classify_its_errors() {
    struct Beans;
    impl baton::Handler<baton_guard::SqliteEffect> for Beans {
        async fn handle(
            &self,
            message: baton::Received,
            effect: baton_guard::SqliteEffect,
        ) -> Result<(), HandlerError> {
            let number: u32 = text(&message.body).parse().permanent()?;
            write(&effect, &number.to_string(), "a", "").await.dependency_down("database")?;
            Ok(())
        }
    }
    let world = World::new(1).await;
    world.send(0, &[("m0", "a", "17"), ("m1", "a", "seventeen"), ("m2", "a", "18")]).await;
    let consumer = world.consumer().guard(world.inbox()).start_handler(Beans).await.unwrap();
    world.until_effects(2).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!(metrics.counters.dead_lettered, 1);
    assert_each_once(&world.ids(), 2);
}
