//! Postgres.

use std::sync::Arc;
use std::time::Duration;

use baton_guard::conformance::{Cut, CutGuard, Subject, SubjectError};
use baton_guard::{
    Admission, CommitError, Conditional, Fate, Frontier, Group, Guard, GuardError, Identity, Inbox, Open,
    PostgresEffect, PostgresGuard, Pruned, Redelivery, State,
};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::{Config, NoTls};

use crate::link::Link;
use crate::servers::Server;

/// Short, so that what is in progress elsewhere is told soon.
const LOCK_WAIT: Duration = Duration::from_millis(400);
/// Short, so that what hangs is ended while a case still waits.
const IDLE_WAIT: Duration = Duration::from_secs(3);

pub fn pool(port: u16, connections: usize) -> Pool {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname("postgres").connect_timeout(Duration::from_secs(5));
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    Pool::builder(manager).max_size(connections).build().unwrap()
}

type Kind = fn(Pool) -> PostgresGuard;

struct OnPostgres {
    server: Arc<Server>,
    kind: Kind,
    guard: PostgresGuard,
    other: Pool,
}

impl OnPostgres {
    async fn new(server: &Arc<Server>, kind: Kind) -> Self {
        let guard = kind(pool(server.port(), 16)).lock_wait(LOCK_WAIT).idle_wait(IDLE_WAIT);
        let other = pool(server.port(), 4);
        let client = other.get().await.unwrap();
        client
            .batch_execute("DROP TABLE IF EXISTS effects, baton_inbox, baton_frontier, baton_fence; CREATE TABLE effects (name text)")
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
    let mut rows = Vec::new();
    loop {
        let pruned = subject.guard.prune(&group, 7 * day, Redelivery::from_topic(7 * day)).await.unwrap();
        rows.push(pruned.rows);
        if !pruned.more {
            break;
        }
    }
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
            Err(error) => assert!(error.is_transient() && began.elapsed() < IDLE_WAIT * 3, "{error}"),
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
