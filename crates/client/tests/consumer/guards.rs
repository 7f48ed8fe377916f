//! What a guard may answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use baton::Received;
use baton::consumer::{Accept, Filter, HandlerError};
use baton_core::stamp::{Instance, STAMP_HEADER, Stamp};
use baton_core::{Headers, TopicPartition};
use baton_engine::{Engine, ProducerOptions, Record};
use baton_guard::*;

use crate::world::{PATIENCE, TOPIC, World, eventually, text, write};

const WAIT: Duration = Duration::from_secs(10);

/// What a guard says of commits.
#[derive(Clone, Copy)]
pub enum Says {
    /// Nothing: the answer is lost. Every second time the commit was done.
    Nothing,
    /// They are done, but too late to keep others out.
    LeaseLost,
    /// They are not.
    NotCommitted,
}

/// A guard on which things go wrong.
struct Unlucky {
    inner: SqliteGuard,
    says: Says,
    commits: Arc<AtomicUsize>,
    /// So many times somebody else is at it.
    busy: AtomicUsize,
}

struct UnluckyOpen {
    inner: OpenSqlite,
    says: Says,
    commits: Arc<AtomicUsize>,
}

impl Open for UnluckyOpen {
    type Effect = SqliteEffect;

    fn effect(&self) -> SqliteEffect {
        self.inner.effect()
    }

    async fn commit(self) -> Result<(), CommitError> {
        if let Says::LeaseLost = self.says {
            self.inner.commit().await?;
            return Err(CommitError::LeaseLost);
        }
        if let Says::NotCommitted = self.says {
            self.inner.abort().await;
            let refused = GuardError::Refused { doing: "committing", source: "no".into() };
            return Err(CommitError::NotCommitted(refused));
        }
        if self.commits.fetch_add(1, SeqCst).is_multiple_of(2) {
            self.inner.commit().await?;
        } else {
            self.inner.abort().await;
        }
        Err(CommitError::Unknown(GuardError::Unavailable { doing: "committing", source: "the line is dead".into() }))
    }

    async fn abort(self) {
        self.inner.abort().await;
    }
}

impl Guard for Unlucky {
    type Open = UnluckyOpen;

    fn name(&self) -> &'static str {
        "unlucky"
    }

    fn strength(&self) -> Strength {
        Strength::Atomic
    }

    async fn begin(&self, identity: &Identity) -> Result<Admission<UnluckyOpen>, GuardError> {
        if self.busy.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Ok(Admission::InProgress(Duration::from_millis(10)));
        }
        let (says, commits) = (self.says, self.commits.clone());
        Ok(match self.inner.begin(identity).await? {
            Admission::Fresh(inner) => Admission::Fresh(UnluckyOpen { inner, says, commits }),
            Admission::AlreadyDone => Admission::AlreadyDone,
            Admission::InProgress(after) => Admission::InProgress(after),
            Admission::Fenced => Admission::Fenced,
        })
    }

    async fn begin_batch(&self, identities: &[Identity]) -> Result<Batch<UnluckyOpen>, GuardError> {
        let Batch { states, open } = self.inner.begin_batch(identities).await?;
        let (says, commits) = (self.says, self.commits.clone());
        Ok(Batch { states, open: open.map(|inner| UnluckyOpen { inner, says, commits }) })
    }

    async fn take_over(&self, group: &Group, partition: &TopicPartition) -> Result<Fence, GuardError> {
        self.inner.take_over(group, partition).await
    }

    async fn weaknesses(&self) -> Result<Vec<Weakness>, GuardError> {
        self.inner.weaknesses().await
    }
}

