//! SQLite: in the process, so what dies is the process.

use std::path::PathBuf;
use std::time::Duration;

use baton_guard::conformance::{Cut, CutGuard, Subject, SubjectError};
use baton_guard::{
    Conditional, Frontier, Group, GuardError, Inbox, Pruned, Redelivery, Sqlite, SqliteEffect, SqliteGuard,
};
use rusqlite::{Connection, OptionalExtension};

use crate::conditions::{self, Statements};

pub struct OnSqlite {
    guard: SqliteGuard,
    sqlite: Sqlite,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl OnSqlite {
    pub async fn new(kind: fn(&Sqlite) -> SqliteGuard) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guards.db");
        let sqlite = Sqlite::open(&path).unwrap();
        let guard = kind(&sqlite);
        guard.prepare().await.unwrap();
        guard.prepare().await.unwrap();
        sqlite.run(|database| database.execute_batch("CREATE TABLE effects (name TEXT)")).await.unwrap().unwrap();
        Self { guard, sqlite, path, _folder: folder }
    }
}

impl Subject for OnSqlite {
    type Guard = SqliteGuard;

    fn guard(&self) -> &SqliteGuard {
        &self.guard
    }

    async fn write(&self, effect: SqliteEffect, name: String) -> Result<(), SubjectError> {
        let written = effect.execute("INSERT INTO effects VALUES (?1)", (name,)).await;
        written.map(drop).map_err(|error| SubjectError(error.to_string()))
    }

    async fn blunder(&self, effect: SqliteEffect) -> Result<(), SubjectError> {
        // Ends the whole transaction, as a full disk does.
        let refused = effect.execute("INSERT OR ROLLBACK INTO baton_fence VALUES (NULL, NULL, NULL, NULL)", ()).await;
        refused.map(drop).map_err(|error| SubjectError(error.to_string()))
    }

    async fn count(&self, name: &str) -> u64 {
        let other = Connection::open(&self.path).unwrap();
        other.busy_timeout(Duration::from_secs(5)).unwrap();
        let count: i64 =
            other.query_row("SELECT count(*) FROM effects WHERE name = ?1", [name], |row| row.get(0)).unwrap();
        u64::try_from(count).unwrap()
    }

    async fn prune(&self, group: &Group, kept: Duration, redelivery: Redelivery) -> Option<Result<Pruned, GuardError>> {
        Some(self.guard.prune(group, kept, redelivery).await)
    }

    async fn age(&self, _: &Group, by: Duration) {
        let by = i64::try_from(by.as_secs()).unwrap();
        let aged = self.sqlite.run(move |database| {
            database.execute("UPDATE baton_inbox SET done_at = done_at - ?1", [by])?;
            database.execute("UPDATE baton_frontier SET changed_at = changed_at - ?1", [by])
        });
        aged.await.unwrap().unwrap();
    }

    async fn cut(&self, _: Cut) -> Option<CutGuard<SqliteGuard>> {
        None
    }

    async fn restart(&self) -> bool {
        false
    }
}

impl Statements for OnSqlite {
    type Guard = SqliteGuard;

    fn guard(&self) -> &SqliteGuard {
        &self.guard
    }

    async fn change(effect: SqliteEffect, sql: String) -> Result<u64, SubjectError> {
        effect.execute(sql, ()).await.map_err(|error| SubjectError(error.to_string()))
    }

    async fn look(effect: SqliteEffect, sql: String) -> Result<Option<String>, SubjectError> {
        let found = effect.with(move |database| database.query_row(&sql, [], |row| row.get(0)).optional());
        found.await.map_err(|error| SubjectError(error.to_string()))
    }
}

#[tokio::test]
async fn conditional_writes_on_sqlite_tell_apart_why_no_row_was_changed() {
    let store = OnSqlite::new(Conditional::sqlite).await;
    conditions::versions_tell_apart_why_no_row_was_changed(&store).await;
    conditions::conditions_tell_apart_why_no_row_was_changed(&store).await;
}

#[tokio::test]
async fn guards_on_sqlite_pass_the_suite() {
    let mut reports = Vec::new();
    for kind in [Inbox::sqlite, Frontier::sqlite, Conditional::sqlite] {
        reports.push(baton_guard::conformance::run(&OnSqlite::new(kind).await).await);
    }
    crate::judge("sqlite", &reports);
}

#[tokio::test]
async fn pruning_is_done_in_portions() {
    let subject = OnSqlite::new(Inbox::sqlite).await;
    let old = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 12000) \
               INSERT INTO baton_inbox SELECT 'beans', 'old-' || n, unixepoch() - 9 * 86400 FROM n";
    subject.sqlite.run(move |database| database.execute_batch(old)).await.unwrap().unwrap();
    let (group, day) = (Group::new("beans").unwrap(), Duration::from_secs(86_400));
    let prune = async || subject.guard.prune(&group, 7 * day, Redelivery::from_topic(7 * day)).await;
    let rows = crate::portions(prune).await;
    assert_eq!(rows, [5_000, 5_000, 2_000]);
}

#[tokio::test]
async fn tables_that_are_not_there_are_named_with_what_to_do() {
    let sqlite = Sqlite::new(Connection::open_in_memory().unwrap()).unwrap();
    let message = baton_guard::Identity::new(Group::new("g").unwrap(), "a".try_into().unwrap());
    let refused = baton_guard::Guard::begin(&Inbox::sqlite(&sqlite), &message).await.unwrap_err();
    assert!(matches!(refused, GuardError::NotPrepared(_)), "{refused}");
    assert!(refused.to_string().contains("prepare()"), "{refused}");
}

/// A process that dies at each of its statements in turn, and its successor: the message is applied once, whatever happened.
#[tokio::test]
async fn a_process_that_dies_at_any_statement_applies_each_message_once() {
    for frontier in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guards.db");
        let mut deaths = 0;
        for at in 1.. {
            assert!(at < 200, "it dies at each statement without end");
            let mut victim = std::process::Command::new(env!("CARGO_BIN_EXE_guard-victim"));
            let run = |victim: &mut std::process::Command, at: u32| {
                victim.arg(&path).arg(if frontier { "frontier" } else { "inbox" }).arg(at.to_string()).status().unwrap()
            };
            let died = !run(&mut victim, at).success();
            let mut successor = std::process::Command::new(env!("CARGO_BIN_EXE_guard-victim"));
            assert!(run(&mut successor, 0).success());
            let database = Connection::open(&path).unwrap();
            let effects: Vec<i64> = {
                let mut count = database.prepare("SELECT count(*) FROM effects GROUP BY name ORDER BY name").unwrap();
                count.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
            };
            assert_eq!(effects, [1, 1, 1], "died at statement {at}");
            database.execute_batch("DELETE FROM effects; DELETE FROM baton_inbox; DELETE FROM baton_frontier").unwrap();
            if !died {
                break;
            }
            deaths += 1;
        }
        assert!(deaths >= 10, "it died {deaths} times");
    }
}
