//! Applies three messages on SQLite, and dies (SIGABRT, without any clean-up) when its connection begins its n-th statement; 0 lets
//! it live. For the test that kills the process at each step.
//!
//!     guard-victim DATABASE inbox|frontier N

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use baton_core::TopicPartition;
use baton_guard::{Frontier, Group, Identity, Inbox, Place, Sqlite, apply, apply_batch};
use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};

static LEFT: AtomicU32 = AtomicU32::new(0);

fn die_in_time(_: TraceEvent<'_>) {
    if LEFT.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) == Ok(1) {
        std::process::abort();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, mark, at] = &arguments[..] else { return Err("guard-victim DATABASE inbox|frontier N".into()) };
    let mut connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS effects (name TEXT)")?;
    connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(die_in_time))?;
    let sqlite = Sqlite::new(connection)?;
    let guard = if mark == "inbox" { Inbox::sqlite(&sqlite) } else { Frontier::sqlite(&sqlite) };
    guard.prepare().await?;
    let message = |sequence: u64| -> Result<Identity, Box<dyn Error>> {
        let mut identity = Identity::new(Group::new("beans")?, format!("m{sequence}").as_str().try_into()?);
        let partition = TopicPartition::new("orders", 0);
        identity.place = Some(Place { instance: "p".into(), epoch: 1, partition, sequence });
        Ok(identity)
    };
    let messages = [message(1)?, message(2)?, message(3)?];
    LEFT.store(at.parse()?, Relaxed);
    let insert = "INSERT INTO effects VALUES (?1)";
    let name = messages[0].id.to_string();
    apply(&guard, &messages[0], |effect| async move { effect.execute(insert, (name,)).await.map(drop) }).await?;
    let batch = apply_batch(&guard, &messages[1..], |at, effect| {
        let name = messages[at + 1].id.to_string();
        async move { effect.execute(insert, (name,)).await.map(drop) }
    });
    for outcome in batch.await {
        outcome?;
    }
    Ok(())
}
