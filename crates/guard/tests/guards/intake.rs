//! Intakes: stores × cases, and the rights that they need.

use std::path::PathBuf;
use std::sync::Arc;

use baton_core::{Delivery, Headers, TopicPartition};
use baton_guard::Sqlite;
use baton_guard::intake::conformance::{IntakeSubject, run};
use baton_guard::intake::{Intake, MysqlIntake, Place, PostgresIntake, Progress, SqliteIntake};
use baton_testkit::servers::Server;
use mysql_async::prelude::Queryable;

use crate::{mysql, postgres};

struct OnPostgres(Server);
struct OnMariadb(Server);
struct OnSqlite(PathBuf);

impl IntakeSubject for OnPostgres {
    fn name(&self) -> &'static str {
        "Postgres"
    }

    async fn intake(&self) -> Arc<dyn Intake> {
        Arc::new(PostgresIntake::new(postgres::pool(self.0.port(), 4)))
    }
}

impl IntakeSubject for OnMariadb {
    fn name(&self) -> &'static str {
        "MariaDB"
    }

    async fn intake(&self) -> Arc<dyn Intake> {
        Arc::new(MysqlIntake::new(mysql::pool(self.0.port(), 4)))
    }
}

impl IntakeSubject for OnSqlite {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    async fn intake(&self) -> Arc<dyn Intake> {
        Arc::new(SqliteIntake::new(&Sqlite::open(&self.0).unwrap()))
    }
}

async fn passes(subject: &impl IntakeSubject) {
    crate::judge(&format!("intake-{}", subject.name()), &[run(subject).await]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intake_on_postgres_passes_the_suite() {
    let subject = OnPostgres(Server::start("postgres"));
    let intake = PostgresIntake::new(postgres::pool(subject.0.port(), 2));
    let (once, twice) = tokio::join!(intake.prepare(), intake.prepare());
    once.unwrap();
    twice.unwrap();
    passes(&subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intake_on_mariadb_passes_the_suite() {
    let subject = OnMariadb(Server::start("mariadb"));
    let intake = MysqlIntake::new(mysql::pool(subject.0.port(), 2));
    let (once, twice) = tokio::join!(intake.prepare(), intake.prepare());
    once.unwrap();
    twice.unwrap();
    passes(&subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intake_on_sqlite_passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let subject = OnSqlite(folder.path().join("intake.db"));
    let intake = SqliteIntake::new(&Sqlite::open(&subject.0).unwrap());
    assert!(intake.take(&place(), None).await.unwrap_err().0.contains("call prepare() once"));
    intake.prepare().await.unwrap();
    intake.prepare().await.unwrap();
    used(&intake).await;
    passes(&subject).await;
}

fn place() -> Place {
    Place { group: "beans".into(), partition: TopicPartition::new("orders", 0) }
}

/// Everything that a consumer does with it.
async fn used(intake: &dyn Intake) {
    let taken = intake.take(&place(), None).await.unwrap();
    let message = Delivery {
        from: place().partition,
        offset: 1,
        key: None,
        payload: None,
        headers: Headers::default(),
        timestamp_ms: None,
        delivered_before: None,
    };
    intake.append(&taken.ownership, std::slice::from_ref(&message), None).await.unwrap();
    assert_eq!(intake.read(&place(), 0, 10).await.unwrap(), [message]);
    let progress = Progress { frontier: 2, metadata: String::new(), acknowledged: Some(2) };
    intake.advance(&taken.ownership, &progress).await.unwrap();
    intake.restart(&taken.ownership, 0).await.unwrap();
    intake.weaknesses().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_documents_name_are_enough_for_an_intake() {
    let server = Server::start("postgres");
    let admin = postgres::pool(server.port(), 1);
    let missing = PostgresIntake::new(admin.clone()).take(&place(), None).await.unwrap_err();
    assert!(missing.0.contains("call prepare() once"), "{missing}");
    PostgresIntake::new(admin.clone()).prepare().await.unwrap();
    let roles =
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE consumer LOGIN; GRANT USAGE ON SCHEMA public TO consumer";
    let client = admin.get().await.unwrap();
    client.batch_execute(roles).await.unwrap();
    client.batch_execute(&crate::block("CONSUMER.md", "sql", 0)).await.unwrap();
    used(&PostgresIntake::new(postgres::pool_of("consumer", server.port(), 1))).await;

    let server = Server::start("mariadb");
    let admin = mysql::pool(server.port(), 1);
    let missing = MysqlIntake::new(admin.clone()).take(&place(), None).await.unwrap_err();
    assert!(missing.0.contains("call prepare() once"), "{missing}");
    MysqlIntake::new(admin.clone()).prepare().await.unwrap();
    let mut client = admin.get_conn().await.unwrap();
    client.query_drop("CREATE USER consumer").await.unwrap();
    for grant in crate::block("CONSUMER.md", "sql", 0).split(';').map(str::trim).filter(|grant| !grant.is_empty()) {
        client.query_drop(grant).await.unwrap();
    }
    used(&MysqlIntake::new(mysql::pool_of("consumer", server.port(), 1))).await;
}

/// Whoever chose that commits are not waited for is told what that means for messages that the engine has forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_back_what_it_committed_is_named() {
    let server = Server::start("postgres");
    let pool = postgres::pool(server.port(), 1);
    let intake = PostgresIntake::new(pool.clone());
    let before: Vec<String> = intake.weaknesses().await.unwrap().into_iter().map(|weakness| weakness.setting).collect();
    assert!(!before.contains(&"synchronous_commit".to_owned()), "{before:?}");
    pool.get().await.unwrap().batch_execute("SET synchronous_commit = off").await.unwrap();
    let weak = intake.weaknesses().await.unwrap();
    assert!(weak.iter().any(|weakness| weakness.setting == "synchronous_commit"), "{weak:?}");
}
