//! The service of the demonstration: an order comes, its beans are written down. A process of its own, so that it can be killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use baton::consumer::Batches;
use baton::guard::{Inbox, Sqlite, SqliteEffect};
use baton::{Baton, Consumer, HandlerError, Received};
use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;

use crate::serve::start_logging;
use crate::{Failure, LogFormat, say};

/// The group of the service.
const GROUP: &str = "beans-svc";
/// Orders in a transaction. Small, so that a kill finds some that are committed and not acknowledged yet.
const BATCH_MESSAGES: usize = 50;
/// After how long the broker gives the partitions of a killed service to the next one. Production wants more.
const SESSION_TIMEOUT_MS: &str = "1000";
const HEARTBEAT_INTERVAL_MS: &str = "300";
/// How often the service says what it did.
const REPORT_INTERVAL: Duration = Duration::from_millis(25);
/// How long it may take to finish when it is told to.
const STOP_WAIT: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct DemoConsumerArguments {
    /// The engine.
    #[arg(long)]
    engine: String,
    /// The database.
    #[arg(long)]
    database: PathBuf,
}

/// Runs until stdin is closed, or it is killed. Each line on stdout is a number: messages so far whose effect was there already.
pub(crate) fn run(arguments: &DemoConsumerArguments) -> Result<(), Failure> {
    start_logging(LogFormat::Text)?;
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| Failure::failed("no threads could be started", &error))?;
    let outcome = runtime.block_on(consume(arguments));
    runtime.shutdown_background();
    outcome
}

async fn consume(arguments: &DemoConsumerArguments) -> Result<(), Failure> {
    let consumer = start(&arguments.engine, &arguments.database).await?;
    let (closed, mut is_closed) = oneshot::channel();
    std::thread::spawn(move || {
        super::wait_for_parent();
        // Nobody listens only when it ends already.
        let _ = closed.send(());
    });
    let mut reported = None;
    loop {
        let absorbed = consumer.metrics().already_done;
        if reported.replace(absorbed) != Some(absorbed) {
            say(&format!("{}\n", json!({ "already_done": absorbed })));
        }
        tokio::select! {
            _ = &mut is_closed => break,
            () = tokio::time::sleep(REPORT_INTERVAL) => {}
        }
    }
    let metrics = consumer.stop(STOP_WAIT).await.map_err(|error| Failure::failed("the service", &error))?;
    say(&format!("{}\n", json!({ "already_done": metrics.already_done })));
    Ok(())
}

async fn start(engine: &str, database: &Path) -> Result<Consumer, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::failed("the service cannot start", error);
    let beans = Sqlite::open(database).map_err(|error| failed(&error))?;
    let inbox = Inbox::sqlite(&beans);
    inbox.prepare().await.map_err(|error| failed(&error))?;
    let baton = Baton::connect(engine).await.map_err(|error| failed(&error))?;
    let consumer = baton
        .consumer(GROUP)
        .topics([super::TOPIC])
        .effectively_once(inbox)
        .batches(Batches { messages_max: BATCH_MESSAGES, ..Batches::default() })
        .engine_setting("session.timeout.ms", SESSION_TIMEOUT_MS)
        .engine_setting("heartbeat.interval.ms", HEARTBEAT_INTERVAL_MS);
    consumer.start(write_down).await.map_err(|error| failed(&error))
}

/// The whole business. The table takes an order twice: nothing but the guard keeps it out.
async fn write_down(order: Received, effect: SqliteEffect) -> Result<(), HandlerError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let id = text(order.key().map_or(&b""[..], |key| &key[..]));
    let beans: u32 = text(&order.body).parse()?;
    effect.execute("INSERT INTO beans (order_id, beans) VALUES (?1, ?2)", (id, beans)).await?;
    Ok(())
}
