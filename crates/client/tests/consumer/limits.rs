//! What a consumer holds, and how many handlers it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use baton::consumer::{AdaptiveSettings, ConsumerInterceptor, ConsumerMetrics, Limits, Outcome};
use baton::{Delivery, Order, Received};
use tokio::sync::{Notify, Semaphore};

use crate::world::{PATIENCE, World, eventually};

const STOP_WAIT: Duration = Duration::from_secs(20);
/// What the engine may have handed over already when a partition is paused: four batches that wait for the consumer and the one that
/// is being waited for, and what its own buffer holds.
const ON_ITS_WAY_MAX: usize = (4 + 1 + 4) * 1_024;

/// Looks at a consumer until all of its messages are done, and says the most that it held.
async fn most_held(world: &World, limits: Limits, count: usize) -> ConsumerMetrics {
    let consumer = world.consumer().limits(limits).concurrency(16).at_least_once();
    let consumer = consumer.start(|_, ()| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    });
    let consumer = consumer.await.unwrap();
    let mut most = ConsumerMetrics::default();
    loop {
        let metrics = consumer.metrics();
        most.held.messages = most.held.messages.max(metrics.held.messages);
        most.held.bytes = most.held.bytes.max(metrics.held.bytes);
        most.held.handlers = most.held.handlers.max(metrics.held.handlers);
        most.counters = metrics.counters;
        if metrics.counters.done as usize == count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    consumer.stop(STOP_WAIT).await.unwrap();
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_bounded_by_messages_and_by_bytes_and_everything_is_handled() {
    const COUNT: usize = 20_000;
    let world = World::new(1).await;
    world.send_many(0, 0, COUNT, 1_000).await;
    let by_messages = Limits { partition_messages_max: 100, ..Limits::default() };
    let most = most_held(&world, by_messages, COUNT).await;
    assert!(most.counters.pauses > 0, "it never reached its bound");
    assert!(most.held.messages <= 100 + ON_ITS_WAY_MAX, "{} messages", most.held.messages);
    assert!(most.held.handlers <= 16, "{} handlers", most.held.handlers);

    let world = World::new(1).await;
    world.send_many(0, 0, COUNT, 1_000).await;
    let bytes_each = most.held.bytes / most.held.messages.max(1);
    let by_bytes = Limits { partition_bytes_max: 100 * bytes_each, ..Limits::default() };
    let most = most_held(&world, by_bytes, COUNT).await;
    assert!(most.counters.pauses > 0, "it never reached its bound");
    assert!(most.held.bytes <= 2 * (100 + ON_ITS_WAY_MAX) * bytes_each, "{} bytes", most.held.bytes);
}

/// How many messages a consumer took from the engine and has not handled yet, and the most of that.
#[derive(Clone, Default)]
struct Taken {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl ConsumerInterceptor for Taken {
    fn received(&self, _: &mut Delivery) {
        self.most.fetch_max(self.now.fetch_add(1, SeqCst) + 1, SeqCst);
    }

    fn handled(&self, _: &Delivery, _: u32, _: &Outcome) {
        self.now.fetch_sub(1, SeqCst);
    }
}

/// The most that a consumer of four partitions has taken and not handled, of 40,000 messages that wait for it.
async fn most_taken() -> usize {
    const COUNT: usize = 40_000;
    let world = World::new(4).await;
    for partition in 0..4 {
        world.send_many(partition, 0, COUNT / 4, 1_000).await;
    }
    let taken = Taken::default();
    let (done, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let handled = (done.clone(), all.clone());
    let consumer = world.consumer().interceptor(taken.clone()).at_least_once();
    let consumer = consumer.start(move |_, ()| {
        let (done, all) = handled.clone();
        async move {
            if done.fetch_add(1, SeqCst) + 1 == COUNT {
                all.notify_one();
            }
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    tokio::time::timeout(PATIENCE, all.notified()).await.unwrap();
    consumer.stop(STOP_WAIT).await.unwrap();
    taken.most.load(SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_plenty_to_do_leaves_the_rest_with_the_engine() {
    /// Plenty and the batch that comes on top of it are some 3,200. More come where a busy machine takes long for a batch, since events
    /// are left with the engine for a time only; all that can be got, up to the bounds of four partitions, where nothing is left there.
    const TAKEN_MAX: usize = 10_000;
    /// A machine that is too busy in all of them is none.
    const ROUNDS: usize = 5;
    let mut seen = Vec::with_capacity(ROUNDS);
    while seen.iter().all(|most| *most > TAKEN_MAX) {
        assert!(seen.len() < ROUNDS, "{seen:?} were taken and not handled");
        seen.push(most_taken().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_plenty_to_do_hears_of_other_partitions_before_it_is_done() {
    /// Two batches more than plenty, handled one after the other without a pause between the calls.
    const COUNT: usize = 5_000;
    /// Handled before the other partition is heard of: half of what must be until no more than plenty is left.
    const BEFORE_MAX: usize = (COUNT - 2_048) / 2;
    let world = World::new(2).await;
    world.send_many(0, 0, COUNT, 1_000).await;
    let (done, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (first, other) = (done.clone(), heard.clone());
    let consumer = world.consumer().at_least_once().order(Order::PerPartition);
    let consumer = consumer.start(move |message: Received, ()| {
        let (first, other) = (first.clone(), other.clone());
        async move {
            if message.from().partition == 1 {
                other.notify_one();
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
            first.fetch_add(1, SeqCst);
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    eventually("the first partition is being handled", || done.load(SeqCst) > 10).await;
    world.send_bare(1, "other").await;
    tokio::time::timeout(PATIENCE, heard.notified()).await.unwrap();
    let before = done.load(SeqCst);
    consumer.stop(STOP_WAIT).await.unwrap();
    assert!(before <= BEFORE_MAX, "{before} were handled first");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adaptive_consumer_runs_more_handlers_as_long_as_they_do_not_wait_for_each_other() {
    const CARRIES: usize = 24;
    let world = World::new(1).await;
    world.send_many(0, 0, 10_000, 1_000).await;
    // What the handlers call: so many at once, and who comes beyond them waits.
    let dependency = Arc::new(Semaphore::new(CARRIES));
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (running.clone(), most.clone());
    let adaptive = AdaptiveSettings { handlers_min: 2, handlers_max: 400, latency_ratio_max: 2.0 };
    let consumer = world.consumer().adaptive(adaptive).at_least_once();
    let consumer = consumer.start(move |_, ()| {
        let (dependency, (running, most)) = (dependency.clone(), counted.clone());
        async move {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            let permit = dependency.acquire().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(permit);
            running.fetch_sub(1, SeqCst);
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    assert!(consumer.metrics().concurrency <= 2, "it begins at its lower bound");
    eventually("more handlers", || consumer.metrics().concurrency >= 8).await;
    eventually("all messages", || consumer.metrics().counters.done == 10_000).await;
    let most = most.load(SeqCst);
    // At twice the latency it must shrink; a slow machine adds some.
    assert!((8..=CARRIES * 5).contains(&most), "{most} handlers at once, where {CARRIES} are carried");
    consumer.stop(STOP_WAIT).await.unwrap();
}
