//! MariaDB, with the statements for MariaDB and with those for MySQL.

use std::sync::Arc;
use std::time::Duration;

use baton_guard::conformance::{Cut, CutGuard, Subject, SubjectError};
use baton_guard::{Conditional, Frontier, Group, GuardError, Inbox, MysqlEffect, MysqlGuard, Pruned, Redelivery};
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{OptsBuilder, Params, Pool, PoolConstraints, PoolOpts};

use crate::link::Link;
use crate::servers::Server;

const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Short, so that what hangs is ended while a case still waits.
const IDLE_WAIT: Duration = Duration::from_secs(3);

fn pool(port: u16, connections: usize) -> Pool {
    let constraints = PoolConstraints::new(0, connections).unwrap();
    let options = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some("root"))
        .db_name(Some("test"))
        .prefer_socket(false)
        .pool_opts(PoolOpts::default().with_constraints(constraints));
    Pool::new(options)
}

type Kind = fn(Pool) -> MysqlGuard;

struct OnMysql {
    server: Arc<Server>,
    kind: Kind,
    guard: MysqlGuard,
    other: Pool,
}

impl OnMysql {
    async fn new(server: &Arc<Server>, kind: Kind) -> Self {
        let guard = kind(pool(server.port(), 16)).lock_wait(LOCK_WAIT).idle_wait(IDLE_WAIT);
        let other = pool(server.port(), 4);
        let mut connection = other.get_conn().await.unwrap();
        connection.query_drop("DROP TABLE IF EXISTS effects, baton_inbox, baton_frontier, baton_fence").await.unwrap();
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
