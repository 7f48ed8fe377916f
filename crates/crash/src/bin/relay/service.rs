//! A service: changes accounts, and writes a message for each change in the same transaction.

use std::sync::Arc;
use std::time::Duration;

use baton::{Message, MessageId};
use baton_crash::{
    Book, BookError, Change, CrashError, History, Line, TOPIC, account, accounts, failed, ready, told_to_end,
};
use baton_testkit::Random;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Common;

/// Transactions at once. SQLite has one writer at a time.
const WORKERS: u32 = 4;
const WORKERS_SQLITE: u32 = 2;
/// Between two transactions of a worker.
const PAUSE_MS: (u64, u64) = (5, 120);
/// After a failure, until the database is called again.
const FAILED_PAUSE: Duration = Duration::from_millis(100);
/// How many accounts a transaction changes, mostly, and now and then, so that relays die with much in their hands; and the time between two,
/// in which others write.
const CHANGES: (u64, u64) = (1, 4);
const CHANGES_MANY: (u64, u64) = (50, 150);
const CHANGES_MANY_PERCENT: u64 = 4;
const BETWEEN_MS_MAX: u64 = 15;
/// Of a hundred transactions so many are rolled back, and so many take part of it back, to a savepoint.
const ROLLED_BACK_PERCENT: u64 = 15;
const SAVEPOINT_PERCENT: u64 = 8;
/// So many commit late, and how late that is; SQLite lets nobody else write meanwhile.
const SLOW_PERCENT: u64 = 6;
const SLOW_MS: (u64, u64) = (100, 3_000);
const SLOW_SQLITE_MS: (u64, u64) = (50, 300);
/// Bytes of a message beyond its first line, mostly, and now and then.
const BYTES: (u64, u64) = (0, 1_500);
const BYTES_LARGE: (u64, u64) = (10_000, 60_000);
const BYTES_LARGE_PERCENT: u64 = 1;
/// Half of the messages are given their ids by the service.
const OWN_ID_PERCENT: u64 = 50;

/// How an attempt ended, as it is written down.
const COMMITTED: &str = "committed";
const ROLLED_BACK: &str = "rolled back";
/// Before its commit.
const FAILED: &str = "failed";
/// In its commit.
const UNKNOWN: &str = "unknown";

/// Works until it is told to end, and finishes what it has begun.
pub(crate) async fn serve(common: Common) -> Result<(), CrashError> {
    let history = Arc::new(History::create(&common.history, &format!("{}-attempts", common.name))?);
    let end = told_to_end()?;
    let (ends, ending) = watch::channel(false);
    let (mut random, mut workers) = (Random::new(common.seed), JoinSet::new());
    let sqlite = common.database.starts_with("sqlite");
    for number in 0..if sqlite { WORKERS_SQLITE } else { WORKERS } {
        let worker = Worker {
            name: format!("{}/{number}", common.name),
            database: common.database.clone(),
            slow_ms: if sqlite { SLOW_SQLITE_MS } else { SLOW_MS },
            random: random.fork(),
            history: Arc::clone(&history),
            attempts: 0,
        };
        workers.spawn(worker.work(ending.clone()));
    }
    ready(&common.history, &common.name)?;
    tokio::select! {
        () = end => {}
        Some(ended) = workers.join_next() => ended.map_err(failed("a worker"))??,
    }
    // Whoever does not listen any more has ended.
    _ = ends.send(true);
    while let Some(ended) = workers.join_next().await {
        ended.map_err(failed("a worker"))??;
    }
    Ok(())
}

struct Worker {
    name: String,
    database: String,
    slow_ms: (u64, u64),
    random: Random,
    history: Arc<History>,
    attempts: u64,
}

