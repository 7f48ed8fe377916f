//! `baton outbox`: the outbox in a database, for who runs it.

use std::fmt::Write;
use std::time::Duration;

use baton::outbox::{OutboxStore, ParkedRow, Status};
use baton_core::stamp::Instance;
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::database::{self, Database};
use crate::dead::time::age;
use crate::{Failure, say};

/// Parked rows that one query brings.
const PAGE: usize = 1_000;
/// Done rows that one statement deletes.
const PRUNE_ROWS: usize = 2_000;

const AFTER_HELP: &str =
    "Exit codes: 0 done; 1 the database cannot be reached, or there is no such row; 2 a wrong argument.";

#[derive(Args)]
#[command(flatten_help = true, after_help = AFTER_HELP)]
pub(crate) struct OutboxArguments {
    #[command(subcommand)]
    command: OutboxCommand,
}

#[derive(Subcommand)]
enum OutboxCommand {
    /// Create the tables, where they are not there yet.
    Init(InitArguments),
    /// How many rows wait, since when, who works on them, and how large the tables are.
    Status(StatusArguments),
    /// One line for each row that the engine cannot have.
    Parked(ParkedArguments),
    /// Let parked rows be sent again, once what was wrong is mended.
    Retry(RowsArguments),
    /// Delete parked rows: their messages are never sent.
    Discard(RowsArguments),
    /// Delete done rows that were kept.
    Prune(PruneArguments),
}

#[derive(Args)]
struct InitArguments {
    #[command(flatten)]
    database: Database,
    /// The outbox's name, which its messages' stamps begin with; no other outbox on the same engine may have it.
    #[arg(long, default_value = "outbox")]
    name: String,
    /// Print the SQL, and run nothing.
    #[arg(long)]
    print: bool,
}

#[derive(Args)]
struct StatusArguments {
    #[command(flatten)]
    database: Database,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ParkedArguments {
    #[command(flatten)]
    database: Database,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RowsArguments {
    #[command(flatten)]
    database: Database,
    /// The rows' positions, as `parked` shows them.
    #[arg(required_unless_present = "all")]
    positions: Vec<i64>,
    /// All that are parked now.
    #[arg(long, conflicts_with = "positions")]
    all: bool,
}

#[derive(Args)]
struct PruneArguments {
    #[command(flatten)]
    database: Database,
    /// Those that were sent longer ago than this (30m, 12h, 7d).
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Duration,
}

/// Runs one of them.
pub(crate) fn run(arguments: OutboxArguments) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::failed("no threads could be started", &error))?;
    let outcome = runtime.block_on(async {
        match arguments.command {
            OutboxCommand::Init(arguments) => init(&arguments).await,
            OutboxCommand::Status(arguments) => status(&arguments).await,
            OutboxCommand::Parked(arguments) => parked(&arguments).await,
            OutboxCommand::Retry(arguments) => {
                let store = arguments.database.open()?;
                let positions = positions(&*store, &arguments).await?;
                let rows = store.retry(&positions).await.map_err(database::failed)?;
                done(&arguments, rows, "can be sent again")
            }
            OutboxCommand::Discard(arguments) => {
                let store = arguments.database.open()?;
                let positions = positions(&*store, &arguments).await?;
                let rows = store.discard(&positions).await.map_err(database::failed)?;
                done(&arguments, rows, "deleted")
            }
            OutboxCommand::Prune(arguments) => prune(&arguments).await,
        }
    });
    runtime.shutdown_background();
    outcome
}

async fn init(arguments: &InitArguments) -> Result<(), Failure> {
    let store = arguments.database.open()?;
    // Instances are called after it, with a shard's number behind.
    Instance::new(format!("{}.65535", arguments.name)).map_err(|error| Failure::Usage(format!("--name: {error}")))?;
    if arguments.print {
        let name = arguments.name.replace('\'', "''");
        let named = format!("INSERT INTO baton_outbox_info (name, version) VALUES ('{name}', 1)");
        say(&format!("{};\n{named};\n", store.tables()));
        return Ok(());
    }
    store.init(&arguments.name).await.map_err(database::failed)?;
    let name = store.name().await.map_err(database::failed)?;
    say(&format!("The outbox {name} is there.\n"));
    Ok(())
}

async fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let store = arguments.database.open()?;
    let status = store.status().await.map_err(database::failed)?;
    say(&if arguments.json { format!("{}\n", as_json(&status)) } else { as_text(&status) });
    Ok(())
}

