//! Store-first mode: what is acknowledged at the engine is stored or handled, whatever happens between any two steps.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton::consumer::{Consumer, ConsumerBuilder, ConsumerError, Limits, Notice, Report, StoreFirst};
use baton::{Delivery, Received, TopicPartition};
use baton_core::Retry;
use baton_engine::kafka::KafkaEngine;
use baton_engine::{Engine, EngineProducer, ProducerOptions, Record, TopicSpec};
use baton_guard::intake::{
    Intake, IntakeFuture, MysqlIntake, Ownership, Place, PostgresIntake, Progress, SqliteIntake, Taken,
};
use baton_guard::side::StoreError;
use baton_guard::{Sqlite, Weakness};
use baton_testkit::servers::Server;
use mysql_async::prelude::Queryable;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::servers::Kafka;
use crate::watched::{Log, Seen, Watched};
use crate::world::{GROUP, PATIENCE, TOPIC, World, assert_each_once, assert_order_per_key, eventually, text, write};

const WAIT: Duration = Duration::from_secs(20);

/// The steps between which a consumer can be killed.
const STEPS: &[&str] = &[
    "before taking",
    "after taking",
    "before storing",
    "after storing",
    "before acknowledging",
    "after acknowledging",
    "while handling",
    "before advancing",
    "after advancing",
];

// ---- databases -------------------------------------------------------------------------------------------------------

/// A database, and how to get intakes in it that know nothing of each other.
enum Database {
    Sqlite { path: PathBuf, _folder: tempfile::TempDir },
    Postgres(Server),
    Mariadb(Server),
}

fn pool(port: u16) -> deadpool_postgres::Pool {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname("postgres").connect_timeout(Duration::from_secs(5));
    let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
    deadpool_postgres::Pool::builder(manager).max_size(4).build().unwrap()
}

fn mysql_pool(port: u16) -> mysql_async::Pool {
    let options = mysql_async::OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port).user(Some("root"));
    mysql_async::Pool::new(options.db_name(Some("test")).prefer_socket(false))
}

