//! Many messages in one transaction.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::consumer::Batches;
use baton::{HandlerError, Received};

use crate::world::{World, assert_each_once, eventually, text, write};

const WAIT: Duration = Duration::from_secs(10);

fn batches() -> Batches {
    Batches { messages_max: 50, wait_ms: 100, ..Batches::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_transaction_and_a_bad_message_falls_out_of_it_alone() {
    let world = World::new(1).await;
    world.send_many(0, 0, 100, 10).await;
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let consumer = world.consumer().batches(batches()).guard(world.inbox());
    let consumer = consumer.start_batches(move |messages: Vec<Received>, effect| {
        seen.lock().unwrap().push(messages.len());
        async move {
            for message in &messages {
                let id = text(&message.body);
                write(&effect, &id, "all", "").await?;
                if id == "m30" {
                    return Err(HandlerError::permanent("test", "poison"));
                }
            }
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    let effects = world.until_effects(99).await;
    assert!(effects.iter().all(|effect| effect.id != "m30"));
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.counters.dead_lettered, metrics.counters.done), (1, 99));
    let sizes = sizes.lock().unwrap();
    assert!(sizes.iter().any(|size| *size > 1) && sizes.contains(&1), "{sizes:?}");
    assert_each_once(&world.ids(), 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_of_single_messages_shares_the_transaction_of_a_batch() {
    let world = World::new(1).await;
    // The same ones twice: what is in a batch twice is handled once.
    world.send_many(0, 0, 60, 10).await;
    world.send_many(0, 0, 60, 10).await;
    let consumer = world.consumer().batches(batches()).guard(world.inbox());
    let consumer = consumer.start(|message: Received, effect| async move {
        write(&effect, &text(&message.body), "all", "").await?;
        Ok(())
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(60).await;
    eventually("all to be done", || consumer.metrics().counters.done == 120).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!(metrics.already_done, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_across_partitions_are_handled_once() {
    let world = World::new(3).await;
    for partition in 0..3 {
        world.send_many(partition, partition as usize * 100, 100, 10).await;
    }
    let transactions = Arc::new(AtomicUsize::new(0));
    let count = transactions.clone();
    let across = Batches { across_partitions: true, ..batches() };
    let consumer = world.consumer().batches(across).guard(world.inbox());
    let consumer = consumer.start_batches(move |messages: Vec<Received>, effect| {
        count.fetch_add(1, SeqCst);
        async move {
            for message in &messages {
                write(&effect, &text(&message.body), "all", "").await?;
            }
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(300).await;
    consumer.stop(WAIT).await.unwrap();
    assert_each_once(&world.ids(), 300);
    assert!(transactions.load(SeqCst) < 60, "{transactions:?} transactions for 300 messages");
}
