//! Postgres.

use std::sync::Arc;
use std::time::Duration;

use baton_guard::conformance::{Cut, CutGuard, Subject, SubjectError};
use baton_guard::{
    Admission, CommitError, Conditional, Fate, Frontier, Group, Guard, GuardError, Identity, Inbox, Open, Place,
    PostgresEffect, PostgresGuard, Pruned, Redelivery, State,
};
use baton_testkit::servers::Server;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::{Config, NoTls};

use crate::conditions::{self, Statements};
use crate::link::Link;

/// Short, so that what is in progress elsewhere is told soon.
const LOCK_WAIT: Duration = Duration::from_millis(400);
/// Short, so that what hangs is ended while a case still waits; and much longer than a busy machine keeps a handler waiting.
const IDLE_WAIT: Duration = Duration::from_secs(8);
/// What happens in the end has happened by then, on a machine that stands still now and then.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn pool(port: u16, connections: usize) -> Pool {
    pool_of("postgres", port, connections)
}

pub fn pool_of(user: &str, port: u16, connections: usize) -> Pool {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(user).dbname("postgres").connect_timeout(Duration::from_secs(5));
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    Pool::builder(manager).max_size(connections).build().unwrap()
}

pub type Kind = fn(Pool) -> PostgresGuard;

pub struct OnPostgres {
    server: Arc<Server>,
    kind: Kind,
    guard: PostgresGuard,
    other: Pool,
}

impl OnPostgres {
    pub async fn new(server: &Arc<Server>, kind: Kind) -> Self {
        let guard = kind(pool(server.port(), 16)).lock_wait(LOCK_WAIT).idle_wait(IDLE_WAIT);
        let other = pool(server.port(), 4);
        let client = other.get().await.unwrap();
        client
            .batch_execute("DROP TABLE IF EXISTS effects, orders, accounts, stock, baton_inbox, baton_frontier, baton_fence; CREATE TABLE effects (name text)")
            .await
            .unwrap();
        let (once, twice) = tokio::join!(guard.prepare(), guard.prepare());
        once.unwrap();
        twice.unwrap();
        Self { server: Arc::clone(server), kind, guard, other }
    }

