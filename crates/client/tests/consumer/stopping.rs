//! Stopping, being stopped, and coming back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use baton::consumer::Consumer;
use rdkafka::consumer::Consumer as _;

use crate::world::{GROUP, PATIENCE, TOPIC, World, assert_each_once, assert_order_per_key, eventually, text, write};

const WAIT: Duration = Duration::from_secs(20);

/// Handles everything, taking so long for each. Settles at its end only: what is done is safe because of that, or not at all.
async fn start(world: &World, by: &'static str, takes: Duration) -> Consumer {
    let consumer = world.consumer().concurrency(4).settle_interval(Duration::from_secs(3600)).guard(world.inbox());
    let consumer = consumer.start(move |message, effect| async move {
        write(&effect, &text(&message.body), &text(message.key().unwrap()), by).await?;
        tokio::time::sleep(takes).await;
        Ok(())
    });
    consumer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_finished_and_the_rest_is_left_to_the_next_consumer() {
    let world = World::new(1).await;
    world.send_many(0, 0, 40, 8).await;
    let consumer = start(&world, "first", Duration::from_millis(100)).await;
    eventually("some effects", || world.effects().len() >= 3).await;
    let before = world.effects().len();
    let metrics = consumer.stop(WAIT).await.unwrap();
    let finished = world.effects().len();
    assert!(finished >= before + 3, "of four that ran, {} were finished", finished - before);
    assert_eq!(metrics.counters.done as usize, finished);
    assert!(finished < 40, "nothing was left to be given back");
    let consumer = start(&world, "second", Duration::ZERO).await;
    let effects = world.until_effects(40).await;
    assert_order_per_key(&effects);
    let metrics = consumer.stop(WAIT).await.unwrap();
    // What was done was settled: nothing of it even came again.
    assert_eq!((metrics.already_done, metrics.counters.done as usize), (0, 40 - finished));
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_do_not_end_in_time_are_rolled_back() {
    let world = World::new(1).await;
    world.send_many(0, 0, 4, 4).await;
    let consumer = start(&world, "first", Duration::from_secs(3600)).await;
    eventually("handlers to run", || consumer.metrics().held.handlers > 0).await;
    let began = Instant::now();
    consumer.stop(Duration::from_millis(300)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    assert!(world.effects().is_empty());
    let consumer = start(&world, "second", Duration::ZERO).await;
    world.until_effects(4).await;
    consumer.stop(WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drops_the_handle_stops_the_consumer() {
    let world = World::new(1).await;
    let consumer = start(&world, "first", Duration::ZERO).await;
    world.send_many(0, 0, 5, 5).await;
    world.until_effects(5).await;
    let mut notices = consumer.notices();
    drop(consumer);
    // Ends when the consumer has.
    tokio::time::timeout(WAIT, async { while notices.next().await.is_some() {} }).await.unwrap();
    let settled = world.log.settled(0);
    assert_eq!(settled, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_torn_down_anywhere_repeats_no_effect() {
    let world = Arc::new(World::new(2).await);
    for partition in 0..2 {
        world.send_many(partition, partition as usize * 300, 300, 20).await;
    }
    for round in 0_u64..6 {
        // A runtime of its own, which is thrown away with all that is on it: nothing is settled, no handler ends.
        let (world, takes) = (world.clone(), Duration::from_millis(2));
        let torn = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let before = world.effects().len();
            runtime.spawn({
                let world = world.clone();
                async move { start(&world, "torn", takes).await.ended().await }
            });
            let began = Instant::now();
            while world.effects().len() < before + 30 && began.elapsed() < Duration::from_secs(20) {
                std::thread::sleep(Duration::from_millis(5 + round));
            }
            runtime.shutdown_background();
        });
        tokio::task::spawn_blocking(move || torn.join().unwrap()).await.unwrap();
    }
    let torn = world.effects().len();
    assert!((100..600).contains(&torn), "{torn} effects by consumers that were torn down");
    let consumer = start(&world, "last", Duration::ZERO).await;
    let effects = world.until_effects(600).await;
    assert_each_once(&world.ids(), 600);
    assert_order_per_key(&effects);
    consumer.stop(WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_asked_to_stop_by_a_signal_does() {
    let world = World::new(1).await;
    world.send_many(0, 0, 10, 10).await;
    let consumer = start(&world, "", Duration::ZERO).await;
    let (effects, asked) = (AtomicUsize::new(0), AtomicBool::new(false));
    let signal = async {
        effects.store(world.until_effects(10).await.len(), SeqCst);
        asked.store(true, SeqCst);
    };
    let metrics = consumer.until(signal, WAIT).await.unwrap();
    assert_eq!((metrics.counters.done, asked.load(SeqCst)), (10, true));
}

/// A member whose join the group does not answer, because another member does not come: Kafka's client says its goodbye behind it, and
/// takes its time until it gives that up.
#[tokio::test(flavor = "multi_thread")]
async fn who_stops_before_the_group_let_it_in_leaves_without_an_error() {
    let world = World::new(1).await;
    let other: rdkafka::consumer::BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &world.address)
        .set("group.id", GROUP)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create()
        .unwrap();
    let other = tokio::task::spawn_blocking(move || {
        other.subscribe(&[TOPIC]).unwrap();
        let began = Instant::now();
        while other.assignment().unwrap().count() == 0 {
            assert!(began.elapsed() < PATIENCE, "the other member gets nothing");
            let _ = other.poll(Duration::from_millis(100));
        }
        other
    });
    // From here on it does not call any more: its heartbeats go on, and it does not join anew.
    let other = other.await.unwrap();
    let consumer = start(&world, "late", Duration::ZERO).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(consumer.metrics().held.partitions, 0, "it was let in");
    let began = Instant::now();
    consumer.stop(WAIT).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    tokio::task::spawn_blocking(move || drop(other)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_at_any_moment_of_its_start_leaves_without_an_error() {
    let world = World::new(2).await;
    world.send_many(0, 0, 20, 5).await;
    for wait_ms in [0, 1, 3, 10, 30, 60, 100, 200, 400, 800] {
        let consumer = start(&world, "short", Duration::ZERO).await;
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        consumer.stop(WAIT).await.unwrap_or_else(|error| panic!("after {wait_ms} ms: {error}"));
    }
    let consumer = start(&world, "last", Duration::ZERO).await;
    world.until_effects(20).await;
    assert_each_once(&world.ids(), 20);
    consumer.stop(WAIT).await.unwrap();
}
