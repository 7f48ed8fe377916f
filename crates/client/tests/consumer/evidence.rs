//! What consumers report of the messages that they were handed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use baton::consumer::{Accept, Batches, Consumer, ConsumerBuilder, Filter, Notice};
use baton::{Baton, HandlerError, Message, Producer, Received};
use baton_core::stamp::Instance;
use baton_core::{EVIDENCE_TOPIC, Ledger, Report, Seen, SequenceName, TopicPartition};
use baton_engine::embedded::{EmbeddedEngine, EmbeddedOptions};
use baton_engine::kafka::KafkaEngine;
use baton_engine::{Engine, TopicSpec};
use baton_guard::{Inbox, Sqlite};

use crate::guards::{Says, start_unlucky};
use crate::servers::Kafka;
use crate::world::{GROUP, PATIENCE, TOPIC, World, eventually, text};

const WAIT: Duration = Duration::from_secs(20);

/// All that was reported so far.
async fn ledger(engine: &Arc<dyn Engine>) -> Ledger {
    let mut ledger = Ledger::default();
    for partition in 0..engine.partitions(EVIDENCE_TOPIC).await.unwrap_or(0) {
        let mut reader = engine.reader(&TopicPartition::new(EVIDENCE_TOPIC, partition), 0).await.unwrap();
        loop {
            let batch = reader.next().await.unwrap();
            if batch.is_empty() {
                break;
            }
            for delivery in batch {
                let report = Report::decode(delivery.payload.as_deref().unwrap()).unwrap();
                assert_eq!(delivery.key.as_deref(), Some(report.instance.as_bytes()));
                ledger.add(&report);
            }
        }
    }
    ledger
}