    async fn ask(
        &self,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Vec<tokio_postgres::Row> {
        for _ in 0..100 {
            if let Ok(client) = self.other.get().await
                && let Ok(rows) = client.query(sql, parameters).await
            {
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no answer to {sql}");
    }
}

impl Subject for OnPostgres {
    type Guard = PostgresGuard;

    fn guard(&self) -> &PostgresGuard {
        &self.guard
    }

    async fn write(&self, effect: PostgresEffect, name: String) -> Result<(), SubjectError> {
        let written = effect.execute("INSERT INTO effects VALUES ($1)", &[&name]).await;
        written.map(drop).map_err(|error| SubjectError(error.to_string()))
    }

    async fn blunder(&self, effect: PostgresEffect) -> Result<(), SubjectError> {
        let refused = effect.execute("INSERT INTO baton_fence VALUES (NULL, NULL, NULL, NULL)", &[]).await;
        refused.map(drop).map_err(|error| SubjectError(error.to_string()))
    }

    async fn count(&self, name: &str) -> u64 {
        let rows = self.ask("SELECT count(*) FROM effects WHERE name = $1", &[&name]).await;
        u64::try_from(rows[0].get::<_, i64>(0)).unwrap()
    }

    async fn prune(&self, group: &Group, kept: Duration, redelivery: Redelivery) -> Option<Result<Pruned, GuardError>> {
        Some(self.guard.prune(group, kept, redelivery).await)
    }

    async fn age(&self, _: &Group, by: Duration) {
        let by = by.as_secs_f64();
        self.ask("UPDATE baton_inbox SET done_at = done_at - make_interval(secs => $1)", &[&by]).await;
        self.ask("UPDATE baton_frontier SET changed_at = changed_at - make_interval(secs => $1)", &[&by]).await;
    }

    async fn cut(&self, cut: Cut) -> Option<CutGuard<PostgresGuard>> {
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

impl Statements for OnPostgres {
    type Guard = PostgresGuard;

    fn guard(&self) -> &PostgresGuard {
        &self.guard
    }

    async fn change(effect: PostgresEffect, sql: String) -> Result<u64, SubjectError> {
        effect.execute(&sql, &[]).await.map_err(|error| SubjectError(error.to_string()))
    }

    async fn look(effect: PostgresEffect, sql: String) -> Result<Option<String>, SubjectError> {
        let found = effect.query_opt(&sql, &[]).await;
        found.map(|row| row.map(|row| row.get(0))).map_err(|error| SubjectError(error.to_string()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_writes_on_postgres_tell_apart_why_no_row_was_changed() {
    let server = Arc::new(Server::start("postgres"));
    let mut store = OnPostgres::new(&server, Conditional::postgres).await;
    conditions::versions_tell_apart_why_no_row_was_changed(&store).await;
    conditions::conditions_tell_apart_why_no_row_was_changed(&store).await;
    store = OnPostgres::new(&server, Conditional::postgres).await;
    store.guard = store.guard.lock_wait(PATIENCE);
    conditions::a_write_that_waited_is_judged_by_what_came_before_it(&store).await;
}

/// The quick way of marking a batch fails as a whole for one mark that is there, and must leave nothing of the attempt behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_meets_a_mark_is_told_which_and_applies_the_others() {
    let subject = OnPostgres::new(&Arc::new(Server::start("postgres")), Inbox::postgres).await;
    let guard = Inbox::postgres(pool(subject.server.port(), 1)).lock_wait(PATIENCE).idle_wait(IDLE_WAIT);
    fresh(&guard, &message("b")).await.commit().await.unwrap();
    // The mark of `d` is not decided when the batch comes to it.
    let undecided = fresh(&subject.guard, &message("d")).await;
    let fence = guard.take_over(&message("a").group, &baton_core::TopicPartition::new("orders", 0)).await.unwrap();
    let batch = ["a", "b", "c", "d", "a"].map(|id| message(id).fenced(fence.clone()));
    let decide = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        undecided.commit().await.unwrap();
    };
    let (asked, ()) = tokio::join!(guard.begin_batch(&batch), decide);
    let asked = asked.unwrap();
    let (fresh, done) = (State::Fresh, State::AlreadyDone);
    assert_eq!(asked.states, [fresh, done, fresh, done, State::Repeated]);
    let open = asked.open.unwrap();
    subject.write(open.effect(), "a".to_owned()).await.unwrap();
    open.commit().await.unwrap();
    assert_eq!(subject.count("a").await, 1);
    // A guard that has met no duplicate yet, on a batch of nothing else, and on one whose owner has changed.
    let other = Inbox::postgres(pool(subject.server.port(), 1));
    let asked = other.begin_batch(&batch).await.unwrap();
    assert_eq!(asked.states, [done; 5]);
    assert!(asked.open.is_none());
    other.take_over(&batch[0].group, &fence.partition).await.unwrap();
    let zombie = Inbox::postgres(pool(subject.server.port(), 1)).begin_batch(&batch).await.unwrap();
    assert_eq!(zombie.states, [State::Fenced; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn guards_on_postgres_pass_the_suite() {
    let server = Arc::new(Server::start("postgres"));
    let mut reports = Vec::new();
    for kind in [Inbox::postgres as Kind, Frontier::postgres, Conditional::postgres] {
        reports.push(baton_guard::conformance::run(&OnPostgres::new(&server, kind).await).await);
    }
    crate::judge("postgres", &reports);
}

fn message(id: &str) -> Identity {
    Identity::new(Group::new("beans").unwrap(), id.try_into().unwrap())
}

async fn fresh(guard: &PostgresGuard, identity: &Identity) -> baton_guard::OpenPostgres {
    match guard.begin(identity).await.unwrap() {
        Admission::Fresh(open) => open,
        other => panic!("{other:?}"),
    }
}

/// `COMMIT` of a failed transaction succeeds, as a roll back: the message would be acknowledged without its effect.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_failed_under_the_handler_is_named() {
    let subject = OnPostgres::new(&Arc::new(Server::start("postgres")), Inbox::postgres).await;
    let open = fresh(&subject.guard, &message("a")).await;
    subject.blunder(open.effect()).await.unwrap_err();
    let refused = open.commit().await.unwrap_err();
    assert!(matches!(refused, CommitError::NotCommitted(GuardError::TransactionEnded)), "{refused}");
    let open = fresh(&subject.guard, &message("a")).await;
    open.effect().client().await.unwrap().batch_execute("ROLLBACK").await.unwrap();
    let refused = open.commit().await.unwrap_err();
    assert!(matches!(refused, CommitError::Unknown(GuardError::TransactionEnded)), "{refused}");
    assert_eq!(subject.guard.fate(&message("a")).await.unwrap(), Fate::NotCommitted);
}

/// A frontier is moved by a statement that no longer asks beforehand whether the transaction still is what it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_frontier_moves_in_no_other_transaction_than_its_messages() {
    let subject = OnPostgres::new(&Arc::new(Server::start("postgres")), Frontier::postgres).await;
    let of = |sequence: u64| {
        let partition = baton_core::TopicPartition::new("orders", 0);
        let place = Place { instance: "i".into(), epoch: 1, partition, sequence };
        Identity { place: Some(place), ..message(&format!("m{sequence}")) }
    };
    fresh(&subject.guard, &of(1)).await.commit().await.unwrap();
    for ended in ["ROLLBACK", "COMMIT", "ROLLBACK; BEGIN", "COMMIT; BEGIN"] {
        for sequence in [2, 9] {
            let open = fresh(&subject.guard, &of(sequence)).await;
            open.effect().client().await.unwrap().batch_execute(ended).await.unwrap();
            let refused = open.commit().await.unwrap_err();
            assert!(matches!(refused, CommitError::Unknown(GuardError::TransactionEnded)), "{ended}: {refused}");
            let row = subject.ask("SELECT frontier, version FROM baton_frontier", &[]).await;
            assert_eq!((row[0].get::<_, i64>(0), row[0].get::<_, i64>(1)), (1, 1), "{ended}");
        }
    }
    let open = fresh(&subject.guard, &of(2)).await;
    subject.blunder(open.effect()).await.unwrap_err();
    let refused = open.commit().await.unwrap_err();
    assert!(matches!(refused, CommitError::NotCommitted(GuardError::TransactionEnded)), "{refused}");
    fresh(&subject.guard, &of(2)).await.commit().await.unwrap();
}

/// The second one finds the row moved on. It need not be handled again for that: neither where the server finds it at the commit, as in
/// the first round, nor where it is asked before, as it is for a while after that.
#[tokio::test(flavor = "multi_thread")]
async fn two_that_move_a_frontier_side_by_side_both_commit() {
    let subject = OnPostgres::new(&Arc::new(Server::start("postgres")), Frontier::postgres).await;
    let of = |sequence: u64| {
        let partition = baton_core::TopicPartition::new("orders", 0);
        let place = Place { instance: "i".into(), epoch: 1, partition, sequence };
        Identity { place: Some(place), ..message(&format!("m{sequence}")) }
    };
    for sequence in [1, 3] {
        let one = fresh(&subject.guard, &of(sequence)).await;
        let other = fresh(&subject.guard, &of(sequence + 1)).await;
        subject.write(one.effect(), "effect".to_owned()).await.unwrap();
        subject.write(other.effect(), "effect".to_owned()).await.unwrap();
        one.commit().await.unwrap();
        other.commit().await.unwrap();
    }
    let row = subject.ask("SELECT frontier, version FROM baton_frontier", &[]).await;
    assert_eq!((row[0].get::<_, i64>(0), row[0].get::<_, i64>(1)), (4, 4));
    assert_eq!(subject.count("effect").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_lose_commits_are_named() {
    let subject = OnPostgres::new(&Arc::new(Server::start("postgres")), Inbox::postgres).await;
    subject.ask("ALTER ROLE postgres SET synchronous_commit = off", &[]).await;
    let again = Inbox::postgres(pool(subject.server.port(), 1));
    let found = again.weaknesses().await.unwrap();
    assert!(
        matches!(&found[..], [found] if found.setting == "synchronous_commit" && found.value == "off"),
        "{found:?}"
    );
}

/// Neither waits for the other: a row that somebody holds is left for the next time, and writers go on.
#[tokio::test(flavor = "multi_thread")]
async fn pruning_waits_for_nobody_and_is_done_in_portions() {
    let subject = OnPostgres::new(&Arc::new(Server::start("postgres")), Inbox::postgres).await;
    let old = "INSERT INTO baton_inbox SELECT 'beans', 'old-' || n, now() - interval '9 days' FROM generate_series(1, 12000) AS n";
    subject.ask(old, &[]).await;
    let holder = subject.other.get().await.unwrap();
    holder.batch_execute("BEGIN; SELECT 1 FROM baton_inbox WHERE message_id = 'old-7' FOR UPDATE").await.unwrap();
    let open = fresh(&subject.guard, &message("new")).await;
    let (group, day) = (Group::new("beans").unwrap(), Duration::from_secs(86_400));
    let prune = async || subject.guard.prune(&group, 7 * day, Redelivery::from_topic(7 * day)).await;
    let rows = crate::portions(prune).await;
    assert_eq!(rows, [5_000, 5_000, 1_999]);
    open.commit().await.unwrap();
    holder.batch_execute("ROLLBACK").await.unwrap();
    let last = subject.guard.prune(&group, 7 * day, Redelivery::from_topic(7 * day)).await.unwrap();
    assert_eq!(last.rows, 1);
    assert!(matches!(subject.guard.begin(&message("new")).await.unwrap(), Admission::AlreadyDone));
}

/// A process that hangs with a transaction open holds the next owner up for no longer than `idle_wait`.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_hangs_is_ended_by_the_server() {
    let subject = OnPostgres::new(&Arc::new(Server::start("postgres")), Inbox::postgres).await;
    let (group, partition) = (Group::new("beans").unwrap(), baton_core::TopicPartition::new("orders", 0));
    let fence = subject.guard.take_over(&group, &partition).await.unwrap();
    let hanging = fresh(&subject.guard, &message("hangs").fenced(fence)).await;
    subject.write(hanging.effect(), "hangs".to_owned()).await.unwrap();
    let began = std::time::Instant::now();
    let new = loop {
        match subject.guard.take_over(&group, &partition).await {
            Ok(new) => break new,
            Err(error) => assert!(error.is_transient() && began.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert!(hanging.commit().await.is_err());
    assert_eq!(subject.count("hangs").await, 0);
    fresh(&subject.guard, &message("hangs").fenced(new)).await.commit().await.unwrap();
}

/// The caller's own transaction, with sqlx.
#[tokio::test(flavor = "multi_thread")]
async fn marks_in_a_transaction_of_sqlx_are_committed_with_it_or_not_at_all() {
    use sqlx_core::connection::Connection;
    use sqlx_core::query::query;
    let subject = OnPostgres::new(&Arc::new(Server::start("postgres")), Inbox::postgres).await;
    let address = format!("postgres://postgres@127.0.0.1:{}/postgres", subject.server.port());
    let mut connection = sqlx_postgres::PgConnection::connect(&address).await.unwrap();
    baton_guard::prepare_inbox(&mut connection).await.unwrap();
    let messages = [message("x"), message("y"), message("x")];
    for (commit, expected) in [
        (false, [State::Fresh, State::Fresh, State::Repeated]),
        (true, [State::Fresh, State::Fresh, State::Repeated]),
        (true, [State::AlreadyDone; 3]),
    ] {
        let mut transaction = connection.begin().await.unwrap();
        let states = baton_guard::mark_inbox(&mut transaction, &messages).await.unwrap();
        assert_eq!(states, expected);
        if states[0] == State::Fresh {
            query("INSERT INTO effects VALUES ('x')").execute(&mut *transaction).await.unwrap();
        }
        if commit {
            transaction.commit().await.unwrap()
        } else {
            transaction.rollback().await.unwrap()
        }
        assert_eq!(subject.count("x").await, u64::from(commit));
    }
    // The same table: the guard knows what was marked through sqlx, and the other way round.
    assert!(matches!(subject.guard.begin(&message("x")).await.unwrap(), Admission::AlreadyDone));
    let old = subject.guard.take_over(&messages[0].group, &baton_core::TopicPartition::new("orders", 0)).await.unwrap();
    subject.guard.take_over(&messages[0].group, &old.partition).await.unwrap();
    let states = baton_guard::mark_inbox(&mut connection, &[message("z").fenced(old)]).await.unwrap();
    assert_eq!(states, [State::Fenced]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_guide_names_are_enough_and_do_not_unmark() {
    let subject = OnPostgres::new(&Arc::new(Server::start("postgres")), Inbox::postgres).await;
    let admin = subject.other.get().await.unwrap();
    let roles = "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE consumer LOGIN; CREATE ROLE janitor LOGIN";
    admin.batch_execute(roles).await.unwrap();
    admin.batch_execute(&crate::guide("sql", 0)).await.unwrap();
    let port = subject.server.port();
    let (group, partition) = (Group::new("beans").unwrap(), baton_core::TopicPartition::new("orders", 0));
    for kind in [Inbox::postgres as Kind, Frontier::postgres] {
        let (consumer, janitor) = (kind(pool_of("consumer", port, 1)), kind(pool_of("janitor", port, 1)));
        let fence = consumer.take_over(&group, &partition).await.unwrap();
        let batch = [1, 2].map(|sequence| {
            let place = Place { instance: "i".into(), epoch: 1, partition: partition.clone(), sequence };
            Identity { place: Some(place), ..message(&sequence.to_string()).fenced(fence.clone()) }
        });
        fresh(&consumer, &batch[0]).await.commit().await.unwrap();
        for expected in [State::Fresh, State::AlreadyDone] {
            let asked = consumer.begin_batch(&batch).await.unwrap();
            assert_eq!(asked.states, [State::AlreadyDone, expected]);
            if let Some(open) = asked.open {
                open.commit().await.unwrap();
            }
        }
        assert!(consumer.weaknesses().await.unwrap().is_empty());
        let day = Duration::from_secs(86_400);
        let refused = consumer.prune(&group, day, Redelivery::from_topic(day)).await.unwrap_err();
        assert!(matches!(refused, GuardError::Refused { .. }), "a consumer may delete marks: {refused}");
        janitor.prune(&group, day, Redelivery::from_topic(day)).await.unwrap();
    }
}
