//! An engine that stops delivering without a word, and how far a group is behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use baton::consumer::{Consumer, Limits, Notice, Notices, Report, Urge};

use crate::watched::Swallows;
use crate::world::{PATIENCE, World, assert_each_once, assert_order_per_key, eventually, text, write};

const BOUND: Duration = Duration::from_secs(4);
const STOP_WAIT: Duration = Duration::from_secs(20);

async fn start(world: &World) -> Consumer {
    let consumer = world.consumer().stuck_after(BOUND).guard(world.inbox());
    let consumer = consumer.start(move |message, effect| async move {
        write(&effect, &text(&message.body), &text(message.key().unwrap()), "").await?;
        Ok(())
    });
    consumer.await.unwrap()
}

/// What was done about a partition that delivers nothing, until it delivers again.
async fn remedies(notices: &mut Notices) -> Vec<Urge> {
    let mut remedies = Vec::new();
    let until = async {
        while let Some(notice) = notices.next().await {
            match notice {
                Notice::Consumer(Report::NoDeliveries { partition, next, remedy, .. }) => {
                    assert_eq!((partition.partition, next), (0, Some(10)));
                    remedies.push(remedy);
                }
                Notice::Consumer(Report::DeliveriesResumed { .. }) => return,
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, until).await.expect("deliveries come again");
    remedies
}

async fn recovers(swallows: Swallows, expected: &[Urge]) {
    let world = World::new(2).await;
    let consumer = start(&world).await;
    let mut notices = consumer.notices();
    world.send_many(0, 0, 10, 3).await;
    world.until_effects(10).await;
    world.log.swallow(swallows);
    world.send_many(0, 10, 10, 3).await;
    world.send_many(1, 20, 10, 3).await;
    let done = remedies(&mut notices).await;
    assert_eq!(done, expected);
    let effects = world.until_effects(30).await;
    assert_each_once(&world.ids(), 30);
    assert_order_per_key(&effects);
    consumer.stop(STOP_WAIT).await.unwrap();
}

/// Others' 8 (docs/TESTING.md): partitions that stay assigned, with healthy heartbeats, and are no longer read.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_the_engine_forgot_is_reported_and_sought() {
    recovers(Swallows::UntilSeek(0), &[Urge::Seek]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_seeking_does_not_help_the_group_is_joined_anew() {
    recovers(Swallows::UntilRejoin(0), &[Urge::Seek, Urge::Rejoin]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_at_its_end_and_one_whose_handler_is_slow_are_left_alone() {
    let world = World::new(2).await;
    world.send_many(0, 0, 10, 10).await;
    // It is paused most of the time.
    let limits = Limits { partition_messages_max: 4, ..Limits::default() };
    let consumer = world.consumer().stuck_after(BOUND).concurrency(2).limits(limits).guard(world.inbox());
    let consumer = consumer.start(move |message, effect| async move {
        tokio::time::sleep(BOUND / 2).await;
        write(&effect, &text(&message.body), &text(message.key().unwrap()), "").await?;
        Ok(())
    });
    let consumer = consumer.await.unwrap();
    let mut notices = consumer.notices();
    world.until_effects(10).await;
    tokio::time::sleep(2 * BOUND).await;
    consumer.stop(STOP_WAIT).await.unwrap();
    while let Some(notice) = notices.next().await {
        assert!(!matches!(notice, Notice::Consumer(Report::NoDeliveries { .. })), "{notice:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_shown_for_each_partition() {
    let world = World::new(2).await;
    world.send_many(1, 0, 25, 25).await;
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let consumer = world.consumer().stuck_after(BOUND).concurrency(5).guard(world.inbox());
    let consumer = consumer.start(move |message, effect| {
        let gate = gate.clone();
        async move {
            while !gate.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            write(&effect, &text(&message.body), &text(message.key().unwrap()), "").await?;
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    let lags = || -> Vec<(u32, u64)> {
        consumer.lags().into_iter().map(|lag| (lag.partition.partition, lag.messages)).collect()
    };
    eventually("the lag", || lags() == [(0, 0), (1, 25)]).await;
    open.store(true, SeqCst);
    world.until_effects(25).await;
    eventually("no lag", || lags() == [(0, 0), (1, 0)]).await;
    assert!(consumer.lags().iter().all(|lag| lag.age < PATIENCE));
    consumer.stop(STOP_WAIT).await.unwrap();
}
