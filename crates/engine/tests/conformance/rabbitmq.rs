//! RabbitMQ, one node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::{Delivery, Headers, TopicPartition};
use baton_engine::conformance::Subject;
use baton_engine::rabbitmq::RabbitEngine;
use baton_engine::{
    ConsumerOptions, Engine, EngineConsumer, EngineError, EngineFuture, EngineProducer, Event, Fate, ProducerOptions,
    Record, Retry, Settlement, Start, TopicSpec,
};
use baton_testkit::proxy::{Fault, Proxy};

use crate::kafka::pairs;
use crate::servers::{START_SECONDS_MAX, free_port, script};

/// What never takes so long, unless it never happens.
const PATIENCE: Duration = Duration::from_secs(180);

struct Rabbit {
    engine: Arc<RabbitEngine>,
    settings: Vec<(&'static str, String)>,
    address: String,
    data: tempfile::TempDir,
}

impl Rabbit {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let settings = vec![
            ("RABBIT_DATA", data.path().join("rabbitmq").display().to_string()),
            ("RABBIT_PORT", free_port().to_string()),
            ("RABBIT_NODE_PORT", free_port().to_string()),
            ("RABBIT_EPMD_PORT", free_port().to_string()),
            ("RABBIT_WAIT", START_SECONDS_MAX.to_string()),
            // An interrupted test cannot stop it any more.
            ("RABBIT_OWNER", std::process::id().to_string()),
        ];
        let address = script("rabbitmq-up", &settings, &[]).await.unwrap();
        let engine = Arc::new(RabbitEngine::connect(&format!("amqp://guest:guest@{address}/%2f")).unwrap());
        Self { engine, settings, address, data }
    }