pub async fn start_unlucky(world: &World, says: Says, busy: usize) -> baton::Consumer {
    let guard = Unlucky { inner: world.inbox(), says, commits: Arc::default(), busy: AtomicUsize::new(busy) };
    let consumer = world.consumer().guard(guard).start(|message: Received, effect| async move {
        write(&effect, &text(&message.body), "", "").await?;
        Ok(())
    });
    consumer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guard_turns_away_and_what_it_marks_too_late_is_counted() {
    let world = World::new(1).await;
    world.send_many(0, 0, 10, 1).await;
    let consumer = start_unlucky(&world, Says::LeaseLost, 3).await;
    world.until_effects(10).await;
    eventually("all to be done", || consumer.metrics().counters.done == 10).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    // An effect that is there is not repeated because its mark came late.
    assert_eq!((metrics.in_progress, metrics.leases_lost, metrics.already_done), (3, 10, 0));
}

/// Whoever watches a consumer or a producer finds each of its figures explained.
#[test]
fn every_figure_is_explained() {
    let explained = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/METRICS.md")).unwrap();
    let consumer = format!("{:#?}", baton::consumer::ConsumerMetrics::default());
    let producer = format!("{:#?}", baton::ProducerCounters::default());
    let figures = consumer.lines().chain(producer.lines()).filter_map(|line| line.trim().split_once(": "));
    let names: Vec<&str> = figures.filter(|(_, value)| !value.ends_with('{')).map(|(name, _)| name).collect();
    assert!(names.len() > 20, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !explained.contains(&format!("| `{name}` |"))).collect();
    assert!(missing.is_empty(), "docs/METRICS.md does not explain {missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_unknown_fate_is_looked_up_before_anything_counts() {
    let world = World::new(1).await;
    world.send_many(0, 0, 10, 10).await;
    let consumer = start_unlucky(&world, Says::Nothing, 0).await;
    world.until_effects(10).await;
    eventually("all to be done", || consumer.metrics().counters.done == 10).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    // Those that were committed were not even tried again.
    assert_eq!(metrics.already_done, 0);
    assert!(metrics.fates_asked > 10, "{metrics:?}");
    assert_eq!(metrics.counters.dead_lettered, 0);
}

async fn send_stamped(world: &World, sequence: u64, key: &str, skip: bool) {
    let options = ProducerOptions {
        client_id: "stamped".to_owned(),
        linger_ms: 1,
        delivery_timeout: PATIENCE,
        settings: Vec::new(),
    };
    let producer = world.engine.producer(options).await.unwrap();
    let id = format!("m{sequence}").as_str().try_into().unwrap();
    let stamp = Stamp { id, instance: Instance::new("till-1").unwrap(), epoch: 1, sequence };
    let mut headers = Headers::default();
    headers.push(STAMP_HEADER, Some(stamp.encode()));
    if skip {
        headers.push("skip", Some("yes".into()));
    }
    let record = Record {
        to: TopicPartition::new(TOPIC, 0),
        key: Some(key.to_owned().into()),
        payload: Some(format!("m{sequence}").into()),
        headers,
        timestamp_ms: None,
        id: None,
    };
    producer.send(record).expect("there is room").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_filtered_or_dead_leaves_no_gap_in_a_frontier() {
    let world = World::new(1).await;
    for sequence in 1..=6 {
        send_stamped(&world, sequence, "a", sequence == 2).await;
    }
    let filter = Filter { header: "skip".into(), accept: Accept::Absent };
    let consumer = world.consumer().filter(filter).guard(Frontier::sqlite(&world.sqlite));
    let consumer = consumer.start(|message: Received, effect| async move {
        let id = text(&message.body);
        write(&effect, &id, "a", "").await?;
        if id == "m4" { Err(HandlerError::permanent("test", "no")) } else { Ok(()) }
    });
    let consumer = consumer.await.unwrap();
    world.until_effects(4).await;
    eventually("all to be settled", || world.log.settled(0) == 6).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.counters.filtered, metrics.counters.dead_lettered, metrics.counters.done), (1, 1, 4));
    let row = world.sqlite.run(|database| {
        database.query_row("SELECT frontier, beyond FROM baton_frontier", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })
    });
    assert_eq!(row.await.unwrap().unwrap(), (6, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_is_away_pauses_consumption_and_no_message_is_blamed() {
    let world = World::new(1).await;
    // Its tables are not there yet.
    world
        .sqlite
        .run(|database| database.execute_batch("ALTER TABLE baton_inbox RENAME TO away"))
        .await
        .unwrap()
        .unwrap();
    world.send_many(0, 0, 10, 10).await;
    let consumer = world.consumer().guard(world.inbox()).start(|message: Received, effect| async move {
        write(&effect, &text(&message.body), "", "").await?;
        Ok(())
    });
    let consumer = consumer.await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(consumer.metrics().counters.dead_lettered, 0);
    world
        .sqlite
        .run(|database| database.execute_batch("ALTER TABLE away RENAME TO baton_inbox"))
        .await
        .unwrap()
        .unwrap();
    world.until_effects(10).await;
    let metrics = consumer.stop(WAIT).await.unwrap();
    assert_eq!((metrics.counters.dead_lettered, metrics.counters.retries), (0, 0));
}
