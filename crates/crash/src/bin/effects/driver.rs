//! `effects run`.

use std::path::PathBuf;
use std::time::Duration;

use baton_crash::{CrashError, DatabaseKind, EngineKind, GuardKind, Options, Places, run as crash, told};
use clap::Args;

#[derive(Args)]
pub(crate) struct RunArguments {
    /// Goes on until so many consumers were killed.
    #[arg(long, default_value_t = 300)]
    kills: u32,
    /// Goes on for so long instead, and disturbs the network as well.
    #[arg(long, conflicts_with = "kills")]
    minutes: Option<u64>,
    #[arg(long, value_enum, default_value = "embedded")]
    engine: EngineKind,
    #[arg(long, value_enum, default_value = "inbox")]
    guard: GuardKind,
    #[arg(long, value_enum, default_value = "sqlite")]
    database: DatabaseKind,
    /// Fixes what is done, and when (default: a new one each time).
    #[arg(long)]
    seed: Option<u64>,
    /// The engine is not killed.
    #[arg(long)]
    spare_engine: bool,
    /// Where histories and databases go (default: a new directory, deleted when nothing is wrong).
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(crate) fn run(arguments: &RunArguments) -> Result<bool, CrashError> {
    let places = Places::find(std::env::current_exe().map_err(CrashError::io("this program"))?)?;
    let options = Options {
        engine: arguments.engine,
        guard: arguments.guard,
        database: arguments.database,
        kills: arguments.kills,
        lasts: arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
        seed: arguments.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0),
        kill_engine: !arguments.spare_engine,
    };
    told(&options.replay(), arguments.folder.as_deref(), |folder| crash(&options, &places, folder))
}