fn as_json(status: &Status) -> serde_json::Value {
    let shards = status.shards.iter().map(
        |shard| json!({ "shard": shard.shard, "owner": shard.owner, "epoch": shard.epoch, "claimed": shard.claimed }),
    );
    json!({
        "name": status.name,
        "rows": status.rows,
        "oldest_ms": status.oldest.map(|oldest| u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX)),
        "parked": status.parked,
        "done": status.done,
        "bytes": status.bytes,
        "dead_rows": status.dead,
        "relays": status.members,
        "shards": shards.collect::<Vec<_>>(),
    })
}

/// Writing to a string cannot fail.
fn as_text(status: &Status) -> String {
    let mut text = String::new();
    let oldest =
        status.oldest.map_or_else(String::new, |oldest| format!(", the oldest for {:.1} s", oldest.as_secs_f64()));
    _ = writeln!(text, "Outbox    {}", status.name);
    _ = writeln!(text, "Waiting   {} rows{oldest}", status.rows);
    _ = writeln!(text, "Parked    {}", status.parked);
    _ = writeln!(text, "Kept      {} rows that are done", status.done);
    let dead = status.dead.map_or_else(String::new, |dead| format!(", {dead} dead rows"));
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let size = status.bytes as f64 / f64::from(1 << 20);
    _ = writeln!(text, "On disk   {size:.1} MiB{dead}");
    let relays = if status.members.is_empty() { "none".to_owned() } else { status.members.join(", ") };
    _ = writeln!(text, "Relays    {relays}");
    for member in &status.members {
        let theirs = status.shards.iter().filter(|shard| shard.owner.as_ref() == Some(member));
        let (shards, claimed) = theirs.fold((0, 0), |(shards, claimed), shard| (shards + 1, claimed + shard.claimed));
        _ = writeln!(text, "          {member}: {shards} of {} shards, {claimed} rows claimed", status.shards.len());
    }
    let nobodys = status.shards.iter().filter(|shard| shard.owner.is_none()).count();
    if nobodys > 0 {
        _ = writeln!(text, "          {nobodys} of {} shards have no relay now", status.shards.len());
    }
    text
}

async fn all_parked(store: &dyn OutboxStore, mut each: impl FnMut(ParkedRow)) -> Result<u64, Failure> {
    let (mut after, mut count) = (i64::MIN, 0);
    loop {
        let page = store.parked(after, PAGE).await.map_err(database::failed)?;
        let Some(last) = page.last() else { return Ok(count) };
        after = last.position;
        count += page.len() as u64;
        page.into_iter().for_each(&mut each);
    }
}

async fn parked(arguments: &ParkedArguments) -> Result<(), Failure> {
    let store = arguments.database.open()?;
    let count = all_parked(&*store, |row| {
        let key = row.key.as_ref().map(|key| String::from_utf8_lossy(key).into_owned());
        let ParkedRow { position, topic, id, reason, .. } = row;
        if arguments.json {
            let line = json!({ "position": position, "topic": topic, "key": key, "id": id, "reason": reason });
            say(&format!("{line}\n"));
        } else {
            // What others have written must not move the cursor of a terminal.
            let plain =
                |text: &str| text.chars().map(|one| if one.is_control() { '·' } else { one }).collect::<String>();
            let (topic, key, reason) = (plain(&topic), plain(&key.unwrap_or_default()), plain(&reason));
            say(&format!("{position:>12}  {topic:<20}  {key:<20}  {id:<36}  {reason}\n"));
        }
    });
    let count = count.await?;
    if !arguments.json {
        say(&if count == 0 { "Nothing is parked.\n".to_owned() } else { format!("\n{count} rows are parked.\n") });
    }
    Ok(())
}

async fn positions(store: &dyn OutboxStore, arguments: &RowsArguments) -> Result<Vec<i64>, Failure> {
    if !arguments.all {
        return Ok(arguments.positions.clone());
    }
    let mut positions = Vec::new();
    all_parked(store, |row| positions.push(row.position)).await?;
    Ok(positions)
}

fn done(arguments: &RowsArguments, rows: u64, what: &str) -> Result<(), Failure> {
    say(&format!("{rows} rows {what}.\n"));
    let wanted = arguments.positions.len() as u64;
    if rows < wanted {
        return Err(Failure::Failed(format!("{} of them are not parked, or not there", wanted - rows)));
    }
    Ok(())
}

async fn prune(arguments: &PruneArguments) -> Result<(), Failure> {
    let store = arguments.database.open()?;
    let mut rows = 0;
    loop {
        let some = store.prune(arguments.older_than, PRUNE_ROWS).await.map_err(database::failed)?;
        rows += some;
        if some < PRUNE_ROWS as u64 {
            break;
        }
    }
    say(&format!("{rows} rows deleted.\n"));
    Ok(())
}
