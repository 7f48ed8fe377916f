//! How handlers are called: many by one task, and none behind one that does not let go of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use crate::world::{PATIENCE, World, eventually, text};

const WAIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_holds_up_no_other() {
    let world = World::new(1).await;
    world.send_many(0, 0, 200, 200).await;
    let (release, released) = mpsc::channel::<()>();
    let (released, done) = (Arc::new(Mutex::new(released)), Arc::new(AtomicUsize::new(0)));
    let counted = done.clone();
    let consumer = world.consumer().at_least_once().start(move |message, ()| {
        let (released, done) = (released.clone(), counted.clone());
        async move {
            if text(&message.body) == "m0" {
                // Not a wait that the runtime knows of: this thread does nothing else meanwhile.
                released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            done.fetch_add(1, SeqCst);
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    eventually("all others", || done.load(SeqCst) == 199).await;
    release.send(()).unwrap();
    eventually("the one that blocked", || done.load(SeqCst) == 200).await;
    assert_eq!(consumer.stop(WAIT).await.unwrap().counters.done, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn handlers_that_wait_for_each_other_without_telling_the_runtime_run_at_once() {
    let world = World::new(1).await;
    world.send_many(0, 0, 60, 60).await;
    // Two of three must be in their handler at the same time, or the third never comes by.
    let barrier = Arc::new(Barrier::new(2));
    let consumer = world.consumer().concurrency(2).at_least_once().start(move |_, ()| {
        let barrier = barrier.clone();
        async move {
            barrier.wait();
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    eventually("all", || consumer.metrics().counters.done == 60).await;
    consumer.stop(WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_takes_none_of_those_that_began_with_it() {
    let world = World::new(1).await;
    world.send_many(0, 0, 100, 100).await;
    let panicked = Arc::new(Mutex::new(HashSet::new()));
    let consumer = world.consumer().at_least_once().start(move |message, ()| {
        let panicked = panicked.clone();
        async move {
            let id = text(&message.body);
            let first = id.ends_with('3') && panicked.lock().unwrap().insert(id);
            assert!(!first, "this handler panics once for each tenth message");
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    eventually("all", || consumer.metrics().counters.done == 100).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.panicked, metrics.counters.retries, metrics.counters.done), (10, 10, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_handler_begins_after_the_consumer_has_ended() {
    let world = World::new(1).await;
    world.send_many(0, 0, 2_000, 2_000).await;
    let (ended, late, begun) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (has_ended, counted, began) = (ended.clone(), late.clone(), begun.clone());
    let consumer = world.consumer().at_least_once().start(move |_, ()| {
        let (ended, late, begun) = (has_ended.clone(), counted.clone(), began.clone());
        async move {
            late.fetch_add(usize::from(ended.load(SeqCst)), SeqCst);
            begun.fetch_add(1, SeqCst);
            // Some wait, the others let the next one of their task begin at once.
            if begun.load(SeqCst).is_multiple_of(3) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    eventually("some", || begun.load(SeqCst) > 50).await;
    consumer.cancel().await.unwrap();
    ended.store(true, SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(late.load(SeqCst), 0);
}
