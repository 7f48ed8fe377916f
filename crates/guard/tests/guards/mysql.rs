//! MariaDB, with the statements for MariaDB and with those for MySQL.

use std::sync::Arc;
use std::time::Duration;

use baton_guard::conformance::{Cut, CutGuard, Subject, SubjectError};
use baton_guard::{
    Conditional, Frontier, Group, Guard, GuardError, Identity, Inbox, MysqlEffect, MysqlGuard, Open, Place, Pruned,
    Redelivery, State,
};
use baton_testkit::servers::Server;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{OptsBuilder, Params, Pool, PoolConstraints, PoolOpts};

use crate::conditions::{self, Statements};
use crate::link::Link;

const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Short, so that what hangs is ended while a case still waits; and much longer than a busy machine keeps a handler waiting.
const IDLE_WAIT: Duration = Duration::from_secs(8);
/// What happens in the end has happened by then, on a machine that stands still now and then.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn pool(port: u16, connections: usize) -> Pool {
    pool_of("root", port, connections)
}

pub fn pool_of(user: &str, port: u16, connections: usize) -> Pool {
    let constraints = PoolConstraints::new(0, connections).unwrap();
    let options = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some(user))
        .db_name(Some("test"))
        .prefer_socket(false)
        .pool_opts(PoolOpts::default().with_constraints(constraints));
    Pool::new(options)
}

pub type Kind = fn(Pool) -> MysqlGuard;

pub struct OnMysql {
    server: Arc<Server>,
    kind: Kind,
    guard: MysqlGuard,
    other: Pool,
}

impl OnMysql {
    pub async fn new(server: &Arc<Server>, kind: Kind) -> Self {
        let guard = kind(pool(server.port(), 16)).lock_wait(LOCK_WAIT).idle_wait(IDLE_WAIT);
        let other = pool(server.port(), 4);
        let mut connection = other.get_conn().await.unwrap();
        connection
            .query_drop(
                "DROP TABLE IF EXISTS effects, orders, accounts, stock, baton_inbox, baton_frontier, baton_fence",
            )
            .await
            .unwrap();
        connection.query_drop("CREATE TABLE effects (name VARCHAR(200))").await.unwrap();
        let (once, twice) = tokio::join!(guard.prepare(), guard.prepare());
        once.unwrap();
        twice.unwrap();
        Self { server: Arc::clone(server), kind, guard, other }
    }

    async fn ask<T: FromRow + Send + 'static>(&self, sql: &str, parameters: Params) -> Vec<T> {
        for _ in 0..100 {
            if let Ok(mut connection) = self.other.get_conn().await
                && let Ok(rows) = connection.exec(sql, parameters.clone()).await
            {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no answer to {sql}");
    }
}

impl Subject for OnMysql {
    type Guard = MysqlGuard;

    fn guard(&self) -> &MysqlGuard {
        &self.guard
    }

    async fn write(&self, effect: MysqlEffect, name: String) -> Result<(), SubjectError> {
        let written = effect.execute("INSERT INTO effects VALUES (?)", (name,)).await;
        written.map(drop).map_err(|error| SubjectError(error.to_string()))
    }

    async fn blunder(&self, effect: MysqlEffect) -> Result<(), SubjectError> {
        // What a deadlock does, and what a handler that passes over it does then.
        let mut connection = effect.connection().await.map_err(|error| SubjectError(error.to_string()))?;
        connection.query_drop("ROLLBACK").await.unwrap();
        connection.query_drop("INSERT INTO effects VALUES ('stray')").await.unwrap();
        Err(SubjectError("a deadlock".to_owned()))
    }

    async fn count(&self, name: &str) -> u64 {
        self.ask("SELECT COUNT(*) FROM effects WHERE name = ? OR name = 'stray'", (name,).into()).await[0]
    }

    async fn prune(&self, group: &Group, kept: Duration, redelivery: Redelivery) -> Option<Result<Pruned, GuardError>> {
        Some(self.guard.prune(group, kept, redelivery).await)
    }

    async fn age(&self, _: &Group, by: Duration) {
        let by = by.as_secs();
        self.ask::<u8>("UPDATE baton_inbox SET done_at = done_at - INTERVAL ? SECOND", (by,).into()).await;
        self.ask::<u8>("UPDATE baton_frontier SET changed_at = changed_at - INTERVAL ? SECOND", (by,).into()).await;
    }

    async fn cut(&self, cut: Cut) -> Option<CutGuard<MysqlGuard>> {
        let link = Link::to(self.server.port(), cut).await;
        let guard = (self.kind)(pool(link.port, 1)).lock_wait(LOCK_WAIT).idle_wait(IDLE_WAIT);
        Some(CutGuard { guard, was_cut: Box::new(move || link.was_cut()) })
    }

    async fn restart(&self) -> bool {
        let server = Arc::clone(&self.server);
        tokio::task::spawn_blocking(move || server.restart()).await.unwrap();
        true
    }
}

impl Statements for OnMysql {
    type Guard = MysqlGuard;

    const TEXT: &str = "char";

    fn guard(&self) -> &MysqlGuard {
        &self.guard
    }