    /// Has the node do something that AMQP has no word for.
    async fn eval(&self, erlang: &str) {
        let environment = self.data.path().join("rabbitmq/environment");
        let mut command = std::process::Command::new("bash");
        command.args(["-c", r#". "$0" && rabbitmqctl --quiet eval "$1""#]).arg(environment).arg(erlang);
        let ran = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(ran.status.success(), "{erlang}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        let mut down = std::process::Command::new(crate::servers::root().join("scripts/rabbitmq-down"));
        down.env("RABBIT_KILL", "1").stdout(std::process::Stdio::null());
        for (name, value) in &self.settings {
            down.env(name, value);
        }
        let _ = down.status();
    }
}

impl Subject for Rabbit {
    fn name(&self) -> String {
        "RabbitMQ 3.10, quorum queues, 1 node".to_owned()
    }

    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn small_buffer(&self) -> Vec<(String, String)> {
        pairs(&[("buffer.messages.max", "10")])
    }

    /// Stopped in order: killed, a node of 3.10 that has many quorum queues does not always bring each of them back.
    fn interrupt(&self) -> Option<EngineFuture<'_, Result<(), String>>> {
        Some(Box::pin(async { script("rabbitmq-down", &self.settings, &[]).await.map(drop) }))
    }

    fn restore(&self) -> EngineFuture<'_, Result<(), String>> {
        Box::pin(async { script("rabbitmq-up", &self.settings, &[]).await.map(drop) })
    }

    fn remove<'a>(&'a self, _: &'a TopicPartition, _: i64) -> Option<EngineFuture<'a, Result<(), String>>> {
        None
    }

    fn short_patience(&self) -> Option<Vec<(String, String)>> {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_passes_the_suite() {
    let subject = Rabbit::start().await;
    let skipped = [
        "a_reader_gives_all_from_an_offset_and_ends",
        "a_reader_refuses_what_is_not_there",
        "a_reader_finds_the_oldest_that_is_kept",
        "a_resolved_send_can_be_read_at_once",
        "an_offset_in_a_receipt_is_where_the_message_is",
        "frontier_and_metadata_come_back_at_the_next_assignment",
        "seek_delivers_from_there",
        "a_new_group_starts_at_the_earliest_if_told_so",
        "a_new_group_starts_at_the_latest_for_good",
        "removed_messages_are_reported_and_not_skipped_in_silence",
        "members_share_partitions_and_hand_over_without_loss",
        "what_was_settled_before_release_is_seen_by_the_next_owner",
        "who_does_not_release_loses_the_partition_and_cannot_settle_it",
        "a_silent_member_is_put_out_and_fenced",
    ];
    crate::passes(&subject, &skipped).await;
}

fn member(topic: &Arc<str>) -> ConsumerOptions {
    ConsumerOptions {
        group: "group".to_owned(),
        topics: vec![topic.clone()],
        start: Start::Earliest,
        prefetch: Some(100),
        release_wait: PATIENCE,
        settings: Vec::new(),
    }
}

fn record(topic: &Arc<str>, partition: u32, text: &str) -> Record {
    Record {
        to: TopicPartition::new(topic.clone(), partition),
        key: None,
        payload: Some(text.to_owned().into()),
        headers: Headers::default(),
        timestamp_ms: None,
        id: Some(text.into()),
    }
}

async fn producer(engine: &RabbitEngine, delivery_timeout: Duration) -> Arc<dyn EngineProducer> {
    let options =
        ProducerOptions { client_id: "test".to_owned(), linger_ms: 0, delivery_timeout, settings: Vec::new() };
    engine.producer(options).await.unwrap()
}

/// What one member saw.
#[derive(Default)]
struct Seen {
    texts: Vec<String>,
    lost: Vec<TopicPartition>,
    failures: Vec<String>,
}

/// Takes what comes, and settles it, until it is enough.
async fn consume(member: &mut dyn EngineConsumer, seen: &mut Seen, enough: impl Fn(&Seen) -> bool) {
    let began = Instant::now();
    while !enough(seen) {
        assert!(began.elapsed() < PATIENCE, "after {PATIENCE:?}: {:?}, {:?}", seen.texts, seen.failures);
        match member.next(Duration::from_millis(100)).await {
            Ok(Event::Messages(messages)) => {
                let done =
                    |message: &Delivery| Settlement::Done { partition: message.from.clone(), offset: message.offset };
                let done: Vec<_> = messages.iter().map(done).collect();
                // What cannot be settled comes again.
                if let Err(error) = member.settle(&done).await {
                    seen.failures.push(error.to_string());
                }
                seen.texts.extend(messages.iter().map(text));
            }
            Ok(Event::Lost(partitions)) => seen.lost.extend(partitions),
            Ok(_) => {}
            Err(error) => seen.failures.push(error.to_string()),
        }
    }
}

async fn through(subject: &Rabbit) -> (Proxy, RabbitEngine) {
    let proxy = Proxy::start("127.0.0.1:0", subject.address.clone()).await.unwrap();
    // Silence is noticed within twice this.
    let uri = format!("amqp://guest:guest@{}/%2f?heartbeat=2", proxy.address());
    let engine = RabbitEngine::connect(&uri).unwrap();
    (proxy, engine)
}

/// A connection that looks open while nobody is at its other end.
async fn a_consumer_behind_a_silent_link(subject: &Rabbit) {
    let topic: Arc<str> = "silent".into();
    subject.engine.create_topic(&TopicSpec::new(topic.clone(), 1)).await.unwrap();
    let (proxy, engine) = through(subject).await;
    let mut consumer = engine.consumer(member(&topic)).await.unwrap();
    let direct = producer(&subject.engine, PATIENCE).await;
    direct.send(record(&topic, 0, "before")).unwrap().await.unwrap();
    let mut seen = Seen::default();
    consume(&mut *consumer, &mut seen, |seen| seen.texts == ["before"]).await;
    proxy.set(Fault::HalfOpen);
    direct.send(record(&topic, 0, "meanwhile")).unwrap().await.unwrap();
    let began = Instant::now();
    consume(&mut *consumer, &mut seen, |seen| !seen.lost.is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    assert!(!seen.texts.contains(&"meanwhile".to_owned()), "the fault did not strike");
    proxy.set(Fault::None);
    consume(&mut *consumer, &mut seen, |seen| seen.texts.contains(&"meanwhile".to_owned())).await;
    consumer.close().await.unwrap();
}

/// Messages that arrive, and confirms that do not.
async fn a_producer_whose_confirms_are_lost(subject: &Rabbit) {
    const DEADLINE: Duration = Duration::from_secs(3);
    let topic: Arc<str> = "deaf".into();
    subject.engine.create_topic(&TopicSpec::new(topic.clone(), 1)).await.unwrap();
    let mut consumer = subject.engine.consumer(member(&topic)).await.unwrap();
    let (proxy, engine) = through(subject).await;
    let (short, long) = (producer(&engine, DEADLINE).await, producer(&engine, PATIENCE).await);
    short.send(record(&topic, 0, "first")).unwrap().await.unwrap();
    long.send(record(&topic, 0, "second")).unwrap().await.unwrap();
    proxy.set(Fault::LoseAnswers);
    let patient = long.send(record(&topic, 0, "patient")).unwrap();
    let began = Instant::now();
    let error = short.send(record(&topic, 0, "unsure")).unwrap().await.unwrap_err();
    assert!(began.elapsed() < DEADLINE + Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert_eq!((error.fate, error.retry), (Fate::Unknown, Retry::Later), "{error}");
    let mut seen = Seen::default();
    let both = |seen: &Seen| ["patient", "unsure"].iter().all(|text| seen.texts.iter().any(|each| each == text));
    // The fate was unknown for a reason.
    consume(&mut *consumer, &mut seen, both).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    proxy.set(Fault::None);
    patient.await.unwrap();
    let published = |seen: &Seen| seen.texts.iter().filter(|text| *text == "patient").count();
    // Under the same id, which is its text: somebody behind us drops it.
    consume(&mut *consumer, &mut seen, |seen| published(seen) >= 2).await;
    consumer.close().await.unwrap();
}

/// A queue whose leader does not answer, on a node that is well otherwise.
async fn a_queue_that_does_not_answer(subject: &Rabbit) {
    let topic: Arc<str> = "stuck".into();
    subject.engine.create_topic(&TopicSpec::new(topic.clone(), 2)).await.unwrap();
    let mut consumer = subject.engine.consumer(member(&topic)).await.unwrap();
    let sender = producer(&subject.engine, Duration::from_secs(45)).await;
    for partition in 0..2 {
        sender.send(record(&topic, partition, &format!("before-{partition}"))).unwrap().await.unwrap();
    }
    let mut seen = Seen::default();
    consume(&mut *consumer, &mut seen, |seen| seen.texts.len() == 2).await;
    let leader = "whereis('%2F_stuck.group.0')";
    subject.eval(&format!("sys:suspend({leader}).")).await;
    let unconfirmed = sender.send(record(&topic, 0, "waits")).unwrap();
    let began = Instant::now();
    let mut number = 0;
    let mut slowest = Duration::ZERO;
    // The other queue flows all the while, whatever is done about this one.
    while began.elapsed() < Duration::from_secs(60) {
        let (text, sent_at) = (format!("flows-{number}"), Instant::now());
        let sent = sender.send(record(&topic, 1, &text)).unwrap();
        consume(&mut *consumer, &mut seen, |seen| seen.texts.contains(&text)).await;
        // One that was published again after the cut is confirmed then.
        sent.await.unwrap();
        slowest = slowest.max(sent_at.elapsed());
        number += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let error = unconfirmed.await.unwrap_err();
    assert_eq!(error.fate, Fate::Unknown, "{error}");
    println!("{number} messages of the other queue, the slowest in {slowest:?}; heard: {:?}", seen.failures);
    assert!(slowest < Duration::from_secs(45), "the other queue waited for {slowest:?}");
    subject.eval(&format!("sys:resume({leader}).")).await;
    let sent = sender.send(record(&topic, 0, "after")).unwrap();
    consume(&mut *consumer, &mut seen, |seen| seen.texts.contains(&"after".to_owned())).await;
    sent.await.unwrap();
    consumer.close().await.unwrap();
}

/// A queue that is on a node that is away when a member joins, as RabbitMQ says while one starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_queue_that_is_away_keeps_no_member_out_of_its_group() {
    let _turn = crate::TURN.lock().await;
    let subject = Rabbit::start().await;
    let topic: Arc<str> = "away".into();
    subject.engine.create_topic(&TopicSpec::new(topic.clone(), 3)).await.unwrap();
    subject.engine.consumer(member(&topic)).await.unwrap().close().await.unwrap();
    let queue = "rabbit_misc:r(<<\"/\">>, queue, <<\"away.group.0\">>)";
    subject.eval(&format!("ok = mnesia:dirty_delete(rabbit_queue, {queue}).")).await;
    let began = Instant::now();
    let mut consumer = subject.engine.consumer(member(&topic)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let sender = producer(&subject.engine, Duration::from_secs(45)).await;
    let mut seen = Seen::default();
    for partition in 1..3 {
        sender.send(record(&topic, partition, &format!("flows-{partition}"))).unwrap().await.unwrap();
    }
    consume(&mut *consumer, &mut seen, |seen| seen.texts.len() == 2).await;
    let back = "ok = mnesia:dirty_write(rabbit_queue, Queue)";
    subject.eval(&format!("[Queue] = mnesia:dirty_read(rabbit_durable_queue, {queue}), {back}.")).await;
    let sent = sender.send(record(&topic, 0, "after")).unwrap();
    consume(&mut *consumer, &mut seen, |seen| seen.texts.contains(&"after".to_owned())).await;
    sent.await.unwrap();
    consumer.close().await.unwrap();
}

/// Questions about topics, also such that are not there, and after the connection has ended.
async fn questions_share_a_connection(subject: &Rabbit) {
    let topic: Arc<str> = "asked".into();
    subject.engine.create_topic(&TopicSpec::new(topic.clone(), 3)).await.unwrap();
    let (proxy, engine) = through(subject).await;
    for _ in 0..20 {
        assert_eq!(engine.partitions(&topic).await.unwrap(), 3);
        assert!(matches!(engine.partitions("nowhere").await, Err(EngineError::Caller(_))));
    }
    assert_eq!(proxy.connections(), 1);
    proxy.set(Fault::Cut);
    proxy.set(Fault::None);
    let began = Instant::now();
    while engine.partitions(&topic).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "it is never asked on another one");
    }
    // A question leaves no channel behind.
    subject.eval("true = length(rabbit_channel:list()) < 20.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq_is_not_waited_for_without_a_bound() {
    let _turn = crate::TURN.lock().await;
    let subject = Rabbit::start().await;
    questions_share_a_connection(&subject).await;
    a_consumer_behind_a_silent_link(&subject).await;
    a_producer_whose_confirms_are_lost(&subject).await;
    a_queue_that_does_not_answer(&subject).await;
}

/// Messages of each partition, and how many of them a member holds at once.
const EACH: usize = 40;
const HELD: usize = 10;

fn text(message: &Delivery) -> String {
    String::from_utf8(message.payload.clone().unwrap().to_vec()).unwrap()
}

/// Takes until there are so many of each partition, and settles nothing.
async fn hold(member: &mut dyn EngineConsumer, partitions: u32) -> Vec<Vec<String>> {
    let (began, mut held) = (Instant::now(), vec![Vec::new(); partitions as usize]);
    while held.iter().any(|each| each.len() < HELD) {
        assert!(began.elapsed() < PATIENCE, "after {PATIENCE:?}: {:?}", held.iter().map(Vec::len).collect::<Vec<_>>());
        if let Event::Messages(messages) = member.next(Duration::from_millis(100)).await.unwrap() {
            messages.iter().for_each(|message| held[message.from.partition as usize].push(text(message)));
        }
    }
    held
}

/// Others wait for their turn, and newer messages are ready: the next one gets what this one held, and those after it.
async fn who_leaves_hands_over_in_order(subject: &Rabbit) {
    const PARTITIONS: u32 = 4;
    const HANDOVERS: usize = 2;
    let topic: Arc<str> = "handover".into();
    let member = || ConsumerOptions { prefetch: Some(HELD as u32), ..member(&topic) };
    subject.engine.create_topic(&TopicSpec::new(topic.clone(), PARTITIONS)).await.unwrap();
    let mut present = subject.engine.consumer(member()).await.unwrap();
    let sender = producer(&subject.engine, PATIENCE).await;
    let sent: Vec<_> = (0..EACH)
        .flat_map(|number| (0..PARTITIONS).map(move |partition| (partition, number)))
        .map(|(partition, number)| sender.send(record(&topic, partition, &format!("{number:02}"))).unwrap())
        .collect();
    for each in sent {
        each.await.unwrap();
    }
    let expected: Vec<String> = (0..HELD).map(|number| format!("{number:02}")).collect();
    for handover in 0..=HANDOVERS {
        for (partition, held) in hold(&mut *present, PARTITIONS).await.into_iter().enumerate() {
            assert_eq!(held, expected, "partition {partition} after {handover} handovers");
        }
        let mut next = subject.engine.consumer(member()).await.unwrap();
        assert!(matches!(next.next(Duration::from_secs(1)).await, Ok(Event::Idle)), "it did not wait in line");
        present.close().await.unwrap();
        present = next;
    }
    present.close().await.unwrap();
}

/// Whoever closes a connection is held up just then, as on a busy machine, and what the client library does on its own comes before.
struct SlowToClose;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for SlowToClose {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if field.name() == "command" && format!("{value:?}") == "SetConnectionClosing" {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
    }
}

#[test]
fn rabbitmq_hands_over_in_order() {
    use tracing_subscriber::layer::{Layer, SubscriberExt};
    let slow = || {
        let library = tracing_subscriber::filter::Targets::new().with_target("lapin", tracing::Level::TRACE);
        tracing_subscriber::registry().with(SlowToClose.with_filter(library))
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // For as long as the thread lives.
    runtime.on_thread_start(move || std::mem::forget(tracing::subscriber::set_default(slow())));
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(async {
        let _turn = crate::TURN.lock().await;
        who_leaves_hands_over_in_order(&Rabbit::start().await).await;
    });
}