impl Database {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("intake.db");
        SqliteIntake::new(&Sqlite::open(&path).unwrap()).prepare().await.unwrap();
        Self::Sqlite { path, _folder: folder }
    }

    async fn postgres() -> Self {
        let server = tokio::task::spawn_blocking(|| Server::start("postgres")).await.unwrap();
        PostgresIntake::new(pool(server.port())).prepare().await.unwrap();
        Self::Postgres(server)
    }

    async fn mariadb() -> Self {
        let server = tokio::task::spawn_blocking(|| Server::start("mariadb")).await.unwrap();
        MysqlIntake::new(mysql_pool(server.port())).prepare().await.unwrap();
        Self::Mariadb(server)
    }

    fn intake(&self) -> Arc<dyn Intake> {
        match self {
            Self::Mariadb(server) => Arc::new(MysqlIntake::new(mysql_pool(server.port()))),
            Self::Sqlite { path, .. } => Arc::new(SqliteIntake::new(&Sqlite::open(path).unwrap())),
            Self::Postgres(server) => Arc::new(PostgresIntake::new(pool(server.port()))),
        }
    }

    async fn forget_all(&self) {
        let tables = ["baton_stored", "baton_stored_place"];
        for table in tables {
            let sql = format!("DELETE FROM {table}");
            match self {
                Self::Sqlite { path, .. } => {
                    let database = Sqlite::open(path).unwrap();
                    database.run(move |connection| connection.execute_batch(&sql)).await.unwrap().unwrap();
                }
                Self::Postgres(server) => pool(server.port()).get().await.unwrap().batch_execute(&sql).await.unwrap(),
                Self::Mariadb(server) => {
                    mysql_pool(server.port()).get_conn().await.unwrap().query_drop(sql).await.unwrap();
                }
            }
        }
    }

    /// The offsets that are stored of a partition.
    async fn rows(&self, partition: u32) -> Vec<i64> {
        let stored = self.intake().read(&place(partition), 0, usize::MAX).await.unwrap();
        stored.iter().map(|message| message.offset).collect()
    }

    async fn until_empty(&self, partitions: u32) {
        for partition in 0..partitions {
            let began = std::time::Instant::now();
            while let rows = self.rows(partition).await
                && !rows.is_empty()
            {
                assert!(began.elapsed() < PATIENCE, "handled rows stay: {rows:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn place(partition: u32) -> Place {
    Place { group: GROUP.into(), partition: TopicPartition::new(TOPIC, partition) }
}

/// An intake that writes down what it stored, in the engine's log, and that a test can stop at any step or take away.
struct Probed {
    inner: Arc<dyn Intake>,
    log: Arc<Log>,
    away: AtomicBool,
}

impl Probed {
    fn new(database: &Database, log: &Arc<Log>) -> Arc<Self> {
        Arc::new(Self { inner: database.intake(), log: log.clone(), away: AtomicBool::new(false) })
    }

    fn there(&self) -> Result<(), StoreError> {
        if self.away.load(SeqCst) { Err(StoreError("taken away by the test".to_owned())) } else { Ok(()) }
    }
}

impl Intake for Probed {
    fn take<'a>(&'a self, place: &'a Place, known: Option<(i64, &'a str)>) -> IntakeFuture<'a, Taken, StoreError> {
        Box::pin(async move {
            self.log.step("before taking").await;
            self.there()?;
            let taken = self.inner.take(place, known).await?;
            // What the owner before had stored, and may have had no time to say.
            if let Some(next) = taken.next {
                self.log.say(format!("stored {} {next}", place.partition.partition));
            }
            self.log.step("after taking").await;
            Ok(taken)
        })
    }

    fn append<'a>(
        &'a self,
        ownership: &'a Ownership,
        messages: &'a [Delivery],
        acknowledged: Option<i64>,
    ) -> IntakeFuture<'a, ()> {
        Box::pin(async move {
            self.log.step("before storing").await;
            self.there()?;
            self.inner.append(ownership, messages, acknowledged).await?;
            let partition = ownership.place.partition.partition;
            let next = messages.last().unwrap().offset + 1;
            self.log.say(format!("stored {partition} {next} {}", ownership.epoch));
            self.log.step("after storing").await;
            Ok(())
        })
    }

    fn read<'a>(
        &'a self,
        place: &'a Place,
        from: i64,
        messages_max: usize,
    ) -> IntakeFuture<'a, Vec<Delivery>, StoreError> {
        Box::pin(async move {
            self.there()?;
            self.log.say("read");
            self.inner.read(place, from, messages_max).await
        })
    }

    fn advance<'a>(&'a self, ownership: &'a Ownership, progress: &'a Progress) -> IntakeFuture<'a, ()> {
        Box::pin(async move {
            self.log.step("before advancing").await;
            self.there()?;
            self.inner.advance(ownership, progress).await?;
            self.log.step("after advancing").await;
            Ok(())
        })
    }

    fn restart<'a>(&'a self, ownership: &'a Ownership, at: i64) -> IntakeFuture<'a, Ownership> {
        Box::pin(async move {
            self.there()?;
            self.inner.restart(ownership, at).await
        })
    }

    fn weaknesses(&self) -> IntakeFuture<'_, Vec<Weakness>, StoreError> {
        self.inner.weaknesses()
    }
}

// ---- consumers -------------------------------------------------------------------------------------------------------

/// A consumer with a runtime of its own: killed, nothing of it takes another step.
struct Process {
    runtime: Option<Runtime>,
    _consumer: Consumer,
}

