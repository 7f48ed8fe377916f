//! Side stores in databases: stores × cases, and the rights that they need.

use std::path::PathBuf;
use std::sync::Arc;

use baton_core::TopicPartition;
use baton_core::consumer::Parked;
use baton_core::{Delivery, Headers};
use baton_guard::Sqlite;
use baton_guard::side::conformance::{SideSubject, run};
use baton_guard::side::{MysqlSideStore, Offsets, Place, PostgresSideStore, SideStore, SqliteSideStore};
use baton_testkit::servers::Server;
use bytes::Bytes;
use mysql_async::prelude::Queryable;

use crate::{mysql, postgres};

struct OnPostgres(Server);
struct OnMariadb(Server);
struct OnSqlite(PathBuf);

impl SideSubject for OnPostgres {
    fn name(&self) -> &'static str {
        "Postgres"
    }

    async fn store(&self) -> Arc<dyn SideStore> {
        Arc::new(PostgresSideStore::new(postgres::pool(self.0.port(), 4)))
    }
}

impl SideSubject for OnMariadb {
    fn name(&self) -> &'static str {
        "MariaDB"
    }

    async fn store(&self) -> Arc<dyn SideStore> {
        Arc::new(MysqlSideStore::new(mysql::pool(self.0.port(), 4)))
    }
}

impl SideSubject for OnSqlite {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    async fn store(&self) -> Arc<dyn SideStore> {
        Arc::new(SqliteSideStore::new(&Sqlite::open(&self.0).unwrap()))
    }
}

async fn passes(subject: &impl SideSubject) {
    crate::judge(&format!("side-store-{}", subject.name()), &[run(subject).await]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_postgres_passes_the_suite() {
    let subject = OnPostgres(Server::start("postgres"));
    let store = PostgresSideStore::new(postgres::pool(subject.0.port(), 2));
    let (once, twice) = tokio::join!(store.prepare(), store.prepare());
    once.unwrap();
    twice.unwrap();
    passes(&subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_mariadb_passes_the_suite() {
    let subject = OnMariadb(Server::start("mariadb"));
    let store = MysqlSideStore::new(mysql::pool(subject.0.port(), 2));
    let (once, twice) = tokio::join!(store.prepare(), store.prepare());
    once.unwrap();
    twice.unwrap();
    passes(&subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_on_sqlite_passes_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    let subject = OnSqlite(folder.path().join("side.db"));
    let store = SqliteSideStore::new(&Sqlite::open(&subject.0).unwrap());
    store.prepare().await.unwrap();
    store.prepare().await.unwrap();
    passes(&subject).await;
}

fn place() -> Place {
    Place { group: "beans".into(), partition: TopicPartition::new("orders", 0) }
}

fn parked(offset: i64) -> Parked {
    let delivery = Delivery {
        from: place().partition,
        offset,
        key: Some(Bytes::from_static(b"a")),
        payload: None,
        headers: Headers::default(),
        timestamp_ms: None,
        delivered_before: None,
    };
    Parked { delivery: Arc::new(delivery), attempts: 1, failure: None }
}

/// Everything that a consumer does with it.
async fn used(store: &dyn SideStore) {
    let (place, key) = (place(), Bytes::from_static(b"a"));
    store.open(&place, Offsets::Lasting).await.unwrap();
    for _ in 0..2 {
        store.park(&place, &key, &[parked(1), parked(2)]).await.unwrap();
        store.store_done(&place, Bytes::from_static(b"done")).await.unwrap();
    }
    assert_eq!(store.load(&place, &key, 10).await.unwrap().len(), 2);
    store.remove(&place, &key, 1).await.unwrap();
    assert_eq!(store.open(&place, Offsets::Lasting).await.unwrap().parked[0].messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_guide_names_are_enough_for_a_side_store() {
    let server = Server::start("postgres");
    let admin = postgres::pool(server.port(), 1);
    let missing = PostgresSideStore::new(admin.clone()).open(&place(), Offsets::Lasting).await.unwrap_err();
    assert!(missing.0.contains("call prepare() once"), "{missing}");
    PostgresSideStore::new(admin.clone()).prepare().await.unwrap();
    let roles =
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE ROLE consumer LOGIN; GRANT USAGE ON SCHEMA public TO consumer";
    let client = admin.get().await.unwrap();
    client.batch_execute(roles).await.unwrap();
    client.batch_execute(&crate::guide("sql", 2)).await.unwrap();
    used(&PostgresSideStore::new(postgres::pool_of("consumer", server.port(), 1))).await;

    let server = Server::start("mariadb");
    let admin = mysql::pool(server.port(), 1);
    let missing = MysqlSideStore::new(admin.clone()).open(&place(), Offsets::Lasting).await.unwrap_err();
    assert!(missing.0.contains("call prepare() once"), "{missing}");
    MysqlSideStore::new(admin.clone()).prepare().await.unwrap();
    let mut client = admin.get_conn().await.unwrap();
    client.query_drop("CREATE USER consumer").await.unwrap();
    for grant in crate::guide("sql", 2).split(';').map(str::trim).filter(|grant| !grant.is_empty()) {
        client.query_drop(grant).await.unwrap();
    }
    used(&MysqlSideStore::new(mysql::pool_of("consumer", server.port(), 1))).await;
}

/// A partition that was given away is written to no more by whoever had it: a position of an assignment that is over means nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_was_forgotten_takes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteSideStore::new(&Sqlite::open(folder.path().join("side.db")).unwrap());
    store.prepare().await.unwrap();
    store.open(&place(), Offsets::OfAssignment).await.unwrap();
    store.forget(&place());
    let refused = store.park(&place(), &Bytes::from_static(b"a"), &[parked(1)]).await.unwrap_err();
    assert!(refused.0.contains("not ours any more"), "{refused}");
}