impl Worker {
    async fn work(mut self, mut ending: watch::Receiver<bool>) -> Result<(), CrashError> {
        let mut book = None;
        while !*ending.borrow_and_update() {
            let mut open = match book.take() {
                Some(open) => open,
                None => match Book::open(&self.database).await {
                    Ok(open) => open,
                    Err(error) => {
                        tracing::info!(%error, "the database is away");
                        tokio::time::sleep(FAILED_PAUSE).await;
                        continue;
                    }
                },
            };
            self.attempts += 1;
            let attempt = format!("{}/{}", self.name, self.attempts);
            let how = match self.attempt(&mut open, &attempt).await {
                Ok(true) => self.commit(&mut open).await,
                Ok(false) => {
                    // What the connection is worth after that is seen at the next attempt.
                    _ = open.run("ROLLBACK").await;
                    ROLLED_BACK
                }
                Err(error) => {
                    tracing::info!(%error, attempt, "failed");
                    FAILED
                }
            };
            self.history.add(&Line::Attempt { name: &attempt, how })?;
            if how == FAILED || how == UNKNOWN {
                // The connection is closed, and the database takes back what was not committed.
                tokio::time::sleep(FAILED_PAUSE).await;
            } else {
                book = Some(open);
                tokio::time::sleep(Duration::from_millis(self.random.between(PAUSE_MS.0, PAUSE_MS.1))).await;
            }
        }
        Ok(())
    }

    async fn commit(&mut self, book: &mut Book) -> &'static str {
        match book.run("COMMIT").await {
            Ok(()) => COMMITTED,
            Err(error) => {
                tracing::info!(%error, "nobody knows whether that was committed");
                UNKNOWN
            }
        }
    }

    /// Everything but the end of a transaction; says whether it is to be committed.
    async fn attempt(&mut self, book: &mut Book, attempt: &str) -> Result<bool, BookError> {
        let many = self.random.percent(CHANGES_MANY_PERCENT);
        let (from, to) = if many { CHANGES_MANY } else { CHANGES };
        let mut numbers: Vec<u64> = (0..self.random.between(from, to)).map(|_| self.random.below(accounts())).collect();
        // Everybody in the same order, or they would wait for each other.
        numbers.sort_unstable();
        book.begin().await?;
        for (place, number) in numbers.iter().enumerate() {
            self.change(book, attempt, place, *number).await?;
            if !many {
                tokio::time::sleep(Duration::from_millis(self.random.below(BETWEEN_MS_MAX))).await;
            }
        }
        if let Some(last) = numbers.last().filter(|_| self.random.percent(SAVEPOINT_PERCENT)) {
            book.run("SAVEPOINT half").await?;
            self.change(book, attempt, numbers.len(), *last).await?;
            let back = self.random.coin();
            book.run(if back { "ROLLBACK TO SAVEPOINT half" } else { "RELEASE SAVEPOINT half" }).await?;
        }
        if self.random.percent(SLOW_PERCENT) {
            let late_ms = self.random.between(self.slow_ms.0, self.slow_ms.1);
            tokio::time::sleep(Duration::from_millis(late_ms)).await;
        }
        Ok(!self.random.percent(ROLLED_BACK_PERCENT))
    }

    async fn change(&mut self, book: &mut Book, attempt: &str, place: usize, number: u64) -> Result<(), BookError> {
        let account = account(number);
        let version = book.raise(&account).await?;
        let random = &mut self.random;
        let bytes = if random.percent(BYTES_LARGE_PERCENT) { BYTES_LARGE } else { BYTES };
        let mut text = format!("{}\n", json!({ "name": account, "version": version, "attempt": attempt }));
        text.extend(std::iter::repeat_n('x', random.between(bytes.0, bytes.1) as usize));
        let change = Change { version, attempt: attempt.to_owned(), bytes: text.len(), account };
        let mut message = Message::to(TOPIC).payload(text);
        if change.account.starts_with("account") {
            message = message.key(change.account.clone());
        }
        if random.percent(OWN_ID_PERCENT) {
            // Visible ASCII without a semicolon, and shorter than an id may be.
            let id = MessageId::new(format!("{attempt}.{place}"));
            message = message.id(id.map_err(|error| BookError::NoAccount(error.to_string()))?);
        }
        book.write(&change, message).await
    }
}