impl Process {
    async fn start(start: impl Future<Output = Result<Consumer, ConsumerError>> + Send + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let consumer = runtime.spawn(start).await.unwrap().unwrap();
        Self { runtime: Some(runtime), _consumer: consumer }
    }

    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Writes what it is given, once.
async fn guarded(
    builder: ConsumerBuilder,
    guard: baton_guard::SqliteGuard,
    log: Arc<Log>,
    by: &'static str,
) -> Result<Consumer, ConsumerError> {
    builder
        .guard(guard)
        .start(move |message: Received, effect| {
            let log = log.clone();
            async move {
                log.step("while handling").await;
                let key = message.key().map(text).unwrap_or_default();
                write(&effect, &text(&message.body), &key, by).await?;
                Ok(())
            }
        })
        .await
}

fn first(intake: &Arc<Probed>) -> StoreFirst {
    StoreFirst::new(intake.clone())
}

async fn start_guarded(world: &World, intake: &Arc<Probed>, by: &'static str) -> Consumer {
    guarded(world.consumer().store_first(first(intake)), world.inbox(), world.log.clone(), by).await.unwrap()
}

/// What handlers were given that write nothing, and a gate that they wait at.
#[derive(Clone)]
struct Handled {
    ids: Arc<Mutex<Vec<String>>>,
    gate: Arc<Semaphore>,
}

impl Handled {
    fn new(open: bool) -> Self {
        Self { ids: Arc::default(), gate: Arc::new(Semaphore::new(if open { Semaphore::MAX_PERMITS } else { 0 })) }
    }

    fn open(&self) {
        self.gate.add_permits(1_000_000);
    }

    fn ids(&self) -> Vec<String> {
        self.ids.lock().unwrap().clone()
    }

