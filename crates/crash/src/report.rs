//! What a run found, and how it is told.

use std::path::Path;
use std::time::Duration;

use crate::places::CrashError;

/// What a run found.
pub struct CrashReport {
    /// What the checker printed.
    pub said: String,
    /// Whether it found nothing wrong.
    pub clean: bool,
    /// Rounds that were played.
    pub rounds: u32,
    /// Processes that were killed: consumers, or services and relays.
    pub kills: u32,
    /// Wall clock from the first message to the verdict.
    pub took: Duration,
}

/// Does a run and tells what it found; `replay` is the command that does the same again. Without a folder there is a new one, which is kept
/// when something is wrong.
///
/// # Errors
/// When the run could not be done.
#[allow(clippy::print_stdout, reason = "a tool for the terminal")]
pub fn told(
    replay: &str,
    folder: Option<&Path>,
    run: impl FnOnce(&Path) -> Result<CrashReport, CrashError>,
) -> Result<bool, CrashError> {
    println!("{replay}");
    let temporary = tempfile::tempdir().map_err(CrashError::io("a directory for the histories"))?;
    let outcome = run(folder.unwrap_or(temporary.path()));
    let clean = outcome.as_ref().is_ok_and(|report| report.clean);
    if !clean && folder.is_none() {
        println!("histories kept in {}", temporary.keep().display());
    }
    let report = outcome?;
    print!("{}", report.said);
    let (rounds, kills, took) = (report.rounds, report.kills, report.took.as_secs_f64());
    let verdict = if clean { "nothing wrong" } else { "NOT CLEAN; replay with the command above" };
    println!("{kills} processes killed in {rounds} rounds, {took:.0} s: {verdict}");
    Ok(clean)
}
