//! What happens to messages that fail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::consumer::*;
use baton::{HandlerError, Received};
use baton_core::Retry;

use crate::world::{GROUP, PATIENCE, TOPIC, World, eventually, header, text, write};

const WAIT: Duration = Duration::from_secs(10);
const DEAD: &str = "orders.dead";

/// Ids in the order in which handlers were called with them.
type Calls = Arc<Mutex<Vec<String>>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_failure_is_tried_again_in_place_while_other_keys_go_on() {
    let world = World::new(1).await;
    world.send(0, &[("a1", "a", "a1"), ("a2", "a", "a2"), ("b1", "b", "b1"), ("b2", "b", "b2")]).await;
    let retry = baton_core::Retry::exponential(Duration::from_secs(2), 1, Duration::from_secs(2)).max_attempts(5);
    let consumer = world.consumer().retry(retry).guard(world.inbox()).start(|message: Received, effect| async move {
        let id = text(&message.body);
        write(&effect, &id, &text(message.key().unwrap()), "").await?;
        match id == "a1" && message.attempt() < 3 {
            true => Err(HandlerError::transient("test", "not yet")),
            false => Ok(()),
        }
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(4).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!(world.ids(), ["b1", "b2", "a1", "a2"]);
    assert_eq!((metrics.counters.retries, metrics.counters.dead_lettered), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_says_where_it_came_from_and_is_durable_before_its_message_is_settled() {
    let world = World::new(2).await;
    world.log.hold(DEAD);
    world.send(1, &[("m0", "a", "poison"), ("m1", "a", "m1")]).await;
    let consumer = world.consumer().dead_letter(DeadLetter::topic(DEAD)).guard(world.inbox());
    let consumer = consumer.start(|message: Received, effect| async move {
        let id = text(&message.body);
        write(&effect, &id, "a", "").await?;
        if id == "poison" { Err(HandlerError::permanent("test", "no such order")) } else { Ok(()) }
    });
    let consumer = consumer.await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.log.settled(1), 0, "the dead letter is not durable yet");
    assert!(world.effects().is_empty(), "its key waits, and nothing of it is committed");
    world.log.let_go(DEAD);
    world.until_effects(1).await;
    eventually("all to be settled", || world.log.settled(1) == 2).await;
    assert_eq!(consumer.stop(WAIT).await.unwrap().counters.dead_lettered, 1);
    let letters = world.read(DEAD).await;
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(
        (text(letter.key.as_ref().unwrap()), text(letter.payload.as_ref().unwrap())),
        ("a".into(), "poison".into())
    );
    let expected = [
        (crate::world::ID, "m0"),
        (DEAD_ID, "m0"),
        (DEAD_TOPIC, TOPIC),
        (DEAD_PARTITION, "1"),
        (DEAD_OFFSET, "0"),
        (DEAD_GROUP, GROUP),
        (DEAD_CLASS, "permanent"),
        (DEAD_SOURCE, "test"),
        (DEAD_REASON, "no such order"),
        (DEAD_ATTEMPTS, "1"),
        (DEAD_TIMESTAMP, "1700000000000"),
    ];
    for (name, value) in expected {
        assert_eq!(header(letter, name).as_deref(), Some(value), "{name}");
    }
    let time = |name| header(letter, name).unwrap().parse::<i64>().unwrap();
    assert!(time(DEAD_FIRST_TIME) > 1_700_000_000_000 && time(DEAD_FIRST_TIME) <= time(DEAD_LAST_TIME));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_refused_is_sent_again_until_it_is_durable() {
    let world = World::new(1).await;
    world.log.refuse(DEAD);
    world.send(0, &[("m0", "a", "poison")]).await;
    let consumer = world.consumer().dead_letter(DeadLetter::topic(DEAD)).guard(world.inbox());
    let consumer = consumer.start(|_: Received, _| async { Err(HandlerError::permanent("test", "no")) }).await.unwrap();
    let mut notices = consumer.notices();
    tokio::time::timeout(PATIENCE, async {
        while !matches!(notices.next().await.unwrap(), Notice::Consumer(Report::StoreFailed { .. })) {}
    })
    .await
    .unwrap();
    assert_eq!(world.log.settled(0), 0);
    world.log.accept(DEAD);
    eventually("the message to be settled", || world.log.settled(0) == 1).await;
    consumer.stop(WAIT).await.unwrap();
    assert_eq!(world.read(DEAD).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_often_enough_becomes_a_dead_letter_with_its_attempts() {
    let world = World::new(1).await;
    world.send(0, &[("m0", "a", "m0"), ("m1", "a", "m1")]).await;
    let consumer = world.consumer().guard(world.inbox()).start(|message: Received, effect| async move {
        let id = text(&message.body);
        write(&effect, &id, "a", "").await?;
        if id == "m0" {
            Err(std::io::Error::other("disk"))?
        }
        Ok(())
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(1).await;
    consumer.stop(WAIT).await.unwrap();
    // Nobody named a topic: it has a name of its own.
    let letters = world.read(&format!("{GROUP}.dead")).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(header(&letters[0], DEAD_ATTEMPTS).as_deref(), Some("3"));
    assert_eq!(header(&letters[0], DEAD_CLASS).as_deref(), Some("exhausted"));
    assert_eq!(header(&letters[0], DEAD_SOURCE).as_deref(), Some("std::io::error::Error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_becomes_a_dead_letter_as_it_came() {
    let world = World::new(1).await;
    world.send(0, &[("m0", "a", "\u{0}not a number"), ("m1", "a", "17")]).await;
    let calls = Calls::default();
    let called = calls.clone();
    let consumer = world.consumer().dead_letter(DeadLetter::topic(DEAD)).guard(world.inbox());
    let consumer = consumer.decode(|delivery| text(&delivery.payload.clone().unwrap_or_default()).parse::<u32>());
    let consumer = consumer.start(move |message: Received<u32>, effect| {
        called.lock().unwrap().push(message.body.to_string());
        async move { Ok(write(&effect, &message.body.to_string(), "a", "").await?) }
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(1).await;
    consumer.stop(WAIT).await.unwrap();
    assert_eq!(*calls.lock().unwrap(), ["17"]);
    let letters = world.read(DEAD).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(text(letters[0].payload.as_ref().unwrap()), "\u{0}not a number");
    assert_eq!(header(&letters[0], DEAD_CLASS).as_deref(), Some("undecodable"));
}

/// Content that was not there made the publisher of dead letters of others fail, without end.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_key_and_content_becomes_a_dead_letter_without_either() {
    let world = World::new(1).await;
    world.send_bare(0, "m0").await;
    let consumer = world.consumer().dead_letter(DeadLetter::topic(DEAD)).guard(world.inbox());
    let consumer = consumer.start(|_: Received, _| async { Err(HandlerError::permanent("test", "no")) }).await.unwrap();
    eventually("the message to be settled", || world.log.settled(0) == 1).await;
    consumer.stop(WAIT).await.unwrap();
    let letters = world.read(DEAD).await;
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!((&letter.key, &letter.payload, header(letter, DEAD_ID).as_deref()), (&None, &None, Some("m0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_is_tried_again_and_takes_nothing_with_it() {
    let world = World::new(1).await;
    world.send(0, &[("m0", "a", "m0"), ("m1", "b", "m1")]).await;
    let consumer = world.consumer().guard(world.inbox()).start(|message: Received, effect| async move {
        let id = text(&message.body);
        write(&effect, &id, "", "").await?;
        assert!(id != "m0" || message.attempt() > 1, "on purpose");
        Ok(())
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(2).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.panicked, metrics.counters.retries, metrics.counters.done), (1, 1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_past_its_deadline_is_cancelled_rolled_back_and_tried_again() {
    /// The second attempt ends well within it, on a busy machine too.
    const DEADLINE: Duration = Duration::from_secs(3);
    let world = World::new(1).await;
    world.send(0, &[("m0", "a", "m0")]).await;
    let consumer = world.consumer().handler_deadline(DEADLINE).guard(world.inbox());
    let consumer = consumer.start(|message: Received, effect| async move {
        write(&effect, &text(&message.body), "a", &message.attempt().to_string()).await?;
        if message.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let consumer = consumer.await.unwrap();
    let effects = world.until_effects(1).await;
    assert_eq!(effects[0].by, "2");
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.counters.deadline_exceeded, metrics.counters.retries), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dependency_that_is_down_pauses_consumption_and_burns_no_attempts() {
    let world = World::new(1).await;
    world.send_many(0, 0, 30, 10).await;
    let up = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicUsize::new(0));
    let (is_up, called) = (up.clone(), calls.clone());
    let probe = Retry::exponential(Duration::from_millis(50), 1, Duration::from_millis(50));
    let dependency = DependencySettings { probe, ..DependencySettings::default() };
    let consumer = world.consumer().dependency(dependency).guard(world.inbox());
    let consumer = consumer.start(move |message: Received, effect| {
        called.fetch_add(1, SeqCst);
        let is_up = is_up.load(SeqCst);
        async move {
            if !is_up {
                return Err(HandlerError::dependency_down("payments", "connection refused"));
            }
            assert_eq!(message.attempt(), 1, "no attempt was counted");
            write(&effect, &text(&message.body), &text(message.key().unwrap()), "").await?;
            Ok(())
        }
    });
    let consumer = consumer.await.unwrap();
    let mut notices = consumer.notices();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let probes = calls.load(SeqCst);
    assert!((3..=120).contains(&probes), "one probe at a time, not 30 messages again and again: {probes}");
    up.store(true, SeqCst);
    world.until_effects(30).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.counters.dead_lettered, metrics.counters.done, metrics.panicked), (0, 30, 0));
    let mut seen = Vec::new();
    while let Some(notice) = notices.next().await {
        seen.push(format!("{notice:?}"));
    }
    assert!(seen.iter().any(|notice| notice.contains("DependencyUp")), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interceptor_sees_what_comes_and_how_it_went_and_may_panic() {
    struct Spy(Arc<Mutex<Vec<String>>>);
    impl ConsumerInterceptor for Spy {
        fn received(&self, delivery: &mut baton::Delivery) {
            delivery.headers.push("seen", None);
            delivery.offset = 99;
            self.0.lock().unwrap().push("received".to_owned());
        }
        fn handled(&self, delivery: &baton::Delivery, attempt: u32, outcome: &Outcome) {
            assert!(delivery.headers.iter().any(|header| &*header.name == "seen"));
            self.0.lock().unwrap().push(format!("{} {attempt} {}", delivery.offset, matches!(outcome, Outcome::Done)));
            panic!("on purpose");
        }
    }
    let world = World::new(1).await;
    world.send(0, &[("m0", "a", "m0")]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let consumer = world.consumer().interceptor(Spy(seen.clone())).guard(world.inbox());
    let consumer = consumer.start(|message: Received, effect| async move {
        write(&effect, &text(&message.body), "a", "").await?;
        if message.attempt() == 1 { Err(HandlerError::transient("test", "no")) } else { Ok(()) }
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(1).await;
    eventually("the message to be settled", || world.log.settled(0) == 1).await;
    consumer.stop(WAIT).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["received", "0 1 false", "0 2 true"]);
}
