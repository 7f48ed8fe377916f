//! `baton dead`: what nobody could handle. Look at it, and send it again.

mod filter;
mod letter;
mod list;
mod marks;
mod queue;
mod read;
mod replay;
mod show;
pub(crate) mod time;

use std::num::{NonZeroU32, NonZeroUsize};

use baton::consumer::LETTERS_GROUP;
use baton::{Baton, ConnectError};
use clap::{Args, Subcommand};
use tokio::runtime::Runtime;

use crate::Failure;

/// Letters a second, unless told otherwise: a service that has just recovered is not overrun.
const RATE_DEFAULT: &str = "100";

const AFTER_HELP: &str = "Letters that were sent again are remembered in the topic TOPIC.replayed, and are skipped the next time; on RabbitMQ they \
                          leave their queue. Exit codes: 0 done; 1 the engine does not answer, there is no such letter or topic, or a letter could \
                          not be sent; 2 a wrong argument.";

#[derive(Args)]
#[command(flatten_help = true, after_help = AFTER_HELP)]
pub(crate) struct DeadArguments {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Subcommand)]
enum DeadCommand {
    /// One line for each dead letter.
    List(ListArguments),
    /// Everything about one dead letter.
    Show(ShowArguments),
    /// Send dead letters again, under their own ids: a guard lets each through once, however often it is sent.
    Replay(ReplayArguments),
}

/// Where the letters are.
#[derive(Args)]
struct From {
    /// The engine's address: kafka://host:port, amqp://user:password@host/vhost, or embedded:///path/to/data while no other process has
    /// it open. Properties of Kafka's client go behind it, ?librdkafka.name=value.
    #[arg(long, value_name = "ADDRESS")]
    engine: String,
    /// The topic of dead letters.
    #[arg(long)]
    topic: String,
    /// On RabbitMQ: the group whose queues are looked into.
    #[arg(long, value_name = "GROUP", default_value = LETTERS_GROUP)]
    queue_of: String,
}

/// Which letters.
#[derive(Args)]
struct Which {
    /// Those that came from this topic.
    #[arg(long, value_name = "TOPIC")]
    origin_topic: Option<String>,
    /// Those that this group could not handle.
    #[arg(long)]
    group: Option<String>,
    /// Those whose reason holds this text.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Those of this class: permanent, exhausted or undecodable.
    #[arg(long, value_parser = ["permanent", "exhausted", "undecodable"])]
    class: Option<String>,
    /// Those with this key.
    #[arg(long)]
    key: Option<String>,
    /// Those that were given up so long ago at most (90s, 30m, 12h, 7d), or since a time in milliseconds since 1970.
    #[arg(long, value_name = "AGE", value_parser = time::since)]
    since: Option<i64>,
    /// At most so many, the oldest of each partition first.
    #[arg(long, value_name = "LETTERS")]
    limit: Option<NonZeroUsize>,
}

#[derive(Args)]
struct ListArguments {
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    which: Which,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ShowArguments {
    #[command(flatten)]
    from: From,
    /// The message's id, or where it came from: TOPIC-PARTITION-OFFSET. If it died more than once, the last letter is shown.
    letter: String,
    /// The payload alone, as it is.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// As JSON; a payload that is no text is in hexadecimal.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ReplayArguments {
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    which: Which,
    /// Send them to this topic, and not to where each came from.
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// So many a second at most.
    #[arg(long, value_name = "LETTERS", default_value = RATE_DEFAULT)]
    rate: NonZeroU32,
    /// Say what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Send also what was sent again before.
    #[arg(long)]
    again: bool,
    /// The figures as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub(crate) fn run(arguments: DeadArguments) -> Result<(), Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::failed("no threads could be started", &error))?;
    let outcome = runtime.block_on(async {
        match arguments.command {
            DeadCommand::List(arguments) => list::run(&connect(&arguments.from).await?, &arguments).await,
            DeadCommand::Show(arguments) => show::run(&connect(&arguments.from).await?, &arguments).await,
            DeadCommand::Replay(arguments) => replay::run(&connect(&arguments.from).await?, &arguments).await,
        }
    });
    runtime.shutdown_background();
    outcome
}

async fn connect(from: &From) -> Result<Baton, Failure> {
    match Baton::connect(from.engine.as_str()).await {
        Ok(baton) => Ok(baton),
        Err(error @ ConnectError::Address(_)) => Err(Failure::Usage(format!("--engine: {error}"))),
        Err(error) => Err(Failure::failed("--engine", &error)),
    }
}
