//! `effects run`.

use std::path::PathBuf;
use std::time::Duration;

use baton_crash::{CrashError, DatabaseKind, EngineKind, GuardKind, Options, Places, run as crash};
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
    let effects = std::env::current_exe().map_err(CrashError::io("this program"))?;
    let places = Places::find(effects)?;
    let options = Options {
        engine: arguments.engine,
        guard: arguments.guard,
        database: arguments.database,
        kills: arguments.kills,
        lasts: arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
        seed: arguments.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0),
        kill_engine: !arguments.spare_engine,
    };
    println!("{}", options.replay());
    let temporary = tempfile::tempdir().map_err(CrashError::io("a directory for the histories"))?;
    let folder = arguments.folder.as_deref().unwrap_or(temporary.path());
    let outcome = crash(&options, &places, folder);
    let clean = outcome.as_ref().is_ok_and(|report| report.clean);
    if !clean && arguments.folder.is_none() {
        println!("histories kept in {}", temporary.keep().display());
    }
    let report = outcome?;
    print!("{}", report.said);
    let (rounds, kills, took) = (report.rounds, report.kills, report.took.as_secs_f64());
    let verdict = if clean { "nothing wrong" } else { "NOT CLEAN; replay with the command above" };
    println!("{kills} consumers killed in {rounds} rounds, {took:.0} s: {verdict}");
    Ok(clean)
}
