//! Postgres.

use std::sync::Arc;
use std::time::Duration;

use baton_guard::conformance::{Cut, CutGuard, Subject, SubjectError};
use baton_guard::{Conditional, Frontier, Group, GuardError, Inbox, PostgresEffect, PostgresGuard, Pruned, Redelivery};
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
