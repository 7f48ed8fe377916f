use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use baton::guard::Sqlite;
use baton::guard::segments::{Numbers, SqliteSegments};
use baton::{Ids, Interceptor, Message, Reason, Receipt, SegmentFuture, SegmentSource, SendError};
use baton_core::ids::Snowflake;

use crate::support::{LONG, World, number, numbered};

#[tokio::test(flavor = "multi_thread")]
async fn code_that_is_not_async_can_send() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let producer = producer.clone();
            std::thread::spawn(move || producer.send_blocking(Message::to("orders")).unwrap().sequence)
        })
        .collect();
    let mut numbers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(producer.send_blocking(Message::to("orders")).unwrap().sequence, 5, "also on the runtime");
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_are_called_once_and_one_that_panics_harms_nobody() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").await.unwrap();
    let (told, ends) = mpsc::channel();
    producer.send_with(numbered("orders", 0), |_| panic!("a mistake in a callback")).unwrap_or_else(|_| panic!("full"));
    for message in [numbered("orders", 1), Message::to("no-such-topic")] {
        let told = told.clone();
        let callback =
            move |outcome: Result<Receipt, SendError>| told.send(outcome.map(|receipt| receipt.sequence)).unwrap();
        producer.send_with(message, callback).unwrap_or_else(|_| panic!("full"));
    }
    drop(told);
    let ends: Vec<_> = tokio::task::block_in_place(|| ends.iter().collect());
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().any(|end| matches!(end, Ok(2))));
    assert!(ends.iter().any(|end| matches!(end, Err(error) if matches!(error.reason(), Reason::NoTopic(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn send_all_says_how_each_ended_and_takes_no_more_than_the_buffer_holds() {
    let world = World::start(&[("orders", 1)]).await;
    let producer = world.baton.producer("orders-svc").linger_ms(0).buffer_bytes_max(3_000).await.unwrap();
    let taken = AtomicU64::new(0);
    let open_max = Mutex::new(0);
    let messages = (0..500).map(|number| {
        let (taken, open) = (taken.fetch_add(1, Ordering::SeqCst), producer.counters());
        let mut open_max = open_max.lock().unwrap();
        *open_max = (*open_max).max(open.open);
        assert!(taken - open.sent <= 1);
        if number == 250 { Message::to("no-such-topic") } else { numbered("orders", number) }
    });
    let ends = producer.send_all(messages).await;
    assert_eq!(
        ends.iter().map(Result::is_ok).collect::<Vec<_>>(),
        (0..500).map(|number| number != 250).collect::<Vec<_>>()
    );
    assert!(*open_max.lock().unwrap() <= 12, "{open_max:?}");
    let stored: Vec<_> = world.read("orders", 0).await.iter().map(number).collect();
    assert_eq!(stored, (0..500).filter(|number| *number != 250).collect::<Vec<_>>());
}

#[derive(Clone, Default)]
struct Watching(Arc<Mutex<Vec<String>>>);

impl Interceptor for Watching {
    fn on_send(&self, message: &mut Message) -> Result<(), String> {
        message.headers.set("tenant", Some("north".into()));
        if message.payload.is_none() { Err("it is empty".to_owned()) } else { Ok(()) }
    }

    fn on_acknowledged(&self, receipt: &Receipt) {
        self.0.lock().unwrap().push(format!("acknowledged {}", receipt.sequence));
    }

    fn on_failed(&self, error: &SendError) {
        self.0.lock().unwrap().push(format!("failed {}", error.could_be_stored()));
        panic!("a mistake in an interceptor");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interceptors_see_every_message_and_how_it_ended() {
    let world = World::start(&[("orders", 1)]).await;
    let watching = Watching::default();
    let producer = world.baton.producer("orders-svc").interceptor(watching.clone()).await.unwrap();
    producer.send(numbered("orders", 0)).await.unwrap();
    producer.send(numbered("no-such-topic", 0)).await.unwrap_err();
    let refused = producer.send(Message::to("orders")).await.unwrap_err();
    assert_eq!(refused.reason(), &Reason::Intercepted("it is empty".to_owned()));
    assert_eq!(*watching.0.lock().unwrap(), ["acknowledged 1", "failed false", "failed false"]);
    let stored = world.read("orders", 0).await;
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].headers.last("tenant").map(|value| &value[..]), Some(&b"north"[..]));
}

struct Counting(AtomicU64);

impl SegmentSource for Counting {
    fn allot(&self) -> SegmentFuture {
        let asked = self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if asked == 1 {
                return Err("the database is away".into());
            }
            Ok::<Range<u64>, _>(asked * 100 + 1..asked * 100 + 101)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_made_as_was_asked_for() {
    let world = World::start(&[("orders", 1)]).await;
    let ids = async |ids: Ids, count: usize| -> Vec<u64> {
        let producer = world.baton.producer("orders-svc").ids(ids).await.unwrap();
        let sent = producer.send_all((0..count).map(|_| Message::to("orders"))).await;
        assert!(producer.close(LONG).await.is_clean());
        sent.into_iter().map(|sent| sent.unwrap().id.as_str().parse().unwrap()).collect()
    };
    let segments = ids(Ids::Segments(Arc::new(Counting(AtomicU64::new(0)))), 250).await;
    let expected: Vec<u64> = (1..=100).chain(201..=300).chain(301..=350).collect();
    assert_eq!(segments, expected, "an allotter that fails once is asked again");
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(folder.path().join("numbers.db")).unwrap();
    let numbers = SqliteSegments::new(&sqlite, Numbers::named("orders").unwrap().at_a_time(100).unwrap());
    numbers.prepare().await.unwrap();
    let first = ids(Ids::Segments(Arc::new(numbers.clone())), 150).await;
    assert_eq!(first, (1..=150).collect::<Vec<u64>>());
    let second = ids(Ids::Segments(Arc::new(numbers)), 1).await;
    assert!(second[0] > 200, "a producer takes over what another did not use: {second:?}");
    let snowflakes = ids(Ids::Snowflake(Snowflake::new(1_700_000_000_000, 5).unwrap()), 100).await;
    assert!(snowflakes.is_sorted_by(|a, b| a < b) && snowflakes.iter().all(|id| id >> 12 & 1023 == 5));
}
