//! Producers with a spool, on an engine that goes away.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baton::{Baton, Medium, Message, Producer, ProducerError, Reason, Receipt, Spool};
use baton_testkit::proxy::Fault;

use crate::refusing::Refusing;
use crate::support::{LONG, World, number, numbered, stamp, until};

const AWAY_AFTER: Duration = Duration::from_secs(1);

fn spool(folder: &Path) -> Spool {
    Spool::at(folder).away_after(AWAY_AFTER)
}

async fn producer(world: &World, folder: &Path) -> Producer {
    world.baton.producer("orders-svc").linger_ms(0).spool(spool(folder)).await.unwrap()
}

fn is_spooled(receipt: &Receipt) -> bool {
    assert_eq!(receipt.durability.medium == Medium::Spool, receipt.offset.is_none(), "{receipt:?}");
    receipt.durability.medium == Medium::Spool
}

/// What is in a partition, each message once, in the order in which they came first; every copy has the same stamp.
async fn stored(world: &World, partition: u32) -> Vec<(usize, u64, String)> {
    let mut seen = HashMap::new();
    let mut all = Vec::new();
    for delivery in world.read("orders", partition).await {
        let (number, stamp) = (number(&delivery), stamp(&delivery));
        let first = seen.entry(number).or_insert_with(|| {
            all.push((number, stamp.sequence, stamp.id.to_string()));
            stamp.clone()
        });
        assert_eq!(*first, stamp, "a repeat has the same stamp");
    }
    all
}