    async fn change(effect: MysqlEffect, sql: String) -> Result<u64, SubjectError> {
        effect.execute(&sql, ()).await.map_err(|error| SubjectError(error.to_string()))
    }

    async fn create(&self, sql: &str) {
        // It would commit a handler's transaction.
        self.other.get_conn().await.unwrap().query_drop(sql).await.unwrap();
    }

    async fn look(effect: MysqlEffect, sql: String) -> Result<Option<String>, SubjectError> {
        effect.query_opt(&sql, ()).await.map_err(|error| SubjectError(error.to_string()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_writes_on_mariadb_tell_apart_why_no_row_was_changed() {
    let server = Arc::new(Server::start("mariadb"));
    let mut store = OnMysql::new(&server, Conditional::mysql).await;
    conditions::versions_tell_apart_why_no_row_was_changed(&store).await;
    conditions::conditions_tell_apart_why_no_row_was_changed(&store).await;
    store = OnMysql::new(&server, Conditional::mysql).await;
    store.guard = store.guard.lock_wait(PATIENCE);
    conditions::a_write_that_waited_is_judged_by_what_came_before_it(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_on_mariadb_pass_the_suite() {
    let server = Arc::new(Server::start("mariadb"));
    let mut reports = Vec::new();
    for kind in
        [Inbox::mysql as Kind, |pool| Inbox::mysql(pool).without_returning(), Frontier::mysql, Conditional::mysql]
    {
        reports.push(baton_guard::conformance::run(&OnMysql::new(&server, kind).await).await);
    }
    crate::judge("mariadb", &reports);
}

/// Marks that are being made hold pruning up as little as it holds them up.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_holds_up_no_writer_and_is_done_in_portions() {
    let mut subject = OnMysql::new(&Arc::new(Server::start("mariadb")), Inbox::mysql).await;
    // Longer than the server lets pruning wait for a lock: who is marking outlasts it.
    subject.guard = subject.guard.idle_wait(Duration::from_secs(600));
    let old = "INSERT INTO baton_inbox SELECT 'beans', CONCAT('old-', seq), NOW() - INTERVAL 9 DAY FROM seq_1_to_12000";
    subject.ask::<u8>(old, Params::Empty).await;
    let (group, day) = (Group::new("beans").unwrap(), Duration::from_secs(86_400));
    let message = |id: &str| Identity::new(group.clone(), id.try_into().unwrap());
    let asked = subject.guard.begin_batch(&[message("new-1"), message("new-2")]).await.unwrap();
    let prune = async || subject.guard.prune(&group, 7 * day, Redelivery::from_topic(7 * day)).await;
    let rows = crate::portions(prune).await;
    assert_eq!(rows, [5_000, 5_000, 2_000]);
    asked.open.unwrap().commit().await.unwrap();
    let asked = subject.guard.begin_batch(&[message("new-1"), message("old-1")]).await.unwrap();
    assert_eq!(asked.states, [State::AlreadyDone, State::Fresh]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_guide_names_are_enough_and_do_not_unmark() {
    let subject = OnMysql::new(&Arc::new(Server::start("mariadb")), Inbox::mysql).await;
    let mut admin = subject.other.get_conn().await.unwrap();
    admin.query_drop("CREATE USER consumer; CREATE USER janitor").await.unwrap();
    // Each to its end: what is left of an answer belongs to the next one.
    for grant in
        crate::guide("sql", 1).lines().filter_map(|line| line.split(';').next()).filter(|line| !line.is_empty())
    {
        admin.query_drop(grant).await.unwrap();
    }
    let port = subject.server.port();
    let (group, partition) = (Group::new("beans").unwrap(), baton_core::TopicPartition::new("orders", 0));
    for kind in [Inbox::mysql as Kind, |pool| Inbox::mysql(pool).without_returning(), Frontier::mysql] {
        let (consumer, janitor) = (kind(pool_of("consumer", port, 1)), kind(pool_of("janitor", port, 1)));
        let fence = consumer.take_over(&group, &partition).await.unwrap();
        let message = |sequence: u64| {
            let id = format!("{}-{sequence}", fence.epoch).as_str().try_into().unwrap();
            let place = Place { instance: "i".into(), epoch: 1, partition: partition.clone(), sequence };
            Identity { place: Some(place), ..Identity::new(group.clone(), id).fenced(fence.clone()) }
        };
        let batch = [message(1), message(2)];
        for expected in [State::Fresh, State::AlreadyDone] {
            let asked = consumer.begin_batch(&batch).await.unwrap();
            assert_eq!(asked.states, [expected; 2]);
            if let Some(open) = asked.open {
                open.commit().await.unwrap();
            }
        }
        assert!(consumer.weaknesses().await.unwrap().is_empty());
        let day = Duration::from_secs(86_400);
        // Without anything that is old, nothing would be tried.
        subject.age(&group, 3 * day).await;
        let refused = consumer.prune(&group, day, Redelivery::from_topic(day)).await.unwrap_err();
        assert!(matches!(refused, GuardError::Refused { .. }), "a consumer may delete marks: {refused}");
        janitor.prune(&group, day, Redelivery::from_topic(day)).await.unwrap();
    }
}