    async fn start(&self, builder: ConsumerBuilder) -> Result<Consumer, ConsumerError> {
        let handled = self.clone();
        let handler = move |message: Received, ()| {
            let handled = handled.clone();
            async move {
                handled.gate.acquire().await?.forget();
                handled.ids.lock().unwrap().push(text(&message.body));
                Ok(())
            }
        };
        builder.at_least_once().start(handler).await
    }
}

/// At every moment in which the engine was acknowledged, what it was acknowledged of was stored.
fn assert_stored_before_acknowledged(log: &Log) {
    let (mut stored, mut acknowledged) = (std::collections::HashMap::new(), 0);
    for seen in log.seen() {
        match seen {
            Seen::Said(text) => {
                if let Some(["stored", partition, next]) = text.split(' ').collect::<Vec<_>>().first_chunk() {
                    stored.insert(partition.parse::<u32>().unwrap(), next.parse::<i64>().unwrap());
                }
            }
            Seen::Settling(partition, next) => {
                let known = stored.get(&partition.partition).copied().unwrap_or(0);
                assert!(next <= known, "{partition} was acknowledged up to {next}, stored up to {known}");
                acknowledged += 1;
            }
            Seen::Stored(_) => {}
        }
    }
    assert!(acknowledged > 0, "nothing was acknowledged");
}

async fn killed_at(step: &'static str, database: &Database) {
    const BEFORE: usize = 20;
    const ALL: usize = 60;
    let world = World::new(1).await;
    let intake = Probed::new(database, &world.log);
    world.send_many(0, 0, BEFORE, 3).await;
    let at_start = step.ends_with(" taking");
    if at_start {
        world.log.stop_at(step);
    }
    let starting = guarded(world.consumer().store_first(first(&intake)), world.inbox(), world.log.clone(), "killed");
    let process = Process::start(starting).await;
    if !at_start {
        world.until_effects(BEFORE).await;
        world.log.stop_at(step);
    }
    world.send_many(0, BEFORE, ALL - BEFORE, 3).await;
    eventually(step, || world.log.is_stopped()).await;
    process.kill();
    world.log.stop_nobody();
    let next = start_guarded(&world, &Probed::new(database, &world.log), "next").await;
    let effects = world.until_effects(ALL).await;
    assert_each_once(&world.ids(), ALL);
    assert_order_per_key(&effects);
    database.until_empty(1).await;
    eventually("the engine to be acknowledged", || world.log.settled(0) == ALL as i64).await;
    assert_stored_before_acknowledged(&world.log);
    next.stop(WAIT).await.unwrap();
}

async fn killed_at_each_step(database: &Database) {
    for step in STEPS {
        database.forget_all().await;
        killed_at(step, database).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_stored_or_handled_wherever_a_consumer_on_sqlite_is_killed() {
    killed_at_each_step(&Database::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_stored_or_handled_wherever_a_consumer_on_postgres_is_killed() {
    killed_at_each_step(&Database::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_stored_or_handled_wherever_a_consumer_on_mariadb_is_killed() {
    killed_at_each_step(&Database::mariadb().await).await;
}

/// The engine delivers them again, and no guard is there to notice: they are known by their offsets.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_storing_and_acknowledging_doubles_nothing() {
    for step in ["after storing", "before acknowledging"] {
        let (world, database) = (World::new(1).await, Database::sqlite().await);
        let intake = Probed::new(&database, &world.log);
        world.log.stop_at(step);
        let never = Handled::new(false);
        let builder = world.consumer().store_first(first(&intake));
        let process = Process::start(async move { never.start(builder).await }).await;
        world.send_many(0, 0, 30, 3).await;
        eventually(step, || world.log.is_stopped()).await;
        process.kill();
        assert!(!database.rows(0).await.is_empty());
        world.log.stop_nobody();
        let handled = Handled::new(true);
        let builder = world.consumer().store_first(first(&Probed::new(&database, &world.log)));
        let consumer = handled.start(builder).await.unwrap();
        eventually("all", || handled.ids().len() >= 30).await;
        database.until_empty(1).await;
        consumer.stop(WAIT).await.unwrap();
        assert_each_once(&handled.ids(), 30);
    }
}

/// Whoever has the place now is the one who stores; whoever had it finds that out, and leaves it alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_owner_writes_nothing() {
    let (world, database) = (World::new(1).await, Database::sqlite().await);
    world.send_many(0, 0, 5, 1).await;
    let consumer = start_guarded(&world, &Probed::new(&database, &world.log), "replaced").await;
    world.until_effects(5).await;
    eventually("the engine to be acknowledged", || world.log.settled(0) == 5).await;
    database.until_empty(1).await;
    let mut notices = consumer.notices();
    // As another member does that was given the partition.
    let other = database.intake().take(&place(0), None).await.unwrap();
    world.send_many(0, 5, 5, 1).await;
    // The engine never took the partition away, so nobody else has it: the group is joined anew, and the place taken once more.
    let effects = world.until_effects(10).await;
    assert_order_per_key(&effects);
    let taken = database.intake().take(&place(0), None).await.unwrap();
    assert!(taken.ownership.epoch > other.ownership.epoch + 1, "it was not taken once more");
    for seen in world.log.seen() {
        if let Seen::Said(text) = seen
            && let Some(["stored", _, next, epoch]) = text.split(' ').collect::<Vec<_>>().first_chunk()
            && next.parse::<i64>().unwrap() > 5
        {
            assert!(epoch.parse::<i64>().unwrap() > other.ownership.epoch, "{text}, by whoever was replaced");
        }
    }
    assert_stored_before_acknowledged(&world.log);
    consumer.stop(WAIT).await.unwrap();
    while let Ok(Some(notice)) = tokio::time::timeout(Duration::from_millis(10), notices.next()).await {
        assert!(!matches!(notice, Notice::Consumer(Report::NoDeliveries { .. })), "{notice:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handled_rows_leave_the_table() {
    let (world, database) = (World::new(2).await, Database::sqlite().await);
    let consumer = start_guarded(&world, &Probed::new(&database, &world.log), "one").await;
    for round in 0..3 {
        for partition in 0..2 {
            world.send_many(partition, partition as usize * 1_000 + round * 50, 50, 7).await;
        }
        world.until_effects((round + 1) * 100).await;
        database.until_empty(2).await;
    }
    consumer.stop(WAIT).await.unwrap();
    let taken = database.intake().take(&place(0), None).await.unwrap();
    assert_eq!((taken.frontier, taken.next, taken.acknowledged), (Some(150), Some(150), Some(150)));
}

#[tokio::test(flavor = "multi_thread")]
async fn order_per_key_holds_across_restarts_and_rebalances() {
    let (world, database) = (Arc::new(World::new(4).await), Database::sqlite().await);
    let is_enough = Arc::new(AtomicBool::new(false));
    // However long the hand-overs take, there is something left for whoever takes over.
    let sender = tokio::spawn({
        let (world, is_enough) = (world.clone(), is_enough.clone());
        async move {
            let mut round = 0;
            while !is_enough.load(SeqCst) {
                for partition in 0..4_u32 {
                    world.send_many(partition, partition as usize * 1_000_000 + round * 5, 5, 3).await;
                }
                round += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            round * 20
        }
    });
    let start = |by| {
        let starting = world.consumer().revoke_drain(Duration::from_secs(1));
        let starting = starting.store_first(first(&Probed::new(&database, &world.log)));
        Process::start(guarded(starting, world.inbox(), world.log.clone(), by))
    };
    let has = |by: &'static str| {
        let world = world.clone();
        async move { eventually(by, || world.effects().iter().any(|effect| effect.by == by)).await }
    };
    let one = start("first").await;
    has("first").await;
    let two = start("second").await;
    has("second").await;
    one.kill();
    let three = start("third").await;
    has("third").await;
    is_enough.store(true, SeqCst);
    let sent = sender.await.unwrap();
    let effects = world.until_effects(sent).await;
    assert_each_once(&world.ids(), sent);
    assert_order_per_key(&effects);
    database.until_empty(4).await;
    assert_stored_before_acknowledged(&world.log);
    two.kill();
    three.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_stops_taking_and_goes_on() {
    let (world, database) = (World::new(1).await, Database::sqlite().await);
    let handled = Handled::new(false);
    let first = first(&Probed::new(&database, &world.log)).messages_max(10);
    let stuck_after = Duration::from_secs(1);
    let builder = world.consumer().store_first(first).stuck_after(stuck_after);
    let consumer = handled.start(builder).await.unwrap();
    world.send_many(0, 0, 50, 50).await;
    eventually("the bound", || world.log.settled(0) == 10).await;
    // Before, a slow machine may be what delivers nothing.
    let mut notices = consumer.notices();
    // Long enough for the watchdog to notice an engine that delivers nothing: none is to blame.
    tokio::time::sleep(stuck_after * 6).await;
    assert_eq!((database.rows(0).await.len(), world.log.settled(0)), (10, 10), "the engine keeps the rest");
    while let Ok(Some(notice)) = tokio::time::timeout(Duration::from_millis(10), notices.next()).await {
        assert!(!matches!(notice, Notice::Consumer(Report::NoDeliveries { .. })), "{notice:?}");
    }
    eventually("the lag", || consumer.lags().iter().any(|lag| lag.messages == 50)).await;
    handled.open();
    eventually("all", || handled.ids().len() == 50).await;
    database.until_empty(1).await;
    consumer.stop(WAIT).await.unwrap();
    assert_eq!(world.log.settled(0), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_store_away_nothing_is_acknowledged_which_is_reported_and_it_goes_on_by_itself() {
    let (world, database) = (World::new(1).await, Database::sqlite().await);
    let intake = Probed::new(&database, &world.log);
    let consumer = start_guarded(&world, &intake, "one").await;
    let mut notices = consumer.notices();
    world.send_many(0, 0, 10, 3).await;
    world.until_effects(10).await;
    eventually("the engine to be acknowledged", || world.log.settled(0) == 10).await;
    intake.away.store(true, SeqCst);
    world.send_many(0, 10, 10, 3).await;
    let told = async {
        loop {
            if let Notice::Engine { error } = notices.next().await.unwrap()
                && error.to_string().contains("taken away by the test")
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((world.ids().len(), world.log.settled(0)), (10, 10));
    intake.away.store(false, SeqCst);
    world.until_effects(20).await;
    database.until_empty(1).await;
    consumer.stop(WAIT).await.unwrap();
    assert_stored_before_acknowledged(&world.log);
}

/// More is stored than is kept in memory: it is read again when its turn comes.
#[tokio::test(flavor = "multi_thread")]
async fn slow_handlers_do_not_keep_messages_at_the_engine_nor_in_memory() {
    const COUNT: usize = 9_000;
    let (world, database) = (World::new(1).await, Database::sqlite().await);
    let handled = Handled::new(false);
    let limits = Limits { partition_messages_max: 100, ..Limits::default() };
    let builder = world.consumer().limits(limits).store_first(first(&Probed::new(&database, &world.log)));
    let consumer = handled.start(builder).await.unwrap();
    world.send_many(0, 0, COUNT, 1).await;
    eventually("all to be acknowledged", || world.log.settled(0) == COUNT as i64).await;
    assert_eq!(database.rows(0).await.len(), COUNT);
    assert!(consumer.metrics().held.messages < COUNT / 2);
    let reads = || world.log.seen().iter().filter(|seen| **seen == Seen::Said("read".to_owned())).count();
    assert_eq!(reads(), 0, "what is in memory needs no reading");
    handled.open();
    eventually("all to be handled", || handled.ids().len() >= COUNT).await;
    assert!(reads() > 0, "all of it was in memory");
    let expected: Vec<String> = (0..COUNT).map(|number| format!("m{number}")).collect();
    assert_eq!(handled.ids(), expected, "one key: in order, each once");
    database.until_empty(1).await;
    consumer.stop(WAIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_bound_of_nothing_what_is_stored_is_handled_and_nothing_is_taken_in() {
    let (world, database) = (World::new(1).await, Database::sqlite().await);
    let never = Handled::new(false);
    let builder = world.consumer().store_first(first(&Probed::new(&database, &world.log)));
    let stored = never.start(builder).await.unwrap();
    world.send_many(0, 0, 10, 3).await;
    eventually("all to be acknowledged", || world.log.settled(0) == 10).await;
    stored.cancel().await.unwrap();
    world.send_many(0, 10, 10, 3).await;
    let handled = Handled::new(true);
    let first = first(&Probed::new(&database, &world.log)).messages_max(0);
    let leaving = handled.start(world.consumer().store_first(first)).await.unwrap();
    database.until_empty(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    leaving.stop(WAIT).await.unwrap();
    assert_each_once(&handled.ids(), 10);
    // Without the mode the group goes on where the engine stands.
    let after = handled.start(world.consumer()).await.unwrap();
    eventually("the others", || handled.ids().len() >= 20).await;
    after.stop(WAIT).await.unwrap();
    assert_each_once(&handled.ids(), 20);
}

/// Whoever sets a group back wants its messages again, and gets them behind what is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_set_back_at_the_engine_gets_its_messages_again() {
    let (world, database) = (World::new(1).await, Database::sqlite().await);
    let handled = Handled::new(true);
    let start = |handled: Handled| {
        let builder = world.consumer().store_first(first(&Probed::new(&database, &world.log)));
        async move { handled.start(builder).await.unwrap() }
    };
    world.send_many(0, 0, 10, 1).await;
    let consumer = start(handled.clone()).await;
    eventually("all", || handled.ids().len() == 10).await;
    consumer.stop(WAIT).await.unwrap();
    let address = world.address.clone();
    tokio::task::spawn_blocking(move || {
        let member: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", address).set("group.id", GROUP).create().unwrap();
        let mut position = TopicPartitionList::new();
        position.add_partition_offset(TOPIC, 0, Offset::Offset(4)).unwrap();
        member.commit(&position, CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    let consumer = start(handled.clone()).await;
    eventually("those from there on", || handled.ids().len() >= 16).await;
    world.send_many(0, 10, 2, 1).await;
    eventually("those that come then", || handled.ids().len() >= 18).await;
    database.until_empty(1).await;
    consumer.stop(WAIT).await.unwrap();
    let numbers: Vec<usize> = handled.ids().iter().map(|id| id[1..].parse().unwrap()).collect();
    let expected: Vec<usize> = (0..10).chain(4..12).collect();
    assert_eq!(numbers, expected);
}

/// A group that had gone on without this mode begins where it stands, also with what it had done beyond.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_begins_with_it_goes_on_where_the_engine_stands() {
    let (world, database) = (World::new(1).await, Database::sqlite().await);
    let handled = Handled::new(true);
    for round in 0..2 {
        world.send_many(0, round * 20, 10, 3).await;
        let before = handled.start(world.consumer()).await.unwrap();
        eventually("those without", || handled.ids().len() == round * 20 + 10).await;
        before.stop(WAIT).await.unwrap();
        world.send_many(0, round * 20 + 10, 10, 3).await;
        let builder = world.consumer().store_first(first(&Probed::new(&database, &world.log)));
        let with = handled.start(builder).await.unwrap();
        eventually("those with", || handled.ids().len() == round * 20 + 20).await;
        database.until_empty(1).await;
        with.stop(WAIT).await.unwrap();
    }
    assert_each_once(&handled.ids(), 40);
}

// ---- Kafka and Postgres ----------------------------------------------------------------------------------------------

async fn send(producer: &Arc<dyn EngineProducer>, partition: u32, from: usize, count: usize) {
    let mut sent = Vec::with_capacity(count);
    for number in from..from + count {
        let record = Record {
            to: TopicPartition::new(TOPIC, partition),
            key: Some(format!("k{}-{partition}", number % 5).into()),
            payload: Some(format!("m{}", partition as usize * 1_000_000 + number).into()),
            headers: baton::Headers::default(),
            timestamp_ms: None,
            id: None,
        };
        sent.push(producer.send(record).expect("there is room"));
    }
    for stored in sent {
        stored.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_kafka_and_postgres_killed_consumers_lose_and_double_nothing_and_keep_the_order() {
    let (server, database) = (Kafka::start().await, Database::postgres().await);
    let log = Arc::new(Log::default());
    let kafka = Arc::new(KafkaEngine::connect(&server.address, &[]).unwrap());
    let engine: Arc<dyn Engine> = Arc::new(Watched { inner: kafka.clone(), log: log.clone() });
    engine.create_topic(&TopicSpec::new(TOPIC, 2)).await.unwrap();
    let options = ProducerOptions {
        client_id: "test".to_owned(),
        linger_ms: 1,
        delivery_timeout: PATIENCE,
        settings: Vec::new(),
    };
    let producer = kafka.producer(options).await.unwrap();
    let effects = World::new(1).await;
    let start = |by| {
        let builder = ConsumerBuilder::new(engine.clone(), GROUP).topics([TOPIC]);
        let builder = builder.retry(Retry::exponential(Duration::from_millis(20), 2, Duration::from_millis(100)));
        let builder = builder.store_first(first(&Probed::new(&database, &log)));
        Process::start(guarded(builder, effects.inbox(), log.clone(), by))
    };
    let mut sent = 0;
    for (round, step) in ["after storing", "after acknowledging", "before advancing"].into_iter().enumerate() {
        let process = start("killed").await;
        send(&producer, 0, round * 300, 150).await;
        sent += 150;
        eventually("some", || effects.effects().len() >= sent).await;
        log.stop_at(step);
        for partition in 0..2 {
            send(&producer, partition, round * 300 + 150, 150).await;
            sent += 150;
        }
        eventually(step, || log.is_stopped()).await;
        process.kill();
        log.stop_nobody();
    }
    let last = start("last").await;
    let all = effects.until_effects(sent).await;
    assert_each_once(&effects.ids(), sent);
    assert_order_per_key(&all);
    database.until_empty(2).await;
    assert_stored_before_acknowledged(&log);
    last.kill();
}