async fn drained(producer: &Producer) {
    until("the spool is empty", || producer.spool().is_some_and(|spool| spool.messages == 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_engine_is_away_messages_are_kept_and_go_there_later_in_order() {
    let mut world = World::start(&[("orders", 1)]).await;
    let folder = tempfile::tempdir().unwrap();
    let producer = producer(&world, folder.path()).await;
    for at in 0..10 {
        assert!(!is_spooled(&producer.send(numbered("orders", at)).await.unwrap()));
    }
    world.kill().await;
    for at in 10..60 {
        let receipt = producer.send(numbered("orders", at)).await.unwrap();
        assert!(is_spooled(&receipt), "the engine is away");
        assert_eq!(receipt.sequence, at as u64 + 1);
    }
    let state = producer.spool().unwrap();
    assert!(state.engine_away && state.messages == 50 && state.bytes > 50 * 60, "{state:?}");
    assert!(state.oldest.is_some_and(|oldest| oldest > Duration::ZERO));
    world.start_again().await;
    drained(&producer).await;
    let state = producer.spool().unwrap();
    assert!(!state.engine_away && state.bytes == 0 && state.oldest.is_none(), "{state:?}");
    assert!(!is_spooled(&producer.send(numbered("orders", 60)).await.unwrap()));
    let stored = stored(&world, 0).await;
    assert_eq!(
        stored.iter().map(|(at, sequence, _)| (*at, *sequence)).collect::<Vec<_>>(),
        (0..61).map(|at| (at, at as u64 + 1)).collect::<Vec<_>>()
    );
    let instance = producer.instance().to_owned();
    let closed = producer.close(LONG).await;
    assert!(closed.is_clean(), "{closed:?}");
    let evidence = world.evidence(&instance, "orders", 0).await;
    assert_eq!(evidence.acknowledged.iter().collect::<Vec<_>>(), [1..=61]);
    assert!(evidence.closed && evidence.not_stored.is_empty() && evidence.unknown.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_counts_what_is_spooled_only_when_the_engine_has_it() {
    let mut world = World::start(&[("orders", 1)]).await;
    let folder = tempfile::tempdir().unwrap();
    let first = producer(&world, folder.path()).await;
    let instance = first.instance().to_owned();
    first.send(numbered("orders", 0)).await.unwrap();
    // Its evidence is there before the engine goes.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    world.kill().await;
    assert!(is_spooled(&first.send(numbered("orders", 1)).await.unwrap()));
    let closed = first.close(Duration::from_millis(100)).await;
    assert_eq!((closed.spooled, closed.unsent_count), (1, 0));
    assert!(!closed.is_clean(), "something is left to be sent");
    world.start_again().await;
    let evidence = world.evidence(&instance, "orders", 0).await;
    assert_eq!(evidence.acknowledged.iter().collect::<Vec<_>>(), [1..=1]);
    let second = producer(&world, folder.path()).await;
    drained(&second).await;
    assert!(second.close(LONG).await.is_clean());
    let evidence = world.evidence(&instance, "orders", 0).await;
    assert_eq!(
        evidence.acknowledged.iter().collect::<Vec<_>>(),
        [1..=2],
        "said by the process that sent it, for the one that is gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_had_when_it_fell_silent_is_kept_too_and_not_sent_twice_when_it_arrived() {
    let world = World::start(&[("orders", 1)]).await;
    let folder = tempfile::tempdir().unwrap();
    let producer = producer(&world, folder.path()).await;
    producer.send(numbered("orders", 0)).await.unwrap();
    world.proxy.set(Fault::Stall);
    let began = Instant::now();
    let sent: Vec<_> = (1..=20).map(|at| producer.send(numbered("orders", at))).collect();
    for sent in sent {
        assert!(is_spooled(&sent.await.unwrap()));
    }
    assert!(began.elapsed() >= AWAY_AFTER, "they were with the engine first");
    world.proxy.set(Fault::None);
    drained(&producer).await;
    let stored: Vec<_> = stored(&world, 0).await.into_iter().map(|(at, ..)| at).collect();
    assert_eq!(stored, (0..=20).collect::<Vec<_>>());
    assert_eq!(world.read("orders", 0).await.len(), 21, "the engine's client had them still, and delivered them");
    assert!(producer.close(LONG).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_had_stays_with_it_if_the_spool_has_no_room_for_all_of_its_partition() {
    let world = World::start(&[("orders", 1)]).await;
    let folder = tempfile::tempdir().unwrap();
    let builder = world.baton.producer("orders-svc").linger_ms(0).spool(spool(folder.path()).bytes_max(5_000));
    let producer = builder.await.unwrap();
    producer.send(numbered("orders", 0)).await.unwrap();
    world.proxy.set(Fault::Stall);
    let sent: Vec<_> = (1..=20).map(|at| producer.send(numbered("orders", at))).collect();
    until("the engine counts as away", || producer.spool().is_some_and(|spool| spool.engine_away)).await;
    assert_eq!(producer.spool().map(|spool| spool.messages), Some(0), "a later one could be with the engine before it");
    world.proxy.set(Fault::None);
    for sent in sent {
        assert!(!is_spooled(&sent.await.unwrap()));
    }
    let stored: Vec<_> = stored(&world, 0).await.into_iter().map(|(at, ..)| at).collect();
    assert_eq!(stored, (0..=20).collect::<Vec<_>>());
    assert!(producer.close(LONG).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_what_it_has_no_room_for_and_takes_it_later() {
    let mut world = World::start(&[("orders", 1)]).await;
    let folder = tempfile::tempdir().unwrap();
    let builder = world.baton.producer("orders-svc").linger_ms(0).spool(spool(folder.path()).bytes_max(5_000));
    let producer = builder.await.unwrap();
    producer.send(numbered("orders", 0)).await.unwrap();
    world.kill().await;
    let mut kept = 0;
    let refused = loop {
        match producer.send(numbered("orders", 1).payload(vec![b'1'; 500])).await {
            Ok(receipt) => kept += u64::from(is_spooled(&receipt)),
            Err(error) => break error,
        }
    };
    assert!((3..10).contains(&kept), "{kept}");
    assert!(!refused.could_be_stored() && refused.may_retry(), "{refused}");
    assert!(matches!(refused.reason(), Reason::Spool(cause) if cause.contains("full")), "{refused}");
    let state = producer.spool().unwrap();
    assert!(state.messages == kept && state.bytes <= state.bytes_max && state.bytes_max == 5_000, "{state:?}");
    world.start_again().await;
    drained(&producer).await;
    let receipt = producer.send(numbered("orders", 2)).await.unwrap();
    assert!(!is_spooled(&receipt));
    let sequences: Vec<_> = world.read("orders", 0).await.iter().map(|delivery| stamp(delivery).sequence).collect();
    assert_eq!(sequences.last(), Some(&receipt.sequence));
    assert!(producer.close(LONG).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_from_the_start_is_waited_for_by_topics_that_the_spool_knows() {
    let mut world = World::start(&[("orders", 3)]).await;
    let folder = tempfile::tempdir().unwrap();
    let first = producer(&world, folder.path()).await;
    first.send(Message::to("orders").key("k1").payload("0")).await.unwrap();
    assert!(first.close(LONG).await.is_clean());
    world.kill().await;
    let builder = world.baton.producer("orders-svc").linger_ms(0).delivery_timeout(Duration::from_secs(2));
    let second = builder.spool(spool(folder.path())).await.unwrap();
    let mut partitions = HashMap::new();
    for at in 1..=30 {
        let key = format!("k{}", at % 7);
        let receipt = second.send(numbered("orders", at).key(key.clone())).await.unwrap();
        assert!(is_spooled(&receipt));
        assert_eq!(*partitions.entry(key).or_insert(receipt.partition.partition), receipt.partition.partition);
    }
    let unknown = second.send(numbered("payments", 1)).await.unwrap_err();
    assert!(!unknown.could_be_stored() && unknown.may_retry(), "{unknown}");
    assert!(matches!(unknown.reason(), Reason::Deadline(_)), "{unknown}");
    world.start_again().await;
    drained(&second).await;
    let mut count = 0;
    for partition in 0..3 {
        let stored: Vec<_> = stored(&world, partition).await.into_iter().map(|(at, ..)| at).collect();
        assert!(stored.is_sorted(), "{stored:?}");
        count += stored.len();
    }
    assert_eq!(count, 31);
    assert!(second.close(LONG).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordered_topic_that_was_raised_takes_messages_once_the_spool_is_drained_of_it() {
    const KEPT: usize = 40;
    let mut world = World::start(&[("orders", 2)]).await;
    let folder = tempfile::tempdir().unwrap();
    let first = world.baton.producer("orders-svc").linger_ms(0).spool(spool(folder.path()));
    let first = first.ordered("orders", 2).await.unwrap();
    first.send(numbered("orders", 0).key("k0")).await.unwrap();
    world.kill().await;
    for at in 1..KEPT {
        assert!(is_spooled(&first.send(numbered("orders", at).key(format!("k{}", at % 7))).await.unwrap()));
    }
    assert!(first.close(LONG).await.spooled > 0);
    world.start_again().await;
    world.raise("orders", 12).await;
    let second = world.baton.producer("orders-svc").linger_ms(0).spool(spool(folder.path()));
    let second = second.ordered("orders", 12).await.unwrap();
    let mut partitions = HashSet::new();
    for at in KEPT..2 * KEPT {
        let receipt = second.send(numbered("orders", at).key(format!("k{}", at % 7))).await.unwrap();
        partitions.insert(receipt.partition.partition);
        assert_eq!(second.spool().map(|spool| spool.messages), Some(0), "a key is in one partition at a time");
    }
    assert!(partitions.iter().any(|partition| *partition >= 2), "{partitions:?}");
    assert!(second.close(LONG).await.is_clean());
    let mut count = 0;
    for partition in 0..12 {
        count += stored(&world, partition).await.len();
    }
    assert_eq!(count, 2 * KEPT);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_for_an_earlier_epoch_of_the_same_instance_is_reported_again_when_a_report_fails() {
    let mut world = World::start(&[("orders", 1)]).await;
    let folder = tempfile::tempdir().unwrap();
    let builder = world.baton.producer("orders-svc").instance("orders-1", 1).linger_ms(0);
    let first = builder.spool(spool(folder.path())).await.unwrap();
    first.send(numbered("orders", 0)).await.unwrap();
    world.kill().await;
    for at in 1..4 {
        assert!(is_spooled(&first.send(numbered("orders", at)).await.unwrap()));
    }
    assert_eq!(first.close(LONG).await.spooled, 3);
    world.start_again().await;
    let reports = Arc::new(AtomicUsize::new(1));
    let engine = Arc::new(Refusing { inner: Arc::clone(&world.engine), reports: Arc::clone(&reports) });
    let builder = Baton::with_engine(engine).producer("orders-svc").instance("orders-1", 2).linger_ms(0);
    let second = builder.spool(spool(folder.path())).await.unwrap();
    drained(&second).await;
    until("a report was refused", || reports.load(Ordering::SeqCst) == 0).await;
    assert!(second.close(LONG).await.is_clean());
    let evidence = world.evidence("orders-1", "orders", 0).await;
    assert!((2..=4).all(|sequence| evidence.acknowledged.contains(sequence)), "{evidence:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_belongs_to_one_producer_at_a_time() {
    let world = World::start(&[("orders", 1)]).await;
    let folder = tempfile::tempdir().unwrap();
    let first = producer(&world, folder.path()).await;
    let second = world.baton.producer("orders-svc").spool(spool(folder.path())).await;
    assert!(matches!(second, Err(ProducerError::Spool(_))), "{second:?}");
    assert!(first.close(LONG).await.is_clean());
    let third = producer(&world, folder.path()).await;
    third.send(numbered("orders", 0)).await.unwrap();
    assert!(third.close(LONG).await.is_clean());
}

const CHILD_FOLDER: &str = "BATON_TEST_SPOOL_FOLDER";
const CHILD_ADDRESS: &str = "BATON_TEST_SPOOL_ADDRESS";
const CHILD_HISTORY: &str = "BATON_TEST_SPOOL_HISTORY";

/// The process that is killed: sends for ever, and writes down what it was told. Started by the test below, which is what it is there
/// for; without its settings it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_sends_until_it_is_killed() {
    let (Ok(folder), Ok(address)) = (std::env::var(CHILD_FOLDER), std::env::var(CHILD_ADDRESS)) else { return };
    let mut history = std::fs::File::create(std::env::var(CHILD_HISTORY).unwrap()).unwrap();
    let baton = Baton::connect(address).await.unwrap();
    let producer = baton.producer("child").linger_ms(0).spool(spool(folder.as_ref())).await.unwrap();
    for at in 0.. {
        let sent: Vec<_> = (0..10).map(|next| producer.send(numbered("orders", at * 10 + next))).collect();
        for (next, sent) in sent.into_iter().enumerate() {
            let receipt = sent.await.unwrap();
            let (partition, sequence) = (receipt.partition.partition, receipt.sequence);
            let spooled = is_spooled(&receipt);
            let number = at * 10 + next;
            writeln!(history, "{partition} {number} {sequence} {} {spooled} {}", receipt.id, producer.instance())
                .unwrap();
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_leaves_its_spool_to_the_next_one() {
    const KEPT_MIN: usize = 500;
    let mut world = World::start(&[("orders", 2)]).await;
    let folder = tempfile::tempdir().unwrap();
    let (spool_folder, history) = (folder.path().join("spool"), folder.path().join("history"));
    let mut child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "spool::child_that_sends_until_it_is_killed"])
            .envs([(CHILD_FOLDER, &spool_folder), (CHILD_HISTORY, &history)])
            .env(CHILD_ADDRESS, world.address())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let lines = || std::fs::read_to_string(&history).unwrap_or_default();
    until("the child has sent", || lines().lines().count() > 100).await;
    world.kill().await;
    until("its spool is filled", || lines().lines().filter(|line| line.contains(" true ")).count() >= KEPT_MIN).await;
    // SIGKILL.
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    world.start_again().await;
    let producer = producer(&world, &spool_folder).await;
    drained(&producer).await;
    assert!(producer.close(LONG).await.is_clean());

    let mut promised: HashMap<u32, Vec<(usize, u64, String)>> = HashMap::new();
    let mut last_spooled = HashMap::new();
    let mut instance = String::new();
    // The last line may be torn.
    let text = lines();
    for line in text.lines().take(text.matches('\n').count()) {
        let fields: Vec<_> = line.split(' ').collect();
        let told: (usize, u64, String) = (fields[1].parse().unwrap(), fields[2].parse().unwrap(), fields[3].to_owned());
        let partition: u32 = fields[0].parse().unwrap();
        if fields[4] == "true" {
            last_spooled.insert(partition, told.1);
        }
        promised.entry(partition).or_default().push(told);
        instance = fields[5].to_owned();
    }
    let mut count = 0;
    for partition in 0..2 {
        let stored = stored(&world, partition).await;
        assert!(stored.is_sorted_by_key(|(_, sequence, _)| *sequence), "in the order in which they were sent");
        let promised = promised.remove(&partition).unwrap_or_default();
        for told in &promised {
            assert!(stored.contains(told), "{told:?} was promised, and is not there under its stamp");
        }
        count += promised.len();
        if let Some(sequence) = last_spooled.get(&partition) {
            let evidence = world.evidence(&instance, "orders", partition).await;
            assert!(evidence.acknowledged.contains(*sequence), "{evidence:?} says nothing of {sequence}");
        }
    }
    assert!(count >= KEPT_MIN);
}