/// Waits until what was reported is as it should be.
async fn until_told(engine: &Arc<dyn Engine>, what: &str, is: impl Fn(&Ledger) -> bool) -> Ledger {
    let began = Instant::now();
    loop {
        let ledger = ledger(engine).await;
        if is(&ledger) {
            return ledger;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}: {ledger:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn name(producer: &Producer, epoch: u32, partition: u32) -> SequenceName {
    let instance = Instance::new(producer.instance()).unwrap();
    SequenceName { partition: TopicPartition::new(TOPIC, partition), instance, epoch }
}

fn seen(ledger: &Ledger, name: &SequenceName, sequence: u64) -> Vec<Seen> {
    let Some(consumed) = ledger.consumed(GROUP, name) else { return Vec::new() };
    Seen::ALL.into_iter().filter(|seen| consumed.of(*seen).contains(sequence)).collect()
}

// ---- from one end to the other ------------------------------------------------------------------------------------------

const MESSAGES: usize = 300;
const PARTITIONS: u32 = 2;
/// Messages of this key are parked, each tenth message is filtered, another tenth is hopeless, another one is sent twice.
const PARKED_KEY: &str = "k4";

/// What has to become of a message.
fn expected(number: usize) -> Seen {
    match number {
        MESSAGES.. => Seen::AlreadyApplied,
        _ if number % 20 == 4 => Seen::Parked,
        _ if number % 10 == 3 => Seen::Filtered,
        _ if number % 10 == 5 => Seen::DeadLettered,
        _ => Seen::Applied,
    }
}

struct Road {
    engine: Arc<dyn Engine>,
    sqlite: Sqlite,
    mended: Arc<AtomicBool>,
    /// How often handlers were called.
    calls: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Road {
    async fn new(engine: Arc<dyn Engine>) -> Self {
        let topic = TopicSpec { name: TOPIC.into(), partitions: PARTITIONS, copies: None, settings: Vec::new() };
        engine.create_topic(&topic).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(folder.path().join("effects.db")).unwrap();
        Inbox::sqlite(&sqlite).prepare().await.unwrap();
        let table = "CREATE TABLE effects (id TEXT)";
        sqlite.run(move |database| database.execute_batch(table)).await.unwrap().unwrap();
        Self { engine, sqlite, mended: Arc::default(), calls: Arc::default(), _folder: folder }
    }

    /// Sends them; which number each got, and in which sequence.
    async fn send(&self, producer: &Producer) -> BTreeMap<usize, (SequenceName, u64)> {
        let mut sent = BTreeMap::new();
        let twice = (0..MESSAGES).filter(|number| number % 10 == 7);
        let numbers = (0..MESSAGES).map(|number| (number, number));
        for (at, number) in numbers.chain(twice.enumerate().map(|(at, number)| (MESSAGES + at, number))) {
            let mut message = Message::to(TOPIC).key(format!("k{}", number % 20)).payload(number.to_string());
            if number % 10 == 3 {
                message = message.header("skip", "yes");
            }
            let id = format!("order-{number}").as_str().try_into().unwrap();
            let receipt = producer.send(message.id(id)).await.unwrap();
            sent.insert(at, (name(producer, receipt.epoch, receipt.partition.partition), receipt.sequence));
        }
        sent
    }

    /// Starts one whose handlers do not end any more after so many calls.
    async fn start(&self, calls_max: usize) -> Consumer {
        let (mended, calls) = (self.mended.clone(), self.calls.clone());
        let consumer = ConsumerBuilder::new(self.engine.clone(), GROUP)
            .topics([TOPIC])
            .filter(Filter { header: "skip".into(), accept: Accept::Absent })
            .settle_interval(Duration::from_millis(20))
            .concurrency(4)
            .guard(Inbox::sqlite(&self.sqlite));
        let consumer = consumer.start(move |message: Received, effect| {
            let (mended, number) = (mended.load(SeqCst), text(&message.body).parse::<usize>().unwrap());
            let hangs = calls.fetch_add(1, SeqCst) >= calls_max;
            async move {
                if hangs {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                }
                effect.execute("INSERT INTO effects VALUES (?1)", (number as i64,)).await?;
                match expected(number) {
                    Seen::Parked if !mended => Err(HandlerError::park("test", "the account is closed")),
                    Seen::DeadLettered => Err(HandlerError::permanent("test", "no such account")),
                    _ => Ok(()),
                }
            }
        });
        consumer.await.unwrap()
    }
}

/// Producer and consumer say together what became of each number, over a restart of the consumer, and no gap remains.
async fn says_what_became_of_each_number(engine: Arc<dyn Engine>) {
    let road = Road::new(engine.clone()).await;
    let producer = Baton::with_engine(engine.clone()).producer("orders-svc").await.unwrap();
    let first = road.start(60).await;
    let sent = road.send(&producer).await;
    let closed = producer.close(WAIT).await;
    assert!(closed.is_clean() && closed.evidence_stored, "{closed:?}");
    eventually("a handler to hang", || road.calls.load(SeqCst) > 60).await;
    // Long enough for those that are committing: of what is done and not settled, the next one would say something else.
    let metrics = first.stop(Duration::from_secs(3)).await.unwrap();
    assert_eq!((metrics.unreported, metrics.untold), (0, 0), "what was seen is stored when it has stopped");
    let second = road.start(usize::MAX).await;
    let balanced = |ledger: &Ledger| {
        let mut accounts = ledger.accounts(GROUP, TOPIC).map(|(_, account)| account);
        ledger.sequences().count() == PARTITIONS as usize && accounts.all(|account| account.is_balanced())
    };
    let ledger = until_told(&engine, "all numbers to have an end", balanced).await;
    for (at, (name, sequence)) in &sent {
        let mut seen = seen(&ledger, name, *sequence);
        // What the first consumer had done beyond the frontier came to the second one as well.
        seen.retain(|seen| *seen != Seen::DoneBefore);
        assert_eq!(seen, [Seen::Delivered, expected(*at)], "{at}: number {sequence} of {name}");
    }
    let parked = sent.iter().filter(|(at, _)| expected(**at) == Seen::Parked);
    let (name, _) = &sent[&4];
    let account = |ledger: &Ledger| ledger.accounts(GROUP, TOPIC).find(|(of, _)| *of == name).unwrap().1;
    assert_eq!(account(&ledger).still_parked.iter().flatten().collect::<Vec<_>>(), {
        parked.map(|(_, (_, sequence))| *sequence).collect::<Vec<_>>()
    });
    road.mended.store(true, SeqCst);
    // As soon as the partition is its own.
    let began = Instant::now();
    while !second.release(&name.partition, PARKED_KEY).await {
        assert!(began.elapsed() < PATIENCE, "{:?}", second.metrics());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ledger = until_told(&engine, "the parked ones", |ledger| account(ledger).still_parked.is_empty()).await;
    assert!(balanced(&ledger));
    assert_eq!(seen(&ledger, name, sent[&4].1), [Seen::Delivered, Seen::Applied, Seen::Parked]);
    let metrics = second.stop(WAIT).await.unwrap();
    assert_eq!((metrics.unreported, metrics.untold), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_says_what_became_of_each_number() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = EmbeddedEngine::start(EmbeddedOptions::local(folder.path().join("broker"))).await.unwrap();
    says_what_became_of_each_number(Arc::new(embedded)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_says_what_became_of_each_number_on_kafka() {
    let server = Kafka::start().await;
    says_what_became_of_each_number(Arc::new(KafkaEngine::connect(&server.address, &[]).unwrap())).await;
}

// ---- one by one ---------------------------------------------------------------------------------------------------------

/// Sends stamped messages to partition 0, each time under the same ids, and says what their sequence is called.
async fn send(world: &World, messages: usize) -> SequenceName {
    let producer = Baton::with_engine(world.engine.clone()).producer("orders-svc").evidence(false).await.unwrap();
    let message = |number: usize| {
        let id = format!("id-{number}").as_str().try_into().unwrap();
        Message::to(TOPIC).partition(0).payload(format!("m{number}")).key(format!("k{number}")).id(id)
    };
    let sent = producer.send_all((1..=messages).map(message)).await;
    let epoch = sent.into_iter().map(|receipt| receipt.unwrap().epoch).next().unwrap();
    name(&producer, epoch, 0)
}

fn engine(world: &World) -> Arc<dyn Engine> {
    world.engine.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_committed_is_not_said_to_be_applied() {
    let world = World::new(1).await;
    let consumer = start_unlucky(&world, Says::NotCommitted, 0).await;
    let name = send(&world, 3).await;
    eventually("the dead letters", || consumer.metrics().counters.dead_lettered == 3).await;
    consumer.stop(WAIT).await.unwrap();
    let ledger = ledger(&engine(&world)).await;
    for sequence in 1..=3 {
        assert_eq!(seen(&ledger, &name, sequence), [Seen::Delivered, Seen::DeadLettered]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_unknown_fate_is_said_when_its_fate_is_known() {
    let world = World::new(1).await;
    let consumer = start_unlucky(&world, Says::Nothing, 0).await;
    let name = send(&world, 10).await;
    world.until_effects(10).await;
    consumer.stop(WAIT).await.unwrap();
    let ledger = ledger(&engine(&world)).await;
    for sequence in 1..=10 {
        assert_eq!(seen(&ledger, &name, sequence), [Seen::Delivered, Seen::Applied]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_batch_each_message_is_said_for_itself() {
    let world = World::new(1).await;
    let name = send(&world, 10).await;
    world.send_many(0, 0, 5, 1).await;
    let again = send(&world, 10).await;
    let batches = Batches { messages_max: 20, wait_ms: 500, ..Batches::default() };
    let consumer = world.consumer().batches(batches).guard(world.inbox());
    let consumer = consumer.start_batches(|messages: Vec<Received>, _| async move {
        match messages.iter().any(|message| message.body == "m7") && messages.len() > 1 {
            true => Err(HandlerError::permanent("test", "one of them is bad")),
            false if messages[0].body == "m7" => Err(HandlerError::permanent("test", "this one")),
            false => Ok(()),
        }
    });
    let consumer = consumer.await.unwrap();
    eventually("all to be done", || consumer.metrics().counters.done == 23).await;
    consumer.stop(WAIT).await.unwrap();
    let ledger = ledger(&engine(&world)).await;
    for sequence in 1..=10 {
        let end = if sequence == 7 { Seen::DeadLettered } else { Seen::Applied };
        assert_eq!(seen(&ledger, &name, sequence), [Seen::Delivered, end]);
        // A dead letter is not marked, so that it can be sent again.
        let end = if sequence == 7 { Seen::DeadLettered } else { Seen::AlreadyApplied };
        assert_eq!(seen(&ledger, &again, sequence), [Seen::Delivered, end]);
    }
    let count = |seen| ledger.unstamped(GROUP, &TopicPartition::new(TOPIC, 0), seen);
    assert_eq!((count(Seen::Delivered), count(Seen::Applied)), (5, 5), "without numbers they are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_comes_while_the_consumer_lives() {
    let world = World::new(1).await;
    let consumer = world.consumer().at_least_once().start(|_: Received, ()| async { Ok(()) }).await.unwrap();
    let name = send(&world, 5).await;
    let whole =
        |ledger: &Ledger| (1..=5).all(|sequence| seen(ledger, &name, sequence) == [Seen::Delivered, Seen::Applied]);
    until_told(&engine(&world), "five messages", whole).await;
    eventually("nothing to be left", || consumer.metrics().unreported == 0).await;
    consumer.stop(WAIT).await.unwrap();
}

/// Nobody has to read it, and whoever may not write it still consumes.
#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_report_goes_on_says_so_once_and_keeps_it() {
    let world = World::new(1).await;
    world.log.refuse(EVIDENCE_TOPIC);
    let consumer = world.consumer().at_least_once().start(|_: Received, ()| async { Ok(()) }).await.unwrap();
    let mut notices = consumer.notices();
    let name = send(&world, 5).await;
    eventually("some reports to fail", || consumer.metrics().reports_failed >= 3).await;
    assert_eq!(consumer.metrics().counters.done, 5);
    assert!(ledger(&engine(&world)).await.consumed(GROUP, &name).is_none());
    world.log.accept(EVIDENCE_TOPIC);
    until_told(&engine(&world), "the end", |ledger| seen(ledger, &name, 5) == [Seen::Delivered, Seen::Applied]).await;
    assert_eq!(consumer.stop(WAIT).await.unwrap().unreported, 0);
    let mut said = 0;
    while let Some(notice) = notices.next().await {
        said += usize::from(matches!(notice, Notice::EvidenceFailed { .. }));
    }
    assert_eq!(said, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_report_stops_all_the_same_and_says_what_is_missing() {
    let world = World::new(1).await;
    world.log.refuse(EVIDENCE_TOPIC);
    let consumer = world.consumer().at_least_once().start(|_: Received, ()| async { Ok(()) }).await.unwrap();
    send(&world, 5).await;
    eventually("all to be done", || consumer.metrics().counters.done == 5).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!(metrics.unreported, 2, "what was delivered and what was applied: {metrics:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_evidence_nothing_is_kept_and_none_is_sent() {
    let world = World::new(1).await;
    let consumer = world.consumer().evidence(false).at_least_once().start(|_: Received, ()| async { Ok(()) });
    let consumer = consumer.await.unwrap();
    send(&world, 5).await;
    eventually("all to be done", || consumer.metrics().counters.done == 5).await;
    assert_eq!(consumer.stop(WAIT).await.unwrap().unreported, 0);
    assert!(world.engine.partitions(EVIDENCE_TOPIC).await.is_err());
}

/// What a crash leaves unreported and unsettled comes again, and is said by whoever gets it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_leaves_unreported_is_said_by_the_next_consumer() {
    const APPLIED_MAX: u64 = 20;
    let world = Arc::new(World::new(1).await);
    let name = send(&world, 50).await;
    let torn = std::thread::spawn({
        let world = world.clone();
        move || {
            // A runtime of its own, which is thrown away with all that is on it.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let (inner, hour) = (world.clone(), Duration::from_secs(3600));
            let consumer = async move {
                let consumer = inner.consumer().concurrency(2).settle_interval(hour).guard(inner.inbox());
                let consumer = consumer.start(|message: Received, effect| async move {
                    let id = text(&message.body);
                    // However late it is torn down, something is left to do.
                    if id[1..].parse::<u64>().unwrap() > APPLIED_MAX {
                        std::future::pending::<()>().await;
                    }
                    Ok(crate::world::write(&effect, &id, "", "torn").await?)
                });
                consumer.await.unwrap().ended().await
            };
            runtime.spawn(consumer);
            let began = Instant::now();
            while world.effects().len() < 10 && began.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
            runtime.shutdown_background();
        }
    });
    tokio::task::spawn_blocking(move || torn.join().unwrap()).await.unwrap();
    let consumer = world.consumer().guard(world.inbox()).start(|message: Received, effect| async move {
        Ok(crate::world::write(&effect, &text(&message.body), "", "last").await?)
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(50).await;
    let ended = |ledger: &Ledger| ledger.consumed(GROUP, &name).is_some_and(|seen| seen.ended().count() == 50);
    let ledger = until_told(&engine(&world), "all numbers to have an end", ended).await;
    consumer.stop(WAIT).await.unwrap();
    let already = ledger.consumed(GROUP, &name).unwrap().of(Seen::AlreadyApplied).count();
    assert!((10..=APPLIED_MAX).contains(&already), "{already} were applied by the one that was torn down");
}
